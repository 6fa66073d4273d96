"""The exact gradient with little memory: parts of a chain are evaluated again on the way back.

Reverse mode keeps what every layer computed.  Here the network, a chain of L layers, is cut into
about √L parts.  The first pass keeps the inputs of the parts alone; on the way back each part but
the last is evaluated once more and transposed, so that what its layers computed is there for one
part at a time.  That is nearly a forward pass more, and memory that grows as √L.

Source: Chen et al. 2016, "Training deep nets with sublinear memory cost", section 4.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from dualnet.core.transforms import vjp
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Measurement
from dualnet.learning.task import LearnerState, Shard, correct
from dualnet.nn.network import Sequential
from dualnet.tree import Tree
from dualnet.types import Array


def parts_of(network: Sequential) -> list[Sequential]:
    """Cut a chain of L layers into about √L parts of nearly equal numbers of layers."""
    layers, count = network.layers, max(1, round(math.sqrt(len(network.layers))))
    bounds = [len(layers) * i // count for i in range(count + 1)]
    return [Sequential(layers[a:b]) for a, b in pairwise(bounds)]


def measure_with_checkpoints(plan: Plan, learner: LearnerState, shard: Shard) -> Measurement:
    """Measure a shard's summed gradients of the network's loss.

    Args:
        plan, learner, shard: as for `Rule.measure`; the network is a `Sequential`.

    Returns:
        Sums of `loss`, `correct` and `gradients`.
    """
    *earlier, last = [
        (part, {name: learner.params[name] for name, _ in part.layers})
        for part in parts_of(plan.task.network)
    ]

    def output(part: Sequential, own: Tree, x: Array) -> tuple[Array, Tree]:
        # Random layers draw by the key of the step and their path: the same both times.
        return part.apply(own, learner.model_state, x, shard.context)

    def losses_of(own: Tree, x: Array) -> tuple[Array, tuple[Array, Tree]]:
        outputs, state = output(last[0], own, x)
        return plan.task.losses_of(outputs, shard.targets), (outputs, state)

    inputs, new_state, x = [], {}, shard.inputs
    for part, own in earlier:
        inputs.append(x)
        x, state = output(part, own, x)
        new_state |= state
    losses, pull, (outputs, state) = vjp(losses_of, last[1], x, has_aux=True)
    gradients, cotangent = pull(np.ones_like(losses))
    for (part, own), x in zip(reversed(earlier), reversed(inputs), strict=True):
        _, pull, _ = vjp(lambda own, x, part=part: output(part, own, x), own, x, has_aux=True)
        of_part, cotangent = pull(cotangent)
        gradients |= of_part
    total = {
        "loss": losses.sum(),
        "correct": correct(outputs, shard.targets),
        "gradients": {name: gradients[name] for name in learner.params},
    }
    return Measurement(total, {**new_state, **state})
