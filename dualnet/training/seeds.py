"""Runs of several seeds: they are trained side by side, and their figures are summed up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from dualnet.data import Dataset
from dualnet.data.fingerprint import fingerprint
from dualnet.errors import DivergedError, UsageError
from dualnet.nn import Layer
from dualnet.training.assemble import make_trainer
from dualnet.training.history import FIGURES
from dualnet.training.memory import out_of_memory_explained
from dualnet.training.report import Report
from dualnet.training.restored import require_no_more
from dualnet.training.run import Callback, KeptRun
from dualnet.training.run_folder import CHECKPOINT, SUMMARY, RunFolder
from dualnet.training.settings import Settings
from dualnet.training.side_by_side import train_side_by_side
from dualnet.training.spread import Spread
from dualnet.training.state import TrainState
from dualnet.training.thread_choice import with_threads

Outcomes = dict[int, dict[str, Any] | DivergedError]
"""The summary of each run, or why it has diverged, by its seed."""

_LARGEST = ("epochs", "seconds", "seconds_per_step")
_OF_EACH = (
    *("seed", "best_epoch", "best_test_loss", "best_test_accuracy", "gradient_cosine"),
    "skipped_steps",
)


def run_seeds(
    settings: Settings,
    network: Layer,
    dataset: Dataset,
    folder: RunFolder,
    seeds: Sequence[int],
    *,
    resume: bool = False,
    callbacks: Callable[[RunFolder], Sequence[Callback]] = lambda _: (),
    quiet: bool = False,
) -> dict[str, Any]:
    """Do a run for each seed, each in a folder of its own below `folder`.

    A run gives the numbers that it gives alone.  If one diverges, the others go on.

    Args:
        settings, network, dataset, quiet: see `run.run`; the seed of the settings is of no account.
        folder: of all runs.
        seeds: of the runs, all different.
        resume: whether each run goes on from its checkpoint, or starts if it has none.
        callbacks: makes those of the run in a folder; they cannot end it.

    Returns:
        What `summary.json` holds: see `combined`.

    Raises:
        DivergedError: all runs have diverged.
        DataError, UsageError, BackendError: see `dualnet.errors`.
    """
    folders = [folder.of_seed(seed) for seed in seeds]
    with ExitStack() as claims, out_of_memory_explained(settings, len(seeds)):
        for one in (folder, *folders):
            claims.enter_context(one.claimed())
            if not resume:
                one.require_unused()
        trainer = make_trainer(settings, network, dataset)
        settings, trainer, threads = with_threads(settings, trainer)
        folder.write_seeds(settings, seeds)
        if folder.holds(SUMMARY):  # of fewer epochs
            folder.remove(SUMMARY)
        data = fingerprint(dataset, trainer.backend.to_host)
        runs = [
            KeptRun(
                replace(settings, seed=seed),
                replace(trainer, seed=seed),
                one,
                data,
                resume=resume and one.holds("config.json"),
                callbacks=callbacks(one),
            )
            for seed, one in zip(seeds, folders, strict=True)
        ]
        outcomes: Outcomes = {one.settings.seed: one.done for one in runs if one.done is not None}
        for together in _by_position([one for one in runs if one.done is None]):
            ones = [one.settings.seed for one in together]
            differs = together[0].differs
            report = Report(
                trainer,
                settings,
                seeds=ones,
                folder=folder,
                quiet=quiet,
                differs=differs,
                threads=threads,
            )
            outcomes |= _train(together, report, quiet)
        return combined({seed: outcomes[seed] for seed in seeds}, folder)


def settings_to_resume(
    folder: RunFolder, check: Callable[[Settings], None], epochs: int | None
) -> Settings:
    """Return the settings of a run, or of runs of several seeds, that go on.

    Args:
        folder: of the run, or of all runs.  Some of several may not have begun.
        check: as of `RunFolder.settings`.
        epochs: how many the runs are to have; None for as many as they were to have.

    Raises:
        UsageError: there is no such run, or several differ in more than their seeds or have made
            more epochs.
        DataError: a file is damaged.
    """
    seeds = folder.seeds()
    settings = folder.settings(check)
    to_have = settings.epochs if epochs is None else epochs
    if seeds is not None:
        # Runs that are given more epochs may be killed before all of them know it.
        most = max(settings.epochs, to_have)
        may_differ: dict[str, Any] = {"seed": settings.seed, "epochs": most}
        begun = [one for one in map(folder.of_seed, seeds) if one.holds("config.json")]
        for one in begun:
            its = one.settings(check)
            alike = replace(its, **may_differ) == replace(settings, **may_differ)
            if its.epochs > most or not alike:
                raise UsageError(
                    f"--resume {folder.path}: its runs differ in more than their seeds; go on with "
                    f"each alone, as in --resume {begun[0].path}"
                )
            if one.holds(CHECKPOINT):
                require_no_more(one, to_have)
    return replace(settings, epochs=to_have)


def _by_position(runs: Sequence[KeptRun]) -> list[list[KeptRun]]:
    """Group runs that go on from the same position.

    All do, unless the runs were stopped a second time while they were being saved.
    """
    groups: dict[tuple[int, ...], list[KeptRun]] = {}
    for one in runs:
        groups.setdefault(tuple(one.start.position.tolist()), []).append(one)
    return list(groups.values())


def _train(runs: Sequence[KeptRun], report: Report, quiet: bool) -> Outcomes:
    """Train runs side by side, and return the summary or the error of each by its seed."""

    def save_epoch(states: dict[int, TrainState]) -> None:
        each(KeptRun.save_epoch, states)
        report.epoch(list(states.values()))
        for i, state in states.items():
            runs[i].call_back(state)

    def save(states: dict[int, TrainState]) -> None:
        each(KeptRun.save, states)
        runs[0].interval.begin()  # it may have diverged

    def each(saved: Callable[[KeptRun, TrainState], None], states: dict[int, TrainState]) -> None:
        # A disk takes longer to be sure of a file than to write several.
        with ThreadPoolExecutor() as threads:
            list(threads.map(saved, [runs[i] for i in states], states.values()))

    report.begin(runs[0].start)
    trainers, starts = zip(*((one.trainer, one.start) for one in runs), strict=True)
    ends, step_seconds = train_side_by_side(
        trainers, starts, save_epoch, save, runs[0].is_due, quiet
    )
    outcomes: Outcomes = {}
    for one, end in zip(runs, ends, strict=True):
        if isinstance(end, DivergedError):
            one.lose(end)
            outcomes[one.settings.seed] = end
        else:
            outcomes[one.settings.seed] = one.finish(end, step_seconds)
    return outcomes


def combined(outcomes: Outcomes, folder: RunFolder) -> dict[str, Any]:
    """Write and return the summary of several seeds.

    Args:
        outcomes: of all runs.
        folder: of all runs.

    Returns:
        Under the names of one run's summary: the mean of each figure of the last epoch, and under
        `_std` behind its name its sample deviation, with n - 1 in the denominator (None for one
        run), both None where a figure is not finite; the largest of epochs, seconds and bytes; a
        list of what else belongs to a run, such as seeds and best epochs; and what all runs have
        in common.  Besides, the summaries of all `runs`, and under `diverged` why the others have
        none, by their seeds.

    Raises:
        DivergedError: all runs have diverged.
    """
    diverged = {s: str(error) for s, error in outcomes.items() if isinstance(error, DivergedError)}
    summaries = [summary for summary in outcomes.values() if isinstance(summary, dict)]
    if not summaries:
        raise DivergedError(words_for_diverged(diverged, len(outcomes)))
    together = {name: _together(name, [s.get(name) for s in summaries]) for name in summaries[0]}
    together |= {f"{name}_std": Spread.of([s[name] for s in summaries]).std for name in FIGURES}
    together |= {"runs": summaries, "diverged": diverged, "run_dir": str(folder.path)}
    folder.write_json(SUMMARY, together)
    return together


def _together(name: str, of_each: list[Any]) -> Any:
    """Return what stands for an entry of the summaries of several runs."""
    if name in FIGURES:
        return Spread.of(of_each).mean
    if name in _LARGEST or name.endswith("_bytes"):
        return max((x for x in of_each if x is not None), default=None)
    if name in _OF_EACH or any(x != of_each[0] for x in of_each):
        return of_each
    return of_each[0]


def words_for_diverged(diverged: dict[int, str], runs: int) -> str:
    """Say which of so many runs have diverged, and why the first of them has."""
    (seed, why), *_ = diverged.items()
    named = ", ".join(map(str, diverged))
    return f"{len(diverged)} of {runs} seeds diverged ({named}); seed {seed} {why}"
