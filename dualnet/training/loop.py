"""The training loop: all that changes is one value, a `TrainState`; a step makes a new one from the
old."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from tqdm import tqdm

from dualnet import tree
from dualnet.analysis import Point, compare
from dualnet.backends import Backend
from dualnet.core.arrays import asarray_like
from dualnet.data import Dataset, batches
from dualnet.data.augment import Augmentation
from dualnet.errors import DivergedError, UsageError
from dualnet.learning import Batch, LearnerState, Plan, Rule, Task, correct, estimate_gradient
from dualnet.nn import softmax_cross_entropy
from dualnet.nn.network import Context
from dualnet.optim import Optimizer
from dualnet.random import Key
from dualnet.schedules import Schedule
from dualnet.training.objective import Objective, Supervised
from dualnet.training.run_folder import COLUMNS
from dualnet.training.state import CARRIED, TrainState
from dualnet.tree import Tree

_WARM_UP_STEPS = 5
_EVALUATION_BATCH = 1000
_EVALUATION_PIXELS = _EVALUATION_BATCH * 32 * 32


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
        objective: what the batches are made into, and how answers are judged.
        augment: what changes training images at random in every step; None for nothing.
        dtype: of pixels and parameters.
        epochs, batch_size, seed: as they say.
        backend: draws and runs.
        shards: pieces that a batch is cut into; None for `backend.threads`.
        grad_stats: compare the gradient with the exact one at the first step and every so many
            after it; None for never.
        graph: let the backend record a step and repeat it.
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
    objective: Objective = Supervised()  # noqa: RUF009, frozen
    augment: Augmentation | None = None
    shards: int | None = None
    grad_stats: int | None = None
    graph: bool = False

    @cached_property
    def plan(self) -> Plan:
        """What the rule needs to know about the network."""
        return Plan.of(self.task, *self._initial(), self._inputs(self.dataset.train_images[:1]))

    def _initial(self) -> tuple[Tree, Tree]:
        """Return the network's parameters and state at the start."""
        key = Key(self.seed).fold_in("init")
        params, state, _ = self.task.network.init(key, self.dataset.in_shape)
        params, state = (
            tree.map(lambda a: self.backend.asarray(a, self.dtype), t) for t in (params, state)
        )
        return params, state

    def start(self) -> TrainState:
        """The state before the first step."""
        key = Key(self.seed)
        params, state = self._initial()
        network, x = self.task.network, self._inputs(self.dataset.train_images[:1])
        self._require_whole_batches(params, state, x)
        classes = len(self.dataset.classes)
        return TrainState(
            params,
            state,
            self.rule.init(key.fold_in("rule"), self.plan, params),
            self.optimizer.memories(params),
            self.objective.init(key.fold_in("readout"), network, params, state, x, classes),
            position=np.zeros(2, np.int64),
            sums=np.zeros(4),
            history=np.zeros((0, len(COLUMNS))),
            comparisons={}
            if self.grad_stats is None
            else np.zeros((0, len(tree.leaves(params)) + 1, 3)),
        )

    def _require_whole_batches(self, params: Tree, state: Tree, x: Any) -> None:
        """Refuse at once a last batch that the objective could not learn from, and what batch norm
        would refuse at the end of the first epoch: a batch of one example x, without variance."""
        n = len(self.dataset.train_images)
        last = n % self.batch_size or self.batch_size
        if last < self.objective.fewest:
            raise UsageError(
                f"--batch-size {self.batch_size} leaves a last batch of {last} of {n} images, and "
                f"the {type(self.objective).__name__.lower()} loss tells {self.objective.fewest} "
                "or more apart"
            )
        if last > 1 or not self.task.couples_examples:
            return
        views, _ = self.objective.batch(lambda _key: x, np.zeros(1), Key(0))
        try:
            self.task.network.apply(params, state, views, Context(train=True, key=Key(0)))
        except UsageError as error:
            raise UsageError(
                f"--batch-size {self.batch_size} leaves a last batch of one of {n} images: {error}"
            ) from None

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
            # Closed at once when interrupted, so that no thread goes on reading batches.
            states = closing(self._states(now, step_seconds, quiet))
            with np.errstate(all="ignore"), states as following:
                for state in following:
                    now = state
                    if now.position[1] == 0:
                        on_epoch(now)
        except KeyboardInterrupt:
            on_interrupt(self.read(now))
            raise
        return now, step_seconds

    def _states(self, now: TrainState, step_seconds: list[float], quiet: bool) -> States:
        """Yield the state after each step and after each epoch's evaluation."""
        advance = self.backend.recorded(self._advance) if self.graph else self._advance
        while now.position[0] < self.epochs:
            now = yield from self._epoch(now, advance, step_seconds, quiet)
        return now

    def _epoch(
        self, now: TrainState, advance: Callable, step_seconds: list[float], quiet: bool
    ) -> States:
        """Yield the state after each step of the present epoch, then after its evaluation."""
        epoch, first = (int(i) for i in now.position)
        n = len(self.dataset.train_images)
        shuffled = batches(n, self.batch_size, Key(self.seed).fold_in("order").fold_in(epoch))
        order = [asarray_like(chosen, self.dataset.train_images) for chosen in shuffled]
        bar = tqdm(
            desc=f"epoch {epoch + 1}/{self.epochs}",
            total=n,
            initial=int(now.sums[2]),
            unit="ex",
            disable=quiet,
            leave=epoch + 1 == self.epochs,
        )
        read = self.dataset.training_batches(order[first:])
        with bar, closing(read), closing(self.backend.prefetch(read)) as examples:
            for batch in range(first, len(order)):
                if not now.unread:
                    began = time.perf_counter()
                number = epoch * len(order) + batch
                now = self._step(now, advance, number, next(examples), len(order))
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

    def _step(
        self,
        now: TrainState,
        advance: Callable,
        number: int,
        batch: tuple[Any, Any],
        per_epoch: int,
    ) -> TrainState:
        key = Key(self.seed).fold_in("step").fold_in(number)
        factor = self.schedule(number, self.epochs * per_epoch, per_epoch)
        images, labels = batch
        carried, seen = advance(
            {name: getattr(now, name) for name in CARRIED},
            {"images": images, "labels": labels},
            key,
            {"factor": factor, "count": number + 1},
        )
        return replace(
            now,
            **carried,
            comparisons=self._compared(now, number, seen, key),
            unread=(*now.unread, (number, seen["loss"], seen["correct"], len(labels))),
        )

    def _advance(
        self, carried: dict[str, Tree], batch: dict[str, Any], key: Key, numbers: dict[str, Any]
    ) -> tuple[dict[str, Tree], dict[str, Any]]:
        """A step, as a pure function of arrays; see `Backend.recorded`.

        Args:
            carried: by the names in `CARRIED`.
            batch: `images` as they are in the data set, and `labels`.
            key: all randomness.
            numbers: `factor` of the learning rate, and `count`, the number of the step from 1.

        Returns:
            `carried` anew, and what is seen of the step: its `loss`, how many are `correct`;
            and, if gradients are to be compared, these and the batch as the network got it.
        """
        inputs, targets = self.objective.batch(
            lambda key: self._inputs(batch["images"], key),
            batch["labels"],
            key.fold_in("augment"),
        )
        params, state, network = carried["params"], carried["state"], self.task.network
        done = estimate_gradient(
            self.rule,
            self.plan,
            LearnerState(params, state, carried["learned"]),
            Batch(inputs, targets),
            key,
            self.backend,
            self.shards or self.backend.threads,
        )
        factor, count = numbers["factor"], numbers["count"]
        new_params, memories = self.optimizer.apply(
            done.gradients, carried["memories"], params, self.lr * factor, count
        )
        readout, hits = self.objective.read(
            carried["readout"], network, params, state, inputs, targets, factor, count
        )
        seen = {"loss": done.loss, "correct": done.correct if hits is None else hits}
        if self.grad_stats is not None:
            seen |= {"gradients": done.gradients, "inputs": inputs, "targets": targets}
        new = (new_params, done.model_state, done.rule_state, memories, readout)
        return dict(zip(CARRIED, new, strict=True)), seen

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
            sums = np.add(sums, (loss * n, right / self.objective.views, n, 0))
        return replace(now, sums=sums, unread=())

    def _compared(self, now: TrainState, number: int, seen: dict[str, Any], key: Key) -> Tree:
        """The comparisons with that of a step's gradient added, if it is to be looked at."""
        if self.grad_stats is None or number % self.grad_stats != 0:
            return now.comparisons
        point = Point(
            self.rule,
            self.plan,
            LearnerState(now.params, now.state, now.learned),
            self.backend,
            self.shards or self.backend.threads,
        )
        rows = compare(seen["gradients"], point.exact(seen["inputs"], seen["targets"], key))
        new = [[row.cosine, row.angle, row.norm_ratio] for row in rows]
        return np.concatenate([now.comparisons, [new]])

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
        height, width, _ = self.dataset.in_shape
        at_once = max(1, min(_EVALUATION_BATCH, _EVALUATION_PIXELS // (height * width)))
        for start in range(0, n, at_once):
            part = slice(start, start + at_once)
            images = self._inputs(self.dataset.test_images[part])
            labels = self.backend.asarray(self.dataset.test_labels[part])
            logits = self.objective.logits(
                now.readout, self.task.network, now.params, now.state, images
            )
            loss += float(softmax_cross_entropy(logits, labels).sum())
            hits += int(correct(logits, labels))
        return loss / n, hits / n

    def _inputs(self, images: Any, key: Key | None = None) -> Any:
        """Images as the network gets them; augmented if there is a key, which training has."""
        change = None
        if key is not None and self.augment is not None:
            change = partial(self.augment, key, backend=self.backend)
        bytes_there = self.backend.asarray(images)  # a quarter of what floats would be to move
        return self.dataset.pixels(bytes_there, self.dtype, self.pixels, change)


def seconds_per_step(step_seconds: list[float]) -> float | None:
    """The median after the first five steps, everything included; None if there were fewer."""
    after = step_seconds[_WARM_UP_STEPS:]
    return statistics.median(after) if after else None


def _so_far(now: TrainState) -> dict[str, str]:
    loss, hits, examples, _ = now.sums
    if not examples:
        return {}
    return {"loss": f"{loss / examples:.4f}", "accuracy": f"{hits / examples:.3f}"}
