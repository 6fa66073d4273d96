"""Read files as streams, decompressed if they are gzip, and never more bytes than allowed."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dualnet.errors import DataError

FETCH_AGAIN = "delete it and get it again"
"""The usual end of a message about a bad file."""

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20


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
        with open(path, "rb") as raw:
            yield raw
    except OSError as error:
        raise bad(path, "a readable file", error.strerror or str(error), remedy) from error


@contextmanager
def unpacked(path: str | Path, remedy: str = FETCH_AGAIN) -> Iterator[BinaryIO]:
    """Open a file for reading; decompress it if its first two bytes say that it is gzip.

    Args, Returns, Raises: as for `opened`.  Gzip data that are not intact raise a DataError too.
    """
    with opened(path, remedy) as raw:
        is_gzip = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        raw.seek(0)
        if not is_gzip:
            yield raw
            return
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                yield stream  # type: ignore[misc]
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise bad(path, "intact gzip data", str(error), remedy) from error


def chunks(stream: BinaryIO, at_most: int) -> Iterator[bytes]:
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


def bad(path: str | Path, expected: str, found: str, remedy: str = FETCH_AGAIN) -> DataError:
    """Make the error to raise about a bad file."""
    return DataError(f"{path}: expected {expected}, found {found}; {remedy}")
