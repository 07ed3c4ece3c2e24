"""Names of classes are shown by fonts that have their letters, or it is said."""

import matplotlib
import pytest

from nutclf.evaluate.fonts import use_fonts_for


@pytest.fixture(autouse=True)
def families():
    with matplotlib.rc_context():
        yield lambda: list(matplotlib.rcParams["font.family"])


def test_usual_names_need_nothing(families):
    assert use_fonts_for(["walnuts", "Ñandú", "Paranüsse", "орехи"]) == ""
    assert families() in (["sans-serif"], ["DejaVu Sans"])


def test_what_no_font_has_is_named():
    assert use_fonts_for(["walnuts", "a\U0010fffd nut"]) == "\U0010fffd"


def test_a_font_that_has_the_letters_is_used(families):
    # Of the fonts that matplotlib brings, those of mathematics alone have this one.
    assert use_fonts_for(["\U0001d4d0"]) == ""
    assert len(families()) > 1
