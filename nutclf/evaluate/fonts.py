"""Fonts that can show the names of classes in figures."""

import warnings
from collections.abc import Iterable

_LATIN = 0x250  # characters before it are in the font that matplotlib brings


def use_fonts_for(names: Iterable[str]) -> str:
    """Lets figures of this process use the fonts that names need; what none can show, "" if none.

    Matplotlib brings one font, without Chinese, Japanese, Korean and pictographs.
    """
    needed = {letter for name in names for letter in name if ord(letter) >= _LATIN}
    if not needed:
        return ""
    import matplotlib  # a second to import
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    own = FontProperties().get_name()
    missing = needed - _letters(get_font(findfont(own)))
    families = [own]
    for font in fontManager.ttflist:
        if "Color" in font.name or "Last Resort" in font.name:  # not drawn by matplotlib; boxes
            continue
        try:
            shown = missing & _letters(get_font(font.fname))
        except (OSError, RuntimeError):  # a file that was removed, or is damaged
            continue
        if shown:
            families.append(font.name)
            missing -= shown
    matplotlib.rcParams["font.family"] = families
    warnings.filterwarnings("ignore", message="Glyph .* missing from")  # said once, by the caller
    return "".join(sorted(missing))


def _letters(font) -> set[str]:
    return set(map(chr, font.get_charmap()))
