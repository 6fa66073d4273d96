"""A folder for work in progress, which is swept if the process is killed before it ends."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dualnet.locks import FolderLock


@contextmanager
def unfinished(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder with an unguessable name inside another one, and delete it at the end.

    Its process holds a lock of it.  So `sweep_unfinished` knows what nobody works in any more.

    Args:
        parent: the folder in which it is made.
        prefix: with which its name begins.

    Raises:
        OSError: it cannot be made.
    """
    sweep_unfinished(parent, prefix)
    folder, lock = _locked(parent, prefix)
    try:
        yield folder
    finally:
        if lock:
            lock.release()  # first, because Windows deletes no open file
        shutil.rmtree(folder, ignore_errors=True)


def sweep_unfinished(parent: Path, prefix: str) -> None:
    """Delete the folders of this prefix whose processes have ended, and no others.

    A link is left alone, and so is what belongs to somebody else or cannot be locked.
    """
    with suppress(OSError), os.scandir(parent) as entries:
        left = [Path(entry.path) for entry in entries if entry.name.startswith(prefix)]
        for folder in left:
            with suppress(OSError):
                if folder.is_symlink() or not folder.is_dir():
                    continue
                lock = FolderLock(folder)  # a BlockingIOError, where its process is alive
                shutil.rmtree(folder, ignore_errors=True)
                lock.release()
                shutil.rmtree(folder, ignore_errors=True)  # Windows has kept the open lock


def _locked(parent: Path, prefix: str) -> tuple[Path, FolderLock | None]:
    """Make a folder and lock it; without a lock where the file system has none."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            return folder, FolderLock(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # it was swept before it was locked
        except OSError:
            return folder, None
