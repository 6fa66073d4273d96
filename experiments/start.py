"""A network at its start, for experiments that ask how good an estimate of its gradient is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import dualnet as dn
from dualnet import backends, tree
from dualnet.learning import Batch, LearnerState, Plan, Rule, Task, estimate_gradient
from dualnet.nn import Layer, softmax_cross_entropy
from dualnet.types import Array, Shape


@dataclass(frozen=True)
class Start:
    """A network at its start.

    Args:
        network: all layers.
        in_shape: of an image.
        seed: of its weights, and of the directions of estimates.
        name: of the experiment, which they depend on, too.
    """

    network: Layer
    in_shape: Shape
    seed: int
    name: str

    def __post_init__(self) -> None:
        key = dn.Key(self.seed).fold_in(self.name)
        params, state, _ = self.network.init(key.fold_in("init"), self.in_shape)
        task = Task(self.network, softmax_cross_entropy)
        inputs = np.zeros((1, *self.in_shape), np.float32)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "plan", Plan.of(task, params, state, inputs))
        object.__setattr__(self, "learner", LearnerState(params, state, {}))

    def gradients(self, rule: Rule, batch: Batch, draw: int = 0) -> dict[str, Array]:
        """Return an estimate by the parameters' paths; each draw has directions of its own."""
        key, backend = self.key.fold_in(draw), backends.get("numpy")
        done = estimate_gradient(rule, self.plan, self.learner, batch, key, backend)
        return dict(tree.items(done.gradients))
