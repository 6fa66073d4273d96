"""Reading IDX files, the format of MNIST, without trusting anything that stands in them.

An IDX file is two zero bytes, a type code, the number of axes, one big-endian 32-bit size
for each axis, and the values.  Every field is checked before it is used, and memory is taken
as bytes arrive, never because a header promises them.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dualnet.data.streams import FETCH_AGAIN, bad, chunks, unpacked

MAX_BYTES = 1 << 28
"""The largest IDX file that is read, in bytes after decompression: five times MNIST."""

_UNSIGNED_BYTE = 0x08
_MAX_AXES = 4


def read_idx(
    path: str | Path, shape: tuple[int | None, ...] | None = None, *, remedy: str = FETCH_AGAIN
) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzip or plain; its first bytes tell which.

    Args:
        path: the file; its name does not matter.
        shape: what the sizes must be, `None` for an axis of any size; without it, any shape
            of 1 to 4 axes will do.
        remedy: what to do about a bad file, the end of every error message.

    Returns:
        A new uint8 array.

    Raises:
        DataError: if the file cannot be read, is not an IDX file of unsigned bytes, has
            another shape, or is truncated, corrupted or too long.
    """
    with unpacked(path, remedy) as stream:
        sizes = _read_sizes(stream, path, shape, remedy)
        expected = math.prod(sizes)
        # One byte more than expected: shows trailing bytes, and makes gzip check its CRC.
        values = bytearray().join(chunks(stream, expected + 1))
    if len(values) != expected:
        found = "more" if len(values) > expected else f"only {len(values)}"
        raise bad(path, f"{expected} bytes after the header, for {sizes}", found, remedy)
    return np.frombuffer(values, np.uint8).reshape(sizes)


def _read_sizes(
    stream: BinaryIO, path: str | Path, shape: tuple[int | None, ...] | None, remedy: str
) -> tuple[int, ...]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise bad(path, "an IDX file, which begins with two zero bytes", repr(magic), remedy)
    code, axes = magic[2:]
    if code != _UNSIGNED_BYTE:
        raise bad(path, "unsigned bytes, type code 0x08", f"type code {code:#04x}", remedy)
    if not 1 <= axes <= _MAX_AXES:
        raise bad(path, f"1 to {_MAX_AXES} axes", str(axes), remedy)
    header = stream.read(4 * axes)
    if len(header) < 4 * axes:
        raise bad(path, f"sizes for {axes} axes", f"{len(header)} bytes", remedy)
    sizes = struct.unpack(f">{axes}I", header)
    if shape is not None and not _fits(sizes, shape):
        wanted = " x ".join("any" if size is None else str(size) for size in shape)
        raise bad(path, f"shape {wanted}", " x ".join(str(size) for size in sizes), remedy)
    # NumPy refuses some shapes of no elements, such as 0 x 4294967295 x 4294967295.
    if not 1 <= math.prod(sizes) <= MAX_BYTES:
        raise bad(path, f"1 to {MAX_BYTES} values", f"a header that says {sizes}", remedy)
    return sizes


def _fits(sizes: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(sizes) == len(shape) and all(
        want is None or size == want for size, want in zip(sizes, shape, strict=True)
    )
