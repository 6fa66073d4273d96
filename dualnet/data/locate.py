"""Where the files of a data set are: the user's folder, then the cache, then a download."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dualnet.data.download import by_hand, fetch
from dualnet.data.sources import SOURCES
from dualnet.errors import DataError

_VARIABLE = "DUALNET_DATA"


def locate(
    name: str, data_dir: str | Path | None, *, download: bool = True, quiet: bool = False
) -> tuple[Path, ...]:
    """Find the files of a data set, or download those that are missing into the cache.

    A folder DIR holds a set as `DIR/<name>/<file>` or `DIR/<file>`, with or without `.gz`.

    Args:
        name: of a data set that is made of files, a key of `SOURCES`.
        data_dir: the user's folder; without it, the one that DUALNET_DATA names, if any.
        download: whether missing files may be fetched.
        quiet: say nothing on standard error about a download.

    Returns:
        The paths of the set's files, in the order of its `Source.files`.

    Raises:
        DataError: if the user's folder holds a part of the set only, or if the set is
            nowhere and cannot be downloaded.
    """
    files = SOURCES[name].files
    user = data_dir if data_dir is not None else os.environ.get(_VARIABLE) or None
    searched = []
    if user is not None:
        folder = Path(user)
        searched.append(str(folder))
        found = _search(folder, name)
        missing = [file.name for file in files if file.name not in found]
        # Files of two origins are never mixed: their examples need not be the same ones.
        if found and missing:
            raise DataError(
                f"{folder}: expected {len(files)} files of {name}, found only "
                f"{', '.join(map(str, found.values()))}; add {', '.join(missing)} (.gz or not)"
            )
        if found:
            return tuple(found[file.name] for file in files)
    cache = _cache_folder()
    searched.append(str(cache))
    found = _search(cache, name)
    wanted = [file for file in files if file.name not in found]
    if wanted and not download:
        raise DataError(
            f"{name}: expected its {len(files)} files in {' or '.join(searched)}, "
            f"found {len(files) - len(wanted)}, and downloads are off; {by_hand(name)}"
        )
    if wanted and not quiet:
        print(f"{name}: not in {' or '.join(searched)}; downloading it", file=sys.stderr)
    for file in wanted:
        found[file.name] = fetch(name, file, cache / name, quiet)
    return tuple(found[file.name] for file in files)


def _search(folder: Path, name: str) -> dict[str, Path]:
    """The files of a set that a folder holds, all from one place in it."""
    for place in (folder / name, folder):
        found = {}
        for file in SOURCES[name].files:
            for path in (place / file.name, place / f"{file.name}.gz"):
                if file.name not in found and os.path.isfile(path):
                    found[file.name] = path
        if found:
            return found
    return {}


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a path that is not absolute.
    if os.path.isabs(base):
        return Path(base) / "dualnet"
    try:
        return Path.home() / ".cache" / "dualnet"
    except RuntimeError as error:
        raise DataError(
            f"the cache folder: expected a home folder, found none ({error}); "
            f"set {_VARIABLE} or XDG_CACHE_HOME to a folder"
        ) from error
