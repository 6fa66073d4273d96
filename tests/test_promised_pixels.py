"""Images whose headers promise more pixels than follow are refused, and whole ones are not."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from data_files import photographs
from PIL import Image

from dualnet.data.image_files import FORMATS, read_fitted
from dualnet.data.images import read_image
from dualnet.data.preparation import Preparation
from dualnet.data.promised_pixels import load_all
from dualnet.errors import DataError

JPEGS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "not subsampled": {"subsampling": 0},
    "gray": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
    "optimized": {"optimize": True},
    "coarse": {"quality": 5},
    "with restarts": {"restart_marker_rows": 1},
    "progressive with restarts": {"restart_marker_rows": 1, "progressive": True},
}
SIDES = [(8, 8), (64, 64), (65, 17), (200, 150), (131, 400)]


def encoded(pixels, kind, mode="RGB", **how):
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, kind, **how)
    return out.getvalue()


def decoded(content):
    """As `load_all` decodes a file, and as Pillow does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            ours = np.asarray(load_all(image, content))
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return ours, np.asarray(image)


def with_jpeg_height(content, height):
    """A JPEG whose frame has another height."""
    frames = (content.find(bytes((0xFF, code)) + b"\0") for code in (0xC0, 0xC1, 0xC2))
    (frame,) = (at for at in frames if at >= 0)
    return content[: frame + 5] + struct.pack(">H", height) + content[frame + 7 :]


def with_png_height(content, height):
    head = content[12:20] + struct.pack(">I", height) + content[24:29]
    return content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]


def interlaced_png(pixels):
    """A PNG of pixels (height, width, 3) in Adam7's passes, which Pillow does not write."""
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    rows = b"".join(
        b"\0" + row.tobytes()
        for y, x, dy, dx in (*starts, (1, 0, 2, 1))
        for row in pixels[y::dy, x::dx]
        if row.size
    )
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    out = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        out += (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )
    return out


def flat(width, height):
    return np.full((height, width, 3), 128, np.uint8)


@pytest.mark.parametrize("size", SIDES)
@pytest.mark.parametrize("kind", JPEGS)
def test_whole_jpegs_are_decoded_as_ever(kind, size, rng):
    (photograph,) = photographs(rng, 1, size[1], size[0])
    noise = rng.integers(0, 256, photograph.shape, np.uint8)
    for pixels in (photograph, noise, flat(*size), 0 * noise):
        ours, pillows = decoded(encoded(pixels, "JPEG", **JPEGS[kind]))
        np.testing.assert_array_equal(ours, pillows)


@pytest.mark.parametrize("size", SIDES)
@pytest.mark.parametrize("kind", JPEGS)
def test_jpegs_that_lack_rows_are_refused(kind, size, rng):
    (pixels,) = photographs(rng, 1, size[1], size[0])
    content = encoded(pixels, "JPEG", **JPEGS[kind])
    for height in (size[1] + 16, 2 * size[1] + 8, 16 * size[1]):
        with pytest.raises((OSError, ValueError), match=r"more pixels than follow|truncated"):
            decoded(with_jpeg_height(content, height))


def test_of_a_flat_jpeg_a_small_part_is_missed_too():
    content = encoded(flat(8, 8), "JPEG")
    with pytest.raises(ValueError, match="more pixels than follow"):
        decoded(with_jpeg_height(content, 24))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA"])
def test_pngs(mode, rng):
    (photograph,) = photographs(rng, 1, 33, 21)
    for pixels in (photograph, 0 * photograph):
        content = encoded(pixels, "PNG", mode)
        np.testing.assert_array_equal(*decoded(content))
        for height in (34, 66):
            with pytest.raises(ValueError, match="its header promises more pixels than follow"):
                decoded(with_png_height(content, height))


def test_every_bit_of_the_pixels_of_a_png_counts(rng):
    content = encoded(photographs(rng, 1, 9, 9)[0], "PNG")
    at = content.index(b"IDAT")
    for place in range(at + 4, content.index(b"IEND") - 4):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        with pytest.raises((OSError, ValueError, SyntaxError)):
            decoded(bytes(damaged))


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 8), (9, 17), (30, 5)])
def test_interlaced_pngs(size, rng):
    pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    ours, _ = decoded(interlaced_png(pixels))
    np.testing.assert_array_equal(ours, pixels)
    with pytest.raises((OSError, ValueError), match=r"more pixels than follow|truncated|unrecogn"):
        decoded(with_png_height(interlaced_png(pixels), size[1] + 8))


def tiff_with(content, **tags):
    """A TIFF with other numbers: of rows, and of rows in a strip."""
    at = struct.unpack("<I", content[4:8])[0]
    (count,) = struct.unpack("<H", content[at : at + 2])
    content = bytearray(content)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack("<HH", content[entry : entry + 4])
        name = {257: "rows", 278: "rows_of_strip"}.get(tag)
        if name in tags:
            value = struct.pack("<I" if kind == 4 else "<HH", *(tags[name], 0)[: 1 + (kind == 3)])
            content[entry + 8 : entry + 12] = value
    return bytes(content)


PIXELS = photographs(np.random.default_rng(0), 1, 64, 64)[0]
GIF, BMP, PPM = (encoded(PIXELS, kind) for kind in ("GIF", "BMP", "PPM"))
RAW, LZW, TIFF_JPEG = (
    encoded(PIXELS, "TIFF", compression=how) for how in ("raw", "tiff_lzw", "jpeg")
)
LIES = {
    "GIF whose screen is larger": GIF[:8] + b"\x80\0" + GIF[10:],
    "BMP": BMP[:22] + b"\x80" + BMP[23:],
    "PPM": PPM.replace(b"64 64", b"64 128"),
    "PNG": with_png_height(encoded(PIXELS, "PNG"), 128),
    "JPEG": with_jpeg_height(encoded(PIXELS, "JPEG"), 128),
    "TIFF": tiff_with(RAW, rows=128),
    "TIFF in one strip": tiff_with(RAW, rows=128, rows_of_strip=128),
    "TIFF, compressed": tiff_with(LZW, rows=128),
    "TIFF, compressed in one strip": tiff_with(LZW, rows=128, rows_of_strip=128),
    "TIFF with a JPEG": tiff_with(TIFF_JPEG, rows=128, rows_of_strip=128),
}
HONEST = {"GIF": GIF, "BMP": BMP, "PPM": PPM, "TIFF": RAW, "TIFF, compressed": LZW}
KIND = Preparation("none", np.zeros(1), np.ones(1), (16, 16, 3), 255)


@pytest.mark.parametrize("kind", LIES)
def test_lies_in_single_files_are_refused(kind, tmp_path, capfd):
    path = tmp_path / "image"
    path.write_bytes(LIES[kind])
    with pytest.raises(DataError, match=r"expected an intact image \(PNG, .*\), found ") as error:
        read_fitted(path, KIND)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")  # nor do the libraries of C say anything


@pytest.mark.parametrize("kind", HONEST)
def test_honest_single_files_are_read(kind, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(HONEST[kind])
    assert read_fitted(path, KIND).shape == (16, 16, 3)


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_lies_in_folders_are_refused(kind, resize, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(LIES[kind])
    with pytest.raises(DataError, match=r"expected (an intact JPEG or PNG image|64 x 64 pixels)"):
        read_image(path, 64, resize)
