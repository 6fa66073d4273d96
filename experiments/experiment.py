"""What an experiment is, and the runner that all of them share.

An experiment is a description: its rows, each by the settings that tell it from the others, and a
function that measures one.  The runner measures the rows that its file lacks and writes the file
after each of them, so that an interrupted experiment goes on where it stopped.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dualnet.console import say
from dualnet.errors import UsageError
from experiments.runs import require_writable

ROOT = Path(__file__).parent.parent
BACKENDS = ("numpy", "cupy")
SOURCE = ("dualnet", "experiments", "models", "train.py")
"""What results depend on."""

_ROW = {"settings", "seeds", "backend", "results"}
"""What every row has."""

Settings = dict[str, Any]
"""What tells a row from the others of its experiment: names and JSON values."""


@dataclass(frozen=True)
class Form:
    """In what form an experiment runs.

    Attributes:
        quick: whether it is a small form of seconds, which shows that everything works.
        seeds: the seeds of every row.
        backend: the name of a backend.
        only: rows whose settings do not contain this text are left out.
        data_dir: the folder of the data sets; None for where they are looked for by default.
        work: a folder where a row that takes long may keep what it has so far.
    """

    quick: bool
    seeds: tuple[int, ...]
    backend: str = "numpy"
    only: str = ""
    data_dir: str | None = None
    work: Path = Path("runs/experiments")


@dataclass(frozen=True)
class Experiment:
    """A table or figure that one command makes.

    Attributes:
        name: its name on the command line and of its files.
        shows: what it shows, in one line.
        source: the paper, and the figure or table.
        settings: returns the settings of every row, in the order of the table.
        measure: returns what a row found, as JSON values, from the row's settings; where each seed
            is a row, a list of that for each of the form's seeds.
        table: returns the rows as Markdown, with published figures and theory beside them.
        picture: returns the rows as a figure of matplotlib; None for an experiment without one.
        seeds: the seeds of the full form.
        quick_seeds: the seeds of the quick form.
        published: published figures and settings that the rows are compared with, as JSON values.
        backends: the backends that it can run on.
        each_seed: whether each seed is a row of its own, on whatever backend it is measured.  So
            it is with trainings: a seed more leaves the others as they are.
    """

    name: str
    shows: str
    source: str
    settings: Callable[[Form], list[Settings]]
    measure: Callable[[Settings, Form], Any]
    table: Callable[[list[dict]], str]
    picture: Callable[[list[dict]], Any] | None = None
    seeds: tuple[int, ...] = (0,)
    quick_seeds: tuple[int, ...] = (0,)
    published: dict[str, Any] = field(default_factory=dict)
    backends: tuple[str, ...] = ("numpy",)
    each_seed: bool = False

    def __post_init__(self) -> None:
        # The module that describes an experiment does nothing where it is itself what is run.
        run = getattr(sys.modules["__main__"], "__spec__", None)
        if run is not None and run.name == self.module:
            say(f"an experiment is run by its name: python -m experiments {self.name}", aside=True)
            sys.exit(UsageError.exit_code)

    @property
    def module(self) -> str:
        """The name of the module that describes it."""
        return f"experiments.{self.name.replace('-', '_')}"

    def form(self, quick: bool, seeds: Sequence[int] | None, backend: str, **more: Any) -> Form:
        """Return the form that the command line asks for; `more` are other fields of it.

        Raises:
            UsageError: a seed occurs twice, or the experiment cannot run on the backend.
        """
        if backend not in self.backends:
            raise UsageError(
                f"--backend: {self.name} runs on {', '.join(self.backends)}, got {backend!r}"
            )
        if seeds is not None and len(set(seeds)) < len(seeds):
            raise UsageError(f"--seeds: each seed may occur once, got {' '.join(map(str, seeds))}")
        usual = self.quick_seeds if quick else self.seeds
        return Form(quick, usual if seeds is None else tuple(seeds), backend, **more)


def run_experiment(experiment: Experiment, form: Form, out: Path) -> list[dict]:
    """Measure the rows that are missing and return all rows of this form, in order.

    A row has `settings`, `seeds`, `backend`, `results`, `seconds`, `machine`, `commit` and `date`.
    Where each seed is a row, those of the first seed come first, and a device measures all seeds
    of the same settings at once.

    Args:
        experiment: what to run.
        form: in what form.
        out: the folder of its file, which may exist already.  Rows of other forms stay in the file.

    Raises:
        UsageError: no row's settings contain `form.only`, the file is not this experiment's, or
            nothing can be written there.
    """
    path = file_of(experiment, form, out)
    known = {_identity(experiment, row): row for row in read_rows(experiment, path)}
    wanted = _wanted_rows(experiment, form)
    missing = [row for row in wanted if _identity(experiment, row) not in known]
    if missing:
        require_writable(path.parent)
    # Where standard error is a terminal, a bar shows how far the rows are.
    bar = tqdm(initial=len(wanted) - len(missing), total=len(wanted), disable=None)
    made_by = {"machine": machine(), "commit": commit()}
    for rows in _at_once(experiment, missing, form.backend):
        bar.set_description(_words(rows[0]["settings"]))
        seeds = form.seeds if not experiment.each_seed else [int(row["seeds"]) for row in rows]
        start = time.perf_counter()
        results = experiment.measure(rows[0]["settings"], replace(form, seeds=tuple(seeds)))
        seconds = round(time.perf_counter() - start, 3)
        for row, found in zip(rows, results if experiment.each_seed else [results], strict=True):
            known[_identity(experiment, row)] = {
                **row,
                "results": found,
                "seconds": seconds,
                **made_by,
                "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            }
        _write(experiment, path, list(known.values()))
        bar.update(len(rows))
    bar.close()
    return [known[_identity(experiment, row)] for row in wanted]


def missing_rows(experiment: Experiment, form: Form, out: Path) -> list[dict]:
    """Return the rows of this form that `run_experiment` would measure, without results."""
    known = {
        _identity(experiment, row) for row in read_rows(experiment, file_of(experiment, form, out))
    }
    return [
        row for row in _wanted_rows(experiment, form) if _identity(experiment, row) not in known
    ]


def known_rows(experiment: Experiment, form: Form, out: Path) -> list[dict]:
    """Return all measured rows of a form, also those that `form.only` leaves out."""
    rows = read_rows(experiment, file_of(experiment, form, out))
    known = {_identity(experiment, row): row for row in rows}
    wanted = _wanted_rows(experiment, replace(form, only=""))
    return [known[i] for row in wanted if (i := _identity(experiment, row)) in known]


def _wanted_rows(experiment: Experiment, form: Form) -> list[dict]:
    """Return the rows of a form, without results."""
    chosen = [s for s in experiment.settings(form) if form.only in _words(s)]
    if not chosen:
        raise UsageError(
            f"--only {form.only}: no row of {experiment.name} has that in its settings"
        )
    groups = [(seed,) for seed in form.seeds] if experiment.each_seed else [form.seeds]
    return [
        {"settings": settings, "seeds": named(seeds), "backend": form.backend}
        for seeds in groups
        for settings in chosen
    ]


def _at_once(experiment: Experiment, missing: list[dict], backend: str) -> list[list[dict]]:
    """Return the missing rows in groups that are measured at once."""
    if not experiment.each_seed or backend == "numpy":
        return [[row] for row in missing]
    groups: dict[str, list[dict]] = {}
    for row in missing:
        groups.setdefault(_words(row["settings"]), []).append(row)
    return list(groups.values())


def _words(settings: Settings) -> str:
    """Return settings as one line."""
    return " ".join(f"{name}={value}" for name, value in settings.items())


def file_of(experiment: Experiment, form: Form, out: Path) -> Path:
    """Return the file of an experiment's rows; quick rows have a file of their own."""
    return out / f"{experiment.name}{'-quick' if form.quick else ''}.json"


