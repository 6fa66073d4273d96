"""The course of a training run: the steps of each epoch one after the other, then its evaluation.

It is the same for one run (`loop.Trainer`) and for several that make their steps at once
(`side_by_side`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from dualnet.backends import Backend
from dualnet.backends.processes import Processes
from dualnet.data import Dataset
from dualnet.progress import progress_bar
from dualnet.training.examples import Examples
from dualnet.training.state import Unread
from dualnet.types import Array


class State(Protocol):
    """What a step makes anew: a `TrainState`, or those of several runs together.

    Attributes:
        position: `(epoch, batch)`, the next batch to train on.
        sums: as in a `TrainState`; of several runs their means.
        unread: the steps whose losses were not collected yet.
    """

    @property
    def position(self) -> np.ndarray: ...
    @property
    def sums(self) -> np.ndarray: ...
    @property
    def unread(self) -> tuple[Unread, ...]: ...


S = TypeVar("S", bound=State)


class Stepper(Protocol[S]):
    """What makes the steps of a run, or of several at once.

    Attributes:
        backend, dataset, epochs, examples, graph, processes: as in a `Trainer`.
        label: what the progress bar says after the number of the epoch.
        advance: a step as a pure function of arrays; see `Trainer.advance`.
    """

    @property
    def backend(self) -> Backend: ...
    @property
    def dataset(self) -> Dataset: ...
    @property
    def epochs(self) -> int: ...
    @property
    def examples(self) -> Examples: ...
    @property
    def graph(self) -> bool: ...
    @property
    def processes(self) -> Processes: ...
    @property
    def label(self) -> str: ...
    @property
    def advance(self) -> Callable[..., Any]: ...

    def is_over(self, now: S) -> bool:
        """Return whether no further epoch is to be made."""

    def order(self, epoch: int) -> list[np.ndarray]:
        """Return the indices of the training images of each batch of an epoch."""

    def step(
        self, now: S, advance: Callable[..., Any], batch: tuple[Array, ...], per_epoch: int
    ) -> S:
        """Return the state after the next step, at the position after it.

        Args:
            now: the state before it.
            advance: makes the step.
            batch: as `Examples.batches` yields it.
            per_epoch: steps of an epoch.
        """

    def collect_losses(self, now: S) -> S:
        """Return the state with the losses of the unread steps in its sums."""

    def later(self, now: S, seconds: float) -> S:
        """Return the state after so many more seconds of its epoch."""

    def finish_epoch(self, now: S, per_epoch: int) -> S:
        """Evaluate, and return the state at the start of the next epoch."""


def course(
    stepper: Stepper[S], now: S, step_seconds: list[float], quiet: bool
) -> Generator[S, None, S]:
    """Yield the state after each step and after each epoch's evaluation, to the last epoch.

    Args:
        stepper: makes the steps.
        now: the state to go on from.
        step_seconds: to which the seconds that each step took are appended.
        quiet: whether the progress bar is left out.

    Returns:
        The last state.
    """
    recorded = stepper.backend.recorded
    # Several processes exchange numbers within a step, by way of the host: no recording can do so.
    advance = recorded(stepper.advance, stepper.graph and stepper.processes.size == 1)
    first_advance = recorded(partial(stepper.advance, check=True), False)
    while not stepper.is_over(now):
        now = yield from _epoch(stepper, now, first_advance, advance, step_seconds, quiet)
        first_advance = advance
    return now


def step_number(position: np.ndarray, per_epoch: int) -> int:
    """Return the number in the run of the step at a position, from 0.

    Args:
        position: `(epoch, batch)`.
        per_epoch: steps of an epoch.
    """
    epoch, batch = (int(i) for i in position)
    return epoch * per_epoch + batch


def _epoch(
    stepper: Stepper[S],
    now: S,
    first_advance: Callable[..., Any],
    advance: Callable[..., Any],
    step_seconds: list[float],
    quiet: bool,
) -> Generator[S, None, S]:
    """Yield the state after each step of the present epoch, then after its evaluation.

    Args:
        stepper, now, step_seconds, quiet: as of `course`.
        first_advance, advance: make the first of these steps, and the others.
    """
    backend, dataset = stepper.backend, stepper.dataset
    epoch, first = (int(i) for i in now.position)
    order = stepper.order(epoch)
    images_of_epoch = len(dataset.train_images)
    bar = progress_bar(
        desc=f"epoch {epoch + 1}/{stepper.epochs}{stepper.label}",
        total=images_of_epoch,
        initial=round(images_of_epoch * sum(map(len, order[:first])) / sum(map(len, order))),
        bar_format=BAR,
        leave=False,
        quiet=quiet,
    )
    read = stepper.examples.batches(order[first:])
    with bar, closing(read), closing(backend.prefetch(read)) as examples:
        for batch in range(first, len(order)):
            if not now.unread:
                began = time.perf_counter()
            make = first_advance if batch == first else advance
            now = stepper.step(now, make, next(examples), len(order))
            steps, images = len(now.unread), now.unread[-1].examples
            if steps == backend.read_every or batch + 1 == len(order):
                now = stepper.collect_losses(now)  # the device has done these steps only now
                seconds = time.perf_counter() - began
                step_seconds += [seconds / steps] * steps
                now = stepper.later(now, seconds)
                bar.set_postfix(_so_far(now.sums), refresh=False)
            bar.update(images)
            yield now
    now = stepper.finish_epoch(now, len(order))
    yield now
    return now


BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
"""What the progress bar shows: the numbers of the epoch and of the seeds, the time of this epoch,
loss and accuracy so far."""


def _so_far(sums: np.ndarray) -> dict[str, str]:
    """Return what the progress bar shows of the present epoch."""
    loss, hits, examples, _ = sums
    if not examples:  # every run has diverged
        return {}
    return {"loss": f"{loss / examples:.4f}", "accuracy": f"{hits / examples:.3f}"}
