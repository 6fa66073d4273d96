"""Runs beside one another, read from their folders: a table, and the same as JSON.

A run that is not finished, or has diverged, has no summary; it is compared by the epochs that it
has.  `pictures.comparison.draw_comparison` draws the curves.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualnet.console import WIDTH
from dualnet.data.arrays import NAME as ARRAYS
from dualnet.errors import UsageError
from dualnet.naming import named
from dualnet.training.differences import Chosen, in_words, names_of, shared_and_own
from dualnet.training.found_runs import FoundRun, found_runs
from dualnet.training.history import FIGURES, best_epoch
from dualnet.training.settings import Settings
from dualnet.training.spread import Spread


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A run, with one seed or several.

    Attributes:
        name: what sets it apart from the others.
        folder: where it is.
        own: the settings that set it apart.
        settings: all of them, with the first seed.
        seeds: a run for each seed.
    """

    name: str
    folder: str
    own: Chosen
    settings: Settings
    seeds: tuple[FoundRun, ...]

    @property
    def counted(self) -> list[FoundRun]:
        """The seeds that figures are taken of: they have not diverged, and have an epoch."""
        return [one for one in self.seeds if one.diverged is None and len(one.history)]

    @property
    def diverged(self) -> list[FoundRun]:
        """The seeds that have diverged."""
        return [one for one in self.seeds if one.diverged is not None]

    @property
    def of_classes(self) -> bool:
        """Whether it learns classes; real targets have no accuracy."""
        return self.settings.objective != "regression"

    @property
    def tangents(self) -> int | None:
        """k, the directions of a pass; None for rules without."""
        return self.settings.rule_options.get("tangents")

    @property
    def test_images(self) -> tuple[Any, ...]:
        """Which images it is tested on; it is equal for runs that are tested on the same."""
        one = self.settings
        if one.validation is not None:
            return ("validation", one.validation, one.limit_train)
        return (self.tested_on, one.limit_test)

    @property
    def part_of_data(self) -> tuple[Any, ...]:
        """Which part of its data set it has, and how large images are: settings that change what
        the fingerprint of one data set is."""
        one = self.settings
        return (one.limit_train, one.limit_test, one.validation, one.image_size)

    @property
    def data(self) -> str | None:
        """The fingerprint of its data; None if no file says it."""
        return next((one.data for one in self.seeds if one.data is not None), None)

    @property
    def tested_on(self) -> str:
        """What it is tested on: `test`, `validation` or `training` images."""
        told = next((one.tested_on for one in self.seeds if one.tested_on), None)
        return told or ("test" if self.settings.validation is None else "validation")

    def last(self, column: str) -> Spread:
        """Return a column of `metrics.csv` after the last epoch, over the counted seeds."""
        return Spread.of([one.column(column)[-1].item() for one in self.counted])

    @property
    def best_epochs(self) -> list[int]:
        """The epoch of the lowest test loss of each counted seed."""
        return [best_epoch(one.history) for one in self.counted]

    @property
    def epochs(self) -> list[int]:
        """The epochs that each counted seed has done."""
        return [len(one.history) for one in self.counted]

    @property
    def seconds(self) -> float | None:
        """How long all epochs have taken, without tests; of several seeds the longest."""
        return max((float(one.column("seconds").sum()) for one in self.counted), default=None)

    @property
    def seconds_per_epoch(self) -> float | None:
        """How long an epoch has taken in the mean; of several seeds the longest."""
        return max((float(one.column("seconds").mean()) for one in self.counted), default=None)

    def curve(self, column: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return mean and sample deviation over seeds, `(epochs,)`, in the epochs that all have.

        The deviation is None for one seed.  Where all seeds have diverged, it is their curves.
        """
        runs = self.counted or [one for one in self.seeds if len(one.history)]
        if not runs:
            return np.zeros(0), None
        shared = min(len(one.history) for one in runs)
        curves = np.stack([one.column(column)[:shared] for one in runs])
        with np.errstate(invalid="ignore"):  # of infinite losses there is no deviation
            return curves.mean(0), curves.std(0, ddof=1) if len(curves) > 1 else None


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare_runs` returns.

    Attributes:
        runs: from the best to the worst if `ranked_by` says by what, else as they were given.
        shared: the settings that all share.
        ranked_by: `test_accuracy` or `test_loss`; None where runs cannot be ranked.
        notes: what a reader must know, such as why runs cannot be ranked, and who has diverged.
    """

    runs: tuple[ComparedRun, ...]
    shared: Chosen
    ranked_by: str | None
    notes: tuple[str, ...]

    @property
    def tested_on(self) -> str:
        """What the runs are tested on, for headings: `test`, or `test or validation`."""
        return " or ".join(dict.fromkeys(one.tested_on for one in self.runs))

    def table(self) -> str:
        """Return a table that fits 80 columns, with what all runs share above it."""
        columns = [
            c for c in _columns(self.tested_on) if any(c[1](one) != "-" for one in self.runs)
        ]
        cells = [[heading for heading, _ in columns]]
        cells += [[cell(one) for _, cell in columns] for one in self.runs]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        heading, *lines = ("  ".join(map(str.rjust, line, widths)) for line in cells)
        names = [one.name for one in self.runs]
        room = max(map(len, [*names, "run"]))
        text = [] if not self.shared else [_filled(f"all: {in_words(self.shared)}"), ""]
        if room + 2 + len(heading) <= WIDTH:
            rows = zip(["run", *names], [heading, *lines], strict=True)
            text += [f"{name:{room}}  {line}" for name, line in rows]
        else:  # a name has a line of its own above its figures
            text.append(f"    {heading}")
            for name, line in zip(names, lines, strict=True):
                text += [_filled(name), f"    {line}"]
        return "\n".join([*text, "", *map(_filled, (*self.notes, *self._legend()))])

    def _legend(self) -> list[str]:
        order = "" if self.ranked_by is None or len(self.runs) < 2 else "Best first. "
        over = " (mean ± sample deviation over seeds)"
        several = over if any(len(one.counted) > 1 for one in self.runs) else ""
        k = "; k: directions of a pass" if any(one.tangents for one in self.runs) else ""
        return [
            f"{order}Figures are those of the last epoch{several}; best: the epoch of the lowest "
            f"loss; seconds: of training, in all and for an epoch{k}."
        ]

    def as_json(self) -> dict[str, Any]:
        """Return all of it as a dict; figures that there are not are None."""
        return {
            "shared": self.shared,
            "ranked_by": self.ranked_by,
            "notes": list(self.notes),
            "runs": [_as_json(one) for one in self.runs],
        }


def compare_runs(folders: Sequence[str | Path]) -> Comparison:
    """Compare the runs in some folders.

    Args:
        folders: each of a run, or of a run with several seeds.

    Raises:
        UsageError: a folder has no run, or is given twice.
        DataError: a file of a run is damaged.
    """
    if isinstance(folders, (str, Path)):
        raise UsageError(f"compare_runs: expected a list of folders, got {str(folders)!r} alone")
    paths = [str(folder) for folder in folders]
    if not paths:
        raise UsageError(f"{named('runs', 'compare_runs')}: expected one folder or more, got none")
    for i, path in enumerate(paths):
        if Path(path).resolve() in (Path(other).resolve() for other in paths[:i]):
            raise UsageError(f"{path} is given twice")
    found = [found_runs(Path(path)) for path in paths]
    settings = [one[0].settings for one in found]
    shared, own = shared_and_own(settings)
    seeds = [[run.settings.seed for run in one] for one in found]
    names = names_of(settings, own, seeds, paths)
    runs = tuple(map(ComparedRun, names, paths, own, settings, found))
    why_not, ranked_by = _ranked_by(runs)
    notes = [*why_not, *(note for one in runs for note in _notes(one))]
    if ranked_by is not None:
        runs = tuple(sorted(runs, key=lambda one: _place(one, ranked_by)))
    return Comparison(runs, shared, ranked_by, tuple(notes))


def _ranked_by(runs: Sequence[ComparedRun]) -> tuple[list[str], str | None]:
    """Return what must be said of the order, and by which figure runs are ranked, None for none."""
    datasets = list(dict.fromkeys(one.settings.dataset for one in runs))
    if len(datasets) > 1:
        return [f"Not ranked: the data sets differ ({', '.join(datasets)})."], None
    known = {(one.part_of_data, one.data) for one in runs if one.data is not None}
    if len(known) > len({part for part, _ in known}):
        return [
            "Not ranked: the runs learned from different data, as their fingerprints say."
        ], None
    if len({one.test_images for one in runs}) > 1:
        return ["Not ranked: the runs were tested on different images."], None
    if len({one.of_classes for one in runs}) > 1:
        return ["Not ranked: some learn classes, others real targets."], None
    notes = []
    if datasets == [ARRAYS] and None in {one.data for one in runs} and len(runs) > 1:
        notes = ["The runs learned from arrays, which are taken to be the same for all."]
    return notes, "test_accuracy" if runs[0].of_classes else "test_loss"


def _place(run: ComparedRun, ranked_by: str) -> float:
    """Return a number that is the lower the better the run."""
    mean = run.last(ranked_by).mean
    if mean is None:
        return math.inf
    return -mean if ranked_by == "test_accuracy" else mean


def _notes(run: ComparedRun) -> list[str]:
    """Return a sentence for each seed that has not reached its last epoch."""
    notes = []
    for one in run.seeds:
        who = run.name if len(run.seeds) == 1 else f"{run.name}: seed {one.settings.seed}"
        done = f"{len(one.history)} of {one.settings.epochs} epochs"
        if one.diverged is not None:
            notes.append(f"{who} {one.diverged.partition(';')[0]}.")
        elif not one.finished:
            notes.append(f"{who} is not finished: it has {done}.")
    return notes


Cell = Callable[[ComparedRun], str]


def _columns(tested_on: str) -> list[tuple[str, Cell]]:
    """Return the columns of the table: a heading, and what a run has there, `-` for nothing."""
    accuracy: Cell = lambda one: one.last("test_accuracy").in_words(".4f")  # noqa: E731
    return [
        (f"{tested_on} accuracy", accuracy),
        (
            f"{tested_on} loss",
            lambda one: "-" if one.of_classes else one.last("test_loss").in_words(".4g"),
        ),
        ("best", lambda one: _range(one.best_epochs)),
        ("epochs", lambda one: _range(one.epochs)),
        ("seconds", lambda one: _seconds(one.seconds)),
        ("each", lambda one: _seconds(one.seconds_per_epoch)),
        ("k", lambda one: "-" if one.tangents is None else str(one.tangents)),
        ("seeds", lambda one: str(len(one.seeds))),
        ("diverged", lambda one: str(len(one.diverged) or "-")),
    ]


def _range(numbers: Sequence[int]) -> str:
    """Return a number, or the lowest and the highest of several."""
    if not numbers:
        return "-"
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _as_json(run: ComparedRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "folder": run.folder,
        "settings": run.own,
        **{name: vars(run.last(name)) for name in FIGURES},
        "best_epochs": run.best_epochs,
        "epochs": run.epochs,
        "seconds": run.seconds,
        "seconds_per_epoch": run.seconds_per_epoch,
        "tangents": run.tangents,
        "tested_on": run.tested_on,
        "seeds": [one.settings.seed for one in run.seeds],
        "diverged": {str(one.settings.seed): one.diverged for one in run.diverged},
        "unfinished": [
            one.settings.seed for one in run.seeds if one.diverged is None and not one.finished
        ],
    }
