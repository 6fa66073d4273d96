"""What is learned, by whom, and from what: a task, the state of the learner, and batches."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from dualnet.errors import UsageError
from dualnet.nn.context import Context
from dualnet.nn.losses import Loss, LossFunction
from dualnet.nn.network import Layer, couples_examples, require_layer
from dualnet.options import require_count
from dualnet.tree import Tree
from dualnet.types import Array


class Batch(NamedTuple):
    """The examples of one step.

    Attributes:
        inputs: `(N, *in_shape)`.
        targets: `(N, ...)`.

    Examples:
        >>> batch = dn.learning.Batch(inputs=np.zeros((64, 28, 28, 1)), targets=np.zeros(64, int))
        >>> inputs, targets = batch
        >>> len(batch.inputs), targets.shape
        (64, (64,))
    """

    inputs: Array
    targets: Array


class LearnerState(NamedTuple):
    """All that a step of learning starts from; trees of arrays.

    Attributes:
        params: the network's parameters.
        model_state: the network's state, such as running statistics.
        rule_state: what the learning rule itself learns; {} if it learns nothing.

    Examples:
        >>> rule = dn.learning.DirectFeedback()
        >>> network = dn.nn.Sequential({"hidden": dn.nn.Linear(4), "output": dn.nn.Linear(2)})
        >>> task = dn.learning.Task(network, dn.nn.softmax_cross_entropy)
        >>> _, learner = rule.start(task, np.eye(3), dn.Key(0))
        >>> dn.tree.map(np.shape, learner.rule_state)  # a feedback matrix for the hidden layer
        {'hidden': (2, 4)}
        >>> learner._replace(params={}).params  # a new one; the old one stays as it is
        {}
    """

    params: Tree
    model_state: Tree
    rule_state: Tree


@dataclass(frozen=True)
class Shard:
    """A run of consecutive examples of a batch.

    Attributes:
        inputs: `(n, *in_shape)`.
        targets: `(n, ...)`.
        context: what the network's layers are told, among it the index in the batch of the
            first example.  A rule that taps the network replaces its `tap`.

    Examples:
        >>> shard = dn.learning.Shard(np.zeros((8, 3)), np.zeros(8, int))
        >>> shard.context.train, shard.context.start
        (True, 0)
    """

    inputs: Array
    targets: Array
    context: Context = field(default_factory=lambda: Context(train=True))


def split_batch(batch: Batch, pieces: int, context: Context | None = None) -> list[Shard]:
    """Split a batch into at most `pieces` shards of nearly equal length.

    Args:
        batch: inputs and targets, `(N, ...)`.
        pieces: how many shards.
        context: of the whole batch, or of a part that begins at its `start`; each shard gets it
            with its own `start`.  Training without randomness if None.

    Returns:
        The shards in order; none is empty, so there are fewer where the batch has fewer examples.

    Raises:
        UsageError: `pieces` is no int of at least 1.

    Examples:
        >>> batch = dn.learning.Batch(np.arange(10.0).reshape(10, 1), np.arange(10))
        >>> shards = dn.learning.split_batch(batch, pieces=3)
        >>> [(shard.context.start, shard.targets.tolist()) for shard in shards]
        [(0, [0, 1, 2]), (3, [3, 4, 5]), (6, [6, 7, 8, 9])]
    """
    require_count("split_batch", "pieces", pieces)
    inputs, targets = batch
    context = context or Context(train=True)
    if pieces == 1 and len(inputs):
        return [Shard(inputs, targets, context)]
    bounds = [len(inputs) * i // pieces for i in range(pieces + 1)]
    return [
        Shard(inputs[a:b], targets[a:b], replace(context, start=context.start + a))
        for a, b in pairwise(bounds)
        if b > a
    ]


@dataclass(frozen=True)
class Task:
    """A network and the loss of its outputs.

    Attributes:
        network: a layer, usually a `Sequential`.
        loss: `loss(outputs, targets)`, one value for each example, `(N,)`.  A loss that looks at
            several examples at once derives from `Loss`, and says there what it does.

    Raises:
        UsageError: `network` does not derive from `Layer`; `losses` finds that the loss does not
            give one value for each example.

    Examples:
        >>> task = dn.learning.Task(dn.nn.Linear(4, weights="zeros"), dn.nn.softmax_cross_entropy)
        >>> params, state, _ = task.network.init(dn.Key(0), (3,))
        >>> shard = dn.learning.Shard(np.eye(3), np.array([0, 1, 3]))
        >>> losses, (outputs, _) = task.losses(params, state, shard, shard.context)
        >>> np.exp(losses).round(6).tolist(), outputs.shape  # four classes, alike so far
        ([4.0, 4.0, 4.0], (3, 4))
        >>> task.needs_whole_batch
        False
    """

    network: Layer
    loss: LossFunction

    def __post_init__(self) -> None:
        require_layer("Task", "network", self.network)

    @cached_property
    def declared_loss(self) -> Loss:
        """The loss with all that it says about itself."""
        return Loss.of(self.loss)

    @cached_property
    def couples_examples(self) -> bool:
        """Whether an example can move the losses of others."""
        return couples_examples(self.network) or self.declared_loss.couples_examples

    @cached_property
    def needs_whole_batch(self) -> bool:
        """Whether a batch must not be split."""
        return self.couples_examples or self.declared_loss.needs_whole_batch

    @property
    def losses_add_up(self) -> bool:
        """Whether the loss of a batch is the sum of losses that need no other example's outputs."""
        return not (self.declared_loss.couples_examples or self.declared_loss.needs_whole_batch)

    def losses(
        self, params: Tree, model_state: Tree, shard: Shard, context: Context
    ) -> tuple[Array, tuple[Array, Tree]]:
        """Return per-example losses `(n,)`, and beside them the outputs and the new state."""
        outputs, new_state = self.network.apply(params, model_state, shard.inputs, context)
        return self.losses_of(outputs, shard.targets), (outputs, new_state)

    def losses_of(self, outputs: Array, targets: Array) -> Array:
        """Return the loss of each example, `(n,)`, for outputs `(n, ...)`.

        Raises:
            UsageError: the loss does not give one value for each example.
        """
        losses = self.loss(outputs, targets)
        if losses.shape != outputs.shape[:1]:
            raise UsageError(
                f"loss: expected one value for each example, {outputs.shape[:1]}, got "
                f"{losses.shape}; sum over the axes of an example, and do not average over examples"
            )
        return losses


def correct(outputs: Array, targets: Array) -> Array:
    """Count the examples whose largest output is at the label; 0 where targets are no labels.

    Args:
        outputs: `(N, classes)`.
        targets: `(N,)`, integers; or real targets of any shape.

    Returns:
        An integer of no axes, on the device of the outputs; of ties the first counts.

    Examples:
        >>> outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
        >>> int(dn.learning.correct(outputs, np.array([1, 0, 0])))
        2
        >>> dn.learning.correct(outputs, outputs)  # real targets are no labels
        0
    """
    if targets.dtype.kind not in "iu":
        return 0
    return np.sum(np.equal(np.argmax(outputs, axis=-1), targets))
