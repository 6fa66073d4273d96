"""`fg-w`, `lg-fg-w`, `wp`: forward gradients by perturbing the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import reduce
from operator import add
from typing import Any, ClassVar

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.backends.overridable import concatenate, stack
from dualnet.backends.processes import Processes
from dualnet.core.derivatives import value_and_grad
from dualnet.core.spaces import dense
from dualnet.core.transforms import jvp
from dualnet.errors import UsageError
from dualnet.learning.aggregate import WEIGHT_AGGREGATIONS
from dualnet.learning.answers import Answers
from dualnet.learning.backprop import measure_by_reverse, segment_losses
from dualnet.learning.differences import Differences
from dualnet.learning.directions.samplers import sampler_of
from dualnet.learning.directions.weights import (
    IndependentDirections,
    SharedDirections,
    SomeDirections,
    direction_bytes,
    directions_that_fit,
)
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Measurement, Rule, scaled
from dualnet.learning.sites import OUTPUT_LAYERS
from dualnet.learning.task import LearnerState, Shard, correct
from dualnet.options import require_choice, require_count
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array

AGGREGATIONS_BY_EXAMPLE = ("mean", "sum")
"""Aggregations whose coefficients need one example's derivatives alone."""
LOSSES = ("replicated", "through-norms", "one")
"""What losses a local head may have for directions of weights."""


