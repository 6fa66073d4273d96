"""Write files whole or not at all, and read only regular files, up to a limit.

A file is written under a name that nobody can guess, made durable, and renamed: whoever reads it
sees the old or the new content, also after the power has failed.  Links that somebody has planted
are never followed in writing, and a pipe at the place of a file is refused, not waited for.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

OWNER_ALONE = 0o600
"""The permissions of a new file; a file that is replaced keeps its own."""

_PIECE = 1 << 20

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{16}\.partial")


def write_file(
    path: Path, content: bytes | Callable[[BinaryIO], None], durable: bool = True
) -> None:
    """Write a file whole or not at all, and return when it is on the disk.

    Args:
        path: of the file; if it is a link, the link is replaced.
        content: the bytes, or a function that writes them to a stream.
        durable: whether it must be there after the power has failed; a file that can be derived
            from others need not, which takes a fraction of the time.

    Raises:
        OSError: the file cannot be written; what was there before is as it was.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    made = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, OWNER_ALONE)
    try:
        with open(made, "wb") as stream:
            _keep_permissions(path, made)
            if callable(content):
                content(stream)
            else:
                stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:  # Ctrl-C, too
        with suppress(OSError):
            partial.unlink()
        raise
    if durable:
        make_names_durable(path.parent)


def make_names_durable(folder: Path) -> None:
    """Return when the names of the files in a folder are on the disk."""
    if os.name == "nt":
        return  # Windows has no such call
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot do this
            raise
    finally:
        os.close(opened)


def reserve(opened: int, size: int) -> None:
    """Give an open file its size, and the room for it, so that the disk cannot be full later.

    Args:
        opened: the file's descriptor; the file is empty, or what is in it stays.
        size: how many bytes the file will have.

    Raises:
        OSError: the disk has not so much room.
    """
    try:
        os.posix_fallocate(opened, 0, size)
        return
    except AttributeError:
        pass  # Windows and macOS lack it
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    begin = os.lseek(opened, 0, os.SEEK_CUR)
    at = os.lseek(opened, 0, os.SEEK_END)
    while at < size:
        at += os.write(opened, bytes(min(1 << 20, size - at)))
    os.lseek(opened, begin, os.SEEK_SET)


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: it cannot be read, or is a folder, a pipe or a device.
    """
    opened = os.open(path, os.O_RDONLY | _AT_ONCE)
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError(f"{path} is no regular file")
        return open(opened, "rb")
    except BaseException:
        os.close(opened)
        raise


def read_file(path: str | Path, at_most: int) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: as of `open_regular`.
        ValueError: the file has more bytes than `at_most`.
    """
    pieces, left = [], at_most
    with open_regular(path) as stream:
        # Piece by piece, because memory for all that is asked for would be taken at once.
        while left >= 0 and (piece := stream.read(min(_PIECE, left + 1))):
            pieces.append(piece)
            left -= len(piece)
    if left < 0:
        raise ValueError(f"it has more than {at_most} bytes")
    return b"".join(pieces)


def sweep(folder: Path) -> None:
    """Delete what `write_file` has left in a folder where a process was killed.

    No other process may be writing to the folder.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _PARTIAL.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    os.unlink(entry.path)


_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Flags that Windows lacks, or that it alone has; with `_AT_ONCE`, opening a pipe does not wait."""


def _keep_permissions(path: Path, made: int) -> None:
    """Give an open new file the permissions of the one that it replaces, if there is one."""
    with suppress(OSError, AttributeError):  # Windows lacks fchmod
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            os.fchmod(made, stat.S_IMODE(status.st_mode))
