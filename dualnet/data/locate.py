"""Find the files of a data set: in the user's folder, in the cache, or by a download."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from dualnet.console import say
from dualnet.data.download import UNFINISHED, by_hand, fetch
from dualnet.data.private import require_private
from dualnet.data.sources import SOURCES, Form, RemoteFile
from dualnet.data.unfinished import sweep_unfinished
from dualnet.errors import DataError
from dualnet.naming import assigned, named

_DATA_VARIABLE = "DUALNET_DATA"
_CACHE_VARIABLE = "DUALNET_CACHE"


@dataclass(frozen=True)
class Found:
    """The files of a set.

    Args:
        form: in which form the files are kept.
        paths: the paths of the files in the order of `form.files`, or the path of their archive.
        archived: whether `paths` is the path of an archive.
        known: of files in the cache, what each must be; empty if they are the user's, which may
            be others than the published ones.
    """

    form: Form
    paths: tuple[Path, ...]
    archived: bool = False
    known: tuple[RemoteFile, ...] = ()


def locate(
    name: str, data_dir: str | Path | None, *, download: bool = True, quiet: bool = False
) -> Found:
    """Find the files of a data set, and download those that are missing into the cache.

    The user's folder is the first of these: the argument, what the environment variable
    DUALNET_DATA names, and, for a checkout alone, the folder `shared/data` beside it.  After it,
    only the cache is searched.

    A folder DIR holds a set as `DIR/<name>/<file>` or `DIR/<file>`, with or without `.gz`.  In
    either place, files of an archive may also be in the folder to which the archive unpacks.

    Args:
        name: the name of a data set with `kept="files"` in `SOURCES`.
        data_dir: the user's folder, which must hold the set; None for DUALNET_DATA's or the one
            beside the checkout, in which it may be missing.
        download: whether missing files may be downloaded.
        quiet: print nothing about a download on standard error.

    Returns:
        The set's files.

    Raises:
        DataError: the user's folder does not exist or holds only a part of the set, `data_dir`
            holds nothing of it, or the set is nowhere and cannot be downloaded; or others may
            write to the cache, and no known digest says what should be in it.
    """
    user = user_folder(data_dir)
    searched = []
    if user is not None:
        searched.append(str(user))
        if found := _search(user, name):
            return found
        if part := _part(user, name):
            form, present = part
            missing = [file for file in form.files if file not in present]
            # Files of two origins are never mixed, because they may have other examples.
            raise DataError(
                f"{user}: expected {len(form.files)} files of {name}, found only "
                f"{', '.join(map(str, present.values()))}; add {', '.join(missing)} (.gz or not)"
            )
        if data_dir is not None:
            raise DataError(
                f"{assigned('data_dir', user)}: expected the files of {name}, found none of them; "
                f"{by_hand(name)}"
            )
    cache = cache_folder()
    searched.append(str(cache))
    for folder in (cache / name, cache):
        sweep_unfinished(folder, UNFINISHED)
    if found := _search(cache, name):
        return _of_cache(name, found, cache)
    part = _part(cache, name)
    present = part[1] if part else {}
    wanted = [file for file in SOURCES[name].files if file.name not in present]
    if not download:
        raise DataError(
            f"{name}: expected its {len(SOURCES[name].forms[0].files)} files in "
            f"{' or '.join(searched)}, found {len(present)}, and downloads are off; {by_hand(name)}"
        )
    if not quiet:
        say(f"{name}: not in {' or '.join(searched)}; downloading it", aside=True)
    for file in wanted:
        # It goes to the folder of the other files, because a set is looked for in one folder.
        folder = next(iter(present.values())).parent if present else cache / name
        present[file.name] = fetch(name, file, folder, quiet)
    found = _search(cache, name)
    assert found is not None
    return _of_cache(name, found, cache)


def locate_folder(name: str, data_dir: str | Path | None) -> Path:
    """Find a set that is kept in folders: DIR, or `DIR/<name>` or `DIR/tiny-imagenet-200`.

    Args:
        name: the name of a data set with `kept="folders"` in `SOURCES`.
        data_dir: the user's folder DIR; None as for `locate`.

    Returns:
        The folder that has the folders `train` and `val`.

    Raises:
        DataError: there is no such folder; the message says where to get the set.
    """
    user = user_folder(data_dir)
    if user is None:
        raise DataError(
            f"{name}: expected its folders train and val in the folder that {named('data_dir')} or "
            f"{_DATA_VARIABLE} names, found none named; {by_hand(name)}"
        )
    for folder in (user / name, user / f"{name}-{SOURCES[name].class_count}", user):
        if all(os.path.isdir(folder / part) for part in ("train", "val")):
            return folder
    raise DataError(f"{user}: expected {name}'s folders train and val, found none; {by_hand(name)}")


def cache_folder() -> Path:
    """Return the folder for downloads and decoded images.

    It is the folder that the environment variable DUALNET_CACHE names.  Without one, it is
    `dualnet` in XDG_CACHE_HOME, or in `.cache` of the home folder.

    Raises:
        DataError: there is no home folder.
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


