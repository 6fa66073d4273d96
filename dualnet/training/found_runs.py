"""Runs as their folders have them, finished or not: settings, the figures of epochs, the outcome.

| file | if it is missing |
| --- | --- |
| `config.json` | there is no run, or a seed that has not begun |
| `checkpoint.npz` | the figures are those in `metrics.csv` |
| `metrics.csv` | no epoch was done |
| `summary.json` | the run has not reached its last epoch: it was stopped, goes on, or diverged |
| `diverged.json` | it has not diverged |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dualnet.errors import UsageError
from dualnet.files import read_file
from dualnet.options import is_int
from dualnet.training.bad_files import damaged, in_message, unreadable
from dualnet.training.history import fault_of
from dualnet.training.json_files import read_json
from dualnet.training.restored import history_in
from dualnet.training.run_folder import CHECKPOINT, COLUMNS, DIVERGED, NETWORK, RunFolder
from dualnet.training.settings import Settings

_MOST_BYTES = 8 << 20
"""Of `metrics.csv`: more than 100,000 epochs."""
_TESTED_ON = ("test", "validation", "training")
"""What a run may have been tested on."""


@dataclass(frozen=True, eq=False)
class FoundRun:
    """A run of one seed.

    Attributes:
        settings: all choices.
        history: `(epochs, columns)`, rows in the order of `COLUMNS`.
        finished: whether it has reached its last epoch.
        tested_on: `test`, `validation` or `training`; None if no file says it.
        diverged: why it has diverged, if a file says so.
        data: the fingerprint of the data; None if no file says it.
    """

    settings: Settings
    history: np.ndarray
    finished: bool = False
    tested_on: str | None = None
    diverged: str | None = None
    data: str | None = None

    def column(self, name: str) -> np.ndarray:
        """Return a column of the history, `(epochs,)`."""
        return self.history[:, COLUMNS.index(name)]


def found_runs(path: Path) -> tuple[FoundRun, ...]:
    """Return the run in a folder, or the run of each of several seeds.

    Raises:
        UsageError: there is no run, or the folder cannot be read.
        DataError: a file is damaged.
    """
    folder = RunFolder(path)
    seeds = folder.seeds()
    if seeds is None:
        if (config := _config(path)) is None:
            raise UsageError(f"{path}: no run there ({_what_is_there(path)})")
        return (_found_run(path, *config),)
    config_of = {seed: _config(folder.of_seed(seed).path) for seed in seeds}
    begun = next((one for one in config_of.values() if one is not None), None)
    if begun is None:
        raise UsageError(f"{path}: none of its seeds has begun")
    settings, _ = begun
    return tuple(
        FoundRun(replace(settings, seed=seed), np.zeros((0, len(COLUMNS))))
        if one is None
        else _found_run(folder.of_seed(seed).path, *one)
        for seed, one in config_of.items()
    )


def _found_run(path: Path, settings: Settings, data: str | None) -> FoundRun:
    history = _history(path, settings)
    file = path / "summary.json"
    summary = read_json(file, finite=False)
    if summary is None:
        return FoundRun(settings, history, diverged=_diverged(path / DIVERGED), data=data)
    if not is_int(epochs := summary.get("epochs")):
        raise damaged(file, f"epochs: expected an int, got {epochs!r}")
    # A run that was given more epochs and goes on has the summary of fewer.
    finished = bool(len(history)) and len(history) in (epochs, settings.epochs)
    tested_on = summary.get("tested_on")
    if tested_on not in (None, *_TESTED_ON):
        expected = f"expected one of {', '.join(_TESTED_ON)}, got {tested_on!r}"
        raise damaged(file, f"tested_on: {expected}")
    return FoundRun(settings, history, finished, tested_on, _diverged(path / DIVERGED), data)


def _config(path: Path) -> tuple[Settings, str | None] | None:
    """Return settings and fingerprint of the data in `config.json`; None if there is no file."""
    file = path / "config.json"
    if (data := read_json(file)) is None:
        return None
    try:
        if not isinstance(data.get("settings"), dict):
            raise ValueError("it holds no settings")
        if not isinstance(of_data := data.get("data"), (str, type(None))):
            raise ValueError("data: expected the fingerprint of the data")
        return Settings.from_json(data["settings"]), of_data
    except (ValueError, TypeError) as error:
        raise damaged(file, error) from error


def _diverged(file: Path) -> str | None:
    """Return why a run has diverged, in one line; None if there is no file that says it."""
    if (data := read_json(file)) is None:
        return None
    if not isinstance(why := data.get("why"), str):
        raise damaged(file, "it does not say why the run has diverged")
    return in_message(why)


def _history(path: Path, settings: Settings) -> np.ndarray:
    """Return the figures of all epochs, which a checkpoint has exactly, and with a checksum."""
    folder = RunFolder(path)
    exact = folder.holds(CHECKPOINT)
    file = path / (CHECKPOINT if exact else "metrics.csv")
    history = history_in(folder, settings.epochs) if exact else _metrics(file)
    if (fault := fault_of(history, settings.objective != "regression", exact)) is not None:
        raise damaged(file, fault)
    return history


def _metrics(file: Path) -> np.ndarray:
    """Return the rows of `metrics.csv`, none if there is no such file."""
    try:
        heading, *lines = read_file(file, _MOST_BYTES).decode("utf-8").splitlines() or [""]
    except (FileNotFoundError, NotADirectoryError):
        return np.zeros((0, len(COLUMNS)))
    except OSError as error:
        raise unreadable(file, error) from error
    except ValueError as error:
        raise damaged(file, error) from error
    if heading != ",".join(COLUMNS):
        raise damaged(file, f"expected {','.join(COLUMNS)} first, got {heading[:200]!r}")
    rows = []
    for epoch, line in enumerate(lines, start=1):
        try:
            row = [float(x) for x in line.split(",")]
        except ValueError:
            row = []
        if len(row) != len(COLUMNS) or row[0] != epoch:
            raise damaged(
                file,
                f"line {epoch + 1}: expected {len(COLUMNS)} numbers, the first of them {epoch}, "
                f"got {line[:100]!r}",
            )
        rows.append(row)
    return np.array(rows).reshape(-1, len(COLUMNS))


def _what_is_there(path: Path) -> str:
    """Say what a folder without a run is."""
    if not path.exists():
        return "there is no such folder"
    if not path.is_dir():
        return "it is a file; name the folder of the run"
    if (path / "rates.json").exists():
        return "it is a search for a learning rate"
    if (path / NETWORK).exists():
        return "it is a network that was saved without its figures"
    inside = sorted(one.parent.name for one in path.glob("*/config.json"))
    if inside:
        return f"there are {len(inside)} in it, such as {path / inside[0]}"
    return "no config.json"
