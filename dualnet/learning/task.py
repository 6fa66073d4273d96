"""What is to be learned: a network, a loss, and a batch cut into shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from dualnet.nn.network import Context, Layer, couples_examples
from dualnet.tree import Tree


@dataclass(frozen=True)
class Shard:
    """A run of consecutive examples of a batch.

    Attributes:
        inputs: `(n, *in_shape)`.
        targets: `(n, ...)`.
        context: what the network's layers are told, among it the index in the batch of the
            first example; a rule that taps replaces its `tap`.
    """

    inputs: Any
    targets: Any
    context: Context = field(default_factory=lambda: Context(train=True))


def cut(inputs: Any, targets: Any, pieces: int, context: Context | None = None) -> list[Shard]:
    """A batch as at most `pieces` shards of nearly equal length.

    Args:
        inputs, targets: the batch, `(N, ...)`.
        pieces: how many shards.
        context: of the whole batch; each shard gets it with its own `start`.  Training without
            randomness if None.
    """
    n = len(inputs)
    context = context or Context(train=True)
    bounds = [n * i // pieces for i in range(pieces + 1)]
    return [
        Shard(inputs[a:b], targets[a:b], replace(context, start=a))
        for a, b in pairwise(bounds)
        if b > a
    ]


@dataclass(frozen=True)
class Task:
    """A network and the loss of its outputs.

    Attributes:
        network: a layer, usually a `Sequential`.
        loss: `loss(outputs, targets)`, one value for each example, `(N,)`.  A loss that looks at
            all outputs of a batch says so by an attribute `one_piece = True`; one for which an
            example's outputs also move the losses of others, by `couples_examples = True`.
    """

    network: Layer
    loss: Callable[[Any, Any], Any]

    @property
    def couples_examples(self) -> bool:
        """Whether an example can move the losses of others."""
        return couples_examples(self.network) or getattr(self.loss, "couples_examples", False)

    @property
    def one_piece(self) -> bool:
        """Whether a batch must not be cut."""
        return self.couples_examples or getattr(self.loss, "one_piece", False)

    def losses(
        self, params: Tree, state: Tree, shard: Shard, context: Context
    ) -> tuple[Any, tuple[Any, Tree]]:
        """Per-example losses `(n,)`, and beside them the outputs and the new state."""
        outputs, state = self.network.apply(params, state, shard.inputs, context)
        return self.loss(outputs, shard.targets), (outputs, state)


def correct(outputs: Any, targets: Any) -> Any:
    """How many examples have their largest output at the label; 0 where targets are no labels."""
    if targets.dtype.kind not in "iu":
        return 0
    return np.sum(np.equal(np.argmax(outputs, axis=-1), targets))
