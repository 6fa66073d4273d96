"""`dualnet evaluate RUN`: how good the answers of a trained network are."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from dualnet import data
from dualnet.command.network import (
    network_in,
    network_parser,
    require_one_run,
    run_own_files,
)
from dualnet.console import answer
from dualnet.data import Dataset
from dualnet.data.array_files import read_arrays
from dualnet.errors import UsageError
from dualnet.naming import about, as_flags, counted, did_you_mean
from dualnet.training.flags import WHAT_TO_LEARN
from dualnet.training.run_folder import DIVERGED, RunFolder
from dualnet.training.score_tables import class_table, mistakes_table
from dualnet.training.scores import Scores
from dualnet.training.spread import Spread
from dualnet.training.trained import Trained

DESCRIPTION = (
    "Print loss, accuracy, the scores of each class, and which classes are taken for which.  Of "
    "the folder of several seeds: mean and sample deviation."
)


@as_flags()
def main(argv: list[str], program: str) -> None:
    """Print the scores of a network, or of the networks of several seeds.

    Raises:
        UsageError, DataError, BackendError: see `dualnet.errors`.
    """
    parser = network_parser(program, DESCRIPTION)
    parser.add_argument(
        "--data",
        metavar="NAME",
        help="a data set, of which the test images are taken, or a file FILE.npz with the arrays "
        "x, the examples, and y, their classes; default the data set of the run",
    )
    parser.add_argument("--data-dir", **WHAT_TO_LEARN["--data-dir"])
    parser.add_argument(
        "--sheet",
        metavar="FILE",
        help="also draw images with what they were taken for, the wrong ones first, into this "
        "file, such as sheet.png",
    )
    args = parser.parse_every(argv)
    run_own_files(args.plugin)
    folder = RunFolder(args.run)
    seeds = folder.seeds()
    if seeds is None:
        described, text = one_run(folder, args)
    else:
        described, text = several_seeds(folder, seeds, args)
    answer(json.dumps(described) if args.json else text)


def one_run(folder: RunFolder, args: Any) -> tuple[dict[str, Any], str]:
    """Return the scores of a run, as `--json` has them, and as text."""
    network = network_in(folder, args)
    name, examples = examples_for(network, folder, args)
    scores = network.evaluate(examples)
    if args.sheet is not None:
        with about("sheet"):
            network.draw_predictions(examples, args.sheet)
    lines = [*head(folder, name, examples, args), "", scores.in_a_line]
    if scores.confusion is not None:
        lines += [
            "",
            class_table(scores.by_class),
            "",
            mistakes_table(scores.classes, scores.confusion),
        ]
    if args.sheet is not None:
        lines += ["", f"sheet      {args.sheet}"]
    return {**origin(folder, name, examples, args), **as_json(scores)}, "\n".join(lines)


def several_seeds(folder: RunFolder, seeds: list[int], args: Any) -> tuple[dict[str, Any], str]:
    """Return the scores of the runs of several seeds; runs that diverged are left out."""
    if args.sheet is not None:
        require_one_run("--sheet", folder)
    diverged = [seed for seed in seeds if folder.of_seed(seed).holds(DIVERGED)]
    left = [seed for seed in seeds if seed not in diverged]
    if not left:
        raise UsageError(f"{folder.path}: expected a run that did not diverge, got none")
    networks = [network_in(folder.of_seed(seed), args) for seed in left]
    name, examples = examples_for(networks[0], folder.of_seed(left[0]), args)
    every = [network.evaluate(examples) for network in networks]
    together: dict[str, list[float | None]] = {
        "loss": [*(scores.loss for scores in every)],
        "accuracy": [scores.accuracy for scores in every],
    }
    described = origin(folder, name, examples, args)
    lines = [*head(folder, name, examples, args), ""]
    lines += [f"seed {seed:<5} {one.in_a_line}" for seed, one in zip(left, every, strict=True)]
    spread = []
    for figure, values in together.items():
        known = [x for x in values if x is not None]
        over = Spread.of(known)
        described |= {figure: over.mean, f"{figure}_std": over.std}
        if known:
            spread.append(f"{figure} {over.in_words('.4f')}")
    lines.append(f"mean       {', '.join(spread)}")
    if len(left) > 1:
        lines.append(f"           ± is the sample deviation of {len(left)} seeds")
    if diverged:
        lines.append(f"left out   {', '.join(f'seed {seed}' for seed in diverged)}: diverged")
    if every[0].confusion is not None:
        lines += ["", "means over the seeds", class_table(mean_by_class(every)), ""]
        one = folder.of_seed(left[0]).path
        lines.append(f"which are taken for which, of one seed: dualnet evaluate {one}")
    runs = [{"seed": s, **as_json(one)} for s, one in zip(left, every, strict=True)]
    return {**described, "runs": runs, "diverged": diverged}, "\n".join(lines)


def examples_for(network: Trained, folder: RunFolder, args: Any) -> tuple[str, Any]:
    """Return the name of the examples, and the examples as `Trained.evaluate` takes them."""
    name = args.data
    if name is None:
        name = trained_on(folder)
    if name.endswith(".npz"):
        if args.data_dir is not None:
            raise UsageError(f"--data-dir is of no use to --data {name}, which is a file")
        return name, read_examples(Path(name))
    if name not in data.SOURCES:
        known = ", ".join(data.SOURCES)
        raise UsageError(
            f"--data: expected one of {known}, or a file FILE.npz, got {name!r}"
            f"{did_you_mean(name, data.SOURCES)}"
            f"{'' if args.data else '; if it is your own, name its file with --plugin'}"
        )
    if args.data_dir is not None and (kept := data.SOURCES[name].kept) in data.WITHOUT_FOLDER:
        raise UsageError(
            f"--data-dir is of no use to the data set {name}: it {data.WITHOUT_FOLDER[kept]}"
        )
    source, shape = data.SOURCES[name], network.preparation.shape
    # Folders of images are decoded to the size that the network was trained on.
    side = shape[0] if source.kept == "folders" and shape[0] != source.side else None
    return name, data.load(name, args.data_dir, image_size=side)


def trained_on(folder: RunFolder) -> str:
    """Return the name of the data set of a run."""
    if not folder.holds("config.json"):
        raise UsageError(
            f"{folder.path}: it does not say what it was trained on (no config.json); give a data "
            "set by --data NAME, or examples by --data FILE.npz"
        )
    name = folder.settings().dataset
    if name not in data.SOURCES and name == "arrays":
        raise UsageError(
            f"{folder.path}: it was trained on arrays, which no folder keeps; give examples by "
            "--data FILE.npz"
        )
    return name


def read_examples(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the arrays x and y of a file.

    Raises:
        UsageError: there is no such file, or it has not both arrays.
        DataError: the file is damaged, or holds objects.
    """
    arrays = read_arrays(file)
    if "x" not in arrays or "y" not in arrays:
        raise UsageError(
            f"--data {file}: expected the arrays x, the examples, and y, their classes or real "
            f"targets, got {', '.join(arrays) or 'none'}; write np.savez({str(file)!r}, x=..., "
            "y=...)"
        )
    return arrays["x"], arrays["y"]


