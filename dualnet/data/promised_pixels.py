"""Refuse images whose headers promise more pixels than follow, or whose checksums are wrong.

Pillow's decoders fill what is missing, by black or gray, and say nothing, where a file ends as it
should: a JPEG with its last marker, a PNG with the end of its compressed stream.
"""

from __future__ import annotations

import io
import re
import zlib
from typing import Any

import numpy as np

_MISSING = "its header promises more pixels than follow"

_SMALL = 1 << 14
"""JPEGs of so few pixels are decoded twice, which costs little."""

_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
"""A marker of JPEG; 0xFF 0x00 is a byte of data, and the other codes are restarts within data."""
_END, _SCAN, _BASELINE = 0xD9, 0xDA, (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_READ_AHEAD = bytes(16)
"""A decoder reads up to 8 bytes more than it needs."""
_SOME = bytes(37 * n % 251 + 1 for n in range(256))
_NOISE = _SOME + b"".join(bytes((0xFF, restart)) + _SOME for restart in range(0xD0, 0xD8))
"""Data that no decoder takes for flat gray, also where it waits for one of the restarts."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""PNG's type of color → numbers of a pixel."""
_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)),
    (0, 1, 1, 2),
)
"""First column and row, and steps, of the passes of an interlaced PNG."""


def load_all(image: Any, content: bytes, about: tuple[int, int] | None = None) -> Any:
    """Decode an image; return it or, if it had to be opened once more, another one like it.

    Args:
        image: as Pillow has opened it, of harmless size.
        content: the file.
        about: a size for which a JPEG may be decoded to a half of its own, a quarter and so on.

    Raises:
        Exception: of any kind: Pillow raises many for damaged files.
    """
    # Missing parts of a list of tiles, such as strips of a TIFF, would stay black.
    areas = [(x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1), *_ in image.tile]
    if areas and sum(areas) < image.width * image.height:
        raise ValueError(_MISSING)
    if image.format in ("JPEG", "MPO"):
        image = _whole_jpeg(image, content)
    if about is not None:
        image.draft(None, about)
    image.load()
    if image.format == "PNG":
        packed = _packed_in_png(content)
        # What is missing is black, so that a last row which is not is proof enough.
        if image.info.get("interlace") or not np.asarray(image)[-1].any():
            promised = _promised_by_png(content)
            if _held(packed, promised) < promised:
                raise ValueError(_MISSING)
    return image


def _whole_jpeg(image: Any, content: bytes) -> Any:
    """Return a JPEG that is sure to be whole, or sure to fail when it is decoded."""
    from PIL import Image

    frame, ends = _scans(content)
    if len(ends) == 1 and frame in _BASELINE and image.width * image.height > _SMALL:
        # Without the marker of the end, a decoder that needs more data asks for them in vain.
        return Image.open(io.BytesIO(content[: ends[0]] + _READ_AHEAD), formats=("JPEG",))
    if ends and not _same_with_noise(content, ends):
        raise ValueError(_MISSING)
    return image


def _scans(content: bytes) -> tuple[int, list[int]]:
    """Return the kind of a JPEG's frame, and where the data of its scans end."""
    frame, ends, at = 0, [], 2
    while (marker := _MARKER.search(content, at)) and marker[1][0] != _END:
        code, at = marker[1][0], marker.end()
        at += int.from_bytes(content[at : at + 2], "big")
        frame = code if code in _FRAMES else frame
        if code == _SCAN and (behind := _MARKER.search(content, at)):
            at = behind.start()
            ends.append(at)
    return frame, ends


def _same_with_noise(content: bytes, ends: list[int]) -> bool:
    """Whether a JPEG is decoded the same with data behind each scan, which nothing should need."""
    from PIL import Image

    parts = [content[a:b] for a, b in zip([0, *ends], [*ends, None], strict=True)]
    decoded = []
    for one in (content, _NOISE.join(parts)):
        with Image.open(io.BytesIO(one), formats=("JPEG",)) as again:
            again.draft(None, (1, 1))  # at an eighth of its size, which is faster
            decoded.append(np.asarray(again))
    return np.array_equal(decoded[0], decoded[1])


def _promised_by_png(content: bytes) -> int:
    """Return how many bytes the rows of a PNG take, of all passes if it is interlaced."""
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    bits = content[24] * _CHANNELS[content[25]]
    passes = _PASSES if content[28] else ((0, 0, 1, 1),)
    total = 0
    for x, y, dx, dy in passes:
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _packed_in_png(content: bytes) -> list[bytes]:
    """Return the parts of the compressed stream of a PNG, whose checksums Pillow does not look at.

    Raises:
        ValueError: a checksum is wrong.
    """
    at, packed = 8, []
    while at + 12 <= len(content):
        size, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        if kind == b"IDAT":
            end = at + 8 + size
            if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
                raise ValueError("its pixels have another checksum")
            packed.append(content[at + 8 : end])
        at += size + 12
    return packed


def _held(packed: list[bytes], most: int) -> int:
    """Return how many bytes a compressed stream holds, of which `most` are counted."""
    stream, held = zlib.decompressobj(), 0
    for given in packed:
        while given and held < most and not stream.eof:
            held += len(stream.decompress(given, min(1 << 20, most - held)))
            given = stream.unconsumed_tail
    return held
