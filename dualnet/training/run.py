"""One training run: from settings to a trained network, in memory or in a folder as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.analysis import TOTAL
from dualnet.backends.processes import ALONE, Processes
from dualnet.backends.timed_processes import TimedProcesses
from dualnet.console import say
from dualnet.data import Dataset
from dualnet.data.fingerprint import fingerprint
from dualnet.errors import DivergedError, UsageError
from dualnet.nn import Layer
from dualnet.training.assemble import make_trainer
from dualnet.training.checkpoint_interval import CheckpointInterval
from dualnet.training.divergence import all_finite
from dualnet.training.history import Row, best, best_epoch, last_cosine, outcome, rows
from dualnet.training.loop import Trainer
from dualnet.training.measured import measured_in, seconds_per_step
from dualnet.training.memory import out_of_memory_explained, peak_memory_bytes
from dualnet.training.pictures.curve import draw_curve
from dualnet.training.pictures.drawing import costing_no_run
from dualnet.training.pictures.gradients import draw_gradients
from dualnet.training.published import published
from dualnet.training.report import Report
from dualnet.training.restored import of_best, read_best, require_fitting, restored
from dualnet.training.run_folder import BEST, DIVERGED, NETWORK, SUMMARY, RunFolder
from dualnet.training.same_network import require_same_run
from dualnet.training.settings import Settings
from dualnet.training.shared_run import (
    begun_alike,
    require_alike,
    require_same_task,
    require_sharable,
)
from dualnet.training.state import Carried, TrainState
from dualnet.training.step_times import StepTimes
from dualnet.training.thread_choice import with_threads
from dualnet.training.trained import FittedNetwork, Trained, parts_of
from dualnet.tree import Tree

Callback = Callable[[Row], Any]
"""It gets an epoch's figures by their names in `COLUMNS`; if it returns True, training ends."""


def run(
    settings: Settings,
    network: Layer,
    dataset: Dataset,
    folder: RunFolder | None = None,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
    processes: Processes = ALONE,
    profile: bool = False,
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
        processes: that train together; the first one has folder and callbacks, the others neither.
        profile: whether it is told what a step of each of these takes; see `StepTimes`.

    Raises:
        DivergedError, DataError, UsageError, BackendError: see `dualnet.errors`.
    """
    with nullcontext() if folder is None else folder.claimed(), out_of_memory_explained(settings):
        trainer = make_trainer(settings, network, dataset, processes)
        require_sharable(settings, trainer)
        require_same_task(settings, dataset, processes, profile)
        settings, trainer, threads = with_threads(settings, trainer)
        if profile:
            timed = TimedProcesses(processes)
            trainer = replace(trainer, processes=timed)
        if folder is None:
            one = Run(settings, trainer, callbacks)
        else:
            data = fingerprint(dataset, trainer.backend.to_host)
            one = KeptRun(settings, trainer, folder, data, resume, callbacks)
        one.start, one.best = begun_alike(one.start, one.best, processes)
        one.given_before = processes.bytes_given
        if one.done is None and trainer.is_over(one.start):  # as the first process knows already
            one.finish(one.start, [])
        if one.done is not None:
            return one.fitted(one.start)
        about: dict[str, Any] = {"differs": one.differs, "threads": threads, "profile": profile}
        report = Report(trainer, settings, folder=folder, quiet=quiet, **about)
        report.begin(one.start)
        times = one.times = StepTimes(timed) if profile else None

        def on_epoch(state: TrainState) -> bool:
            require_alike(state.carried, processes)
            one.save_epoch(state)
            report.epoch([state])
            if times:
                report.times(times.epoch())
            ends = bool(processes.of_first(one.call_back(state)))
            if times:
                times.begin()
            return ends

        def on_step() -> bool:
            if times:
                times.step()
            return one.is_due()

        try:
            now, step_seconds = trainer.train(one.start, on_epoch, one.save, on_step, quiet)
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
        best: the best network so far; None where it is lost.
        done: the summary of a run that has reached its end; None before.
        differs: what is not as it was when the run began; see `surroundings.what_differs`.
        given_before: how many bytes its process had given to others when the steps began.
        times: of the steps of several processes; None where nobody asks for them.
    """

    differs = ""
    given_before = 0
    times: StepTimes | None = None

    def __init__(self, settings: Settings, trainer: Trainer, callbacks: Sequence[Callback] = ()):
        self._began = time.perf_counter()
        self._callbacks = tuple(callbacks)
        self.settings, self.trainer = settings, trainer
        self._memory: dict[str, int] = {}
        self.start = trainer.start()
        self.done: dict[str, Any] | None = None
        self.best: Carried | None = self.start.carried

    def save(self, state: TrainState) -> None:
        """Keep a state, from which the run can go on."""

    def is_due(self) -> bool:
        """Count a step, and return whether the state after it is to be saved."""
        return False

    def save_epoch(self, state: TrainState) -> None:
        """Keep a state after an epoch, and its network if it is the best one so far."""
        if best_epoch(state.history) == len(state.history):
            self.best = _with_arrays_of_its_own(state.carried)
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
            **self._shared(len(step_seconds)),
        }
        return self.done

    def _shared(self, steps: int) -> dict[str, Any]:
        """Return how many processes have shared the run, and what that took; for one, its profile
        alone, if there is one."""
        processes, times = self.trainer.processes, self.times
        profile = {} if times is None else times.summary()
        if processes.size == 1:
            return profile
        given = processes.bytes_given - self.given_before - (times.bytes_given if times else 0)
        per_step = given / steps if steps else None
        return {"processes": processes.size, "bytes_per_step": per_step, **profile}

    def fitted(self, now: TrainState) -> FittedNetwork:
        """Return the network at the end of the run, which has a summary."""
        assert self.done is not None
        last = _with_arrays_of_its_own(now.carried)
        return FittedNetwork(
            **parts_of(self.trainer, self.settings, last),
            history=rows(now.history),
            best=Trained(**parts_of(self.trainer, self.settings, self.best or last)),
            settings=self.settings,
            summary=self.done,
        )


