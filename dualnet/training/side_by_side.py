"""Train several runs at once that differ in their seeds alone.

A small network leaves a device idle most of the time: its kernels are short, have few blocks, and
wait for one another.  So a step of all runs is one function, in which each run has a stream of its
own (`Backend.side_by_side`).  Recorded, it is one CUDA graph with a branch for each run.  The host
starts it as a whole, and on the device kernels of several runs overlap.  Each run computes what it
computes alone, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dualnet.backends.overridable import stack
from dualnet.errors import DivergedError, UsageError
from dualnet.random import Key, Keys
from dualnet.training.divergence import noting_start
from dualnet.training.epoch import course, step_number
from dualnet.training.figures import compared
from dualnet.training.loop import Trainer
from dualnet.training.state import Carried, TrainState, Unread
from dualnet.tree import Tree
from dualnet.types import Array

_STACKED = ("loss", "correct")
"""What every step shows of each run."""

Outcome = TrainState | DivergedError
"""What became of a run: its last state, or why there is none."""


def train_side_by_side(
    trainers: Sequence[Trainer],
    starts: Sequence[TrainState],
    on_epoch: Callable[[dict[int, TrainState]], None],
    save: Callable[[dict[int, TrainState]], None],
    is_due: Callable[[], bool] = lambda: False,
    quiet: bool = False,
) -> tuple[list[Outcome], list[float]]:
    """Train several runs to their ends; a run that ends early or diverges does not stop the others.

    Args:
        trainers: of the runs; they differ in their seeds alone.
        starts: from which state each run goes on; all are at the same position.
        on_epoch: called after each epoch with the states of the runs that have not diverged, by
            their index in `trainers`.
        save: likewise, called with the last whole states before a KeyboardInterrupt goes on, and
            whenever they are due.
        is_due: called after each step; it returns whether the states are to be saved.
        quiet: whether progress bars are left out.

    Returns:
        What became of each run, and the seconds that each step of all runs together took.

    Raises:
        UsageError: the runs differ in more than their seeds, or in their positions.
    """
    _require_alike(trainers, starts)
    step_seconds: list[float] = []
    outcomes: list[Outcome] = list(starts)
    going = {i: start for i, start in enumerate(starts) if not trainers[i].is_over(start)}
    while going:
        group = _Group([trainers[i] for i in going])
        now = _Together.of(list(going.values()))
        try:
            states = closing(course(group, now, step_seconds, quiet))
            with np.errstate(all="ignore"), states as following:
                for now in following:
                    if now.position[1] == 0:
                        on_epoch(_good(now, going))
                        if group.has_lost_one(now):
                            break
                    elif is_due():
                        save(_good(group.collect_losses(now), going))
                    if now.diverged:
                        break
        except KeyboardInterrupt:
            save(_good(group.collect_losses(now), going))
            raise
        for i, outcome in zip(going, now.outcomes(), strict=True):
            outcomes[i] = outcome
        # The others of a run that is over go on as a smaller group from where they are.
        good = _good(now, going)
        going = {i: state for i, state in good.items() if not trainers[i].is_over(state)}
    return outcomes, step_seconds


@dataclass(frozen=True)
class _Together:
    """The states of all runs of a group between two steps; they have made equally many.

    Attributes:
        runs: the states, in which `carried` and `position` are out of date.
        carried: what each run's next step starts from.
        position: `(epoch, batch)`, the next batch of all of them.
        unread: the steps whose losses were not collected yet.  Their `loss` and `correct` are
            arrays `(runs,)`.
        diverged: why runs have diverged, by their index in the group.
    """

    runs: tuple[TrainState, ...]
    carried: tuple[Carried, ...]
    position: np.ndarray
    unread: tuple[Unread, ...]
    diverged: dict[int, DivergedError]

    @classmethod
    def of(cls, states: Sequence[TrainState]) -> _Together:
        """Put states together that are at the same position and whose losses were collected."""
        carried = tuple(state.carried for state in states)
        return cls(tuple(states), carried, states[0].position, (), {})

    @property
    def sums(self) -> np.ndarray:
        """The means over the runs of their sums."""
        return np.mean([run.sums for run in self.runs], axis=0)

    def outcomes(self) -> list[Outcome]:
        """Return the state of each run, or the error of one that has diverged."""
        states = (
            replace(run, carried=carried, position=self.position)
            for run, carried in zip(self.runs, self.carried, strict=True)
        )
        return [self.diverged.get(i, state) for i, state in enumerate(states)]


def _good(now: _Together, going: dict[int, TrainState]) -> dict[int, TrainState]:
    """Return the states of the runs that have not diverged, under the indices that they have."""
    pairs = zip(going, now.outcomes(), strict=True)
    return {i: outcome for i, outcome in pairs if isinstance(outcome, TrainState)}


Advance = Callable[
    [tuple[Carried, ...], tuple[Array, ...], Any, dict[str, Any]],
    tuple[tuple[Carried, ...], dict[str, Tree]],
]
"""A step of all runs as a pure function of arrays; see `_Group.advance`."""


class _Group:
    """Makes steps of several runs at once.

    Args:
        trainers: of the runs; they differ in their seeds alone.
    """

    def __init__(self, trainers: Sequence[Trainer]):
        self._trainers = tuple(trainers)
        self._one = one = trainers[0]  # stands for all in what does not depend on the seed
        self.backend, self.dataset, self.graph = one.backend, one.dataset, one.graph
        self.examples, self.processes = one.examples, one.processes
        seeds = [str(trainer.seed) for trainer in trainers]
        names = " ".join(seeds) if len(seeds) <= 3 else f"{seeds[0]} … {seeds[-1]}"
        self.epochs, self.label = one.epochs, f", seeds {names}"
        self._keys = tuple(Key(trainer.seed).fold_in("step") for trainer in trainers)

    def is_over(self, now: _Together) -> bool:
        """Return whether the last epoch was made."""
        return int(now.position[0]) >= self.epochs

    def has_lost_one(self, now: _Together) -> bool:
        """Return whether the epoch that has just ended was the last one of some runs."""
        pairs = zip(self._trainers, now.outcomes(), strict=True)
        return any(one.is_over(state) for one, state in pairs if isinstance(state, TrainState))

    def order(self, epoch: int) -> list[np.ndarray]:
        """Return the indices of each batch of an epoch: those of the first run, then the next."""
        orders = (trainer.order(epoch) for trainer in self._trainers)
        return [np.concatenate(of_runs) for of_runs in zip(*orders, strict=True)]

    def step(
        self, now: _Together, advance: Advance, batch: tuple[Array, ...], per_epoch: int
    ) -> _Together:
        """Return the states after the next step; see `epoch.Stepper`.

        The batch has the examples of the first run, then those of the next.
        """
        number = step_number(now.position, per_epoch)
        keys = Keys(tuple(key.fold_in(number) for key in self._keys))
        of_runs = tuple(x.reshape(len(self._trainers), -1, *x.shape[1:]) for x in batch)
        _, numbers = self._one.of_step(number, per_epoch)
        runs = tuple(
            noting_start(*of_run, number, per_epoch)
            for of_run in zip(self._trainers, now.runs, now.carried, strict=True)
        )
        carried, seen = advance(now.carried, of_runs, keys, numbers)
        if self._one.grad_stats is not None and number % self._one.grad_stats == 0:
            runs = tuple(
                self._compared(i, run, now.carried[i], seen["each"][i], number)
                for i, run in enumerate(runs)
            )
        unread = Unread(number, seen["loss"], seen["correct"], of_runs[0].shape[1])
        return replace(
            now,
            runs=runs,
            carried=carried,
            position=np.add(now.position, (0, 1)),
            unread=(*now.unread, unread),
        )

    def advance(
        self,
        carried: tuple[Carried, ...],
        batch: tuple[Array, ...],
        keys: Any,
        numbers: dict[str, Any],
        check: bool = False,
    ) -> tuple[tuple[Carried, ...], dict[str, Tree]]:
        """Make a step of all runs, as a pure function of arrays; see `Trainer.advance`.

        Args:
            carried: what the step makes anew, of each run.
            batch: as `Examples.batches` yields it, each array with the axis of the runs first.
            keys: `keys.fold_in(i)` is all randomness of the step of run i.
            numbers, check: likewise, of all runs.

        Returns:
            `carried` anew, and what is seen of the step: `loss` and `correct`, `(runs,)`, and
            `each`, what else is seen of each run.
        """

        def advance_one(i: int) -> tuple[Carried, dict[str, Tree]]:
            own = tuple(of_runs[i] for of_runs in batch)
            return self._trainers[i].advance(carried[i], own, keys.fold_in(i), numbers, check)

        indices = range(len(self._trainers))
        if check:
            # Constants that all runs share are made in the first step, on the stream of one run.
            # The others may only read them after that, so the runs take turns.
            done = [advance_one(i) for i in indices]
        else:
            done = self.backend.side_by_side(advance_one, indices)
        new, seen = zip(*done, strict=True)
        # Stacked, they are read and copied at once.
        stacked = {name: stack([of_run[name] for of_run in seen]) for name in _STACKED}
        each = [{k: v for k, v in of_run.items() if k not in _STACKED} for of_run in seen]
        return new, {**stacked, "each": each}

    def _compared(
        self, i: int, run: TrainState, carried: Carried, seen: dict[str, Tree], number: int
    ) -> TrainState:
        """Return the state of run i with the comparison of its gradient in a step."""
        before, key = replace(run, carried=carried), self._keys[i].fold_in(number)
        return replace(run, comparisons=compared(self._trainers[i], before, number, seen, key))

    def collect_losses(self, now: _Together) -> _Together:
        """Bring the losses of the unread steps to the host, and note which runs have diverged."""
        if not now.unread:
            return now
        to_host = self.backend.to_host
        losses, hits = (
            to_host(stack([getattr(step, name) for step in now.unread])).T for name in _STACKED
        )
        read: list[TrainState] = []
        diverged = dict(now.diverged)
        for i, run in enumerate(now.runs):
            steps = zip(now.unread, losses[i], hits[i], strict=True)
            unread = tuple(step._replace(loss=loss, correct=right) for step, loss, right in steps)
            try:
                read.append(self._trainers[i].collect_losses(replace(run, unread=unread)))
            except DivergedError as error:
                diverged[i] = error
                read.append(run)
        return replace(now, runs=tuple(read), unread=(), diverged=diverged)

    def later(self, now: _Together, seconds: float) -> _Together:
        """Return the states after so many more seconds of their epoch."""
        return replace(now, runs=tuple(self._one.later(run, seconds) for run in now.runs))

    def finish_epoch(self, now: _Together, per_epoch: int) -> _Together:
        """Evaluate each run, and go to the start of the next epoch; see `Trainer.finish_epoch`."""
        diverged = dict(now.diverged)
        finished = list(now.runs)
        for i, state in _good(now, dict(enumerate(now.runs))).items():
            try:
                finished[i] = self._trainers[i].finish_epoch(state, per_epoch)
            except DivergedError as error:
                diverged[i] = error
        position = np.array([now.position[0] + 1, 0])
        return replace(now, runs=tuple(finished), position=position, diverged=diverged)


def _require_alike(trainers: Sequence[Trainer], starts: Sequence[TrainState]) -> None:
    """Raise a UsageError unless the runs differ in their seeds alone and start at one position."""
    first = replace(trainers[0], seed=0)
    if any(replace(trainer, seed=0) != first for trainer in trainers):
        raise UsageError(
            "train_side_by_side: trainers: expected Trainers that differ in their seeds alone, as "
            "[replace(trainer, seed=seed) for seed in seeds]"
        )
    positions = [tuple(state.position.tolist()) for state in starts]
    if len(set(positions)) > 1:
        raise UsageError(
            f"train_side_by_side: starts: expected states at one position, got {positions}; train "
            "those apart that are at another one"
        )
