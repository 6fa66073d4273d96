"""Reading files as streams that stop in time, through gzip where there is some."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dualnet.errors import DataError

FETCH_AGAIN = "delete it and get it again"

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20


@contextmanager
def opened(path: str | Path, remedy: str = FETCH_AGAIN) -> Iterator[BinaryIO]:
    """Open a file for reading, as it is.

    Args:
        path: the file.
        remedy: what to do about a bad file, the end of every error message.

    Returns:
        A context manager that gives a binary stream.

    Raises:
        DataError: if the file cannot be read; also while the stream is being read.
    """
    try:
        with open(path, "rb") as raw:
            yield raw
    except OSError as error:
        raise bad(path, "a readable file", error.strerror or str(error), remedy) from error


@contextmanager
def unpacked(path: str | Path, remedy: str = FETCH_AGAIN) -> Iterator[BinaryIO]:
    """Open a file for reading, through gzip if its first two bytes say so.

    Args, Returns, Raises: as for `opened`; gzip data that are not intact are an error, too.
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
    """Yield what a stream holds, piece by piece, and stop after `at_most` bytes."""
    while at_most > 0 and (chunk := stream.read(min(_CHUNK, at_most))):
        at_most -= len(chunk)
        yield chunk


def read_whole(path: str | Path, at_most: int, remedy: str = FETCH_AGAIN) -> bytes:
    """All that a file holds after decompression.

    Raises:
        DataError: if it cannot be read, or holds more than `at_most` bytes.
    """
    with unpacked(path, remedy) as stream:
        content = b"".join(chunks(stream, at_most + 1))
    if len(content) > at_most:
        raise bad(path, f"at most {at_most} bytes", "more", remedy)
    return content


def bad(path: str | Path, expected: str, found: str, remedy: str = FETCH_AGAIN) -> DataError:
    """The error to raise about a file."""
    return DataError(f"{path}: expected {expected}, found {found}; {remedy}")
