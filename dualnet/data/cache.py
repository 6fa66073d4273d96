"""Keep decoded data sets on disk, and read them from there.

`<cache folder>/decoded/<set>-<digest>/` holds four .npy files, and `index.json` with a digest of
the state of the files from which they were made, and the length and SHA-256 of each.  The folder
is written under another name and then renamed, so it is there as a whole or not at all.  It can be
deleted at any time.  Nothing but its own index says what should be in it, so a folder to which
others may write is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualnet.data.dataset import Pair
from dualnet.data.locate import cache_folder
from dualnet.data.npy import read_array
from dualnet.data.private import make_private, require_private
from dualnet.data.stored import Stored
from dualnet.data.streams import digest
from dualnet.data.unfinished import sweep_unfinished, unfinished
from dualnet.errors import DataError
from dualnet.files import make_names_durable, read_file, write_file

IMAGES, LABELS = ("train_images", "test_images"), ("train_labels", "test_labels")
"""The arrays of a set, and the names of their files without `.npy`."""

_VERSION = 2  # of the format of a cache; caches of another version are made anew
_INDEX = "index.json"
_UNFINISHED = ".making-"


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
        The training set and the test set: images that are read when they are indexed, and labels.

    Raises:
        DataError: the cache cannot be written, or others may write to it.  Errors that `make`
            raises are passed on.
    """
    decoded = cache_folder() / "decoded"
    folder = decoded / f"{name}-{_digest([name, *what])[:16]}"
    state = _digest([_VERSION, *map(_state, files)])
    for place in (cache_folder(), decoded, folder):
        require_private(place)
    sweep_unfinished(decoded, _UNFINISHED)
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
    """Open a cache; None if it is missing, damaged or of another state."""
    try:
        index = json.loads(read_file(folder / _INDEX, 1 << 16))
        if index["state"] != state:
            return None
        digests = index["digests"]
        train, test = (
            (Stored(folder / f"{i}.npy", *digests[i]), _labels(folder / f"{n}.npy", *digests[n]))
            for i, n in zip(IMAGES, LABELS, strict=True)
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return (train, test) if _fits(*train) and _fits(*test) else None


def _labels(path: Path, size: int, sha256: str) -> np.ndarray:
    """Read labels; a ValueError if they have another digest."""
    content = read_file(path, size)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path} has another digest")
    return read_array(io.BytesIO(content), len(content))


def _make(folder: Path, state: str, make: Callable[[Path], None]) -> None:
    """Let `make` write a cache, and put it in the place of the folder."""
    try:
        make_private(folder.parent)
        # It is next to `folder`, so a rename stays on one file system and is atomic.
        with unfinished(folder.parent, _UNFINISHED) as temporary:
            made = temporary / "made"
            made.mkdir(mode=0o700)
            make(made)
            paths = {name: made / f"{name}.npy" for name in IMAGES + LABELS}
            digests = {
                name: digest(path, path.stat().st_size, packed=False)
                for name, path in paths.items()
            }
            index = {"state": state, "digests": digests}
            write_file(made / _INDEX, json.dumps(index).encode())
            if _open(folder, state) is not None:
                return  # another process was faster, and reads it
            if folder.exists():  # damaged or outdated; it goes with the temporary folder
                os.replace(folder, temporary / "old")
            os.replace(made, folder)
            make_names_durable(folder.parent)
    except OSError as error:
        raise DataError(
            f"{folder.parent}: expected a cache folder with room for decoded images, found "
            f"{error.strerror or error}; name another with the environment variable DUALNET_CACHE"
        ) from error


def _fits(images: Stored, labels: np.ndarray) -> bool:
    """Whether these can be the images and labels of a set."""
    right_kinds = labels.dtype == np.int64
    right_axes = len(images.shape) == 4 and labels.ndim == 1
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
