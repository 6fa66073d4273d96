"""`fg-w`, `lg-fg-w`, `wp`: forward gradients by perturbing the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from dualnet import tree
from dualnet.backends import Backend
from dualnet.backends.overridable import stack
from dualnet.core.spaces import dense
from dualnet.core.transforms import jvp
from dualnet.errors import UsageError
from dualnet.learning.aggregate import WEIGHT_AGGREGATIONS
from dualnet.learning.backprop import segment_losses
from dualnet.learning.directions.samplers import sampler_of
from dualnet.learning.directions.weights import (
    IndependentDirections,
    SharedDirections,
    direction_bytes,
    directions_that_fit,
)
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Measurement, Rule
from dualnet.learning.task import LearnerState, Shard, correct
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array

AGGREGATIONS_BY_EXAMPLE = ("mean", "sum")
"""Aggregations whose coefficients need one example's derivatives alone."""


@dataclass(frozen=True)
class WeightPerturbation(Rule):
    """g = Σ c_i v_i with random directions v_i of all weights and d_i = ∇f·v_i.

    One forward pass carries all k tangents; nothing flows backward and no activation is kept.
    A shard contributes k numbers (for each loss), whatever the size of the network.

    With `independent` every example n has directions v_ni of its own, d_ni = ∇f_n·v_ni, and g is
    the mean over n of Σ c_i v_ni, which is as unbiased.  With V the variance of examples'
    gradients and S the square of their mean, the variance of one entry of a p × q layer is
    pq/N V + (pq - 1)/N S at k = 1, and pq/N V + (pq - 1) S for shared directions (Ren et al.,
    Table 1, have pq + 2 and pq + 1 in these places, for normal entries; these are signs).
    Batch norm lets every example move the others' losses; then d_n is the derivative of the batch's
    total loss along all v_n at once, the same for all n.  That is as unbiased, and has more
    variance.

    Args:
        tangents: k.
        sampler: a name for `sampler_of`; only `rank-one` where directions are independent.
        aggregate: a name in `WEIGHT_AGGREGATIONS`, which says how c follows from d; only `mean`
            and `sum` where directions are independent.
        tangent_chunk: at most so many tangents in one pass; None for as many as fit in memory.
            Only memory and speed depend on it.
        independent: whether every example has directions of its own.

    Source: Baydin et al. 2022, "Gradients without Backpropagation", Algorithm 1; k tangents:
    Flügel et al. 2024, "Beyond Backpropagation", section 3; independent: Ren et al. 2023, "Scaling
    Forward Gradient With Local Losses", Table 1.
    """

    tangents: int = 1
    sampler: str = "normal"
    aggregate: str = "mean"
    tangent_chunk: int | None = None
    independent: bool = False

    def __post_init__(self) -> None:
        for option, value in (("tangents", self.tangents), ("tangent-chunk", self.tangent_chunk)):
            if value is not None and value < 1:
                raise UsageError(f"fg-w: {option} must be at least 1, got {value}")
        sampler_of(self.sampler)
        if self.aggregate not in WEIGHT_AGGREGATIONS:
            raise UsageError(
                f"fg-w: aggregate must be one of {', '.join(WEIGHT_AGGREGATIONS)}, got "
                f"{self.aggregate!r}"
            )
        if self.independent and self.sampler != "rank-one":
            raise UsageError(
                "fg-w: independent directions of every example must be rank-one, dense ones would "
                f"be as large as the weights for each; use sampler rank-one, got {self.sampler!r}"
            )
        if self.independent and self.aggregate not in AGGREGATIONS_BY_EXAMPLE:
            raise UsageError(
                "fg-w: aggregate must be mean or sum where every example has directions of its "
                f"own, {self.aggregate!r} is for shared ones; use it without independent"
            )

    def sample(
        self, key: Key, plan: Plan, params: Tree, backend: Backend, n: int
    ) -> SharedDirections | IndependentDirections:
        sampler = sampler_of(self.sampler)
        segments = plan.segments if self.locality == "greedy" else {}
        if self.independent:
            coupled = plan.task.couples_examples
            return IndependentDirections(
                key, params, backend, sampler, self.tangents, n, segments, coupled
            )
        chunk = self.tangent_chunk or self.tangents
        if self.tangent_chunk is None and self.tangents > 1:
            chunk = directions_that_fit(direction_bytes(sampler, params))
        return SharedDirections(key, params, backend, sampler, self.tangents, n, segments, chunk)

    def measure(
        self,
        plan: Plan,
        learner: LearnerState,
        directions: SharedDirections | IndependentDirections,
        shard: Shard,
    ) -> Measurement:
        def losses(params: Tree) -> tuple[list[Array], tuple[Array, Tree]]:
            of_segments, outputs, new_state = segment_losses(
                plan, params, learner.model_state, shard, shard.context, self.locality
            )
            return of_segments, (outputs, new_state)

        contributions = []
        # with a single direction there is nothing to divide, whatever the activations need
        most = self.tangent_chunk or self.tangents
        if self.tangent_chunk is None and self.tangents > 1:
            most = directions_that_fit(directions.examples * plan.activation_bytes)
        for tangents in directions.passes(most, shard):
            values, d, (outputs, new_state) = self.along(losses, learner.params, tangents)
            contributions.append(directions.contribution(d, tangents))
        total = {
            "loss": values[-1].sum(),
            "correct": correct(outputs, shard.targets),
            **directions.together(contributions),
        }
        return Measurement(total, new_state)

    def along(
        self, losses: Callable, params: Tree, tangents: Tree
    ) -> tuple[list[Array], Array, Any]:
        """Differentiate the losses along each direction.

        Args:
            losses: `losses(params)` returns a list of per-example losses `(n,)`, and an aux.
            params: where to differentiate.
            tangents: k directions, a tree like the parameters.

        Returns:
            The losses, their derivatives `(k, losses, n)`, and the aux.
        """
        values, d, aux = jvp(losses, (params,), (tangents,), has_aux=True)
        return values, d[0][:, None] if len(d) == 1 else stack(d, axis=1), aux

    def estimate(
        self,
        total: dict[str, Any],
        directions: SharedDirections | IndependentDirections,
        learner: LearnerState,
        n: int,
    ) -> tuple[Tree, Tree]:
        gradients = directions.gradients(total, n, WEIGHT_AGGREGATIONS[self.aggregate])
        return gradients, learner.rule_state