class KeptRun(Run):
    """A run that is kept in a folder, from which it can go on.

    Args:
        settings, resume, callbacks: see `run`.
        trainer: of the run.
        folder: of the run, which has claimed it.
        data: the fingerprint of the data set.

    Attributes:
        interval: says when checkpoints are due.

    Raises:
        DataError, UsageError: see `run`.
    """

    def __init__(
        self,
        settings: Settings,
        trainer: Trainer,
        folder: RunFolder,
        data: str,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
    ):
        begun = resume and folder.has_begun()
        if begun:
            require_fitting(trainer, folder)
        super().__init__(settings, trainer, callbacks)
        self.folder = folder
        self.interval = CheckpointInterval(folder.where()["checkpoint_every"])
        network = self._network()
        if begun:
            self.start = restored(trainer, self.start, folder)
        if resume:
            self.differs = require_same_run(folder, network, data)
        else:
            folder.require_unused()
        folder.write_settings(settings, data)  # a run that goes on may have more epochs now
        if folder.holds(DIVERGED):
            folder.remove(DIVERGED)
        # The run itself needs no description of it, only whoever loads its network.
        if network is not None:
            folder.write_json(NETWORK, network)
        if not begun:
            self.save(self.start)
            return
        self.best = self._best_so_far()
        self._write_tables(self.start)  # a run that was killed may have written some of its files
        if trainer.is_over(self.start):
            self.finish(self.start, [])
        elif folder.holds(SUMMARY):  # of fewer epochs
            folder.remove(SUMMARY)

    def _best_so_far(self) -> Carried | None:
        """Return the best network of a run that goes on; None if there is none, or it is lost.

        `best.npz` is written after the checkpoint.  So if a run was killed between the two, the
        best network is that in the checkpoint.
        """
        start, folder = self.start, self.folder
        best = best_epoch(start.history) if len(start.history) else None
        if best == len(start.history) and not start.position[1]:
            self._write_best(start)
            return start.carried
        found = read_best(start, folder) if folder.holds(BEST) else None
        if found is None or int(found["epoch"]) != best:
            if found is not None:
                folder.remove(BEST)
            if best is not None:
                text = f"{folder.path}: its best network, of epoch {best}, is lost"
                say(f"{text}; until a better epoch, it is the last one", aside=True)
            return None
        return start.carried._replace(**{n: found[n] for n in found if n != "epoch"})

    def _network(self) -> dict[str, Any] | None:
        """Return what `network.json` is to hold; None if a layer cannot be written as text."""
        of_start = Trained(**parts_of(self.trainer, self.settings, self.start.carried))
        try:
            return of_start.description
        except UsageError:
            return None

    def save(self, state: TrainState) -> None:
        """Write a state, from which the run can go on, unless a number of it is not finite.

        Such a run has diverged, which is noticed at its next loss or at the end of the epoch.
        """
        self.interval.begin()
        if not all_finite(self.trainer, state.carried):
            return
        self.folder.write_checkpoint(tree.map(self.trainer.backend.to_host, state.as_trees()))
        self._write_tables(state)

    def _write_tables(self, state: TrainState) -> None:
        """Write the figures of all epochs, and how gradients compare with the exact ones."""
        if len(state.history):
            self.folder.write_metrics(state.history)
        if (every := self.settings.grad_stats) is not None:
            self.folder.write_gradients(self._compared(state), every, state.comparisons)

    def is_due(self) -> bool:
        """Count a step, and return whether the state after it is to be saved."""
        return self.interval.is_due()

    def _write_best(self, state: TrainState) -> None:
        """Write the network of a state as the best one."""
        best = of_best(state)
        self.folder.write_checkpoint(tree.map(self.trainer.backend.to_host, best), BEST)

    def _compared(self, state: TrainState) -> list[str]:
        """Return the names of what `--grad-stats` compares."""
        return [*(path for path, _ in tree.items(state.carried.params)), TOTAL]

    def save_epoch(self, state: TrainState) -> None:
        """Write a state after an epoch, and the figures of all epochs."""
        super().save_epoch(state)
        self.save(state)
        if best_epoch(state.history) == len(state.history):
            self._write_best(state)

    def lose(self, error: DivergedError) -> None:
        """Write why the run has diverged."""
        self.folder.write_json(DIVERGED, {"why": str(error)})

    def finish(self, now: TrainState, step_seconds: list[float]) -> dict[str, Any]:
        """Write and return the summary of a run that has reached its end."""
        before = self.folder.summary() or {}
        summary = super().finish(now, step_seconds)
        if not step_seconds:  # it had reached its end before, which was measured then
            summary |= {"seconds": float(now.history[:, -1].sum())}
            if before.get("epochs") == summary["epochs"]:
                summary |= measured_in(before)
        summary["run_dir"] = str(self.folder.path)
        self.folder.write_json(SUMMARY, summary)
        self._draw(now)
        return summary

    def _draw(self, now: TrainState) -> None:
        """Draw the pictures."""
        title, folder = self.settings.title, self.folder.path
        with costing_no_run(folder):
            draw_curve(now.history, title, folder / "curve.png")
            if (every := self.settings.grad_stats) is not None:
                compared, rows = self._compared(now), now.comparisons
                draw_gradients(compared, every, rows, title, folder / "gradients.png")


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
