"""`fg-a`, `lg-fg-a`: forward gradients by perturbing the activities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.backends.overridable import exact_product
from dualnet.backends.symmetric import solution_by_eigenvectors
from dualnet.core.arrays import concatenate_arrays
from dualnet.learning.cut_pass import Cut, Segment, measure_locally
from dualnet.learning.directions.activities import (
    ActivityDirections,
    require_choice,
    require_sampler,
)
from dualnet.learning.independence import Separation, separations, summed_by_part, weighted_sum
from dualnet.learning.rule import Measurement
from dualnet.learning.sites import hidden_units
from dualnet.learning.task import Shard, Task
from dualnet.random import Key
from dualnet.tree import Tree

PLACES = ("before", "after")
AGGREGATIONS = ("mean", "projection")


@dataclass(frozen=True)
class ActivityPerturbation:
    """g(z) = Σ_i c_i u_i for each example, then the unit's own weight gradient from g(z).

    Every hidden place gets k random directions u for each example, all in one pass; d_i is the
    derivative of that example's loss along the i-th direction of all places together.  Units
    whose activation function is flat (ReLU, off) have no gradient, and no direction either.
    The output layer gets its true error.

    With `mean`, c = d / k: unbiased.  With `projection`, c solves G c = d with G the inner
    products of the example's directions over all places: the projection of its activity
    gradient onto their span, as in FROG, but for each example in the space of its activities.

    Batch norm lets each example move the others' losses; for what comes before one, d is the
    batch's total, and the projection that of the whole batch's activity gradient.

    Args:
        tangents: k.
        sampler: `normal` or `rademacher`.
        place: perturb `before` or `after` the non-linearity; before means after the norm that
            follows the linear map, which g then goes back through exactly.
        aggregate: `mean` or `projection`.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", Eq. 3 and §3.6;
    Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
    Momentum", Eq. 4-5; projection: Flügel et al. 2024, "Beyond Backpropagation", Eq. 8-9.
    """

    tangents: int = 1
    sampler: str = "normal"
    place: str = "before"
    aggregate: str = "mean"

    locality: ClassVar[str] = "global"

    def __post_init__(self) -> None:
        require_sampler("fg-a", self.tangents, self.sampler)
        require_choice("fg-a", "place", self.place, PLACES)
        require_choice("fg-a", "aggregate", self.aggregate, AGGREGATIONS)

    def init(self, key: Key, task: Task, params: Tree, state: Tree, inputs: Any) -> Tree:
        return {}

    def sample(
        self, key: Key, task: Task, params: Tree, backend: Backend, n: int
    ) -> ActivityDirections:
        return ActivityDirections.of(self, key, backend)

    def measure(
        self,
        task: Task,
        params: Tree,
        state: Tree,
        learned: Tree,
        directions: ActivityDirections,
        shard: Shard,
    ) -> Measurement:
        places = {
            getattr(unit, self.place): unit.activation if self.place == "before" else None
            for unit in hidden_units(task.network, params)
        }

        greedy = self.locality == "greedy"
        kept = separations(task, greedy)

        def respond(segment: Segment) -> tuple[list, dict]:
            if not segment.cuts:
                return [], {}
            return corrections(
                self.shared(segment.derivatives), segment.cuts, self.aggregate, kept
            ), {}

        draw = directions.drawer(shard)
        return measure_locally(task, params, state, shard, places, draw, greedy, respond)

    def shared(self, derivatives: Any) -> Any:
        """The derivatives `(k, n, P, G)` that directions answer to."""
        return derivatives

    def estimate(
        self, total: dict, directions: ActivityDirections, params: Tree, learned: Tree, n: int
    ) -> tuple[Tree, Tree]:
        return tree.map(lambda g: g / n, total["gradients"]), learned


@dataclass(frozen=True)
class GreedyActivityPerturbation(ActivityPerturbation):
    """`fg-a` in which every block answers to its own local head alone.

    Local heads cut the network: a perturbation's effect ends at the next head, so that fewer
    directions share one scalar.  Where the layers up to the head keep tokens or groups of channels
    apart, every token and group has a replica of the loss to answer to.

    Args:
        losses: `replicated`, or `one` for one loss at every head.  `projection` is always that of
            one.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", §4.
    """

    losses: str = "replicated"

    locality: ClassVar[str] = "greedy"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("lg-fg-a", "losses", self.losses, ("replicated", "one"))

    def shared(self, derivatives: Any) -> Any:
        if self.losses == "replicated":
            return derivatives
        return np.sum(derivatives, axis=(2, 3), keepdims=True)


# --- parts that the rules share -------------------------------------------------------------------


def corrections(d: Any, cuts: list[Cut], aggregate: str, kept: Mapping[str, Separation]) -> list:
    """Σ_i c_i u_i at every cut, for derivatives d `(k, n, P, G)` along all cuts' directions
    together; `kept` says which of them a place answers to."""
    if aggregate == "mean":
        return [weighted_sum(d / len(d), cut.directions, kept[cut.path]) for cut in cuts]
    one = np.sum(d, axis=(2, 3))
    coupled = not all(kept[cut.path].examples for cut in cuts)
    if coupled:
        one = np.broadcast_to(np.sum(one, axis=1, keepdims=True), one.shape)
    c = projection(one, cuts, coupled)
    return [_alike(c, cut.directions) for cut in cuts]


def _alike(c: Any, u: Any) -> Any:
    """Σ_i c_i u_i, c `(k, n)` the same for a whole activity: u `(k, n, *S)`."""
    k, n = c.shape
    sums = summed_by_part(np.reshape(c, (k, n, 1, 1)), np.reshape(u, (k, n, 1, 1, -1)), False)
    return np.reshape(sums, u.shape[1:])


def projection(d: Any, cuts: list[Cut], coupled: bool) -> Any:
    """c `(k, n)` of least norm with G c = d, in double precision.

    What rounding leaves of a singular G counts as 0: k may exceed the number of live units.
    """
    stacks = [
        np.reshape(np.swapaxes(c.directions, 0, 1), (d.shape[1], len(d), -1)).astype(np.float64)
        for c in cuts
    ]
    u = concatenate_arrays(stacks, axis=-1)
    gram = exact_product(u, np.swapaxes(u, 1, 2))  # (n, k, k)
    if coupled:
        gram = gram.sum(0, keepdims=True)
    rounding = max(float(np.finfo(d.dtype).eps), len(d) * float(np.finfo(np.float64).eps))
    c = solution_by_eigenvectors(gram, d.T.astype(np.float64), rounding)
    return np.swapaxes(c, 0, 1).astype(d.dtype)
