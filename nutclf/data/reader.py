"""The one way an image file becomes pixels, in training, in `predict` and in serving."""

import io
import os
import stat
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

# Image.open imports the other formats' plugins itself, and all forty where it lacks one of these.
from PIL import AvifImagePlugin, ExifTags, Image, ImageChops, TiffImagePlugin, WebPImagePlugin  # noqa: F401

from nutclf.errors import UserError

# Explicit, so that no file whatever its name reaches Pillow's EPS plugin, which runs ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# Twice the largest common camera (45 to 50 megapixels). Decoded it takes 0.3 GB, and 0.4 GB more
# where alpha must be composited; a request that needs more than that is an attack or a mistake.
MAX_PIXELS = 100_000_000
MAX_BYTES = 8 * MAX_PIXELS  # of an uncompressed 16-bit RGBA image
NOTHING = "one colour nearly everywhere: blank, too dark or damaged"
"""What is wrong with an image of which `shows_nothing` is true."""
_BLACK, _PLAIN = 24, 3  # of 255: the brightest pixel, and the standard deviation of a colour
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
# What undoes each EXIF orientation, from 2 on.
_TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90"
_UPRIGHT = {number: Image.Transpose[turn] for number, turn in enumerate(_TURNS.split(), start=2)}


class UnreadableImage(UserError):
    """The reason one image cannot be read, without its path, which the caller adds."""


def read_image(source: str | os.PathLike | bytes, size: int) -> np.ndarray:
    """The centred square of an image, RGB, 0 to 255, uint8 [size, size, 3], a fresh array.

    `source` is a path, or the bytes of a file. The square is resized once, with antialiasing; one
    of that size keeps its pixels. Raises `UnreadableImage`, and nothing else for what a file holds.
    """
    image = decode(source if isinstance(source, bytes) else read_bytes(Path(source)))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def shows_nothing(pixels: np.ndarray) -> bool:
    """Whether an image, uint8 [S, S, 3], is nearly one colour, as blank and damaged ones are.

    So are those whose numbers use a small part of their range, such as 12 of 16 bits: nearly black.
    """
    brightness = pixels.mean(axis=2)
    return bool(brightness.max() < _BLACK or pixels.std(axis=(0, 1)).max() < _PLAIN)


def read_bytes(path: Path) -> bytes:
    """All of an image file. Raises `UnreadableImage` for a file that cannot be read, or is huge."""
    try:
        status = path.stat()
        # Reading a pipe or a device would block for ever.
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImage(f"it is {'a folder' if path.is_dir() else 'no regular file'}")
        if status.st_size > MAX_BYTES:
            raise UnreadableImage(f"it has {status.st_size:,} bytes; the limit is {MAX_BYTES:,}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = getattr(error, "strerror", None) or error  # an OSError's text names the path
        raise UnreadableImage(f"it cannot be read: {reason}") from error


def decode(data: bytes) -> Image.Image:
    """The first frame of an image file, upright, in mode RGB, at its own size.

    The content tells the format. Raises `UnreadableImage` with the reason.
    """
    image = open_image(data)
    _refuse_zero_filled(data, image)
    try:
        image.load()
        return _to_rgb(image)
    except UnreadableImage:
        raise
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise UnreadableImage(f"it cannot be decoded: {error or type(error).__name__}") from error


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none or it makes no sense."""
    try:
        turn = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # the parser raises half a dozen kinds, SyntaxError and struct.error too
        return 1
    return turn if turn in _UPRIGHT else 1


def open_image(data: bytes) -> Image.Image:
    """Reads the header only, and checks the limit on pixels. Raises `UnreadableImage`."""
    if not data:
        raise UnreadableImage("it is empty (0 bytes)")
    # A file with bad EXIF or odd tags is read or refused, no warning needed. The filter stays:
    # `catch_warnings` is not safe in threads, which would restore each other's filters.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        formats = _formats_of_telephones() if data[4:8] == b"ftyp" else FORMATS
        image = Image.open(io.BytesIO(data), formats=formats)
        too_many = image.width * image.height > MAX_PIXELS
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(_what_it_is(data)) from error
    except Image.DecompressionBombError:
        too_many = True
    except Exception as error:
        raise UnreadableImage(f"it cannot be decoded: {error}") from error
    if too_many:
        limit = f"{MAX_PIXELS:,} pixels, which is the limit"
        raise UnreadableImage(f"its header promises more than {limit}")
    return image


def looks_like_image(beginning: bytes) -> bool:
    """Whether a file that begins so, 16 bytes, is an image of a format that is read."""
    is_heif = beginning[4:8] == b"ftyp" and beginning[8:12] in _BRANDS
    return is_heif or beginning.startswith(_SIGNATURES)


@cache
def _formats_of_telephones() -> tuple[str, ...]:
    with suppress(ImportError):  # a model may answer where it is not installed
        import pillow_heif

        pillow_heif.register_heif_opener()
        return "AVIF", "HEIF"
    return ("AVIF",)


def _what_it_is(data: bytes) -> str:
    allowed = "not a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC image"
    if data.startswith(_SIGNATURES):
        return "its header is damaged or cut short"
    if data.startswith(b"%PDF"):
        return f"it is a PDF document, {allowed}"
    if data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return f"it is an HTML or XML page, {allowed}"
    if data[4:8] == b"ftyp":
        return f"it is a video, a damaged HEIC file, or one without pillow-heif; {allowed}"
    return f"it is {allowed}"


def _refuse_zero_filled(data: bytes, image: Image.Image) -> None:
    """Refuses a photograph whose end was never written: its decoder takes the zeros for grey."""
    if image.format == "WEBP":
        data = data[: 8 + int.from_bytes(data[4:8], "little")]  # the length that RIFF gives
    elif image.format not in ("JPEG", "MPO"):
        return  # their decoders notice, or zeros are plain black there
    body = data.rstrip(b"\0")
    zeros = len(data) - len(body)
    # Copies that stop half-way leave whole disk blocks of 512 bytes or more; FF D9 ends a JPEG.
    if zeros >= 512 and not body.endswith(b"\xff\xd9"):
        raise UnreadableImage(f"its last {zeros:,} bytes are zeros; copy it again")


def _to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image upright and in mode RGB; alpha is composited on white."""
    # Read before any conversion: a converted image no longer carries its EXIF block.
    turn = _UPRIGHT.get(orientation(image))
    if image.mode in ("I", "F"):
        raise UnreadableImage(
            "its pixels are 32-bit numbers without an agreed brightness; save it with 8 or 16 bits"
        )
    if image.mode.startswith("I;16"):
        image = _from_16_bit(image)
    elif image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        # Pillow inverts the inks of every CMYK JPEG, but only Adobe writes them inverted.
        image = ImageChops.invert(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Greyscale with 9 to 16 bits as 8, by the high byte; `convert` would clip at 255 instead."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    bits = int(np.ravel(tags.get(TiffImagePlugin.BITSPERSAMPLE, 16))[0])
    values = np.asarray(image).astype(np.uint16)  # also brings big-endian I;16B to native order
    grey = (values >> (bits - 8)).astype(np.uint8)
    # Where 0 stands for white, Pillow inverts images of 8 bits only.
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        grey = 255 - grey
    see_through = image.info.get("transparency")
    if isinstance(see_through, int):
        grey = np.where(values == see_through, np.uint8(255), grey)
    return Image.fromarray(grey)
