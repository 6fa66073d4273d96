"""The training loop.

All that changes is one value, a `TrainState`; a step makes a new one from the old.  Shuffles and
random directions are functions of (seed, epoch) and (seed, step), so a state is all that is
needed to go on: a run that was stopped at any moment and resumed gives the same numbers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from dualnet import tree
from dualnet.backends import Backend
from dualnet.data import Dataset, batches
from dualnet.errors import DivergedError
from dualnet.learning import Rule, Task, correct, step
from dualnet.nn.network import Context
from dualnet.optim import Optimizer
from dualnet.random import Key
from dualnet.schedules import Schedule
from dualnet.training.run_folder import COLUMNS
from dualnet.tree import Tree

_WARM_UP_STEPS = 5
_EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class TrainState:
    """Where a run stands.

    Attributes:
        params, state, learned, optimizer: the network's parameters and state, what the rule
            learns, what the optimizer remembers; trees of arrays.
        position: `(epoch, batch)`, the next batch to train on.
        sums: `(loss, correct, examples, seconds)` of the present epoch so far.
        history: a row for each finished epoch, in the order of `COLUMNS`.
        unread: `(number, loss, correct, examples)` of each step since the last whose loss was
            looked at, still on the device; no part of a checkpoint, as `Trainer.read` empties it.
    """

    params: Tree
    state: Tree
    learned: Tree
    optimizer: Tree
    position: np.ndarray
    sums: np.ndarray
    history: np.ndarray
    unread: tuple[tuple[int, Any, Any, int], ...] = ()

    def as_trees(self) -> dict[str, Tree]:
        """For a checkpoint; of a state whose losses are read."""
        assert not self.unread
        return {name: value for name, value in vars(self).items() if name != "unread"}


States = Generator[TrainState, None, TrainState]
"""Yields states as they come about, and returns the last."""


@dataclass(frozen=True)
class Trainer:
    """Everything of a run that does not change.

    Attributes:
        task, rule, optimizer, schedule: what is learned and how.
        lr: base learning rate.
        dataset: the examples.
        pixels: how images become numbers, as in `Dataset.pixels`.
        dtype: of pixels and parameters.
        epochs, batch_size, seed: as they say.
        backend: draws and runs; a batch is cut into `backend.threads` shards.
    """

    task: Task
    rule: Rule
    optimizer: Optimizer
    schedule: Schedule
    lr: float
    dataset: Dataset
    pixels: str
    dtype: Any
    epochs: int
    batch_size: int
    seed: int
    backend: Backend

    def start(self) -> TrainState:
        """The state before the first step."""
        key = Key(self.seed)
        in_shape = self.dataset.train_images.shape[1:]
        params, state, _ = self.task.network.init(key.fold_in("init"), in_shape)
        params, state = (
            tree.map(lambda a: self.backend.asarray(a, self.dtype), t) for t in (params, state)
        )
        first = self.dataset.train_images[:1]
        return TrainState(
            params,
            state,
            self.rule.init(key.fold_in("rule"), self.task, params, state, self._inputs(first)),
            self.optimizer.init(params),
            position=np.zeros(2, np.int64),
            sums=np.zeros(4),
            history=np.zeros((0, len(COLUMNS))),
        )

    def train(
        self,
        now: TrainState,
        on_epoch: Callable[[TrainState], None],
        on_interrupt: Callable[[TrainState], None],
        quiet: bool = False,
    ) -> tuple[TrainState, list[float]]:
        """Train from a state to the last epoch.

        Args:
            now: `start()`, or a state from a checkpoint.
            on_epoch: called with the state after each epoch.
            on_interrupt: called with the last whole state before a KeyboardInterrupt goes on.
            quiet: no progress bars.

        Returns:
            The last state, and the seconds that each step took.

        Raises:
            DivergedError: the loss is NaN or infinite.
        """
        step_seconds: list[float] = []
        try:
            # What overflows ends in a loss that is not finite, and that is checked.
            with np.errstate(all="ignore"):
                for state in self._states(now, step_seconds, quiet):
                    now = state
                    if now.position[1] == 0:
                        on_epoch(now)
        except KeyboardInterrupt:
            on_interrupt(self.read(now))
            raise
        return now, step_seconds

    def _states(self, now: TrainState, step_seconds: list[float], quiet: bool) -> States:
        """Yield the state after each step and after each epoch's evaluation."""
        while now.position[0] < self.epochs:
            now = yield from self._epoch(now, step_seconds, quiet)
        return now

    def _epoch(self, now: TrainState, step_seconds: list[float], quiet: bool) -> States:
        """Yield the state after each step of the present epoch, then after its evaluation."""
        epoch, first = (int(i) for i in now.position)
        n = len(self.dataset.train_images)
        order = [
            np.asarray(chosen, like=self.dataset.train_images)
            for chosen in batches(
                n, self.batch_size, Key(self.seed).fold_in("order").fold_in(epoch)
            )
        ]
        with tqdm(
            desc=f"epoch {epoch + 1}/{self.epochs}",
            total=n,
            initial=int(now.sums[2]),
            unit="ex",
            disable=quiet,
            leave=epoch + 1 == self.epochs,
        ) as bar:
            for batch in range(first, len(order)):
                if not now.unread:
                    began = time.perf_counter()
                now = self._step(now, epoch * len(order) + batch, order[batch], len(order))
                now = replace(now, position=np.array([epoch, batch + 1]))
                steps = len(now.unread)
                if steps == self.backend.read_every or batch + 1 == len(order):
                    now = self.read(now)  # the device has done these steps only now
                    seconds = time.perf_counter() - began
                    step_seconds += [seconds / steps] * steps
                    now = replace(now, sums=np.add(now.sums, (0, 0, 0, seconds)))
                bar.set_postfix(_so_far(now), refresh=False)
                bar.update(len(order[batch]))
                yield now
        now = self._finish_epoch(now, epoch, len(order))
        yield now
        return now

    def _step(self, now: TrainState, number: int, chosen: np.ndarray, per_epoch: int) -> TrainState:
        images = self._inputs(self.dataset.train_images[chosen])
        labels = self.backend.asarray(self.dataset.train_labels[chosen])
        key = Key(self.seed).fold_in("step").fold_in(number)
        done = step(
            self.rule,
            self.task,
            now.params,
            now.state,
            now.learned,
            images,
            labels,
            key,
            self.backend,
            self.backend.threads,
        )
        lr = self.lr * self.schedule(number, self.epochs * per_epoch, per_epoch)
        params, optimizer = self.optimizer.update(done.gradients, now.optimizer, now.params, lr)
        return replace(
            now,
            params=params,
            optimizer=optimizer,
            state=done.state,
            learned=done.learned,
            unread=(*now.unread, (number, done.loss, done.correct, len(chosen))),
        )

    def read(self, now: TrainState) -> TrainState:
        """The same state, the losses of its steps looked at and added up.

        Raises:
            DivergedError: one is NaN or infinite.
        """
        if not now.unread:
            return now
        sums, (numbers, losses, hits, examples) = now.sums, zip(*now.unread, strict=True)
        read = (self.backend.to_host(np.stack(x)).tolist() for x in (losses, hits))
        for number, loss, right, n in zip(numbers, *read, examples, strict=True):
            if not np.isfinite(loss):
                raise DivergedError(
                    f"diverged at step {number + 1}: the loss is {loss}; lower --lr (now "
                    f"{self.lr:g}) or raise --tangents if the rule has it; the last good "
                    "checkpoint is kept"
                )
            sums = np.add(sums, (loss * n, right, n, 0))
        return replace(now, sums=sums, unread=())

    def _finish_epoch(self, now: TrainState, epoch: int, per_epoch: int) -> TrainState:
        test_loss, test_accuracy = self.evaluate(now)
        if not np.isfinite(test_loss):
            raise DivergedError(
                f"diverged in epoch {epoch + 1}: the test loss is {test_loss}; lower --lr (now "
                f"{self.lr:g}); the last good checkpoint is kept"
            )
        loss, hits, examples, seconds = now.sums
        last = (epoch + 1) * per_epoch - 1
        lr = self.lr * self.schedule(last, self.epochs * per_epoch, per_epoch)
        row = [epoch + 1, loss / examples, hits / examples, test_loss, test_accuracy, lr, seconds]
        return replace(
            now,
            position=np.array([epoch + 1, 0]),
            sums=np.zeros(4),
            history=np.concatenate([now.history, [row]]),
        )

    def evaluate(self, now: TrainState) -> tuple[float, float]:
        """Mean loss and accuracy on the test images, in evaluation mode."""
        loss, hits, n = 0.0, 0, len(self.dataset.test_images)
        for start in range(0, n, _EVALUATION_BATCH):
            part = slice(start, start + _EVALUATION_BATCH)
            images = self._inputs(self.dataset.test_images[part])
            labels = self.backend.asarray(self.dataset.test_labels[part])
            outputs, _ = self.task.network.apply(now.params, now.state, images, Context())
            loss += float(self.task.loss(outputs, labels).sum())
            hits += int(correct(outputs, labels))
        return loss / n, hits / n

    def _inputs(self, images: Any) -> Any:
        return self.dataset.pixels(self.backend.asarray(images), self.dtype, self.pixels)


def seconds_per_step(step_seconds: list[float]) -> float | None:
    """The median after the first five steps, everything included; None if there were fewer."""
    after = step_seconds[_WARM_UP_STEPS:]
    return statistics.median(after) if after else None


def _so_far(now: TrainState) -> dict[str, str]:
    loss, hits, examples, _ = now.sums
    if not examples:
        return {}
    return {"loss": f"{loss / examples:.4f}", "accuracy": f"{hits / examples:.3f}"}