@dataclass(frozen=True)
class WeightPerturbation(Rule):
    """`fg-w`: g = Σ c_i v_i with random directions v_i of all weights and d_i = ∇f·v_i.

    One forward pass carries all k tangents; nothing flows backward and no activation is kept.
    A shard contributes k numbers (for each loss), whatever the size of the network.

    With `independent` every example n has directions v_ni of its own, d_ni = ∇f_n·v_ni, and g is
    the mean over n of Σ c_i v_ni, which is as unbiased.  Let σ² be the variance of the examples'
    gradients and m² the square of their mean, both averaged over a p × q layer, the only one that
    is perturbed.  Then an entry of g has in the mean the variance pq/N σ² + (pq - 1)/N m² at k = 1,
    and pq/N σ² + (pq - 1) m² with shared directions (Ren et al., Table 1, have pq + 2 and pq + 1
    in these places, for normal entries; these are signs).
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
        output_layers: whether the layers that make outputs (the read-out and the local heads) are
            `perturbed` as all others, or get their `exact` gradient, which the same pass gives, and
            no directions.  Then these are no noise to the others.

    A direction of a parameter `(*S)` is one of a stack `(k, *S)`, or its factors; d is `(k,)`, and
    `(k, N)` where directions are independent.  The rule learns nothing beside.

    Raises:
        UsageError: an option is out of its range, or two do not go together.

    Source: Baydin et al. 2022, "Gradients without Backpropagation", Algorithm 1; k tangents:
    Flügel et al. 2024, "Beyond Backpropagation", section 3; independent: Ren et al. 2023, "Scaling
    Forward Gradient With Local Losses", Table 1; exact output layers: their published code.

    Examples:
        >>> task = dn.learning.Task(dn.nn.Linear(2, weights="zeros"), dn.nn.mean_squared_error)
        >>> batch = dn.learning.Batch(np.eye(3), np.ones((3, 2)))  # ∇f is -1/3 everywhere
        >>> rule = dn.learning.WeightPerturbation(sampler="rademacher")
        >>> start, backend = rule.start(task, batch.inputs, dn.Key(0)), dn.backends.get("numpy")
        >>> done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        >>> done.gradients["w"].round(3).tolist()  # (∇f·v) v with v of random signs
        [[-1.333, 1.333], [1.333, 1.333], [1.333, -1.333]]
    """

    name: ClassVar[str] = "fg-w"

    tangents: int = 1
    _: KW_ONLY
    sampler: str = "normal"
    aggregate: str = "mean"
    tangent_chunk: int | None = None
    independent: bool = False
    output_layers: str = "perturbed"

    def __post_init__(self) -> None:
        require_choice(self.name, "output_layers", self.output_layers, OUTPUT_LAYERS)
        require_count(self.name, "tangents", self.tangents)
        if self.tangent_chunk is not None:
            require_count(self.name, "tangent-chunk", self.tangent_chunk)
        sampler_of(self.sampler)
        require_choice(self.name, "aggregate", self.aggregate, WEIGHT_AGGREGATIONS)
        if self.independent and self.sampler != "rank-one":
            raise UsageError(
                f"{self.name}: independent directions of every example must be rank-one, dense "
                "ones would be as large as the weights for each; use sampler rank-one, got "
                f"{self.sampler!r}"
            )
        if self.independent and self.aggregate not in AGGREGATIONS_BY_EXAMPLE:
            raise UsageError(
                f"{self.name}: aggregate must be mean or sum where every example has directions of "
                f"its own, {self.aggregate!r} is for shared ones; use it without independent"
            )

    def perturbed(self, plan: Plan, params: Tree) -> Tree:
        """Return the parameters that get directions: a tree, or a dict from their paths."""
        if self.output_layers == "perturbed":
            return params
        return {path: p for path, p in tree.items(params) if path not in plan.outputs_made_by}

    def sample(
        self, key: Key, plan: Plan, params: Tree, backend: Backend, n: int
    ) -> SharedDirections | IndependentDirections:
        sampler, k = sampler_of(self.sampler), self.tangents
        greedy = self.locality == "greedy"
        answers = plan.answers(params, self.losses_at_heads()) if greedy else Answers()
        params = self.perturbed(plan, params)
        if self.independent:
            coupled = plan.task.couples_examples
            return IndependentDirections(key, params, backend, sampler, k, n, answers, coupled)
        chunk = self.tangent_chunk or k
        if self.tangent_chunk is None and k > 1:
            chunk = directions_that_fit(direction_bytes(sampler, params))
        return SharedDirections(key, params, backend, sampler, k, n, answers, chunk)

    def measure(
        self,
        plan: Plan,
        learner: LearnerState,
        directions: SharedDirections | SomeDirections | IndependentDirections,
        shard: Shard,
    ) -> Measurement:
        perturbed = self.perturbed(plan, learner.params)
        if not tree.leaves(perturbed):  # every layer makes outputs
            return measure_by_reverse(plan, learner, shard, shard.context, self.locality)

        def losses(some: Tree) -> tuple[list[Array], tuple[Array, Tree]]:
            params = some if self.output_layers == "perturbed" else put(learner.params, some)
            context, replicas = shard.context, self.losses_at_heads() != "one"
            of_segments, outputs, new_state = segment_losses(
                plan, params, learner.model_state, shard, context, self.locality, replicas=replicas
            )
            return of_segments, (outputs, new_state)

        contributions: list = []
        exact: dict[str, Tree] = {}
        # with a single direction there is nothing to divide, whatever the activations need
        most = self.tangent_chunk or self.tangents
        if self.tangent_chunk is None and self.tangents > 1:
            most = directions_that_fit(directions.examples * plan.activation_bytes)
        for tangents in directions.passes(most, shard):
            if self.output_layers == "perturbed" or exact:
                values, d, (outputs, new_state) = self.along(losses, perturbed, tangents)
            else:
                values, d, (outputs, new_state), exact["exact"] = self.along_and_exact(
                    losses, learner.params, perturbed, tangents
                )
            contributions.append(directions.contribution(d, tangents, shard))
        total = {
            "loss": values[-1].sum(),
            "correct": correct(outputs, shard.targets),
            **directions.together(contributions),
            **exact,
        }
        return Measurement(total, new_state)

    def measure_along(
        self,
        plan: Plan,
        learner: LearnerState,
        directions: SharedDirections | IndependentDirections,
        shard: Shard,
        part: range,
        processes: Processes,
    ) -> Measurement:
        """Measure as in `Rule`; what no direction moves counts by the share that `part` has."""
        measured = self.measure(plan, learner, directions.along(part), shard)
        of_directions = {n: x for n, x in measured.total.items() if n in ("derivatives", "sums")}
        others = {n: x for n, x in measured.total.items() if n not in of_directions}
        total = {**scaled(others, len(part) / self.tangents), **of_directions}
        return measured._replace(total=total)

    def along(
        self, losses: Callable, params: Tree, tangents: Tree
    ) -> tuple[list[Array], Array, Any]:
        """Differentiate the losses along each direction.

        Args:
            losses: `losses(params)` returns a list of per-example losses `(n,)`, and an aux.
            params: where to differentiate.
            tangents: k directions, a tree like the parameters.

        Returns:
            The losses, their derivatives `(k, derivatives, n)` (see `Answers`), and the aux.
        """
        values, d, aux = jvp(losses, (params,), (tangents,), has_aux=True)
        return values, in_a_row(d), aux

    def along_and_exact(
        self, losses: Callable, params: Tree, perturbed: Tree, tangents: Tree
    ) -> tuple[list[Array], Array, Any, Tree]:
        """Do the same, and differentiate by all parameters that are not perturbed, by reverse mode.

        The pass is the same one: reverse mode records nothing before the layers of the parameters
        that it differentiates by, and these are the last before the losses.

        Args:
            losses, perturbed, tangents: as `losses`, `params` and `tangents` in `along`; `losses`
                takes any parameters by their paths, too.
            params: all parameters.

        Returns:
            What `along` returns, and the gradients of the summed losses, by the parameters' paths.
        """
        others = {path: p for path, p in tree.items(params) if path not in perturbed}

        def total_loss(others: Tree) -> tuple[Array, tuple]:
            values, d, aux = self.along(
                lambda perturbed: losses({**others, **perturbed}), perturbed, tangents
            )
            return reduce(add, [value.sum() for value in values]), (values, d, aux)

        (_, (values, d, aux)), exact = value_and_grad(total_loss, has_aux=True)(others)
        return values, d, aux, exact

    def losses_at_heads(self) -> str:
        """Return which losses local heads have, one of `LOSSES`."""
        return "one"

    def estimate(
        self,
        total: dict[str, Any],
        directions: SharedDirections | IndependentDirections,
        learner: LearnerState,
        n: int,
    ) -> tuple[Tree, Tree]:
        if "gradients" in total:
            return super().estimate(total, directions, learner, n)
        gradients = directions.gradients(total, n, WEIGHT_AGGREGATIONS[self.aggregate])
        if "exact" in total:
            exact = tree.map(lambda g: g / n, total["exact"])
            gradients = put(learner.params, {**exact, **gradients})
        return gradients, learner.rule_state


