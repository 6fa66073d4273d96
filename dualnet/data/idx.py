"""Read IDX files, the format of MNIST, without trusting what a file says.

An IDX file is made of two zero bytes, a type code, the number of axes, one big-endian 32-bit size
for each axis, and the values.  Every field is checked before it is used.  Memory is taken when
bytes arrive, and not when a header promises them.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from dualnet.data.streams import (
    FETCH_AGAIN,
    Digesting,
    Readable,
    bad,
    chunks,
    require_digest,
    unpacked,
)

MAX_BYTES = 1 << 28
"""The largest IDX file that is read, in bytes after decompression; MNIST takes a fifth of it."""

_UNSIGNED_BYTE = 0x08
_MAX_AXES = 4


def read_idx(
    path: str | Path,
    shape: tuple[int | None, ...] | None = None,
    *,
    remedy: str = FETCH_AGAIN,
    sha256: str | None = None,
) -> np.ndarray:
    """Read an IDX file of unsigned bytes, packed with gzip or not; its first bytes say which.

    Args:
        path: the file; its name does not matter.
        shape: the sizes that the file must have, with None for an axis of any size.  Without it,
            any shape of 1 to 4 axes is read.
        remedy: what to do about a bad file; it ends every error message.
        sha256: the SHA-256, in hexadecimal, that the file must have after decompression.

    Returns:
        A new uint8 array.

    Raises:
        DataError: the file cannot be read, is no IDX file of unsigned bytes, has another shape, or
            is truncated, corrupted or too long.

    Source: LeCun, Cortes and Burges, "The MNIST Database of Handwritten Digits", which says what
    the format is.

    Examples:
        >>> header = bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3])  # unsigned bytes, 2 axes: 1 and 3
        >>> with open("three.idx", "wb") as file:
        ...     _ = file.write(header + bytes([7, 8, 9]))
        >>> dn.data.read_idx("three.idx", (None, 3)).tolist()
        [[7, 8, 9]]
    """
    with unpacked(path, remedy) as plain:
        stream = Digesting(plain)
        sizes = _read_sizes(stream, path, shape, remedy)
        expected = math.prod(sizes)
        # One byte more than expected is read: it shows trailing bytes, and gzip checks its CRC.
        values = bytearray().join(chunks(stream, expected + 1))
    if len(values) != expected:
        found = "more" if len(values) > expected else f"only {len(values)}"
        raise bad(path, f"{expected} bytes after the header, for {sizes}", found, remedy)
    if sha256 is not None:
        require_digest(path, sha256, stream.sha256.hexdigest(), remedy)
    return np.frombuffer(values, np.uint8).reshape(sizes)


def _read_sizes(
    stream: Readable, path: str | Path, shape: tuple[int | None, ...] | None, remedy: str
) -> tuple[int, ...]:
    """Read the header of an IDX file and return the sizes of its axes, all checked."""
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
    # Empty shapes are refused, because NumPy cannot make some of them: 0 x 4294967295 x 4294967295.
    if not 1 <= math.prod(sizes) <= MAX_BYTES:
        raise bad(path, f"1 to {MAX_BYTES} values", f"a header that says {sizes}", remedy)
    return sizes


def _fits(sizes: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    """Whether the sizes are those of `shape`, in which None stands for any size."""
    return len(sizes) == len(shape) and all(
        want is None or size == want for size, want in zip(sizes, shape, strict=True)
    )
