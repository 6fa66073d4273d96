"""A run folder: what it holds, and how it is read and written without ever being half written.

| file | what |
| --- | --- |
| `config.json` | every setting resolved, a fingerprint and the place of the data, versions |
| `metrics.csv` | a row for each epoch |
| `gradients.csv` | how gradients are aligned with the exact ones, if asked for |
| `checkpoint.npz` | everything that is needed to go on: arrays only, never pickled objects |
| `network.json` | the layers, and how examples become numbers: what `load_run` needs to predict |
| `best.npz` | parameters and network state after the epoch of the lowest test loss; likewise |
| `summary.json` | the outcome |
| `diverged.json` | in its place: when the run has diverged, and where it began |
| `.lock` | who has the folder, while a run goes on |
| `curve.png` | loss and accuracy, if matplotlib is installed |
| `gradients.png` | what `gradients.csv` has, likewise |
| `tensorboard/` | the figures of epochs for TensorBoard, if the command line asks for them |

Settings, seeds and networks are sealed by a digest; see `json_files`.

Runs of several seeds have a folder each, `seed-0` and so on, in a folder with two files:

| file | what |
| --- | --- |
| `seeds.json` | the seeds and their settings, and where data and plugins were |
| `summary.json` | the outcome of all runs |

A search for a learning rate has a folder with two files:

| file | what |
| --- | --- |
| `rates.json` | the figures of each rate, the choice, and every setting |
| `rates.png` | loss and accuracy against the rate, if matplotlib is installed |
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from dualnet.console import say
from dualnet.errors import DataError, UsageError
from dualnet.files import make_names_durable, sweep, write_file
from dualnet.locks import FolderLock
from dualnet.naming import assigned, command_line_calls, resumed
from dualnet.options import of_kind
from dualnet.training.bad_files import damaged
from dualnet.training.checkpoint import read_checkpoint, write_checkpoint
from dualnet.training.checkpoint_interval import USUAL_INTERVAL
from dualnet.training.json_files import SEALED, read_json, sealed
from dualnet.training.settings import Settings
from dualnet.training.surroundings import surroundings
from dualnet.tree import Tree

COLUMNS = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "lr", "seconds")
GRADIENT_COLUMNS = ("step", "layer", "cosine", "angle", "norm_ratio")

CHECKPOINT, BEST, NETWORK = "checkpoint.npz", "best.npz", "network.json"
DIVERGED, SUMMARY = "diverged.json", "summary.json"

WHERE: dict[str, tuple[str, Any]] = {
    "data_dir": ("str | None", None),
    "plugin": ("list[str]", []),
    "checkpoint_every": ("str", USUAL_INTERVAL),
}
"""What a folder remembers beside settings → what it holds, and what it is if nothing was said."""

_RUN, _RUNS = "a run", "runs of several seeds"
_HELD = {
    "config.json": _RUN,
    "seeds.json": _RUNS,
    "rates.json": "a search for a learning rate",
    NETWORK: "a network",
    CHECKPOINT: "a network",
    BEST: "a network",
    "metrics.csv": "figures",
    SUMMARY: "a summary",
}
"""A file that would be replaced, or says that a folder is used → what such a folder holds."""

_NEW_RUN = "start the run anew"
_START_ANEW = "start the run anew in another folder"
_REMEDIES = {
    CHECKPOINT: _START_ANEW,
    BEST: "delete it to go on without it; a better epoch writes it again",
}


class RunFolder:
    """The files of one run, which one process at a time has to itself while it writes them.

    Args:
        path: the folder, which is made when it is first written to.
        where: what `where` returns from now on; None for what the folder's files say.
    """

    def __init__(self, path: str | Path, where: Mapping[str, Any] | None = None):
        self.path = Path(path)
        self._where = where
        self._lock: FolderLock | None = None
        self._made_here: list[Path] = []

    @classmethod
    def new(cls, path: Path, where: Mapping[str, Any] | None = None) -> RunFolder:
        """Make a folder that no other run has, with a number behind its name if it is taken."""
        for n in itertools.count(1):
            folder = cls(path if n == 1 else path.with_name(f"{path.name}-{n}"), where)
            if folder.make():
                return folder
        raise AssertionError

    def remember(self, beside: Mapping[str, Any]) -> None:
        """Let `where` return other values from now on, those given here by their names."""
        self._where = {**self.where(), **beside}

    def make(self) -> bool:
        """Make the folder if it is not there, and return whether it was made."""
        with self._errors_named():
            missing = [one for one in (self.path, *self.path.parents) if not one.exists()]
            for above in reversed(missing[1:]):  # `parents=True` would recurse for each
                above.mkdir(exist_ok=True)
            try:
                self.path.mkdir()
            except FileExistsError:
                if not self.path.is_dir():
                    raise
                return False
            self._made_here = missing
            for made in missing:
                make_names_durable(made.parent)
            return True

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Have the folder for one run alone; it is made if it is not there.

        What a killed run has left half-written is deleted.  Folders that were made for a run that
        then wrote nothing are deleted, too.  Within, it may be claimed again.

        Raises:
            UsageError: another run has the folder, or it cannot be made.
        """
        if self._lock is not None:
            yield
            return
        try:
            self._lock = lock = self._locked()
            if not lock.holds:
                text = f"{self.path}: its file system has no locks; start no other run in it"
                say(text, aside=True)
            try:
                sweep(self.path)
                yield
            finally:
                self._lock = None
                lock.release()
        finally:
            with suppress(OSError):  # it is not empty
                for made in self._made_here:
                    made.rmdir()

    def _locked(self) -> FolderLock:
        """Return the lock of the folder, which is made if it is not there."""
        with self._errors_named():
            while True:
                self.make()
                try:
                    return FolderLock(self.path)
                except FileNotFoundError:  # a run that wrote nothing has deleted it just now
                    continue
                except BlockingIOError as error:
                    raise UsageError(
                        f"{assigned('run_dir', self.path)} is in use: {error}; wait until it ends, "
                        "or choose another folder"
                    ) from None

    def write_seeds(self, settings: Settings, seeds: Sequence[int]) -> None:
        """Write `seeds.json` for runs of several seeds."""
        found = {"seeds": list(seeds), "settings": settings.as_json(), "where": self.where()}
        self.write_json("seeds.json", found)

    def of_seed(self, seed: int) -> RunFolder:
        """Return the folder of one run of several seeds."""
        return RunFolder(self.path / f"seed-{seed}", self._where)

    def seeds(self) -> list[int] | None:
        """Return the seeds in `seeds.json`; None if this is no folder of several seeds.

        Raises:
            DataError: the file is damaged or cannot be read.
        """
        file, remedy = self.path / "seeds.json", "start the runs anew"
        if (data := read_json(file, remedy)) is None:
            return None
        seeds = data.get("seeds")
        if not isinstance(seeds, list) or not seeds or any(type(one) is not int for one in seeds):
            raise damaged(file, "it holds no seeds", remedy)
        if len(set(seeds)) < len(seeds):
            raise damaged(file, "it holds a seed twice", remedy)
        return seeds

    def held(self) -> str | None:
        """Return what the folder holds that nothing may replace; None for nothing.

        Raises:
            UsageError: the folder cannot be read.
        """
        with self._errors_named():
            return next((what for name, what in _HELD.items() if (self.path / name).exists()), None)

    def require_unused(self) -> None:
        """Raise a UsageError if the folder holds a run or the like already, or cannot be read."""
        if (held := self.held()) is None:
            return
        go_on = ""
        if held == _RUN:
            go_on = f"go on with it by {resumed(self.path)}, or "
        if held == _RUNS:  # which only the command line goes on with
            command = "" if command_line_calls() else "dualnet train "
            go_on = f"go on with them by {command}--resume {self.path}, or "
        raise UsageError(
            f"{assigned('run_dir', self.path)} holds {held} already; {go_on}choose another folder"
        )

    def has_begun(self) -> bool:
        """Whether a run was made here, so that it goes on from its checkpoint.

        One that was killed before its first checkpoint begins anew.
        """
        return self.holds(CHECKPOINT) or self.holds("metrics.csv")

    def write_settings(self, settings: Settings, data: str) -> None:
        """Write `config.json`.

        Args:
            settings: of the run.
            data: the fingerprint of its data set.
        """
        beside = {"data": data, "where": self.where(), **surroundings()}
        self.write_json("config.json", {"settings": settings.as_json(), **beside})

    def began_with(self) -> dict[str, Any]:
        """Return what `config.json` holds beside settings: fingerprint of the data, surroundings.

        Raises:
            DataError: the file is missing or damaged.
        """
        file = self.path / "config.json"
        if (found := read_json(file, _NEW_RUN)) is None:
            raise DataError(f"{file}: expected what the run began with, found no file; {_NEW_RUN}")
        return found

    def where(self) -> dict[str, Any]:
        """Return where the data and the plugins of the run were: values of `WHERE`.

        They are text that may have come with the folder from somebody else, so that no plugin may
        be run because it stands there.

        Raises:
            UsageError: the folder's files say something else.
        """
        if self._where is not None:
            return dict(self._where)
        found: Any = {}
        for file in (self.path / "config.json", self.path / "seeds.json"):
            with suppress(DataError):  # `settings` and `seeds` tell of damage
                data = read_json(file) or {}
                if "where" in data:
                    found = data["where"]
                    break
        found = of_kind(str(file), "where", found, "dict[str, Any]")
        at = f"{file}: where"
        return {n: of_kind(at, n, found.get(n, usual), kind) for n, (kind, usual) in WHERE.items()}

    def settings(self, check: Callable[[Settings], None] = lambda _: None) -> Settings:
        """Return the settings in `config.json`, or in `seeds.json` of several seeds.

        Args:
            check: raises a UsageError if a name or an option in settings does not exist; without
                it, names and options are taken as they are.

        Raises:
            UsageError: there is no such run, or it cannot be read.
            DataError: the file is damaged.
        """
        of_seeds = self.holds("seeds.json")
        file = self.path / ("seeds.json" if of_seeds else "config.json")
        if (data := read_json(file, _NEW_RUN)) is None:
            raise UsageError(f"{resumed(self.path)}: no run there (no config.json)")
        try:
            if not isinstance(data.get("settings"), dict):
                raise ValueError("it holds no settings")
            settings = Settings.from_json(data["settings"])
            check(settings)
        except (ValueError, TypeError) as error:
            raise damaged(file, error, _NEW_RUN) from error
        return settings

    def write_rates(self, found: dict[str, Any], settings: Settings) -> None:
        """Make the folder and write `rates.json`, what was found with these settings.

        Raises:
            UsageError: the folder cannot be made or written to.
        """
        self.make()
        self.write_json("rates.json", {**found, "settings": settings.as_json(), **surroundings()})

    def write_json(self, name: str, data: dict[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        data = sealed(data) if name in SEALED else data
        self._replace(name, (json.dumps(data, indent=2) + "\n").encode())

    def summary(self) -> dict[str, Any] | None:
        """Return what `summary.json` holds; None if it is missing or damaged, so that it is of no
        use: all but times and memory is known from elsewhere."""
        try:
            return read_json(self.path / "summary.json", finite=False)
        except (DataError, UsageError):
            return None

    def write_metrics(self, rows: np.ndarray) -> None:
        """Write `metrics.csv` from rows in the order of `COLUMNS`."""
        lines = [",".join(COLUMNS)]
        lines += [",".join([str(int(row[0])), *(f"{x:.6g}" for x in row[1:])]) for row in rows]
        self._replace("metrics.csv", ("\n".join(lines) + "\n").encode(), durable=False)

    def write_gradients(self, layers: list[str], every: int, comparisons: np.ndarray) -> None:
        """Write `gradients.csv`.

        Args:
            layers: the names of what is compared: the paths of the leaves, and the total.
            every: steps from one comparison to the next; the column `step` counts from 0.
            comparisons: `(comparisons, layers, 3)`: cosine, angle in degrees, norm ratio.
        """
        lines = [",".join(GRADIENT_COLUMNS)]
        for i, rows in enumerate(comparisons):
            for layer, numbers in zip(layers, rows, strict=True):
                lines.append(",".join([str(i * every), layer, *(f"{x:.6g}" for x in numbers)]))
        self._replace("gradients.csv", ("\n".join(lines) + "\n").encode(), durable=False)

    def write_checkpoint(self, trees: dict[str, Tree], name: str = CHECKPOINT) -> None:
        """Write trees by their names to the file `CHECKPOINT` or `BEST`, whole or not at all."""
        with self._errors_named():
            write_checkpoint(self.path / name, trees)

    def read_checkpoint(
        self, like: dict[str, Tree], name: str = CHECKPOINT, **how: Any
    ) -> dict[str, Tree]:
        """Return the trees in the file `CHECKPOINT` or `BEST`; see `checkpoint.read_checkpoint`."""
        return read_checkpoint(self.path / name, like, _REMEDIES[name], **how)

    def damaged(self, name: str, why: str) -> DataError:
        """Return the error for a file `CHECKPOINT` or `BEST` that holds what cannot be."""
        return damaged(self.path / name, why, _REMEDIES[name])

    def holds(self, name: str) -> bool:
        """Return whether the folder has a file of this name."""
        return (self.path / name).exists()

    def remove(self, name: str) -> None:
        """Delete a file of the run."""
        with self._errors_named():
            (self.path / name).unlink()

    def _replace(self, name: str, content: bytes, durable: bool = True) -> None:
        """Write a file whole or not at all; see `write_file`."""
        with self._errors_named():
            write_file(self.path / name, content, durable)

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        """Turn an OSError (no permission, a full disk) into a UsageError that names the folder."""
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"{assigned('run_dir', self.path)}: {error.strerror or error}"
            ) from error
        except ValueError as error:  # of a name with a character NUL
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"{assigned('run_dir', self.path)}: {error}") from error
