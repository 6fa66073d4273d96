"""`fg-a`: forward gradients by perturbing the activities.

One pass answers two questions at once, because a tangent may live in a direct sum of spaces:

* part 0, dense: how the losses move with the perturbations put in so far;
* part 1, symbolic: how the present layer's output depends on the present layer's own weights.

At each perturbed place a tap takes part 1 out and keeps it, so nothing ever chains backward
through two layers, and adds a random direction to part 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.core.dual import Dual, Level, new_level
from dualnet.core.linear import add
from dualnet.core.spaces import DirectSum
from dualnet.core.symbolic import Symbolic, transpose_all
from dualnet.core.transforms import jvp, stop_gradient
from dualnet.errors import UsageError
from dualnet.learning.rule import Measurement
from dualnet.learning.task import Shard, Task, correct
from dualnet.nn.layers import Activation
from dualnet.nn.network import Context, Layer, walk
from dualnet.random import Key
from dualnet.tree import Tree

SAMPLERS = ("normal", "rademacher")


@dataclass(frozen=True)
class ActivityPerturbation:
    """g(z_l) = d u_l for each example, then the weight gradient of layer l alone, x_lᵀ g(z_l).

    Every hidden layer's pre-activation z_l gets its own random direction u_l for each example,
    all in one pass; d is the derivative of that example's loss along all of them.  Units whose
    activation function is flat (ReLU, off) have no gradient, and no direction either.  The
    output layer gets its true error.  With k tangents, g is the mean of k such estimates.

    Args:
        tangents: k.
        sampler: `normal` or `rademacher`.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", Eq. 3 and §3.6;
    Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
    Momentum", Eq. 4-5.
    """

    tangents: int = 1
    sampler: str = "normal"

    def __post_init__(self) -> None:
        if self.tangents < 1:
            raise UsageError(f"fg-a: tangents must be at least 1, got {self.tangents}")
        if self.sampler not in SAMPLERS:
            raise UsageError(
                f"fg-a: sampler must be one of {', '.join(SAMPLERS)}, got {self.sampler!r} "
                "(rank-one directions are for weights)"
            )

    def init(self, key: Key, task: Task, params: Tree) -> Tree:
        return {}

    def sample(self, key: Key, params: Tree, backend: Backend, n: int) -> ActivityDirections:
        draw = backend.normal if self.sampler == "normal" else backend.signs
        return ActivityDirections(key, draw, self.tangents)

    def measure(
        self,
        task: Task,
        params: Tree,
        state: Tree,
        learned: Tree,
        directions: ActivityDirections,
        shard: Shard,
    ) -> Measurement:
        sites = hidden_sites(task.network, params)
        weights = tree.map(Symbolic.input, params)
        cuts: list[tuple[Symbolic, Any]] = []  # a layer's own dependence, and its directions

        with new_level() as level:

            def tap(path: str, z: Any) -> Any:
                if path not in sites:
                    return z
                effect, dependence = z.tangent.parts
                u = directions.draw(path, z.primal, shard.start)
                u = _only_where_steep(sites[path], z.primal, u)
                cuts.append((dependence, u))
                effect = u if effect is None else add(effect, u)
                return Dual(z.primal, DirectSum(effect, None), level)

            context = Context(train=True, tap=tap)
            duals = _with_own_weights(params, weights, level)
            losses, (outputs, new_state) = task.losses(duals, state, shard, context)
            d, output_dependence = losses.tangent.parts

        ends, errors = [output_dependence], [np.ones_like(losses.primal)[None]]
        for dependence, u in cuts:
            ends.append(dependence)
            errors.append(np.einsum("kn,kn...->n...", d, u)[None] / self.tangents)
        gradients = transpose_all(ends, errors, tree.leaves(weights))
        outputs = outputs.primal
        total = {
            "loss": losses.primal.sum(),
            "correct": correct(outputs, shard.targets),
            "gradients": tree.unflatten(params, [g[0] for g in gradients]),
        }
        return Measurement(total, stop_gradient(new_state))

    def estimate(
        self, total: dict, directions: ActivityDirections, params: Tree, learned: Tree, n: int
    ) -> tuple[Tree, Tree]:
        return tree.map(lambda g: g / n, total["gradients"]), learned


@dataclass(frozen=True)
class ActivityDirections:
    """Random directions of activities, a sequence for each place and tangent.

    Attributes:
        key: names all draws.
        draw_array: the backend's `normal` or `signs`.
        k: how many directions.
    """

    key: Key
    draw_array: Callable[..., Any]
    k: int

    def draw(self, path: str, z: Any, start: int) -> Any:
        """k directions `(k, *z.shape)` for a shard whose first example is number `start`."""
        of_place = self.key.fold_in(path)
        first = start * (z.size // max(1, len(z)))
        return np.stack(
            [self.draw_array(of_place.fold_in(i), z.shape, z.dtype, first) for i in range(self.k)]
        )


def hidden_sites(network: Layer, params: Tree) -> dict[str, Activation | None]:
    """The places to perturb: outputs of all layers with weights but the last.

    Returns:
        For each path the activation that follows, None where none does.
    """
    layers = list(walk(network))
    weighted = [i for i, (path, _) in enumerate(layers) if tree.leaves(_at(params, path))]
    sites = {}
    for i in weighted[:-1]:
        following = layers[i + 1][1]
        sites[layers[i][0]] = following if isinstance(following, Activation) else None
    return sites


def _at(params: Tree, path: str) -> Tree:
    for name in path.split("/") if path else ():  # a network may be a single layer
        params = params[name]
    return params


def _only_where_steep(activation: Activation | None, z: Any, u: Any) -> Any:
    """u, and 0 where the activation's slope is 0."""
    if activation is None:
        return u
    _, slope = jvp(activation.function, (z,), (np.ones_like(z),))
    return np.where(np.equal(slope, 0), 0, u)


def _with_own_weights(params: Tree, weights: Tree, level: Level) -> Tree:
    return tree.map(lambda p, w: Dual(p, DirectSum(None, w), level), params, weights)
