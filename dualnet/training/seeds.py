"""Runs of several seeds: they are trained side by side, and their figures are summed up."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from dualnet.data import Dataset
from dualnet.errors import DivergedError
from dualnet.nn import Layer
from dualnet.training.run import Run, make_trainer, out_of_memory_explained
from dualnet.training.run_folder import RunFolder
from dualnet.training.settings import Settings
from dualnet.training.side_by_side import train_side_by_side
from dualnet.training.state import TrainState

Outcomes = dict[int, dict[str, Any] | DivergedError]
"""The summary of each run, or why it has diverged, by its seed."""


def run_seeds(
    settings: Settings,
    network: Layer,
    dataset: Dataset,
    folder: RunFolder,
    seeds: Sequence[int],
    *,
    resume: bool = False,
    quiet: bool = False,
    published: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Do a run for each seed, each in a folder of its own below `folder`.

    A run gives the numbers that it gives alone.  If one diverges, the others go on.

    Args:
        settings, network, dataset, quiet, published: see `run.run`; the seed of the settings is of
            no account.
        folder: of all runs.
        seeds: of the runs, all different.
        resume: whether each run goes on from its checkpoint.

    Returns:
        What `summary.json` holds: see `combined`.

    Raises:
        DivergedError: all runs have diverged.
        DataError, UsageError, BackendError: see `dualnet.errors`.
    """
    if not resume:
        folder.create_for_seeds(seeds)
    with out_of_memory_explained(settings, len(seeds)):
        trainer = make_trainer(settings, network, dataset)
        runs = [
            Run(
                replace(settings, seed=seed),
                replace(trainer, seed=seed),
                folder.of_seed(seed),
                resume=resume,
                published=published,
            )
            for seed in seeds
        ]
        outcomes: Outcomes = {one.settings.seed: one.done for one in runs if one.done is not None}
        for together in _by_position([one for one in runs if one.done is None]):
            outcomes |= _train(together, quiet)
    return combined({seed: outcomes[seed] for seed in seeds}, folder)


def _by_position(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs that go on from the same position.

    All do, unless the runs were stopped a second time while they were being saved.
    """
    groups: dict[tuple[int, ...], list[Run]] = {}
    for one in runs:
        groups.setdefault(tuple(one.start.position.tolist()), []).append(one)
    return list(groups.values())


def _train(runs: Sequence[Run], quiet: bool) -> Outcomes:
    """Train runs side by side, and return the summary or the error of each by its seed."""

    def save_epoch(states: dict[int, TrainState]) -> None:
        each(Run.save_epoch, states)

    def save(states: dict[int, TrainState]) -> None:
        each(Run.save, states)

    def each(saved: Callable[[Run, TrainState], None], states: dict[int, TrainState]) -> None:
        # A disk takes longer to be sure of a file than to write several.
        with ThreadPoolExecutor() as threads:
            list(threads.map(saved, [runs[i] for i in states], states.values()))

    trainers, starts = zip(*((one.trainer, one.start) for one in runs), strict=True)
    outcomes, step_seconds = train_side_by_side(trainers, starts, save_epoch, save, quiet)
    return {
        one.settings.seed: outcome
        if isinstance(outcome, DivergedError)
        else one.finish(outcome, step_seconds)
        for one, outcome in zip(runs, outcomes, strict=True)
    }


def combined(outcomes: Outcomes, folder: RunFolder) -> dict[str, Any]:
    """Write and return the summary of several seeds.

    Args:
        outcomes: of all runs.
        folder: of all runs.

    Returns:
        The summary of the first run, with means of the test loss and accuracy, the standard
        deviation of the accuracies, the seeds and the summaries of all runs, and under `diverged`
        why the others have none, by their seeds.

    Raises:
        DivergedError: all runs have diverged.
    """
    diverged = {s: str(error) for s, error in outcomes.items() if isinstance(error, DivergedError)}
    summaries = [summary for summary in outcomes.values() if isinstance(summary, dict)]
    if not summaries:
        raise DivergedError(words_for_diverged(diverged, len(outcomes)))
    accuracies = [s["test_accuracy"] for s in summaries]
    of_each = ("seed", "best_epoch", "best_test_accuracy")
    together = {
        **summaries[0],
        **{name: [s[name] for s in summaries] for name in of_each if name in summaries[0]},
        "epochs": max(s["epochs"] for s in summaries),
        "test_accuracy": statistics.fmean(accuracies),
        "test_accuracy_std": statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
        "test_loss": statistics.fmean(s["test_loss"] for s in summaries),
        "runs": summaries,
        "diverged": diverged,
        "run_dir": str(folder.path),
    }
    folder.write_json("summary.json", together)
    return together


def words_for_diverged(diverged: dict[int, str], runs: int) -> str:
    """Say which of so many runs have diverged, and why the first of them has."""
    (seed, why), *_ = diverged.items()
    named = ", ".join(map(str, diverged))
    return f"{len(diverged)} of {runs} seeds diverged ({named}); seed {seed} {why}"
