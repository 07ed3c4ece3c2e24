"""The one way an image file becomes pixels, in training, in `predict` and in serving.

Two readers disagree on EXIF turns, 16-bit pixels and resizing; here there is only one.
"""

import contextlib
import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# Naming the plugins registers their formats; Image.open would import all forty of Pillow's.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageChops,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from nutclf.errors import UserError

# Explicit, so that no file whatever its name reaches Pillow's EPS plugin, which runs ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# Twice the largest common camera (45 to 50 megapixels). Decoded it takes 0.3 GB, and 0.4 GB more
# where alpha must be composited; a request that needs more than that is an attack or a mistake.
MAX_PIXELS = 100_000_000
# An uncompressed 16-bit RGBA image of MAX_PIXELS; nothing larger can be within the limit.
MAX_BYTES = 8 * MAX_PIXELS

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_END_OF_JPEG = b"\xff\xd9"
# Copies that stop half-way leave whole disk blocks of zeros; 512 is the smallest block.
_ZERO_BLOCK = 512
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


class UnreadableImage(UserError):
    """The reason one image cannot be read, without its path, which the caller adds."""


def read_image(source: str | os.PathLike | bytes, size: int) -> np.ndarray:
    """Reads one image as the network gets it.

    Args:
      source: a path, or the bytes of a file.
      size: side of the square, in pixels. The image's centred square is resized to it once, with
        antialiasing; an image of that size keeps its pixels.

    Returns:
      RGB, 0 to 255, uint8 [size, size, 3], a fresh array.

    Raises:
      UnreadableImage: there is no image to get; no other exception leaves this function for what
        a file may hold.
    """
    image = decode(source if isinstance(source, bytes) else read_bytes(Path(source)))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


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
    if not data:
        raise UnreadableImage("it is empty (0 bytes)")
    try:
        with pillow_silenced():
            image = _open(data)
            _refuse_zero_filled(data, image)
            image.load()
            return _to_rgb(image)
    except UnreadableImage:
        raise
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise UnreadableImage(f"it cannot be decoded: {error or type(error).__name__}") from error


def orientation(image: Image.Image) -> object:
    """The EXIF orientation, 1 to 8 when sane; None without one, or where the block is broken."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # the parser raises half a dozen kinds, SyntaxError and struct.error too
        return None


_lock = threading.Lock()
_filters = contextlib.ExitStack()
_readers = 0


@contextlib.contextmanager
def pillow_silenced() -> Iterator[None]:
    """Ignores what Pillow warns of (bad EXIF, odd tags): a file is read, or it is refused.

    `catch_warnings` swaps the filters of the whole process, so threads that each did it would
    restore them in the wrong order; the first reader in swaps, the last one out restores.
    """
    global _readers  # noqa: PLW0603 - counts over all threads
    with _lock:
        _readers += 1
        if _readers == 1:
            _filters.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                _filters.close()


def _open(data: bytes) -> Image.Image:
    """Reads the header only; the limit on pixels is checked before any is decoded."""
    too_many = f"its header promises more than {MAX_PIXELS:,} pixels, which is the limit"
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(_what_it_is(data)) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(too_many) from error
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(too_many)
    return image


def _what_it_is(data: bytes) -> str:
    allowed = "not a JPEG, PNG, WebP, GIF, BMP or TIFF image"
    if data.startswith(_SIGNATURES):
        return "its header is damaged or cut short"
    if data.startswith(b"%PDF"):
        return f"it is a PDF document, {allowed}"
    if data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return f"it is an HTML or XML page, {allowed}"
    if data[4:8] == b"ftyp":
        return f"it is a HEIC, AVIF or video file, {allowed}; save it as JPEG"
    return f"it is {allowed}"


def _refuse_zero_filled(data: bytes, image: Image.Image) -> None:
    """Refuses a photograph whose end was never written: its decoder takes the zeros for grey."""
    if image.format == "WEBP":
        data = data[: 8 + int.from_bytes(data[4:8], "little")]  # the length that RIFF gives
    elif image.format not in ("JPEG", "MPO"):
        return  # their decoders notice, or zeros are plain black there
    body = data.rstrip(b"\0")
    zeros = len(data) - len(body)
    if zeros >= _ZERO_BLOCK and not body.endswith(_END_OF_JPEG):
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
    elif image.mode == "CMYK":
        # Adobe writes JPEGs with the inks inverted, and Pillow takes every CMYK JPEG for such a
        # one; a JPEG without Adobe's marker is not, so what Pillow did is undone.
        if image.format in ("JPEG", "MPO") and "adobe" not in image.info:
            image = ImageChops.invert(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    rgb = image.convert("RGB")
    return rgb if turn is None else rgb.transpose(turn)


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Greyscale with 9 to 16 bits as 8; the high byte is kept, as Pillow does for 16-bit colour.

    `convert` would clip at 255 instead, which turns nearly every such image white.
    """
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_TIFF_BITS_PER_SAMPLE, 16)
    bits = bits[0] if isinstance(bits, tuple) else bits
    values = np.asarray(image).astype(np.uint16)  # also brings big-endian I;16B to native order
    grey = (values >> (bits - 8)).astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts these for 8 bits only
        grey = 255 - grey
    see_through = image.info.get("transparency")
    if isinstance(see_through, int):
        grey = np.where(values == see_through, np.uint8(255), grey)
    return Image.fromarray(grey)
