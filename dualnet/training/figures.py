"""The figures of a run: what its steps have shown, and what an epoch comes to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dualnet.analysis import Point, compare
from dualnet.learning import LearnerState
from dualnet.random import Key
from dualnet.training.divergence import all_finite, diverged
from dualnet.training.state import TrainState
from dualnet.tree import Tree

if TYPE_CHECKING:  # the trainer calls what is here
    from dualnet.training.loop import Trainer


def collected(trainer: Trainer, now: TrainState) -> TrainState:
    """Bring the losses of the unread steps to the host, and return the state with their sums.

    Raises:
        DivergedError: a loss is NaN or infinite.
    """
    if not now.unread:
        return now
    steps, losses, hits, examples = zip(*now.unread, strict=True)
    on_host = (trainer.backend.to_host(np.stack(x)).tolist() for x in (losses, hits))
    sums, skipped = now.sums, now.skipped
    for number, loss, right, n in zip(steps, *on_host, examples, strict=True):
        if not np.isfinite(loss):
            if trainer.on_nan == "skip":
                skipped = skipped + 1
                continue
            raise diverged(trainer, now, number, f"at step {number + 1}: the loss is {loss}")
        sums = np.add(sums, (loss * n, right / trainer.objective.views_per_image, n, 0))
    return replace(now, sums=sums, skipped=skipped, unread=())


def compared(
    trainer: Trainer, now: TrainState, number: int, seen: dict[str, Tree], key: Key
) -> Tree:
    """Return the comparisons, with that of a step's gradient.

    Args:
        trainer: of the run.
        now: the state before the step.
        number: of the step, from 0.
        seen: as `Trainer.advance` returns it.
        key: all randomness of the step.
    """
    at = now.carried
    learner = LearnerState(at.params, at.model_state, at.rule_state)
    point = Point(trainer.rule, trainer.plan, learner, trainer.backend, trainer.pieces)
    inputs, targets = seen["inputs"], seen["targets"]
    if trainer.processes.size > 1 and trainer.processes.shares == "batch":
        size = trainer.size_of(number)
        exact = point.exact(inputs, targets, key, trainer.processes, size)
    else:
        exact = point.exact(inputs, targets, key)
    new = [[row.cosine, row.angle, row.norm_ratio] for row in compare(seen["gradients"], exact)]
    return np.concatenate([now.comparisons, [new]])


def finished(trainer: Trainer, now: TrainState, per_epoch: int) -> TrainState:
    """Evaluate, add the epoch's row to the history, and go to the start of the next epoch.

    Args:
        trainer: of the run.
        now: the state after the last step of an epoch.
        per_epoch: steps of an epoch.

    Raises:
        DivergedError: a number is NaN or infinite, or all steps were left out.
    """
    epoch = int(now.position[0])
    last = (epoch + 1) * per_epoch - 1
    loss, hits, examples, seconds = now.sums
    if not examples:
        raise diverged(trainer, now, last, f"in epoch {epoch + 1}: all its steps were left out")
    test_loss, test_accuracy = trainer.evaluate(now)
    if not np.isfinite(test_loss):
        what = f"in epoch {epoch + 1}: the test loss is {test_loss}"
        raise diverged(trainer, now, last, what)
    if not all_finite(trainer, now.carried):
        what = f"in epoch {epoch + 1}, although the loss is finite"
        raise diverged(trainer, now, last, what)
    lr = trainer.lr * trainer.schedule(last, trainer.epochs * per_epoch, per_epoch)
    accuracy = hits / examples if trainer.objective.classifies else np.nan
    row = [epoch + 1, loss / examples, accuracy, test_loss, test_accuracy, lr, seconds]
    return replace(
        now,
        position=np.array([epoch + 1, 0]),
        sums=np.zeros(4),
        history=np.concatenate([now.history, [row]]),
    )
