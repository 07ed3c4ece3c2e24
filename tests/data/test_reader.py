"""Every kind of image that people have comes out as the right pixels, or with a reason."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageChops

from nutclf.data.reader import (
    MAX_PIXELS,
    UnreadableImage,
    decode,
    looks_like_image,
    read_image,
    shows_nothing,
)
from nutclf.errors import UserError

RED = (255, 0, 0)
BLUE = (0, 0, 255)
ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(width: int = 64, height: int = 48) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def only_colour(data: bytes, size: int = 4) -> tuple[int, ...]:
    colours = np.unique(read_image(data, size).reshape(-1, 3), axis=0)
    assert len(colours) == 1, f"more than one colour: {colours}"
    return tuple(int(value) for value in colours[0])


def promising(width: int, height: int) -> bytes:
    """A PNG whose header promises that many pixels, and whose rows are missing."""
    data = encoded(Image.new("RGB", (1, 1)), "PNG")
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def without_segment(jpeg: bytes, marker: int) -> bytes:
    """The same JPEG with its first segment of that marker cut out."""
    start = jpeg.index(bytes([0xFF, marker]))
    (length,) = struct.unpack(">H", jpeg[start + 2 : start + 4])
    return jpeg[:start] + jpeg[start + 2 + length :]


# Colours and modes


@pytest.mark.parametrize(
    ("inks", "rgb"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 0, 0), (255, 0, 255)),
        ((0, 0, 255, 0), (255, 255, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 255, 255, 0), RED),
    ],
)
def test_cmyk_gives_the_colour_of_its_inks_inverted_or_not(inks, rgb):
    image = Image.new("CMYK", (16, 16), inks)
    adobe = encoded(image, "JPEG", quality=100, subsampling=0)
    plain = encoded(ImageChops.invert(image), "JPEG", quality=100, subsampling=0)
    assert b"Adobe" in adobe
    assert only_colour(adobe) == pytest.approx(rgb, abs=1)
    assert only_colour(without_segment(plain, 0xEE)) == pytest.approx(rgb, abs=1)
    assert only_colour(encoded(image, "TIFF")) == rgb


def test_greyscale_and_one_bit_and_palette_become_rgb():
    palette = photo().quantize(4)
    assert only_colour(encoded(Image.new("L", (8, 8), 77), "PNG")) == (77, 77, 77)
    assert only_colour(encoded(Image.new("1", (8, 8), 1), "PNG")) == (255, 255, 255)
    np.testing.assert_array_equal(
        np.array(decode(encoded(palette, "PNG"))), np.array(palette.convert("RGB"))
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_greyscale_keeps_its_high_byte(kind):
    greys = {0: 0, 255: 0, 256: 1, 32768: 128, 65280: 255, 65535: 255}
    for value, grey in greys.items():
        image = Image.fromarray(np.full((8, 8), value, np.uint16))
        assert image.mode == "I;16"
        assert only_colour(encoded(image, kind)) == (grey, grey, grey)


def test_16_bit_tiff_may_be_big_endian_or_take_zero_for_white():
    big = encoded(Image.fromarray(np.full((8, 8), 32768 + 7, ">u2")), "TIFF")
    assert big[:2] == b"MM"
    assert only_colour(big) == (128, 128, 128)
    photometric = 262
    image = Image.fromarray(np.full((8, 8), 65535, np.uint16))
    negative = encoded(image, "TIFF", tiffinfo={photometric: 0})
    assert Image.open(io.BytesIO(negative)).tag_v2[photometric] == 0
    assert only_colour(negative) == (0, 0, 0)


def test_alpha_is_composited_on_white():
    # 255 - 10 = 245: one part in 25 of the red is seen, and red leaves only green and blue darker.
    assert only_colour(encoded(Image.new("RGBA", (8, 8), (*RED, 10)), "PNG")) == (255, 245, 245)
    assert only_colour(encoded(Image.new("LA", (8, 8), (0, 0)), "PNG")) == (255, 255, 255)
    lossless = encoded(Image.new("RGBA", (8, 8), (*RED, 255)), "WEBP", lossless=True)
    assert only_colour(lossless) == RED


def test_a_transparent_palette_colour_becomes_white():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([*RED, *BLUE])
    assert only_colour(encoded(image, "PNG", transparency=1)) == (255, 255, 255)
    assert only_colour(encoded(image, "PNG", transparency=0)) == BLUE
    assert only_colour(encoded(image, "PNG", transparency=bytes([255, 0]))) == (255, 255, 255)


def test_pixels_of_32_bits_are_refused_rather_than_read_as_black():
    floats = Image.fromarray(np.full((8, 8), 0.5, np.float32))
    integers = Image.fromarray(np.full((8, 8), 70_000, np.int32))
    for image in (floats, integers):
        with pytest.raises(UnreadableImage, match="32-bit numbers without an agreed brightness"):
            decode(encoded(image, "TIFF"))


# Turns, frames, kinds


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_eight_orientations_undo_the_turn_that_a_camera_made(kind):
    upright = photo(2, 2).resize((32, 32), Image.Resampling.NEAREST)  # four colours, for JPEG
    turns = [
        None,
        Image.Transpose.FLIP_LEFT_RIGHT,
        Image.Transpose.ROTATE_180,
        Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_90,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_270,
    ]
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    for number, turn in enumerate(turns, start=1):
        exif = Image.Exif()
        exif[ORIENTATION] = number
        image = upright if turn is None else upright.transpose(turn)
        pixels = read_image(encoded(image, kind, exif=exif, **options), 32)
        np.testing.assert_allclose(pixels, np.array(upright), atol=3, err_msg=f"{number}")


def test_a_broken_exif_block_does_not_cost_the_image_nor_warn():
    broken = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"
    data = encoded(photo(16, 16), "JPEG", exif=broken)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert read_image(data, 16).shape == (16, 16, 3)
    assert not warned


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "MPO"])
def test_the_first_frame_of_an_animation_or_a_phones_several_pictures_counts(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.n_frames) == (kind, 2)
    assert only_colour(data) == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "BMP", "PNG", "TIFF"])
def test_content_counts_not_the_name(kind, tmp_path):
    path = tmp_path / "new\nline-nüsse-栗-🌰.jpg"
    path.write_bytes(encoded(Image.new("RGB", (8, 8), RED), kind))
    assert read_image(str(path), 8)[4, 4].tolist() == pytest.approx(RED, abs=3)


# Size


def test_an_image_of_the_wanted_size_comes_back_unchanged():
    pixels = read_image(encoded(photo(32, 32), "PNG"), 32)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.array(photo(32, 32)))
    pixels[0] = 0  # a fresh array, which the caller may write to


@pytest.mark.parametrize("size", [(96, 32), (32, 96)])
def test_the_centred_square_is_cut_out(size):
    image = Image.new("RGB", size, BLUE)
    left, top = (size[0] - 32) // 2, (size[1] - 32) // 2
    image.paste(RED, (left, top, left + 32, top + 32))
    assert only_colour(encoded(image, "PNG"), 32) == RED
    assert only_colour(encoded(Image.new("RGB", (1, 5000), RED), "PNG")) == RED


def test_reducing_is_antialiased():
    """A checkerboard reduced eight times is grey; picking pixels would leave black or white."""
    board = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    pixels = read_image(encoded(Image.fromarray(board.astype(np.uint8)), "PNG"), 8)
    assert np.abs(pixels.astype(int) - 127).max() <= 2


# Refusals


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"\xef\xbb\xbf\n<html>404</html>", "HTML"),
        (b"%PDF-1.7\n1 0 obj", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a JPEG"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"P6 1 1 255\n\0\0\0", "not a JPEG"),
        (b"hello", "not a JPEG"),
        (bytes(1000), "not a JPEG"),
        (b"\xff\xd8\xff", "header|decoded"),
        (b"BM", "header|decoded"),
    ],
)
def test_what_is_no_image_is_refused_with_its_reason(data, reason):
    with pytest.raises(UnreadableImage, match=reason):
        decode(data)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, {}) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
    + [("JPEG", {"progressive": True}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_a_truncated_file_is_refused_wherever_it_was_cut(kind, options):
    data = encoded(photo(), kind, **options)
    decode(data)
    for share in (0.001, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98):
        with pytest.raises(UnreadableImage):
            decode(data[: max(1, int(share * len(data)))])


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_file_whose_second_half_was_never_written_is_refused(kind):
    data = encoded(photo(), kind)
    half = len(data) // 2
    with pytest.raises(UnreadableImage, match="zeros"):
        decode(data[:half] + bytes(len(data) - half))
    decode(data + bytes(4096))  # padding after the end does no harm


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_random_damage_never_raises_anything_else(kind):
    data = encoded(photo(), kind)
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 400), 4):
            damaged[place] = rng.integers(0, 256)
        try:
            pixels = read_image(bytes(damaged), 8)
        except UnreadableImage:
            continue
        assert pixels.shape == (8, 8, 3)


def test_the_limit_on_pixels_is_exact_told_from_the_header_and_below_it_pillow_does_not_warn():
    for width, height in [(30_000, 30_000), (10_000, MAX_PIXELS // 10_000 + 1)]:
        with pytest.raises(UnreadableImage, match="100,000,000 pixels"):
            decode(promising(width, height))
    # At the limit the header passes, and only the missing rows are found wanting.
    with pytest.raises(UnreadableImage, match="cannot be decoded"):
        decode(promising(10_000, MAX_PIXELS // 10_000))


def test_a_folder_a_pipe_and_a_missing_file_have_their_reasons(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in [
        ("x.jpg", "it is a folder"),
        ("pipe.jpg", "no regular file"),
        ("none.jpg", "No such file"),
        ("x.jpg/a", "No such file"),
        ("nul\0.jpg", "cannot be read"),
    ]:
        with pytest.raises(UnreadableImage, match=reason) as caught:
            read_image(tmp_path / name, 8)
        assert str(tmp_path) not in str(caught.value)
    assert issubclass(UnreadableImage, UserError)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_photographs_of_telephones_are_read(kind):
    pytest.importorskip("pillow_heif").register_heif_opener()
    image = Image.new("RGB", (64, 32), "red")
    image.paste("blue", (0, 0, 32, 32))
    data = encoded(image, kind, quality=95)
    assert looks_like_image(data[:16])
    decoded = decode(data)
    assert decoded.getpixel((8, 16)) == pytest.approx(BLUE, abs=8)
    assert decoded.getpixel((56, 16)) == pytest.approx(RED, abs=8)


def picture():
    """Light and shadow, 64 x 64, greys in [0, 1]."""
    return np.kron(np.random.default_rng(0).random((8, 8)), np.ones((8, 8)))


@pytest.mark.parametrize(
    ("grey", "nothing"),
    [
        (np.uint8(255 * picture()), False),
        (np.uint8(200 + 25 * picture()), False),  # pale, and yet a picture
        (np.uint16(65535 * picture()), False),
        (np.uint16(4095 * picture()), True),  # 12 bits in 16
        (np.full((64, 64), 255, np.uint8), True),  # what a damaged fax decodes to
        (np.uint8(128 + 3 * picture()), True),
    ],
)
def test_pictures_that_show_nothing_are_told(grey, nothing, tmp_path):
    file = tmp_path / "grey.tif"
    Image.fromarray(grey).save(file)
    assert shows_nothing(read_image(file, 32)) is nothing
