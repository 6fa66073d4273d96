"""Where the files of a data set are: the user's folder, then the cache, then a download."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from dualnet.data.download import by_hand, fetch
from dualnet.data.sources import SOURCES, Form
from dualnet.errors import DataError

_DATA_VARIABLE = "DUALNET_DATA"
_CACHE_VARIABLE = "DUALNET_CACHE"


@dataclass(frozen=True)
class Found:
    """The files of a set.

    Args:
        form: how they are kept.
        paths: where they are, in the order of `form.files`; or, alone, where their archive is.
        archived: whether it is the archive.
    """

    form: Form
    paths: tuple[Path, ...]
    archived: bool = False


def locate(
    name: str, data_dir: str | Path | None, *, download: bool = True, quiet: bool = False
) -> Found:
    """Find the files of a data set, or download those that are missing into the cache.

    A folder DIR holds a set as `DIR/<name>/<file>` or `DIR/<file>`, with or without `.gz`; the
    files of an archive may also be in the folder that it unpacks to, in either place.

    Args:
        name: of a data set that is made of files, `kept="files"` in `SOURCES`.
        data_dir: the user's folder; without it, the one that DUALNET_DATA names, if any.
        download: whether missing files may be fetched.
        quiet: say nothing on standard error about a download.

    Returns:
        The set's files.

    Raises:
        DataError: if the user's folder holds a part of the set only, or if the set is
            nowhere and cannot be downloaded.
    """
    user = _user_folder(data_dir)
    searched = []
    if user is not None:
        searched.append(str(user))
        if found := _search(user, name):
            return found
        if part := _part(user, name):
            form, present = part
            missing = [file for file in form.files if file not in present]
            # Files of two origins are never mixed: their examples need not be the same ones.
            raise DataError(
                f"{user}: expected {len(form.files)} files of {name}, found only "
                f"{', '.join(map(str, present.values()))}; add {', '.join(missing)} (.gz or not)"
            )
    cache = cache_folder()
    searched.append(str(cache))
    if found := _search(cache, name):
        return found
    part = _part(cache, name)
    present = part[1] if part else {}
    wanted = [file for file in SOURCES[name].files if file.name not in present]
    if not download:
        raise DataError(
            f"{name}: expected its {len(SOURCES[name].forms[0].files)} files in "
            f"{' or '.join(searched)}, found {len(present)}, and downloads are off; {by_hand(name)}"
        )
    if not quiet:
        print(f"{name}: not in {' or '.join(searched)}; downloading it", file=sys.stderr)
    for file in wanted:
        # Beside those that are there already: the files of a set are looked for in one place.
        place = next(iter(present.values())).parent if present else cache / name
        present[file.name] = fetch(name, file, place, quiet)
    found = _search(cache, name)
    assert found is not None
    return found


def locate_folder(name: str, data_dir: str | Path | None) -> Path:
    """Find a set that is kept in folders: DIR, or `DIR/<name>` or `DIR/tiny-imagenet-200`.

    Args:
        name: of a data set with `kept="folders"` in `SOURCES`.
        data_dir: the user's folder; without it, the one that DUALNET_DATA names, if any.

    Returns:
        A folder with the folders `train` and `val`.

    Raises:
        DataError: if there is none; says where to get it.
    """
    user = _user_folder(data_dir)
    if user is None:
        raise DataError(
            f"{name}: expected its folders train and val in the folder that --data-dir or "
            f"{_DATA_VARIABLE} names, found none named; {by_hand(name)}"
        )
    for folder in (user / name, user / f"{name}-{SOURCES[name].class_count}", user):
        if (folder / "train").is_dir() and (folder / "val").is_dir():
            return folder
    raise DataError(f"{user}: expected {name}'s folders train and val, found none; {by_hand(name)}")


def cache_folder() -> Path:
    """Where downloads and decoded images go.

    The environment variable DUALNET_CACHE names it; else it is `dualnet` in XDG_CACHE_HOME, or
    in `.cache` of the home folder.

    Raises:
        DataError: if there is no home folder.
    """
    if named := os.environ.get(_CACHE_VARIABLE):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a path that is not absolute.
    if os.path.isabs(base):
        return Path(base) / "dualnet"
    try:
        return Path.home() / ".cache" / "dualnet"
    except RuntimeError as error:
        raise DataError(
            f"the cache folder: expected a home folder, found none ({error}); "
            f"set {_DATA_VARIABLE} or {_CACHE_VARIABLE} to a folder"
        ) from error


def _user_folder(data_dir: str | Path | None) -> Path | None:
    named = data_dir if data_dir is not None else os.environ.get(_DATA_VARIABLE) or None
    return None if named is None else Path(named)


def _search(folder: Path, name: str) -> Found | None:
    """A form of a set that a folder holds completely: its files first, then its archive."""
    forms = SOURCES[name].forms
    for form in forms:
        present = _present(folder, name, form)
        if len(present) == len(form.files):
            return Found(form, tuple(present[file] for file in form.files))
    for form in forms:
        for place in (folder / name, folder):
            if form.archive and os.path.isfile(place / form.archive):
                return Found(form, (place / form.archive,), archived=True)
    return None


def _part(folder: Path, name: str) -> tuple[Form, dict[str, Path]] | None:
    """A form of a set that a folder holds some files of."""
    for form in SOURCES[name].forms:
        if present := _present(folder, name, form):
            return form, present
    return None


def _present(folder: Path, name: str, form: Form) -> dict[str, Path]:
    """The files of a form that a folder holds, all from one place in it."""
    places = [folder / name, folder]
    if form.folder:
        places = [inner for place in places for inner in (place, place / form.folder)]
    for place in places:
        found = {}
        for file in form.files:
            for path in (place / file, place / f"{file}.gz"):
                if file not in found and os.path.isfile(path):
                    found[file] = path
        if found:
            return found
    return {}