def origin(folder: RunFolder, name: str, examples: Any, args: Any) -> dict[str, Any]:
    """Return what scores belong to."""
    return {
        "run": str(folder.path),
        "network": "best" if args.best else "last",
        "data": name,
        "examples": count(examples),
    }


def head(folder: RunFolder, name: str, examples: Any, args: Any) -> list[str]:
    """Return lines that say what scores belong to."""
    which = "the epoch of the lowest test loss" if args.best else "the last epoch"
    kind = f"{examples.tested_on} " if isinstance(examples, Dataset) else ""
    n = count(examples)
    return [
        f"run        {folder.path}",
        f"network    after {which}",
        f"data       {name}, {counted(n, f'{kind}example')}",
    ]


def count(examples: Any) -> int:
    """Return how many examples there are."""
    return len(examples.test_labels if isinstance(examples, Dataset) else examples[1])


def as_json(scores: Scores) -> dict[str, Any]:
    """Return the scores of one network as `--json` has them."""
    confusion = scores.confusion
    return {
        "loss": scores.loss,
        "accuracy": scores.accuracy,
        "by_class": scores.by_class,
        "confusion": None if confusion is None else confusion.tolist(),
    }


def mean_by_class(every: list[Scores]) -> list[dict[str, Any]]:
    """Return the mean over several networks of the scores of each class, where they are defined."""
    rows: list[dict[str, Any]] = []
    for of_class in zip(*(scores.by_class for scores in every), strict=True):
        row: dict[str, Any] = dict(of_class[0])
        for name in ("precision", "recall", "f1"):
            known = [x for one in of_class if isinstance(x := one[name], float)]
            row[name] = statistics.fmean(known) if known else None
        rows.append(row)
    return rows
