"""Keep decoded data sets on disk, and map them into memory from there.

`<cache folder>/decoded/<set>-<digest>/` holds four .npy files, and `index.json` with a digest of
the state of the files from which they were made and a CRC-32 of each.  The folder is written under
another name and then renamed, so it is there as a whole or not at all.  It can be deleted at any
time.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualnet.data.dataset import Pair
from dualnet.data.locate import cache_folder
from dualnet.data.streams import chunks, opened, read_whole
from dualnet.errors import DataError

IMAGES, LABELS = ("train_images", "test_images"), ("train_labels", "test_labels")
"""The arrays of a set, and the names of their files without `.npy`."""

_VERSION = 1  # of the format of a cache; caches of another version are made anew
_INDEX = "index.json"


def cached(
    name: str, what: Sequence[Any], files: Sequence[Path], make: Callable[[Path], None]
) -> tuple[Pair, Pair]:
    """Return a decoded set from the cache; make it first if it is missing, damaged or outdated.

    Args:
        name: the set's name.
        what: strings and numbers that say what is decoded and how; each combination has a cache of
            its own.
        files: the files that are decoded; the cache is made anew if the size or the time of one
            has changed.
        make: `make(folder)` decodes the files and writes the .npy files of `IMAGES` and `LABELS`.

    Returns:
        The training set and the test set: images that are mapped into memory, read-only, and
        labels.

    Raises:
        DataError: the cache cannot be written.  Errors that `make` raises are passed on.
    """
    folder = cache_folder() / "decoded" / f"{name}-{_digest([name, *what])[:16]}"
    state = _digest([_VERSION, *map(_state, files)])
    found = _open(folder, state)
    if found is None:
        _make(folder, state, make)
        found = _open(folder, state)
    if found is None:
        raise DataError(
            f"{folder}: expected the cache that was just written, found it damaged; "
            "check the disk, or name another folder with DUALNET_CACHE"
        )
    return found


def _open(folder: Path, state: str) -> tuple[Pair, Pair] | None:
    """Read a cache; None if it is missing, damaged or of another state."""
    try:
        index = json.loads(read_whole(folder / _INDEX, 1 << 16))
        if index["state"] != state:
            return None
        arrays = {}
        for name in IMAGES + LABELS:
            path = folder / f"{name}.npy"
            if _crc32(path) != index["crc32"][name]:
                return None
            # A plain array is made of it, because results of a memmap would be memmaps again.
            arrays[name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (DataError, OSError, EOFError, ValueError, KeyError, TypeError, RecursionError):
        return None
    train, test = ((arrays[i], np.array(arrays[n])) for i, n in zip(IMAGES, LABELS, strict=True))
    return (train, test) if _fits(*train) and _fits(*test) else None


def _make(folder: Path, state: str, make: Callable[[Path], None]) -> None:
    """Let `make` write a cache, and put it in the place of the folder."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # It is next to `folder`, so a rename stays on one file system and is atomic.
        with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            make(made)
            crc32 = {name: _crc32(made / f"{name}.npy") for name in IMAGES + LABELS}
            (made / _INDEX).write_text(json.dumps({"state": state, "crc32": crc32}))
            if folder.exists():  # damaged or outdated; it goes with the temporary folder
                os.replace(folder, Path(temporary) / "old")
            os.replace(made, folder)
    except OSError as error:
        raise DataError(
            f"{folder.parent}: expected a cache folder with room for decoded images, found "
            f"{error.strerror or error}; name another with the environment variable DUALNET_CACHE"
        ) from error


def _fits(images: np.ndarray, labels: np.ndarray) -> bool:
    """Whether these can be the images and labels of a set."""
    right_kinds = images.dtype == np.uint8 and labels.dtype == np.int64
    right_axes = images.ndim == 4 and labels.ndim == 1
    return right_kinds and right_axes and len(images) == len(labels) > 0


def _state(file: Path) -> tuple[str, int, int]:
    """Return path, size and time of a file, which change when the file is replaced."""
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(
            f"{file}: expected a readable file, found {error.strerror or error}; get it again"
        ) from error
    return str(file.absolute()), status.st_size, status.st_mtime_ns


def _digest(values: Sequence[Any]) -> str:
    """Return the SHA-256 of values that JSON can write."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _crc32(path: Path) -> int:
    """Return the CRC-32 of a file."""
    with opened(path) as stream:
        crc32 = 0
        for chunk in chunks(stream, path.stat().st_size):
            crc32 = zlib.crc32(chunk, crc32)
    return crc32