@dataclass(frozen=True)
class GreedyWeightPerturbation(WeightPerturbation):
    """`lg-fg-w`: every block's weights answer to their own local head's loss.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 4.
    """

    locality: ClassVar[str] = "greedy"


@dataclass(frozen=True)
class FiniteDifferences(WeightPerturbation):
    """`wp`: `fg-w` with d_i = (f(θ + ε v_i) - f(θ)) / ε, k + 1 evaluations instead of tangents.

    It tends to `fg-w` as ε → 0, until rounding takes over.  But a difference passes through a
    stop-gradient, which only derivatives obey.

    Args:
        difference: ε, above 0.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", their published code.
    """

    difference: float = 1e-3

    def __post_init__(self) -> None:
        if self.independent:
            raise UsageError(
                "wp: no difference moves the weights of every example alone; use fg-w for "
                "independent directions"
            )
        super().__post_init__()
        if not 0 < self.difference < math.inf:
            raise UsageError(f"wp: difference must be above 0 and finite, got {self.difference}")

    def init(self, key: Key, plan: Plan, params: Tree) -> Tree:
        self._require_no_stop(plan)  # before a run has a folder
        return super().init(key, plan, params)

    def sample(
        self, key: Key, plan: Plan, params: Tree, backend: Backend, n: int
    ) -> SharedDirections | IndependentDirections:
        self._require_no_stop(plan)
        return super().sample(key, plan, params, backend, n)

    def _require_no_stop(self, plan: Plan) -> None:
        if plan.task.declared_loss.stops_gradients:
            raise UsageError(
                "wp: a difference passes through the stop-gradient of the contrastive loss; use "
                "fg-w, or --no-stop"
            )

    def along(
        self, losses: Callable, params: Tree, tangents: Tree
    ) -> tuple[list[Array], Array, Any]:
        values, aux = losses(params)
        stacks = tree.map(dense, tangents)
        differences = []
        for i in range(len(tree.leaves(stacks)[0])):
            moved = tree.map(lambda p, v: p + self.difference * v[i], params, stacks)  # noqa: B023
            pairs = zip(losses(moved)[0], values, strict=True)
            differences.append(stack([(m - v) / self.difference for m, v in pairs]))
        return values, stack(differences), aux
