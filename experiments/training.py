"""Trainings by `train.py`, as rows of an experiment: they go on where they were interrupted."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from dualnet.command import train as command
from dualnet.errors import DivergedError
from dualnet.naming import as_flags
from dualnet.training.run_folder import RunFolder
from dualnet.training.settings import Settings
from experiments.experiment import Form

CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
"""The columns of `metrics.csv` that a row keeps."""
QUICK = "--limit-train 32 --epochs 2"
QUICK_TEST = "--limit-test 32"
"""What makes a training short enough for the quick form; the second where no images of the training
set are held out to test on."""


@as_flags()
def trained(flags: str, form: Form) -> list[dict[str, Any]]:
    """Train with each of the form's seeds and return what each run has reached.

    The runs have a folder below `form.work`; where it is there already, from a call with the same
    settings, they go on from their checkpoints.

    Args:
        flags: of `train.py`, without seeds, backend and folders.
        form: in what form.

    Returns:
        For each seed `curves`, from a column of `metrics.csv` to a number for each epoch, and the
        last number of each column under its own name; `seconds`, of all epochs, whichever calls
        made them; `parameters`, `seconds_per_step`, and for a recipe `changed`, the settings that
        the flags changed.  A run that diverges has `diverged`, which says when, beside curves and
        seconds until then, and nothing else.

    Raises:
        UsageError, DataError, BackendError, Interrupted: see `dualnet.errors`.
    """
    how = ["--json"]  # standard output is for tables; what is shown on the way goes beside it
    if form.data_dir is not None:
        how += ["--data-dir", form.data_dir]
    if not sys.stderr.isatty():
        how.append("--quiet")
    argv = [*shlex.split(flags), "--backend", form.backend, *how]
    if form.quick:
        argv += shlex.split(QUICK if "--validation" in argv else f"{QUICK} {QUICK_TEST}")
    args = command.parse(argv)
    settings = command.settings_of(args)
    folder = RunFolder(form.work / _folder_name(flags, settings, form.seeds))
    try:
        if folder.seeds() is None:
            args.seeds = list(form.seeds)
            summary = command.trained(settings, folder, args)
        else:
            go_on = ["--resume", str(folder.path), *how]
            summary = command.resumed(command.parse(go_on))
    except DivergedError as error:  # all runs have
        summary = {"runs": [], "diverged": dict.fromkeys(form.seeds, str(error))}
    found = {one["seed"]: _reached(one) for one in summary["runs"]}
    found |= {seed: {"diverged": why} for seed, why in summary["diverged"].items()}
    return [{**found[seed], **_epochs(folder.of_seed(seed))} for seed in form.seeds]


def _folder_name(flags: str, settings: Settings, seeds: Sequence[int]) -> str:
    """Return a name that runs share only if all of their settings and their seeds are the same.

    So a run never goes on under settings, or on a backend, that are not those asked for.
    """
    resolved = json.dumps([settings.as_json(), list(seeds)], sort_keys=True)
    digest = hashlib.sha256(resolved.encode()).hexdigest()[:12]
    words = "-".join(re.findall(r"[\w.]+", flags))
    return f"{words[:80]}-{digest}"


def by_recipe(rows: list[dict]) -> dict[str, list[dict]]:
    """Return the results of all seeds, from the name of a recipe."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["settings"]["recipe"], []).append(row["results"])
    return found


def drawable(curve: list[float | None]) -> list[float]:
    """Return a curve of a row with nan where a number is not finite, which a picture leaves out."""
    return [math.nan if number is None else number for number in curve]


def percents(curve: list[float | None]) -> list[float]:
    """Return a curve of shares in %, drawable."""
    return [100 * share for share in drawable(curve)]


def _reached(summary: dict[str, Any]) -> dict[str, Any]:
    """Return what a row keeps of a run's summary."""
    changed = {"changed": summary["recipe"]["changed"]} if "recipe" in summary else {}
    names = (*CURVES, "epochs", "parameters", "seconds_per_step")
    return {**{name: summary[name] for name in names}, **changed}


def _epochs(folder: RunFolder) -> dict[str, Any]:
    """Return the `curves` in a run's `metrics.csv`, and its `seconds`.

    Before the first epoch ends, curves are empty.  Numbers have five significant digits; one that
    is not finite is None.
    """
    try:
        with open(folder.path / "metrics.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        rows = []
    return {
        "seconds": round(sum(float(row["seconds"]) for row in rows), 1),
        "curves": {name: [_rounded(float(row[name])) for row in rows] for name in CURVES},
    }


def _rounded(number: float) -> float | None:
    return float(f"{number:.5g}") if math.isfinite(number) else None
