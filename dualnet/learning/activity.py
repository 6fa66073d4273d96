"""`fg-a`: forward gradients by perturbing the activities.

One pass answers two questions at once, because a tangent may live in a direct sum of spaces:

* part 0, dense: how the losses move with the perturbations put in so far;
* part 1, symbolic: how the present layer's output depends on the present layer's own weights.

At each perturbed place a tap takes part 1 out and keeps it, so nothing ever chains backward
through two layers, and adds a random direction to part 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
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
from dualnet.nn.activations import Activation
from dualnet.nn.network import Layer, Sequential
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
    Unbiased where each example's loss depends on that example's activities alone.

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
        visits: Counter[str] = Counter()

        with new_level() as level:

            def tap(path: str, z: Any) -> Any:
                effect, dependence = _parts(z, level)
                if path not in sites or dependence is None:
                    return z
                visits[path] += 1  # a layer may be applied several times
                u = directions.draw(path, visits[path], z.primal, shard.context.start)
                u = _only_where_steep(sites[path], z.primal, u)
                cuts.append((dependence, u))
                effect = u if effect is None else add(effect, u)
                return Dual(z.primal, DirectSum(effect, None), level)

            context = replace(shard.context, tap=tap)
            duals = tree.map(lambda p, w: Dual(p, DirectSum(None, w), level), params, weights)
            losses, (outputs, new_state) = task.losses(duals, state, shard, context)
            d, output_dependence = _parts(losses, level)
            losses, outputs, new_state = stop_gradient((losses, outputs, new_state))

        errors = []
        if d is not None:
            errors = [(own, np.einsum("kn,kn...->n...", d, u) / self.tangents) for own, u in cuts]
        if output_dependence is not None:
            errors.append((output_dependence, np.ones_like(losses)))
        gradients = transpose_all(
            [own for own, _ in errors], [e[None] for _, e in errors], tree.leaves(weights)
        )
        total = {
            "loss": losses.sum(),
            "correct": correct(outputs, shard.targets),
            "gradients": tree.map(_gradient, params, tree.unflatten(params, gradients)),
        }
        return Measurement(total, new_state)

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

    def draw(self, path: str, visit: int, z: Any, start: int) -> Any:
        """k directions `(k, *z.shape)` at the place's visit for a shard that begins at `start`."""
        of_place = self.key.fold_in(path).fold_in(visit)
        first = start * (z.size // max(1, len(z)))
        return np.stack(
            [self.draw_array(of_place.fold_in(i), z.shape, z.dtype, first) for i in range(self.k)]
        )


def hidden_sites(network: Layer, params: Tree) -> dict[str, Activation | None]:
    """The places to perturb: outputs of all layers with weights but the last.

    Returns:
        For each path the activation that its output goes into and nowhere else, which only the
        neighbor in one `Sequential` can be; None where there is none.
    """
    weighted = {
        path: following if isinstance(following, Activation) else None
        for path, following in _followers(network)
        if tree.leaves(_at(params, path))
    }
    return dict(list(weighted.items())[:-1])


def _followers(layer: Layer, path: str = "", after: Layer | None = None) -> Iterator[tuple]:
    """Yield the path of each layer that `walk` yields, and its neighbor in a Sequential."""
    children = getattr(layer, "layers", None)
    if children is None:
        yield path, after
        return
    in_order = isinstance(layer, Sequential)
    following = [child for _, child in children[1:]] if in_order else []
    for (name, child), after in zip_longest(children, following):
        yield from _followers(child, f"{path}/{name}" if path else name, after)


def _at(params: Tree, path: str) -> Tree:
    for name in path.split("/") if path else ():  # a network may be a single layer
        params = params[name]
    return params


def _parts(z: Any, level: Level) -> tuple[Any, Any]:
    """The parts of z's tangent; None and None where it has none."""
    return z.tangent.parts if isinstance(z, Dual) and z.level is level else (None, None)


def _only_where_steep(activation: Activation | None, z: Any, u: Any) -> Any:
    """u, and 0 where the activation's slope is 0."""
    if activation is None:
        return u
    _, slope = jvp(activation.function, (z,), (np.ones_like(z),))
    return np.where(np.equal(slope, 0), 0, u)


def _gradient(p: Any, stack: Any) -> Any:
    """The gradient of one parameter from its cotangent stack `(1, *p.shape)`, if it has one."""
    return np.zeros_like(p) if stack is None else stack[0].astype(p.dtype, copy=False)
