"""A folder that one process has to itself, until it lets go of it or ends in whatever way."""

from __future__ import annotations

import errno
import json
import os
import platform
import time
from contextlib import suppress
from pathlib import Path

from dualnet.files import read_file

if os.name == "nt":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"
"""The file in the folder that is locked; it says who holds it."""


class FolderLock:
    """A lock of a folder.  The operating system lets go of it when its process ends.

    Some file systems of clusters have no locks.  There everybody gets the folder.

    Args:
        folder: the folder, which is there.

    Attributes:
        holds: whether the file system has locks.

    Raises:
        BlockingIOError: another process, or another lock of this one, has the folder; the message
            says which.
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path):
        self._file = folder / LOCK
        while True:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            opened = os.open(self._file, flags | getattr(os, "O_NONBLOCK", 0), 0o600)
            try:
                self.holds = _lock(opened)
                there = _same_file(opened, self._file)
            except BlockingIOError:
                os.close(opened)
                raise BlockingIOError(self._holder()) from None
            except BaseException:
                os.close(opened)
                raise
            if there:
                break
            os.close(opened)  # its holder has deleted it just now
        self._opened: int | None = opened
        self._process = os.getpid()
        self._sign()

    def release(self) -> None:
        """Let go of the folder, and delete the file; in a forked process only let go."""
        if self._opened is None:
            return
        opened, self._opened = self._opened, None
        if os.getpid() == self._process:
            with suppress(OSError):
                self._file.unlink()
        os.close(opened)

    def _sign(self) -> None:
        """Write into the file who holds the lock; a full disk does not matter."""
        assert self._opened is not None
        holder = {"process": os.getpid(), "host": platform.node(), "since": time.strftime("%F %T")}
        with suppress(OSError):
            os.ftruncate(self._opened, 0)
            os.write(self._opened, json.dumps(holder).encode())

    def _holder(self) -> str:
        """Say who holds the lock, as far as the file says it."""
        try:
            said = json.loads(read_file(self._file, 1000))
            process, host, since = int(said["process"]), str(said["host"]), str(said["since"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return "another process has it"
        return f"process {process} on {host!r} has it since {since!r}"


_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


def _lock(opened: int) -> bool:
    """Lock an open file; return False where there are no locks, raise if another has this one."""
    if os.name != "nt":
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return False
        return True
    # A byte far behind the text, because others cannot read a locked one.
    os.lseek(opened, 1 << 20, os.SEEK_SET)
    try:
        msvcrt.locking(opened, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except OSError as error:
        raise BlockingIOError(str(error)) from error
    finally:
        os.lseek(opened, 0, os.SEEK_SET)
    return True


def _same_file(opened: int, path: Path) -> bool:
    """Whether the file at a path is the one that is open."""
    try:
        return os.path.samestat(os.fstat(opened), os.lstat(path))
    except OSError:
        return False
