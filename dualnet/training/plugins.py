"""Files of a user's own, `--plugin FILE.py`: what they put into the tables can be chosen.

Such a file is a plain Python module.  One line registers a class under the name that the command
line gives it, for instance `RULES["signs"] = Signs`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from dualnet.data.sources import Source
from dualnet.errors import UsageError
from dualnet.learning import Rule
from dualnet.nn import Layer
from dualnet.optim import Optimizer
from dualnet.schedules import Schedule
from dualnet.training.own_files import run_file
from dualnet.training.settings import options_of

FAMILIES = {"rule": Rule, "optimizer": Optimizer, "schedule": Schedule}
"""Kind of choice → what a class of that kind derives from; others derive from nothing."""

_loaded: dict[Path, ModuleType] = {}
"""The files that this process has run, as modules."""


def load_plugins(
    paths: Iterable[str],
    tables: Mapping[str, Mapping[str, object]],
    *,
    layers_suffice: bool = False,
) -> None:
    """Run files of a user's own, each once in a process, and check what they register.

    Args:
        paths: of Python files.
        tables: what there is to choose from, the very dicts to which files add.
        layers_suffice: whether a file may register nothing if it has layers or functions, which
            networks that are read may have; see `own_parts`.

    Raises:
        UsageError: a file cannot be read or run, registers nothing, replaces something, or
            registers what cannot be chosen.
    """
    for path in paths:
        try:
            file = Path(path).resolve()
            file.is_file()
        except OSError as error:
            raise UsageError(f"--plugin {path}: {error.strerror}") from error
        if file not in _loaded:
            before = {kind: dict(table) for kind, table in tables.items()}
            module = _run(file, path)
            _check(path, before, tables, may_be_none=layers_suffice and bool(_parts(module)))
            _loaded[file] = module


def is_own(part: object) -> bool:
    """Whether a class or function was defined in a file that was run."""
    return getattr(part, "__module__", None) in {m.__name__ for m in _loaded.values()}


def own_parts() -> list[Any]:
    """Return the classes of layers and the functions in all files that were run.

    They are what a network that is read from a folder may have beside dualnet's own.
    """
    return [part for module in _loaded.values() for part in _parts(module)]


def _parts(module: ModuleType) -> list[Any]:
    """Return the classes of layers and the functions that a module itself has defined."""
    return [
        part
        for part in vars(module).values()
        if getattr(part, "__module__", None) == module.__name__
        and (inspect.isfunction(part) or (isinstance(part, type) and issubclass(part, Layer)))
    ]


def _run(file: Path, path: str) -> ModuleType:
    """Run a plugin.

    Raises:
        UsageError: there is no such file, or it raises an error.
    """
    if not file.is_file() or inspect.getmodulename(file.name) is None:
        raise UsageError(f"--plugin {path}: expected a Python file, FILE.py, found none")
    try:
        return run_file(file, f"dualnet_plugin_{file.stem}_{len(_loaded)}")
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"--plugin {path}: {_line(error, file)}{what}") from error


def _line(error: BaseException, file: Path) -> str:
    """Say at which line of a file an error arose; nothing if it was in none of them."""
    number, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            number = trace.tb_lineno
        trace = trace.tb_next
    return "" if number is None else f"line {number}: "


def _check(
    path: str,
    before: Mapping[str, Mapping[str, object]],
    tables: Mapping[str, Mapping[str, object]],
    may_be_none: bool,
) -> None:
    """Raise a UsageError unless a file has added something to the tables that can be chosen."""
    added = 0
    for kind, table in tables.items():
        for name, old in before[kind].items():
            if table.get(name) is not old:
                raise UsageError(
                    f"--plugin {path}: it replaces the {kind} {name!r}; register yours under "
                    "another name"
                )
        for name, new in table.items():
            if name in before[kind]:
                continue
            added += 1
            if not isinstance(name, str) or not name or name.split() != [name]:
                raise UsageError(f"--plugin {path}: expected a name without spaces, got {name!r}")
            _check_one(f"--plugin {path}: {kind} {name!r}", kind, new)
    if not added and not may_be_none:
        raise UsageError(
            f"--plugin {path}: it registers nothing; end it with a line such as "
            'RULES["name"] = Class'
        )


def _check_one(where: str, kind: str, new: object) -> None:
    """Raise a UsageError unless something can be chosen as such a kind."""
    if kind == "dataset":
        if not isinstance(new, Source):
            raise UsageError(f"{where}: expected a data.Source, got {new!r}")
        return
    family = FAMILIES.get(kind)
    if not isinstance(new, type) or (family is not None and not issubclass(new, family)):
        wanted = "class" if family is None else f"class that derives from {family.__name__}"
        raise UsageError(f"{where}: expected a {wanted}, got {new!r}")
    lacking = sorted(getattr(new, "__abstractmethods__", ()))
    if kind == "model" and not inspect.isfunction(getattr(new, "network", None)):
        lacking.append("network(self, in_shape, classes)")
    if lacking:
        raise UsageError(f"{where}: {new.__name__} lacks {', '.join(lacking)}")
    try:
        options_of(new)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
