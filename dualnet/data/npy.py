"""Read and write files .npy.

In reading, a header is compared with what is there before anything is allocated.  In writing, the
room on the disk is taken first.
"""

from __future__ import annotations

import io
import math
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import DTypeLike

from dualnet.files import reserve, write_file
from dualnet.types import Shape

Order = Literal["C", "F"]

_MOST_HEADER = 1 << 14
"""How many bytes a header may have; NumPy's own are shorter unless an array has named fields."""
_PIECE = 1 << 24
"""How many bytes are read at once."""


def read_header(stream: BinaryIO, size: int) -> tuple[np.dtype, Shape, Order, bytes]:
    """Read the header of an array.

    Args:
        stream: at its beginning.
        size: how many bytes the file has, header and values.

    Returns:
        The array's dtype, shape and order (`C` or `F`), and those of its bytes that have been read.

    Raises:
        ValueError: there is no header, or it promises other bytes than there are, or objects.
    """
    begin = io.BytesIO(stream.read(_MOST_HEADER))
    major, minor = np.lib.format.read_magic(begin)
    if (major, minor) not in ((1, 0), (2, 0)):
        raise ValueError(f"it has version {major}.{minor} of the format, not 1.0 or 2.0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a header is a program text, of which Python may warn
        read = (
            np.lib.format.read_array_header_1_0
            if major == 1
            else np.lib.format.read_array_header_2_0
        )
        shape, by_columns, dtype = read(begin)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never read")
    if not all(isinstance(n, int) and n >= 0 for n in shape) or dtype.itemsize == 0:
        raise ValueError(f"its header says {dtype.str}{shape}, which is no array of values")
    promised, there = math.prod(shape) * dtype.itemsize, size - begin.tell()
    if promised != there:
        raise ValueError(f"its header promises {promised} bytes of values, and {there} follow")
    return dtype, shape, "F" if by_columns else "C", begin.read()


def read_array(stream: BinaryIO, size: int) -> np.ndarray:
    """Read an array; memory is taken when bytes arrive, and not when a header promises them.

    Args:
        stream, size: as of `read_header`.

    Raises:
        ValueError: as of `read_header`; or fewer bytes come than `size` says, or what is no value.
        MemoryError: the array is too large.
    """
    dtype, shape, order, begin = read_header(stream, size)
    values = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
    values[: len(begin)] = np.frombuffer(begin, np.uint8)
    at = len(begin)
    while at < len(values) and (piece := stream.read(min(_PIECE, len(values) - at))):
        values[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)
    if at < len(values):
        raise ValueError(f"it ends after {at} bytes of values instead of {len(values)}")
    if dtype.kind == "b" and (values > 1).any():
        raise ValueError("it holds truth values that are neither true nor false")
    array = values.view(dtype)
    if dtype.kind == "U" and (array.view(f"{dtype.byteorder}u4") > sys.maxunicode).any():
        raise ValueError("it holds characters that there are not")
    return array.reshape(shape, order=order)


def write_array(path: Path, dtype: DTypeLike, shape: Shape, pieces: Iterable[np.ndarray]) -> None:
    """Write an array piece by piece, into room that is taken before the first piece is made.

    Args:
        path: of the file.
        dtype, shape: of the whole array.
        pieces: arrays of this dtype, which follow one another along the first axis.

    Raises:
        OSError: the disk has not enough room, or the file cannot be written.
    """
    described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}

    def write(stream: BinaryIO) -> None:
        np.lib.format.write_array_header_1_0(stream, described)
        stream.flush()
        reserve(stream.fileno(), stream.tell() + math.prod(shape) * np.dtype(dtype).itemsize)
        for piece in pieces:
            stream.write(np.ascontiguousarray(piece, dtype).data)

    write_file(path, write)
