"""The exact gradient with little memory: parts of a chain are evaluated again on the way back.

Reverse mode keeps what every layer computed.  Here the network, a chain of L layers, is cut into
about √L parts.  The first pass keeps the inputs of the parts alone; on the way back each part but
the last is evaluated once more and transposed, so that what its layers computed is there for one
part at a time.  That is nearly a forward pass more, and memory that grows as √L.

Source: Chen et al. 2016, "Training deep nets with sublinear memory cost", section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np

from dualnet.core.transforms import vjp
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Measurement
from dualnet.learning.task import LearnerState, Shard, correct
from dualnet.nn.network import Sequential
from dualnet.tree import Tree
from dualnet.types import Array


def measure_with_checkpoints(
    plan: Plan, learner: LearnerState, shard: Shard, network: Sequential
) -> Measurement:
    """Measure a shard's summed gradients of the network's loss.

    Args:
        plan, learner, shard: as for `Rule.measure`.
        network: that of the plan's task, a chain.

    Returns:
        Sums of `loss`, `correct` and `gradients`.
    """
    *earlier, last = parts_of(network)

    def own_params(part: Sequential) -> Tree:
        return {name: learner.params[name] for name, _ in part.layers}

    def output(part: Sequential, params: Tree, x: Array) -> tuple[Array, Tree]:
        # Random layers draw by the key of the step and their path: the same both times.
        return part.apply(params, learner.model_state, x, shard.context)

    def losses_of(part: Sequential, params: Tree, x: Array) -> tuple[Array, tuple[Array, Tree]]:
        outputs, state = output(part, params, x)
        return plan.task.losses_of(outputs, shard.targets), (outputs, state)

    inputs: list[Array] = [shard.inputs]
    new_state: dict[str, Tree] = {}
    for part in earlier:
        x, state = output(part, own_params(part), inputs[-1])
        inputs.append(x)
        new_state.update(state)

    def transposed(function: Callable, part: Sequential) -> tuple:
        """Return what `vjp` does for the last of `inputs`, which is dropped."""
        x, params = inputs.pop(), own_params(part)
        if inputs:
            return vjp(partial(function, part), params, x, has_aux=True)
        # Nobody asks for a cotangent of the network's inputs.
        return vjp(lambda params: function(part, params, x), params, has_aux=True)

    losses, pull, (outputs, state) = transposed(losses_of, last)
    gradients, *cotangents = pull(np.ones_like(losses))
    for part in reversed(earlier):
        _, pull, _ = transposed(output, part)
        of_part, *cotangents = pull(*cotangents)
        gradients.update(of_part)
    total = {
        "loss": losses.sum(),
        "correct": correct(outputs, shard.targets),
        "gradients": {name: gradients[name] for name in learner.params},
    }
    return Measurement(total, {**new_state, **state})


def parts_of(network: Sequential) -> list[Sequential]:
    """Cut a chain of L layers into about √L parts of nearly equal numbers of layers."""
    layers, count = network.layers, max(1, round(math.sqrt(len(network.layers))))
    bounds = [len(layers) * i // count for i in range(count + 1)]
    return [Sequential(layers[a:b]) for a, b in pairwise(bounds)]
