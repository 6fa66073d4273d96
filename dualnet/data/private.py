"""Folders that nobody else may write to, for what no known digest can be held against."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dualnet.errors import DataError


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for their owner alone.

    Raises:
        OSError: it cannot be made.
    """
    for one in (*reversed(folder.parents), folder):
        if not os.path.isdir(one):
            one.mkdir(mode=0o700, exist_ok=True)


def require_private(folder: Path) -> None:
    """Refuse a folder, if it is there, in which somebody else could put files of the same names.

    A folder with the sticky bit, such as /tmp, lets nobody replace what is another's.

    Raises:
        DataError: it belongs to another user than this one or root, or others may write to it.
    """
    if os.name == "nt":
        return  # Windows has access lists in the place of these bits
    try:
        itself, there = os.lstat(folder), os.stat(folder)
    except OSError:
        return  # whoever uses the folder says why that is not possible
    owners = {itself.st_uid, there.st_uid} - {os.geteuid(), 0}
    writable = there.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not there.st_mode & stat.S_ISVTX
    if owners or writable:
        found = f"that of user {max(owners)}" if owners else "one that others may write to"
        remedy = "" if owners else f"chmod go-w {folder}, or "
        raise DataError(
            f"{folder}: expected a cache folder to which nobody else may write, found {found}; "
            f"{remedy}name another with the environment variable DUALNET_CACHE"
        )
