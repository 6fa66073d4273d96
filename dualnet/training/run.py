"""One training run: from settings to a trained network, in memory or in a folder as well."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.analysis import TOTAL
from dualnet.data import Dataset
from dualnet.errors import DataError, DivergedError, UsageError
from dualnet.naming import assigned
from dualnet.nn import Layer
from dualnet.training.assemble import make_trainer
from dualnet.training.history import Row, best, best_epoch, outcome, rows
from dualnet.training.loop import Trainer
from dualnet.training.memory import out_of_memory_explained, peak_memory_bytes
from dualnet.training.pictures.curve import draw_curve
from dualnet.training.pictures.gradients import draw_gradients
from dualnet.training.published import published
from dualnet.training.report import Report
from dualnet.training.run_folder import BEST, COLUMNS, DIVERGED, NETWORK, RunFolder
from dualnet.training.same_network import require_same_network
from dualnet.training.settings import Settings
from dualnet.training.state import Carried, TrainState
from dualnet.training.trained import FittedNetwork, Trained, parts_of
from dualnet.tree import Tree

Callback = Callable[[Row], Any]
"""It gets an epoch's figures by their names in `COLUMNS`; if it returns True, training ends."""

_WARM_UP_STEPS = 5


def run(
    settings: Settings,
    network: Layer,
    dataset: Dataset,
    folder: RunFolder | None = None,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> FittedNetwork:
    """Train and evaluate, and fill the run folder if there is one.

    Args:
        settings: all choices.
        network: as `assemble.network_of` makes it.
        dataset: what is learned.
        folder: where to write; None for nowhere.
        resume: whether the folder holds a checkpoint to go on from.
        callbacks: called after each epoch.
        quiet: whether header, progress bars and the lines of epochs are left out.

    Raises:
        DivergedError, DataError, UsageError, BackendError: see `dualnet.errors`.
    """
    with out_of_memory_explained(settings):
        trainer = make_trainer(settings, network, dataset)
        if folder is None:
            one = Run(settings, trainer, callbacks)
        else:
            one = KeptRun(settings, trainer, folder, resume, callbacks)
        if one.done is not None:
            return one.fitted(one.start)
        report = Report(trainer, settings, folder=folder, quiet=quiet)
        report.begin(one.start)

        def on_epoch(state: TrainState) -> bool:
            one.save_epoch(state)
            report.epoch([state])
            return one.call_back(state)

        try:
            now, step_seconds = trainer.train(one.start, on_epoch, one.save, quiet)
        except DivergedError as error:
            one.lose(error)
            raise
    one.finish(now, step_seconds)
    return one.fitted(now)


class Run:
    """A run in memory: where it starts, the best network on the way, and its summary.

    Args:
        settings, callbacks: see `run`.
        trainer: of the run.

    Attributes:
        start: the state from which the run goes on.
        done: the summary of a run that has reached its end; None before.
    """

    def __init__(self, settings: Settings, trainer: Trainer, callbacks: Sequence[Callback] = ()):
        self._began = time.perf_counter()
        self._callbacks = tuple(callbacks)
        self.settings, self.trainer = settings, trainer
        self._memory: dict[str, int] = {}
        self.start = trainer.start()
        self.done: dict[str, Any] | None = None
        self._best = self.start.carried

    def save(self, state: TrainState) -> None:
        """Keep a state, from which the run can go on."""

    def save_epoch(self, state: TrainState) -> None:
        """Keep a state after an epoch, and its network if it is the best one so far."""
        if best_epoch(state.history) == len(state.history):
            self._best = _with_arrays_of_its_own(state.carried)
        self._memory = self.trainer.backend.memory()  # a recorded step still holds its memory

    def lose(self, error: DivergedError) -> None:
        """Keep why the run has diverged."""

    def call_back(self, state: TrainState) -> bool:
        """Call all callbacks after an epoch, and return whether one of them ends the training."""
        row = rows(state.history)[-1]
        # A comparison of NumPy's numbers is a bool of NumPy's.
        ends = [callback(dict(row)) for callback in self._callbacks]
        return any(isinstance(end, (bool, np.bool_)) and bool(end) for end in ends)

    def finish(self, now: TrainState, step_seconds: list[float]) -> dict[str, Any]:
        """Return the summary of a run that has reached its end."""
        settings = self.settings
        self.done = {
            **outcome(now.history),
            **best(now.history),
            "seconds_per_step": seconds_per_step(step_seconds),
            "seconds": time.perf_counter() - self._began,
            "peak_memory_bytes": peak_memory_bytes(),
            **self._memory,
            "seed": settings.seed,
            "dataset": settings.dataset,
            "tested_on": self.trainer.dataset.tested_on,
            "model": settings.model,
            "parameters": tree.size(now.carried.params),
            "objective": settings.objective,
            "rule": settings.rule,
            **{f"rule_{name}": value for name, value in settings.rule_options.items()},
            **last_cosine(now.comparisons),
            **({"skipped_steps": int(now.skipped)} if settings.on_nan == "skip" else {}),
            **published(settings),
        }
        return self.done

    def fitted(self, now: TrainState) -> FittedNetwork:
        """Return the network at the end of the run, which has a summary."""
        assert self.done is not None
        last = _with_arrays_of_its_own(now.carried)
        return FittedNetwork(
            **parts_of(self.trainer, self.settings, last),
            history=rows(now.history),
            best=Trained(**parts_of(self.trainer, self.settings, self._best)),
            settings=self.settings,
            summary=self.done,
        )


class KeptRun(Run):
    """A run that is kept in a folder, from which it can go on.

    Args:
        settings, folder, resume, callbacks: see `run`.
        trainer: of the run.

    Raises:
        DataError, UsageError: see `run`.
    """

    def __init__(
        self,
        settings: Settings,
        trainer: Trainer,
        folder: RunFolder,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
    ):
        super().__init__(settings, trainer, callbacks)
        self.folder = folder
        if resume:
            self.start = restored(self.start, settings, folder)
            require_same_network(folder, self._description())
            found = folder.summary() if trainer.is_over(self.start) else None
            # A run that was given more epochs and then killed has the summary of fewer.
            if found is not None and found.get("epochs") == len(self.start.history):
                self.done = found
                self._best = self._read_best()
                return
            folder.write_settings(settings)  # the run may have more epochs now
            if folder.holds(DIVERGED):
                folder.remove(DIVERGED)
            self._best = self._read_best()
        else:
            folder.create(settings)
        self._write_network()
        self.save(self.start)

    def _read_best(self) -> Carried:
        """Return the best network of a run that goes on, or where it starts if there is none.

        `best.npz` is deleted if it is of an epoch that the checkpoint does not know, as after a run
        was killed between the two.  It makes the epoch again, but perhaps with other numbers,
        because it may have been given more epochs, and with them other rates.
        """
        if not self.folder.holds(BEST):
            return self.start.carried
        found, history = read_best(self.start, self.folder), self.start.history
        if not len(history) or int(found["epoch"]) != best_epoch(history):
            self.folder.remove(BEST)
            return self.start.carried
        return self.start.carried._replace(**{n: found[n] for n in found if n != "epoch"})

    def _write_network(self) -> None:
        """Write `network.json`, unless a layer cannot be written as text."""
        description = self._description()
        # The run itself needs no description, only whoever loads its network.
        if description is not None:
            self.folder.write_json(NETWORK, description)

    def _description(self) -> dict[str, Any] | None:
        """Return what `network.json` is to hold; None if a layer cannot be written as text."""
        of_start = Trained(**parts_of(self.trainer, self.settings, self.start.carried))
        try:
            return of_start.description
        except UsageError:
            return None

    def save(self, state: TrainState) -> None:
        """Write a state, from which the run can go on."""
        self.folder.write_checkpoint(tree.map(self.trainer.backend.to_host, state.as_trees()))
        if self.settings.grad_stats is not None:
            self.folder.write_gradients(
                self._compared(state), self.settings.grad_stats, state.comparisons
            )

    def _compared(self, state: TrainState) -> list[str]:
        """Return the names of what `--grad-stats` compares."""
        return [*(path for path, _ in tree.items(state.carried.params)), TOTAL]

    def save_epoch(self, state: TrainState) -> None:
        """Write a state after an epoch, and the figures of all epochs."""
        super().save_epoch(state)
        if best_epoch(state.history) == len(state.history):
            # Before the checkpoint: a run that is killed in between makes this epoch again.
            best = of_best(state)
            self.folder.write_checkpoint(tree.map(self.trainer.backend.to_host, best), BEST)
        self.save(state)
        self.folder.write_metrics(state.history)

    def lose(self, error: DivergedError) -> None:
        """Write why the run has diverged."""
        self.folder.write_json(DIVERGED, {"why": str(error)})

    def finish(self, now: TrainState, step_seconds: list[float]) -> dict[str, Any]:
        """Write and return the summary of a run that has reached its end."""
        summary = super().finish(now, step_seconds)
        summary["run_dir"] = str(self.folder.path)
        self.folder.write_json("summary.json", summary)
        settings = self.settings
        draw_curve(now.history, settings.title, self.folder.path / "curve.png")
        if settings.grad_stats is not None:
            draw_gradients(
                self._compared(now),
                settings.grad_stats,
                now.comparisons,
                settings.title,
                self.folder.path / "gradients.png",
            )
        return summary


def _with_arrays_of_its_own(carried: Carried) -> Carried:
    """Return a state whose network has arrays of its own.

    A recorded step writes into the same memory again.
    """

    def own(part: Tree) -> Tree:
        return tree.map(lambda leaf: leaf.copy(), part)

    return carried._replace(
        params=own(carried.params),
        model_state=own(carried.model_state),
        readout=own(carried.readout),
    )


def restored(start: TrainState, settings: Settings, folder: RunFolder) -> TrainState:
    """Return the state in a run's checkpoint.

    Args:
        start: the state of such a run before its first step, which the checkpoint must be like.
        settings: of the run as it goes on.
        folder: of the run.

    Raises:
        DataError: the checkpoint is missing, damaged or does not fit.
        UsageError: the run has done more epochs than the settings ask for.
    """
    # The history and the comparisons grow, so their length is whatever the checkpoint holds.
    grown = tree.map(lambda _: None, start.comparisons)
    like = {**start.as_trees(), "history": None, "comparisons": grown}
    now = TrainState.from_trees(folder.read_checkpoint(like))
    if now.history.shape != (now.position[0], len(COLUMNS)) or now.history.dtype != np.float64:
        raise DataError(
            f"{folder.path / 'checkpoint.npz'} is damaged: at epoch {now.position[0]} it has a "
            f"history {now.history.dtype}{now.history.shape}; start the run anew"
        )
    pairs = zip(tree.leaves(now.comparisons), tree.leaves(start.comparisons), strict=True)
    for found, empty in pairs:
        if (found.shape[1:], found.dtype) != (empty.shape[1:], empty.dtype):
            raise DataError(
                f"{folder.path / 'checkpoint.npz'} is damaged: it compares gradients in "
                f"{found.dtype}{found.shape}, expected {empty.dtype}(m, {empty.shape[1]}, 3); "
                "start the run anew"
            )
    if settings.epochs < now.position[0]:
        raise UsageError(
            f"{assigned('epochs', settings.epochs)}: the run has done {now.position[0]} "
            "epochs already"
        )
    return now


def of_best(state: TrainState) -> dict[str, Tree]:
    """Return the trees of `best.npz`: all that predictions need, and the number of the epoch."""
    carried = state.carried
    return {
        "params": carried.params,
        "model_state": carried.model_state,
        "readout": carried.readout,
        "epoch": np.array(len(state.history)),
    }


def read_best(like: TrainState, folder: RunFolder) -> dict[str, Tree]:
    """Return the trees that `of_best` made, as they are in a run folder.

    Args:
        like: a state of such a run, as `Trainer.start` makes it.
        folder: of the run.

    Raises:
        DataError: the file is missing, damaged, or does not fit.
    """
    return folder.read_checkpoint(of_best(like), BEST)


def seconds_per_step(step_seconds: list[float]) -> float | None:
    """Return the median of all steps but the first five; None if there were no more."""
    after = step_seconds[_WARM_UP_STEPS:]
    return statistics.median(after) if after else None


def last_cosine(comparisons: Tree) -> dict[str, float | None]:
    """Return the total cosine of the last comparison by its name in a summary.

    Nothing is returned if no gradients are compared; the cosine is None where it is undefined.
    """
    if not len(comparisons):
        return {}
    cosine = float(comparisons[-1, -1, 0])
    return {"gradient_cosine": cosine if np.isfinite(cosine) else None}