def user_folder(data_dir: str | Path | None = None) -> Path | None:
    """Return the user's folder of data sets, see `locate`; None if there is none.

    Raises:
        DataError: the argument or DUALNET_DATA names a folder that does not exist.
    """
    variable = os.environ.get(_DATA_VARIABLE)
    if data_dir is None and not variable:
        return _beside_checkout()
    folder = Path(variable or "" if data_dir is None else data_dir)
    if not os.path.isdir(folder):
        where = f"{_DATA_VARIABLE}={folder}" if data_dir is None else assigned("data_dir", folder)
        raise DataError(f"{where}: expected a folder of data files, found no folder; correct it")
    return folder


def _beside_checkout() -> Path | None:
    """Return the folder `shared/data` beside the checkout that this file is in, if both exist."""
    root = Path(__file__).resolve().parents[2]
    folder = root.parent / "shared" / "data"
    return folder if (root / "pyproject.toml").is_file() and folder.is_dir() else None


def _search(folder: Path, name: str) -> Found | None:
    """Find a form of a set of which a folder holds all files or, if none, the archive."""
    forms = SOURCES[name].forms
    for form in forms:
        present = _present(folder, name, form)
        if len(present) == len(form.files):
            return Found(form, tuple(present[file] for file in form.files))
    for form in forms:
        for candidate in (folder / name, folder):
            if form.archive and os.path.isfile(candidate / form.archive):
                return Found(form, (candidate / form.archive,), archived=True)
    return None


def _of_cache(name: str, found: Found, cache: Path) -> Found:
    """Return files of the cache with what they must be, or from a folder that is the user's own."""
    published = {file.name: file for file in SOURCES[name].files}
    names = (found.form.archive,) if found.archived else found.form.files
    if published.keys() >= set(names):
        return replace(found, known=tuple(published[one] for one in names))
    for folder in (cache, *(path.parent for path in found.paths)):
        require_private(folder)
    return found


def _part(folder: Path, name: str) -> tuple[Form, dict[str, Path]] | None:
    """Find a form of a set of which a folder holds some files; return it and these files."""
    for form in SOURCES[name].forms:
        if present := _present(folder, name, form):
            return form, present
    return None


def _present(folder: Path, name: str, form: Form) -> dict[str, Path]:
    """Find the files of a form that a folder holds, all of them in one subfolder.

    Returns:
        Name of a file → its path.
    """
    candidates = [folder / name, folder]
    if form.folder:
        candidates = [inner for outer in candidates for inner in (outer, outer / form.folder)]
    for candidate in candidates:
        found = {}
        for file in form.files:
            for path in (candidate / file, candidate / f"{file}.gz"):
                if file not in found and os.path.isfile(path):
                    found[file] = path
        if found:
            return found
    return {}