def in_a_row(derivatives: list[Array]) -> Array:
    """Return derivatives of losses `(k, n)` and of replicas `(k, n, P, G)` as `Answers` has them.

    Those of the replicas are summed over tokens, which share the weights.

    Returns:
        `(k, derivatives, n)`.
    """
    rows = [
        np.swapaxes(np.sum(d, axis=2), 1, 2) if d.ndim == 4 else d[:, None] for d in derivatives
    ]
    return rows[0] if len(rows) == 1 else concatenate(rows, axis=1)


def put(params: Tree, some: Mapping[str, Array]) -> Tree:
    """Return a tree like params with other leaves at the given paths."""
    return tree.map_with_path(lambda path, p: some.get(path, p), params)


@dataclass(frozen=True, kw_only=True)
class GreedyWeightPerturbation(WeightPerturbation):
    """`lg-fg-w`: every block's weights answer to their own local head's loss.

    A head of G groups has a replica of its loss for every token and group.  The weights of
    channels that reach their own group of the head's features alone answer to the replicas of that
    group, summed over tokens and examples, which share them; other weights answer to all replicas.
    The read-out and the local heads get their exact gradient, as in the source.

    Args:
        losses: `replicated` takes groups to be independent where they are, so that the estimate is
            unbiased.  With `through-norms`, as in the published code, a norm of all channels is
            taken for one that keeps groups independent.  That leaves out what the weights of a
            group do to other groups through the norm, a bias, and far fewer directions share a
            scalar.  `one` is one loss at every head.
        output_layers: `exact` or `perturbed`.

    Raises:
        UsageError: an option is out of its range, or two do not go together; `init` finds a local
            head that cannot cut the network where it is.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 4; published code
    for what groups and output layers get.

    Examples:
        >>> head = dn.nn.LocalHead(2)
        >>> layers = {"hidden": dn.nn.Linear(4), "head": head, "output": dn.nn.Linear(2)}
        >>> task = dn.learning.Task(dn.nn.Sequential(layers), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> rule, backend = dn.learning.GreedyWeightPerturbation(), dn.backends.get("numpy")
        >>> start = rule.start(task, batch.inputs, dn.Key(0))
        >>> first, second = (
        ...     dn.learning.estimate_gradient(rule, *start, batch, dn.Key(i), backend).gradients
        ...     for i in range(2)
        ... )
        >>> bool(np.allclose(first["hidden"]["w"], second["hidden"]["w"]))  # along other directions
        False
        >>> bool(np.allclose(first["output"]["w"], second["output"]["w"]))  # exact
        True
    """

    losses: str = "replicated"
    output_layers: str = "exact"

    name: ClassVar[str] = "lg-fg-w"
    locality: ClassVar[str] = "greedy"

    def __post_init__(self) -> None:
        require_choice("lg-fg-w", "losses", self.losses, LOSSES)
        super().__post_init__()
        if self.losses == "through-norms" and self.aggregate not in AGGREGATIONS_BY_EXAMPLE:
            raise UsageError(
                "lg-fg-w: aggregate must be mean or sum where groups are taken to be independent "
                f"through norms, got {self.aggregate!r}; use it with losses replicated or one"
            )

    def losses_at_heads(self) -> str:
        return self.losses


@dataclass(frozen=True, kw_only=True)
class FiniteDifferences(Differences, WeightPerturbation):
    """`wp`: `fg-w` with d_i = (f(θ + ε v_i) - f(θ)) / ε, k + 1 evaluations instead of tangents.

    It tends to `fg-w` as ε → 0, until rounding takes over.  But a difference passes through a
    stop-gradient, which only derivatives obey.

    Args:
        difference: ε, above 0.

    Raises:
        UsageError: an option is out of its range; the network has a layer `StopGradient`, or the
            loss stops gradients.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", their published code.

    Examples:
        >>> task = dn.learning.Task(dn.nn.Linear(2), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> backend, gradients = dn.backends.get("numpy"), []
        >>> for rule in (dn.learning.FiniteDifferences(), dn.learning.WeightPerturbation()):
        ...     start = rule.start(task, batch.inputs, dn.Key(0))
        ...     done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        ...     gradients.append(done.gradients["w"])
        >>> bool(np.abs(gradients[0] - gradients[1]).max() < 0.01)  # along the same directions
        True
    """

    name: ClassVar[str] = "wp"
    by_derivatives: ClassVar[str] = "fg-w"

    difference: float = 1e-3

    def __post_init__(self) -> None:
        if self.independent:
            raise UsageError(
                f"{self.name}: no difference moves the weights of every example alone; use fg-w "
                "for independent directions"
            )
        super().__post_init__()
        self.require_difference()

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
