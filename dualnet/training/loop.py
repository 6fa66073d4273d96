"""The training loop: all that changes is one value, a `TrainState`, and a step makes a new one from
the old."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.backends.blas import threads_for
from dualnet.backends.processes import ALONE, Processes
from dualnet.data import Dataset, batches
from dualnet.data.augment import Augmentation
from dualnet.learning import (
    Batch,
    LearnerState,
    Plan,
    Rule,
    Task,
    estimate_gradient,
)
from dualnet.learning.sharing import part_of_batch
from dualnet.optim import Optimizer
from dualnet.random import Key
from dualnet.schedules import Schedule
from dualnet.training.divergence import left_out_unless_finite, noting_start
from dualnet.training.epoch import course, step_number
from dualnet.training.evaluation import Evaluation
from dualnet.training.examples import Examples
from dualnet.training.figures import collected, compared, finished
from dualnet.training.history import best_epoch
from dualnet.training.objective import (
    Objective,
    StepNumbers,
    Supervised,
    TrainedNetwork,
    require_whole_batches,
)
from dualnet.training.rates import rate_factors
from dualnet.training.run_folder import COLUMNS
from dualnet.training.state import Carried, TrainState, Unread
from dualnet.tree import Tree
from dualnet.types import Array

Advance = Callable[
    [Carried, tuple[Array, ...], Key, dict[str, Any]], tuple[Carried, dict[str, Tree]]
]
"""A step as a pure function of arrays; see `Trainer.advance`."""


@dataclass(frozen=True)
class Trainer:
    """Everything of a run that does not change.

    Attributes:
        task, rule, optimizer, schedule: what is learned and how.
        lr: base learning rate.
        dataset: the examples.
        pixels: how images become numbers, as in `Dataset.pixels`.
        dtype: of pixels and parameters.
        epochs: passes over the training images.
        batch_size: images of a step; the last batch of an epoch may have fewer.
        seed: of all randomness.
        backend: draws random numbers and runs the work.
        objective: what batches are made into, and how answers are judged.
        augment: what changes training images at random in every step; None for nothing.
        shards: pieces that a batch is cut into; None for as many as `pieces` says.
        early_stop: after how many epochs in a row without a lower test loss the run ends; None for
            never.
        grad_stats: after how many steps the gradient is compared with the exact one again,
            beginning with the first step; None for never.
        graph: whether a device may record steps and evaluations, and repeat the recordings.
        head_lr, output_lr: factors of the learning rate; see `rates.rate_factors`.
        clip_norm: the norm to which larger gradients are scaled down; None to leave them.
        on_nan: what a number that is not finite does: `stop` the run, or `skip` its step.
        processes: that share each batch and each evaluation; every one makes all steps.
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
    early_stop: int | None = None
    grad_stats: int | None = None
    graph: bool = True
    head_lr: float = 1.0
    output_lr: float = 1.0
    clip_norm: float | None = None
    on_nan: str = "stop"
    processes: Processes = ALONE

    @cached_property
    def plan(self) -> Plan:
        """What the rule needs to know about the network, worked out once."""
        return Plan.of(self.task, *self._initial, self.prepare(self.dataset.train_images[:1]))

    @cached_property
    def examples(self) -> Examples:
        """What the steps take of the data set."""
        return Examples(self.dataset, self.backend, self.processes)

    @cached_property
    def _step_key(self) -> Key:
        """The key from which the key of each step is derived."""
        return Key(self.seed).fold_in("step")

    @cached_property
    def _rate_factors(self) -> Tree | None:
        """What the learning rate of each parameter is multiplied by; None for 1."""
        return rate_factors(self.task.network, self._initial[0], self.head_lr, self.output_lr)

    @cached_property
    def _initial(self) -> tuple[Tree, Tree]:
        """Return the network's parameters and state before the first step."""
        key = Key(self.seed).fold_in("init")
        params, model_state, _ = self.task.network.init(key, self.dataset.in_shape)
        params, model_state = (
            tree.map(lambda a: self.backend.asarray(a, self.dtype), t)
            for t in (params, model_state)
        )
        return params, model_state

    def start(self) -> TrainState:
        """Return the state before the first step.

        Raises:
            UsageError: the objective, the rule or the network cannot learn from such batches.
        """
        key = Key(self.seed)
        params, model_state = self._initial
        _ = self._rate_factors  # refused here, before a run has a folder
        trained = TrainedNetwork(self.task.network, params, model_state)
        x = self.prepare(self.dataset.train_images[:1])
        sizes = len(self.dataset.train_images), self.batch_size
        require_whole_batches(self.objective, self.task, trained, x, *sizes, self.processes)
        classes = self.dataset.outputs
        carried = Carried(
            params,
            model_state,
            self.rule.init(key.fold_in("rule"), self.plan, params),
            self.optimizer.init_opt_state(params),
            self.objective.init_readout(key.fold_in("readout"), trained, x, classes),
        )
        nothing_compared = np.zeros((0, len(tree.leaves(params)) + 1, 3))
        return TrainState(
            carried,
            position=np.zeros(2, np.int64),
            sums=np.zeros(4),
            history=np.zeros((0, len(COLUMNS))),
            comparisons={} if self.grad_stats is None else nothing_compared,
            skipped=np.zeros((), np.int64) if self.on_nan == "skip" else {},
        )

    def train(
        self,
        now: TrainState,
        on_epoch: Callable[[TrainState], bool | None],
        save: Callable[[TrainState], None],
        is_due: Callable[[], bool] = lambda: False,
        quiet: bool = False,
    ) -> tuple[TrainState, list[float]]:
        """Train from a state to the last epoch.

        Args:
            now: `start()`, or a state from a checkpoint.
            on_epoch: called with the state after each epoch; the run ends if it returns True.
            save: called with the last whole state before a KeyboardInterrupt, or if it is due.
            is_due: called after each step; it returns whether the state is to be saved.
            quiet: whether the progress bar is left out.

        Returns:
            The last state, and the seconds that each step took.

        Raises:
            DivergedError: the loss is NaN or infinite.
            TreeError, UsageError: the rule's gradients are no arrays like the parameters.
        """
        step_seconds: list[float] = []
        try:
            # An overflow is no error here: it ends in a loss that is not finite, which is checked.
            # The generator is closed at once when interrupted, so that no thread goes on reading.
            states = closing(course(self, now, step_seconds, quiet))
            with np.errstate(all="ignore"), states as following:
                for state in following:
                    now = state
                    if now.position[1] == 0:
                        if on_epoch(now):
                            break
                    elif is_due():
                        save(self.collect_losses(now))
        except KeyboardInterrupt:
            save(self.collect_losses(now))
            raise
        return now, step_seconds

    @property
    def label(self) -> str:
        """What the progress bar says after the number of the epoch."""
        return f", seed {self.seed}"

    def is_over(self, now: TrainState) -> bool:
        """Return whether the last epoch was made, or so many without a lower test loss."""
        if now.position[0] >= self.epochs:
            return True
        if self.early_stop is None or not len(now.history):
            return False
        return len(now.history) - best_epoch(now.history) >= self.early_stop

    def order(self, epoch: int) -> list[np.ndarray]:
        """Return the indices of the training images of each batch of an epoch."""
        key = Key(self.seed).fold_in("order").fold_in(epoch)
        return batches(len(self.dataset.train_images), self.batch_size, key)

    def step(
        self, now: TrainState, advance: Advance, batch: tuple[Array, ...], per_epoch: int
    ) -> TrainState:
        """Return the state after the next step; see `epoch.Stepper`."""
        number = step_number(now.position, per_epoch)
        key, numbers = self.of_step(number, per_epoch)
        now = noting_start(self, now, now.carried, number, per_epoch)
        carried, seen = advance(now.carried, batch, key, numbers)
        images = len(batch[-1]) if self.processes.size == 1 else self.size_of(number)
        due = self.grad_stats is not None and number % self.grad_stats == 0
        unread = Unread(number, seen["loss"], seen["correct"], images)
        return replace(
            now,
            carried=carried,
            position=np.add(now.position, (0, 1)),
            comparisons=compared(self, now, number, seen, key) if due else now.comparisons,
            unread=(*now.unread, unread),
        )

    def size_of(self, number: int) -> int:
        """Return how many images the batch of a step has, in all processes; steps count from 0."""
        images = len(self.dataset.train_images)
        first = number * self.batch_size % (-(-images // self.batch_size) * self.batch_size)
        return min(self.batch_size, images - first)

    def of_step(self, number: int, per_epoch: int) -> tuple[Key, dict[str, Any]]:
        """Return the key of a step, numbered from 0, and the fields of its `StepNumbers`."""
        factor = self.schedule(number, self.epochs * per_epoch, per_epoch)
        # A float64 scalar of NumPy would widen float32 parameters.
        numbers = StepNumbers(lr_factor=float(factor), step=number + 1)
        return self._step_key.fold_in(number), numbers._asdict()

    def advance(
        self,
        carried: Carried,
        batch: tuple[Array, ...],
        key: Key,
        numbers: dict[str, Any],
        check: bool = False,
    ) -> tuple[Carried, dict[str, Tree]]:
        """Make a step, as a pure function of arrays; see `Backend.recorded`.

        Args:
            carried: what the step makes anew.
            batch: as `Examples.batches` yields it.
            key: all randomness of the step.
            numbers: the fields of `StepNumbers` by name.
            check: whether it is made sure that gradients, parameters and what the optimizer makes
                of them fit each other.  It is enough to do so in the first step of a run.

        Returns:
            `carried` anew, and what is seen of the step: its mean `loss`, and how many inputs are
            `correct`; if gradients are to be compared, also `gradients`, `inputs` and `targets`.
        """
        now = StepNumbers(**numbers)
        trained = TrainedNetwork(self.task.network, carried.params, carried.model_state)
        part = self.processes.size > 1 and self.processes.shares == "batch"
        examples = self.size_of(int(now.step) - 1) if part else None
        inputs, targets = self.inputs_of(batch, key, examples)
        learner = LearnerState(carried.params, carried.model_state, carried.rule_state)
        done = estimate_gradient(
            *(self.rule, self.plan, learner, Batch(inputs, targets), key),
            *(self.backend, self.pieces, self.processes, examples),
        )
        lr = self.lr * now.lr_factor
        params, opt_state = self.optimizer.apply(
            done.gradients,
            carried.opt_state,
            carried.params,
            lr,
            now.step,
            check,
            self._rate_factors,
            self.clip_norm,
        )
        readout, correct_by_readout = self.objective.learn_readout(
            carried.readout, trained, inputs, targets, now
        )
        hits = done.correct if correct_by_readout is None else correct_by_readout
        new = Carried(params, done.model_state, done.rule_state, opt_state, readout)
        loss = done.loss
        if self.on_nan == "skip":
            new, loss = left_out_unless_finite(new, carried, done.gradients, loss)
        seen = {"loss": loss, "correct": hits}
        if self.grad_stats is not None:
            seen |= {"gradients": done.gradients, "inputs": inputs, "targets": targets}
        return new, seen

    def inputs_of(
        self, batch: tuple[Array, ...], key: Key, examples: int | None = None
    ) -> tuple[Array, Array]:
        """Return what the network gets in a step with this batch and key, and the targets.

        Args:
            batch: as `Examples.batches` yields it.
            key: all randomness of the step.
            examples: how many the batch has in all processes; None if it is whole here.
        """
        view_keys = self.objective.view_keys(key.fold_in("augment"))
        images, labels = self.examples.of(batch)
        start = 0 if examples is None else part_of_batch(self.processes, examples).start
        views = [self.prepare(images, view_key, start) for view_key in view_keys]
        return self.objective.combine(views, labels)

    @property
    def pieces(self) -> int:
        """How many pieces a batch is cut into: by default one for each thread.

        Processes that share directions exchange numbers in each piece.  So they cut a batch alike,
        however many threads each of them has: by default they leave it whole.
        """
        return self.shards or (1 if self.processes.shares == "tangents" else self.backend.threads)

    def collect_losses(self, now: TrainState) -> TrainState:
        """Return the state with the losses of the unread steps; see `figures.collected`."""
        return collected(self, now)

    def later(self, now: TrainState, seconds: float) -> TrainState:
        """Return the state after so many more seconds of its epoch."""
        return replace(now, sums=np.add(now.sums, (0, 0, 0, seconds)))

    def finish_epoch(self, now: TrainState, per_epoch: int) -> TrainState:
        """Return the state at the start of the next epoch; see `figures.finished`."""
        return finished(self, now, per_epoch)

    def evaluate(self, now: TrainState) -> tuple[float, float]:
        """Return mean loss (in nats) and accuracy on the test images, in evaluation mode."""
        with threads_for(self.plan.largest_product * len(self.dataset.test_images)):
            return self._evaluation(now.carried)

    @cached_property
    def _evaluation(self) -> Evaluation:
        """The evaluation of all states of the run."""
        return Evaluation(
            *(self.task.network, self.objective, self.dataset, self.prepare),
            *(self.backend, self.graph, self.processes),
        )

    def prepare(self, images: Array, key: Key | None = None, start: int = 0) -> Array:
        """Return images as the network gets them, changed at random if a key is given.

        Args:
            images: as they are in the data set.
            key: all randomness of the changes.
            start: index of the first image in its batch.
        """
        change = None
        if key is not None and self.augment is not None:
            change = partial(self.augment, key, backend=self.backend, start=start)
        raw = self.backend.asarray(images)  # moved as bytes, a quarter of what floats would be
        return self.dataset.pixels(raw, self.dtype, self.pixels, change)
