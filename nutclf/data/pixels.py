"""From whatever modes Pillow opens to plain RGB: the one documented conversion.

Colour profiles and PNG gamma are not applied: the pretrained networks never saw them applied.
"""

import numpy as np
from PIL import Image, ImageChops

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_PHOTOMETRIC = 262
_WHITE_IS_ZERO = 0


def to_rgb(image: Image.Image) -> Image.Image:
    """The image upright and in mode RGB; alpha is composited on white.

    Args:
      image: a loaded image as its Pillow plugin made it (its tags and `info` are read).

    Raises:
      ValueError: the mode has no agreed way to RGB (32-bit samples, CIELAB).
    """
    # Read before any conversion: a converted image no longer carries its EXIF block.
    turn = _UPRIGHT.get(orientation(image))
    if image.mode in ("I", "F"):
        raise ValueError(
            "its pixels are 32-bit numbers without an agreed brightness; save it with 8 or 16 bits"
        )
    if image.mode.startswith("I;16"):
        rgb = _from_16_bit(image)
    elif image.mode == "CMYK":
        rgb = _upright_cmyk(image).convert("RGB")
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        rgb = Image.alpha_composite(white, rgba).convert("RGB")
    else:
        rgb = image.convert("RGB")
    return rgb if turn is None else rgb.transpose(turn)


def square(image: Image.Image, size: int) -> Image.Image:
    """The centred square of an image, resized once to [size, size] with antialiasing.

    An image of that size comes back with its pixels unchanged: Pillow copies it.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def orientation(image: Image.Image) -> object:
    """The EXIF orientation, 1 to 8 when sane.

    A broken EXIF block says nothing of the pixels: such an image counts as upright.
    """
    try:
        return image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # the parser raises half a dozen kinds, SyntaxError and struct.error too
        return None


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Greyscale with 9 to 16 bits as RGB; the high byte is kept, as Pillow does for 16-bit colour.

    `convert` would clip at 255 instead, which turns nearly every such image white.
    """
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image).astype(np.uint16)  # also brings big-endian I;16B to native order
    grey = (values >> (_bits(tags) - 8)).astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts these for 8 bits only
        grey = 255 - grey
    see_through = image.info.get("transparency")
    if isinstance(see_through, int):
        grey = np.where(values == see_through, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")


def _bits(tags: dict) -> int:
    bits = tags.get(_TIFF_BITS_PER_SAMPLE, 16)
    return bits[0] if isinstance(bits, tuple) else bits


def _upright_cmyk(image: Image.Image) -> Image.Image:
    """CMYK with 255 for full ink.

    Adobe writes JPEGs with the inks inverted, and Pillow takes every CMYK JPEG for such a one; a
    JPEG without Adobe's marker is not, so what Pillow did is undone.
    """
    is_jpeg = image.format in ("JPEG", "MPO")
    return ImageChops.invert(image) if is_jpeg and "adobe" not in image.info else image
