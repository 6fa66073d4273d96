"""Read files as streams, decompressed if they are gzip, and never more bytes than allowed."""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from dualnet.data.gunzip import MAGIC, Gunzipped
from dualnet.errors import DataError
from dualnet.files import open_regular

FETCH_AGAIN = "delete it and get it again"
"""The usual end of a message about a bad file."""

_MOST_PACKED = 1 << 28
"""The largest file of gzip data that is read, in bytes; the largest of the sets has 170 million."""
_CHUNK = 1 << 20


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes; none at the end."""
        ...


@contextmanager
def opened(path: str | Path, remedy: str = FETCH_AGAIN) -> Iterator[BinaryIO]:
    """Open a file for reading, without decompression.

    Args:
        path: the file.
        remedy: what to do about a bad file; it ends every error message.

    Returns:
        A context manager whose value is a binary stream.

    Raises:
        DataError: the file cannot be read.  It is also raised while the stream is being read.
    """
    try:
        with open_regular(path) as raw:
            yield raw
    except OSError as error:
        raise bad(path, "a readable file", error.strerror or str(error), remedy) from error


@contextmanager
def unpacked(path: str | Path, remedy: str = FETCH_AGAIN) -> Iterator[BinaryIO]:
    """Open a file for reading; decompress it if its first two bytes say that it is gzip.

    Args, Returns, Raises: as for `opened`.  Gzip data that are not intact raise a DataError too.
    """
    with opened(path, remedy) as raw:
        is_gzip = raw.read(len(MAGIC)) == MAGIC
        raw.seek(0)
        if not is_gzip:
            yield raw
            return
        if os.fstat(raw.fileno()).st_size > _MOST_PACKED:
            raise bad(path, f"at most {_MOST_PACKED} bytes of gzip data", "more", remedy)
        try:
            with io.BufferedReader(Gunzipped(raw), _CHUNK) as stream:
                yield stream
        except (EOFError, zlib.error) as error:
            raise bad(path, "intact gzip data", str(error), remedy) from error


def chunks(stream: Readable, at_most: int) -> Iterator[bytes]:
    """Yield the bytes of a stream piece by piece, and stop after `at_most` bytes."""
    while at_most > 0 and (chunk := stream.read(min(_CHUNK, at_most))):
        at_most -= len(chunk)
        yield chunk


def read_whole(path: str | Path, at_most: int, remedy: str = FETCH_AGAIN) -> bytes:
    """Read a whole file, decompressed if it is gzip.

    Raises:
        DataError: the file cannot be read, or holds more than `at_most` bytes.
    """
    with unpacked(path, remedy) as stream:
        content = b"".join(chunks(stream, at_most + 1))
    if len(content) > at_most:
        raise bad(path, f"at most {at_most} bytes", "more", remedy)
    return content


def digest(path: Path, at_most: int, *, packed: bool = True) -> tuple[int, str]:
    """Return length and SHA-256 of a file, of which `at_most` bytes are read.

    Args:
        path: the file.
        at_most: how many bytes to read at most, after decompression.
        packed: whether to decompress the file if it is gzip.

    Returns:
        How many bytes were read, and their SHA-256 in hexadecimal.

    Raises:
        DataError: the file cannot be read, or its gzip data are corrupted.
    """
    with unpacked(path) if packed else opened(path) as stream:
        return sha256_of(stream, at_most)


class Digesting:
    """A stream that takes the SHA-256 of what is read from it."""

    def __init__(self, stream: Readable):
        self._stream, self.sha256 = stream, hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        content = self._stream.read(size)
        self.sha256.update(content)
        return content


def require_digest(path: str | Path, expected: str, found: str, remedy: str = FETCH_AGAIN) -> None:
    """Raise a DataError unless two SHA-256 in hexadecimal are equal."""
    if found != expected:
        raise bad(path, f"SHA-256 {expected[:12]}...", f"{found[:12]}...", remedy)


def sha256_of(stream: Readable, at_most: int) -> tuple[int, str]:
    """Return how many bytes a stream has, of which `at_most` are read, and their SHA-256."""
    length, sha256 = 0, hashlib.sha256()
    for chunk in chunks(stream, at_most):
        length += len(chunk)
        sha256.update(chunk)
    return length, sha256.hexdigest()


def bad(path: str | Path, expected: str, found: str, remedy: str = FETCH_AGAIN) -> DataError:
    """Make the error to raise about a bad file."""
    return DataError(f"{path}: expected {expected}, found {found}; {remedy}")
