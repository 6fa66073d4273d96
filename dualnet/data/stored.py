"""Images in a file, which are read when they are indexed, and only as they were checked.

They are not mapped into memory: where a mapped file is cut short, the process ends by a bus error
and says nothing.  To read 64 images of CIFAR takes about a tenth of a millisecond.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from dualnet.data.npy import read_header
from dualnet.data.streams import sha256_of
from dualnet.errors import DataError, UsageError
from dualnet.files import open_regular

_MOST_AT_ONCE = 1 << 26
"""How many bytes are asked of the operating system at once; it has a limit of its own."""


class Stored:
    """An array uint8 `(N, ...)` in a file .npy, of which rows are read.

    Args:
        path: the file.
        size: how many bytes it has.
        sha256: its SHA-256 in hexadecimal.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has another digest, or holds another kind of array.
    """

    def __init__(self, path: Path, size: int, sha256: str):
        with open_regular(path) as stream:
            self._opened = os.dup(stream.fileno())
            weakref.finalize(self, os.close, self._opened)
            self._checked = _size_and_time(self._opened)  # before the digest, so none is missed
            if self._checked[0] != size or sha256_of(stream, size) != (size, sha256):
                raise ValueError(f"{path} has another digest")
            stream.seek(0)
            self.dtype, self.shape, order, begin = read_header(stream, size)
            self._first = stream.tell() - len(begin)
        if self.dtype != np.uint8 or order != "C" or math.prod(self.shape) == 0:
            raise ValueError(f"{path} holds no images")
        self._path, self._numbers = path, np.arange(self.shape[0])
        self._row_bytes = math.prod(self.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Stored({self.dtype}{self.shape})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all images, where NumPy wants an array."""
        if copy is False:
            raise ValueError("Stored: images in a file are no array without a copy")
        return np.asarray(self[:], dtype)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        """Read the rows that a number, a slice, an index array or a mask chooses into a new array.

        Raises:
            UsageError: an axis behind the first one is indexed.
            DataError: the file cannot be read, or has changed since it was checked.
        """
        rows = np.asarray(self._numbers[one_index(chosen)])
        try:
            values = self._read(rows.ravel())
            changed = _size_and_time(self._opened) != self._checked
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error
        if changed:
            raise self._lost("that something was written to it or cut off")
        return values.reshape(rows.shape + self.shape[1:])

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Read rows, those at once that follow one another in the file."""
        values = np.empty(len(rows) * self._row_bytes, np.uint8)
        most = max(1, _MOST_AT_ONCE // self._row_bytes)
        cuts = np.flatnonzero(np.diff(rows) != 1) + 1
        starts = np.union1d(cuts, np.arange(0, len(rows), most))
        begins = (starts * self._row_bytes).tolist()
        places = (self._first + rows[starts] * self._row_bytes).tolist()
        view = values.data  # writing to it takes less time for each row than NumPy does
        for begin, end, place in zip(begins, [*begins, len(values)][1:], places, strict=True):
            content = _read_at(self._opened, end - begin, place)
            if len(content) != end - begin:
                raise self._lost("its end too early")
            view[begin:end] = content
        return values

    def _lost(self, found: str) -> DataError:
        return DataError(
            f"{self._path}: expected the decoded images as they were when they were checked, found "
            f"{found}; start again, which decodes them anew"
        )


def one_index(chosen: Any) -> Any:
    """Return an index into the first axis.

    Raises:
        UsageError: axes behind it are indexed.
    """
    if isinstance(chosen, tuple):
        raise UsageError(
            "images in a file: expected one index, that of examples, got a tuple; images[:] reads "
            "all of them into an array"
        )
    return chosen


def _size_and_time(opened: int) -> tuple[int, int]:
    """Return size and time of an open file, which change when something is written to it."""
    status = os.fstat(opened)
    return status.st_size, status.st_mtime_ns


_one_reads = threading.Lock()


def _read_at(opened: int, size: int, at: int) -> bytes:
    """Read bytes of an open file from a place on; fewer where it ends or the system wants it so."""
    if hasattr(os, "pread"):
        return os.pread(opened, size, at)
    with _one_reads:  # Windows has a place of the file alone, which threads share
        os.lseek(opened, at, os.SEEK_SET)
        return os.read(opened, size)
