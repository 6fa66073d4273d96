"""Settings in a file: `dualnet train --config FILE.toml`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from dualnet.errors import UsageError
from dualnet.files import read_file
from dualnet.naming import did_you_mean
from dualnet.options import kinds_of, of_kind
from dualnet.training.resolve import ROUNDED, setting_kinds
from dualnet.training.settings import Tables

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BESIDE_SETTINGS = {
    "seeds": "list[int]",
    "data_dir": "str",
    "run_dir": "str",
    "checkpoint_every": "str | int",
    "plugin": "list[str]",
    "tensorboard": "bool",
    "json": "bool",
    "quiet": "bool",
}
"""What a file may say beside the settings of `setting_kinds`, and what it holds."""

LARGEST = 2**20
"""How many bytes a file of settings has at most."""

RIVALS = (("seed", "seeds"), ROUNDED)
"""Names of which one replaces the others."""


def read_toml(path: str) -> dict[str, Any]:
    """Return what a TOML file holds, with `_` for `-` in names.

    Raises:
        UsageError: the file cannot be read, is no TOML, or has a name twice.
    """
    try:
        found = tomllib.loads(read_file(path, LARGEST).decode("utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or 'it is no regular file'}") from error
    except RecursionError:
        raise UsageError(f"--config {path}: expected a TOML file, got deep nesting") from None
    except ValueError as error:  # also of TOMLDecodeError, and where text is not UTF-8
        raise UsageError(f"--config {path}: expected a TOML file, got {error}") from error
    values: dict[str, Any] = {}
    for written, value in found.items():
        name = written.replace("-", "_")
        if name in values:
            raise UsageError(f"{path}: {name} is there twice, with _ and with -; leave one out")
        values[name] = value
    return values


def plugins_in(values: Mapping[str, Any], path: str | None) -> list[str]:
    """Return the plugins that a file names, which are loaded before the rest can be checked."""
    return of_kind(str(path), "plugin", values.get("plugin", []), BESIDE_SETTINGS["plugin"])


def checked(values: Mapping[str, Any], path: str, tables: Tables) -> dict[str, Any]:
    """Return what a file says, once it is known to be settings and values of their kinds.

    Args:
        values: as `read_toml` returns them.
        path: of the file, for messages.
        tables: what there is to choose from.

    Raises:
        UsageError: a name that there is not, or a value of the wrong kind.
    """
    kinds = setting_kinds(tables) | BESIDE_SETTINGS
    for name in values:
        if name not in kinds:
            raise UsageError(f"{path}: there is no setting {name!r}{did_you_mean(name, kinds)}")
    for name in ("data_dir", "run_dir"):
        if values.get(name) == "":
            raise UsageError(f"{path}: {name}: expected the name of a folder, got ''")
    return {name: of_kind(path, name, v, kinds[name]) for name, v in values.items()}


def overruled(file: Mapping[str, Any], flags: Mapping[str, Any], tables: Tables) -> dict[str, Any]:
    """Return what remains of a file's settings beside the flags that are given.

    A flag replaces the setting of its name.  A flag that chooses another rule, or another model,
    also does away with the options of the one in the file.
    """
    gone = set(flags)
    for names in RIVALS:
        if gone & set(names):
            gone |= set(names)
    for kind, table in tables.items():
        chosen = file.get(kind, "")
        if chosen in table and flags.get(kind, chosen) != chosen:
            gone |= kinds_of(table[chosen]).keys()
    return {name: value for name, value in file.items() if name not in gone}
