"""Numbers that are not finite: where they appeared first, and steps that leave them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dualnet import tree
from dualnet.backends.processes import ALONE
from dualnet.errors import DivergedError
from dualnet.learning import Batch, LearnerState, estimate_gradient
from dualnet.learning.task import split_batch
from dualnet.naming import named
from dualnet.nn import Context
from dualnet.optim.clipping import largest_entry
from dualnet.random import Key
from dualnet.training.state import Carried, Start, TrainState
from dualnet.tree import Tree
from dualnet.types import Array

if TYPE_CHECKING:
    from dualnet.training.loop import Trainer


def left_out_unless_finite(
    new: Carried, old: Carried, gradients: Tree, loss: Array
) -> tuple[Carried, Array]:
    """Return what a step makes anew, or what it started from if a number of it is not finite.

    The host reads nothing, so that a device can do this in a recorded step.

    Args:
        new, old: what the step makes anew, and what it started from.
        gradients, loss: of the step.

    Returns:
        One of the two, and the loss, which is NaN if the step was left out.
    """
    largest = largest_entry((new, gradients, loss))
    assert largest is not None  # a loss has an entry
    zero_or_nan = largest - largest
    finite = zero_or_nan == 0
    kept = tree.map(lambda a, b: np.where(finite, a, b), new, old)
    return kept, loss + zero_or_nan


# --- looking for the first one -------------------------------------------------------------------


def noting_start(
    trainer: Trainer, now: TrainState, carried: Carried, number: int, per_epoch: int
) -> TrainState:
    """Return a state that knows from where its last steps can be made again.

    On the host that is the step before, whose arrays are still there.  A device overwrites them,
    so they are copied, but only at the start of an epoch.

    Args:
        trainer: of the run.
        now: the state before a step.
        carried: what the step starts from.
        number: of the step, from 0.
        per_epoch: steps of an epoch.
    """
    if trainer.on_nan == "skip":
        return now
    if trainer.backend.read_every == 1:
        return replace(now, starts=(*now.starts[-1:], Start(number, carried)))
    if now.starts and number % per_epoch:
        return now
    return replace(now, starts=(Start(number, tree.map(np.copy, carried)),))


def diverged(trainer: Trainer, now: TrainState, last: int, what: str) -> DivergedError:
    """Return the error of a run that has diverged.

    Args:
        trainer: of the run.
        now: a state with `starts` up to the last step.
        last: the number of the last step that was made, from 0.
        what: where it was noticed.
    """
    # Each process of several looks for it in whole batches, waits for nobody, and finds the same.
    alone = replace(trainer, processes=ALONE)
    began = where_it_began(alone, now, last)
    return DivergedError(
        f"diverged {what}; {began and began + '; '}lower {named('lr')} (now {trainer.lr:g}) or "
        f"raise {named('tangents')} if the rule has it; the last good checkpoint is kept"
    )


def where_it_began(trainer: Trainer, now: TrainState, last: int) -> str:
    """Say where the first number that is not finite appeared; "" if it cannot be found.

    Steps are made again, the last two of them piece by piece: a parameter that is not finite after
    one step makes the loss of the next one so.

    Args:
        trainer: of the run.
        now: a state with `starts` up to the last step.
        last: the number of the last step that was made, from 0.  Its loss is not finite, or that of
            the evaluation behind it.
    """
    if not now.starts:
        return ""
    first, carried = now.starts[0]
    plain = trainer.backend.recorded(trainer.advance, False)
    per_epoch = len(trainer.order(0))
    for number in range(first, last + 1):
        batch = _batch(trainer, number, per_epoch)
        key, numbers = trainer.of_step(number, per_epoch)
        if number >= last - 1:
            for what, arrays in _pieces_before_update(trainer, carried, batch, key):
                if not all_finite(trainer, arrays):
                    return f"the first number that is not finite is in {what} of step {number + 1}"
        carried, _ = plain(carried, batch, key, numbers)
        if number >= last - 1:
            for path, x in tree.items(carried._asdict()):
                if not all_finite(trainer, x):
                    part, _, path = path.partition("/")
                    return (
                        "the first number that is not finite is in "
                        f"{_OF_CARRIED[part]} {path}, after the update of step {number + 1}"
                    )
    return _where_in_evaluation(trainer, carried)


_OF_CARRIED = {
    "params": "parameter",
    "model_state": "the network's state",
    "rule_state": "what the rule learns,",
    "opt_state": "the optimizer's state",
    "readout": "the read-out beside the network,",
}
"""What a step makes anew → what it is called."""


def _batch(trainer: Trainer, number: int, per_epoch: int) -> tuple[Array, ...]:
    epoch, batch = divmod(number, per_epoch)
    return next(trainer.examples.batches([trainer.order(epoch)[batch]]))


def _pieces_before_update(
    trainer: Trainer, carried: Carried, batch: tuple[Array, ...], key: Key
) -> Iterator[tuple[str, Tree]]:
    """Yield each piece of a step up to its gradients, with its name, in the order of computing."""
    inputs, targets = trainer.inputs_of(batch, key)
    yield "the inputs", inputs
    context = Context(train=True, key=key.fold_in("network"), backend=trainer.backend)
    pieces = 1 if trainer.task.needs_whole_batch else trainer.pieces
    learner = LearnerState(carried.params, carried.model_state, carried.rule_state)
    for shard in split_batch(Batch(inputs, targets), pieces, context):
        seen, tap = _watch()
        losses, _ = trainer.task.losses(
            carried.params, carried.model_state, shard, replace(shard.context, tap=tap)
        )
        yield from seen
        yield "the loss", losses
    done = estimate_gradient(
        trainer.rule, trainer.plan, learner, Batch(inputs, targets), key, trainer.backend, pieces
    )
    yield "the losses that the rule adds", done.loss
    for path, g in tree.items(done.gradients):
        yield f"the gradient of parameter {path}, while the forward pass is finite,", g


def _where_in_evaluation(trainer: Trainer, carried: Carried) -> str:
    """Say in which layer a number is not finite in evaluation mode; "" if all are."""
    images = trainer.dataset.test_images
    for start in range(0, len(images), trainer.batch_size):
        seen, tap = _watch()
        inputs = trainer.prepare(images[start : start + trainer.batch_size])
        trainer.task.network.apply(carried.params, carried.model_state, inputs, Context(tap=tap))
        for what, arrays in seen:
            if not all_finite(trainer, arrays):
                return f"the first number that is not finite is in {what}, in evaluation mode"
    return ""


def _watch() -> tuple[list[tuple[str, Array]], Any]:
    """Return a list, and a tap that puts the output of each layer there."""
    seen: list[tuple[str, Array]] = []

    def tap(path: str, y: Array) -> Array:
        seen.append((f"the output of layer {path}", y))
        return y

    return seen, tap


def all_finite(trainer: Trainer, arrays: Tree) -> bool:
    """Whether all numbers in a tree are finite."""
    largest = largest_entry(arrays)
    return largest is None or bool(np.isfinite(trainer.backend.to_host(largest)))