def read_rows(experiment: Experiment, path: Path) -> list[dict]:
    """Return the rows of a file; none where there is no file.

    Raises:
        UsageError: the file is not one of this experiment.
    """
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["experiment"] == experiment.name and all(map(_ROW.issubset, content["rows"])):
            return content["rows"]
    except (ValueError, KeyError, TypeError):
        pass  # it is no JSON, or none of ours
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    raise UsageError(
        f"{path} does not hold rows of {experiment.name}; move it away or choose another --out"
    )


def _identity(experiment: Experiment, row: dict) -> str:
    """Return what tells a row from all others, as text."""
    names = ("settings", "seeds") if experiment.each_seed else ("settings", "seeds", "backend")
    return json.dumps([row[name] for name in names], sort_keys=True)


def _write(experiment: Experiment, path: Path, rows: list[dict]) -> None:
    """Write the file, a line for each row; it is there either as before or as a whole."""
    head = {
        "experiment": experiment.name,
        "shows": experiment.shows,
        "source": experiment.source,
        "published": experiment.published,
    }
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    text = "".join(f" {json.dumps(name)}: {json.dumps(value)},\n" for name, value in head.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    draft.write_text(f'{{\n{text} "rows": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    os.replace(draft, path)


def named(seeds: Sequence[int]) -> str:
    """Return seeds as text: `0-4` for a range, `0, 3, 7` for others."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 2 and list(seeds) == list(range(first, last + 1)):
        return f"{first}-{last}"
    return ", ".join(map(str, seeds))


def machine() -> str:
    """Return on what the rows are measured."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"NumPy {np.__version__}"
    )


def commit() -> str:
    """Return the commit of the source, with a + behind it where files differ from it."""

    def git(*command: str) -> str:
        done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    changed = git("status", "--porcelain", "--", *SOURCE)
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def save_picture(experiment: Experiment, rows: list[dict], path: Path) -> bool:
    """Draw the rows into a file; return whether there is a picture.

    Without matplotlib, standard error says how to get it.
    """
    if experiment.picture is None:
        return False
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        print('no picture, as matplotlib is missing: pip install "dualnet[plot]"', file=sys.stderr)
        return False
    # Without the version of matplotlib in it, equal pictures are equal files.
    experiment.picture(rows).savefig(path, dpi=110, metadata={"Software": None})
    return True


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the mean of a figure over seeds, and the standard error of the mean.

    A single seed has no standard error: it is None.
    """
    array = np.asarray(values, np.float64)
    error = array.std(ddof=1) / np.sqrt(array.size) if array.size > 1 else None
    return {"mean": float(array.mean()), "error": None if error is None else float(error)}


def over_seeds(found: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the `spread` of each figure, from the figures of each seed."""
    return {name: spread([of_seed[name] for of_seed in found]) for name in found[0]}


def figure(found: dict[str, float], errors: bool = False) -> str:
    """Return a mean with three digits, and its standard error if asked for and known."""
    error = found["error"] if errors else None
    return short(found["mean"]) + ("" if error is None else f" ± {short(error)}")


def short(x: float) -> str:
    """Return a number with three significant digits, large ones with commas."""
    if x == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(x))))
    return f"{round(x, 2 - math.floor(math.log10(abs(x)))):,.{digits}f}"
