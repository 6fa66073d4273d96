"""`fg-a`, `lg-fg-a`: forward gradients by perturbing the activities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from dualnet.backends import Backend
from dualnet.backends.overridable import concatenate, exact_matmul
from dualnet.backends.symmetric import solution_by_eigenvectors
from dualnet.errors import UsageError
from dualnet.learning.cut_pass import Cut, Segment, measure_with_cuts
from dualnet.learning.directions.activities import (
    ActivityDirections,
    DrawsActivities,
    require_sampler,
)
from dualnet.learning.independence import Independence, summed_by_part, weighted_sum
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Measurement
from dualnet.learning.sites import OUTPUT_LAYERS, Sites
from dualnet.learning.task import LearnerState, Shard
from dualnet.naming import assigned
from dualnet.nn.activations import Activation
from dualnet.options import require_choice
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Stack

PERTURBED = ("before", "after")
"""Where a unit may be perturbed: before or after its activation."""
BATCH_LOSSES = ("total", "own")
"""Which loss an example's directions before a batch norm may answer to."""
ACTIVITY_AGGREGATIONS = ("mean", "projection")
"""How coefficients follow from derivatives along directions of activities."""


@dataclass(frozen=True, kw_only=True)
class ActivityPerturbation(DrawsActivities):
    """`fg-a`: g(z) = Σ_i c_i u_i for each example, then the unit's own weight gradient from g(z).

    Every hidden site gets k random directions u for each example, all in one pass; d_i is the
    derivative of that example's loss along the i-th direction of all sites together.  Entries
    where the activation function is flat (a ReLU that is off) have no gradient, and get no
    direction either.  The output layer gets its true error, unless it is perturbed, too.

    With `mean`, c = d / k, which is unbiased.  With `projection`, c solves G c = d with G the inner
    products of the example's directions over all sites.  That is the projection of its activity
    gradient onto their span, as in FROG, but for each example in the space of its activities.

    Batch norm lets each example move the others' losses.  Before one, d is therefore the batch's
    total, and the projection is that of the whole batch's activity gradient.  With `batch_loss`
    `own`, as in the published code of Bacho and Chu, d is the derivative of the example's own loss
    there too.  That leaves out what an example does to the losses of the others, a bias, and has
    far less variance, as the directions of the other examples are no noise then.

    Args:
        perturb: `before` or `after` the activation function; before means after the norm that
            follows the linear map, which g then goes back through exactly.
        aggregate: `mean` or `projection`.
        batch_loss: `total` or `own`.
        independent: whether every example has directions of its own.  If not, the batch has the
            same, and each example still its own derivatives along them; that is as unbiased, and
            the noise does not fall with the size of the batch.
        output_layers: whether the layer that makes the outputs gets its `exact` gradient, or is
            `perturbed` as all others.

    For a pre-activation `(N, *S)` the directions u are `(k, N, *S)`, and d is `(k, N)`.  The rule
    learns nothing beside.

    Raises:
        UsageError: an option is out of its range; with `independent=False`, examples move each
            other's losses.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", Eq. 3 and §3.6,
    shared directions: Table 1;
    Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
    Momentum", Eq. 4-5; projection: Flügel et al. 2024, "Beyond Backpropagation", Eq. 8-9,
    perturbed outputs: their published code.

    Examples:
        >>> layers = {"hidden": dn.nn.Linear(4), "relu": dn.nn.Activation(dn.nn.relu)}
        >>> network = dn.nn.Sequential({**layers, "output": dn.nn.Linear(2)})
        >>> task = dn.learning.Task(network, dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> rule, backend = dn.learning.ActivityPerturbation(), dn.backends.get("numpy")
        >>> start = rule.start(task, batch.inputs, dn.Key(0))
        >>> done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        >>> print(done.gradients["hidden"]["w"].round(3))  # a row is d u of one example
        [[ 0.    -0.164  0.    -0.164]
         [ 0.     0.     0.193  0.   ]
         [ 0.     0.     0.447  0.447]]
    """

    name: ClassVar[str] = "fg-a"

    perturb: str = "before"
    aggregate: str = "mean"
    batch_loss: str = "total"
    independent: bool = True
    output_layers: str = "exact"

    def __post_init__(self) -> None:
        require_sampler(self.name, self.tangents, self.sampler)
        require_choice(self.name, "batch_loss", self.batch_loss, BATCH_LOSSES)
        require_choice(self.name, "perturb", self.perturb, PERTURBED)
        require_choice(self.name, "aggregate", self.aggregate, ACTIVITY_AGGREGATIONS)
        require_choice(self.name, "output_layers", self.output_layers, OUTPUT_LAYERS)

    def init(self, key: Key, plan: Plan, params: Tree) -> Tree:
        self._require_own_losses(plan)  # before a run has a folder
        return super().init(key, plan, params)

    def sample(
        self, key: Key, plan: Plan, params: Tree, backend: Backend, n: int
    ) -> ActivityDirections:
        self._require_own_losses(plan)
        directions = super().sample(key, plan, params, backend, n)
        return directions if self.independent else replace(directions, shared=True)

    def _require_own_losses(self, plan: Plan) -> None:
        if not self.independent and plan.task.couples_examples:
            raise UsageError(
                f"{self.name}: a network or a loss in which examples move each other's losses "
                "needs directions of every example's own; leave out "
                f"{assigned('independent', False)}"
            )

    def measure(
        self, plan: Plan, learner: LearnerState, directions: ActivityDirections, shard: Shard
    ) -> Measurement:
        independence = plan.independence(self.locality, through_norms=self.batch_loss == "own")

        def respond(segment: Segment) -> tuple[Iterable, dict]:
            if not segment.cuts:
                return [], {}
            d = self.answered(segment.derivatives)
            cuts = segment.cuts
            return weighted_directions(d, cuts, self.aggregate, independence, directions, shard), {}

        sites, draw = self.sites(plan), directions.drawer(shard)
        return measure_with_cuts(plan, learner, shard, sites, draw, self.locality, respond)

    def sites(self, plan: Plan) -> Sites:
        """Return where activities are perturbed."""
        if self.perturb == "before":
            sites: dict[str, Activation | None] = {u.before: u.activation for u in plan.units}
        else:
            sites = {unit.after: None for unit in plan.units}
        if self.output_layers == "perturbed" and plan.output_site is not None:
            sites[plan.output_site] = None
        return sites

    def answered(self, derivatives: Array) -> Array:
        """Return the derivatives `(k, n, P, G)` that directions answer to."""
        return derivatives


@dataclass(frozen=True, kw_only=True)
class GreedyActivityPerturbation(ActivityPerturbation):
    """`lg-fg-a`: `fg-a` in which every block answers to its own local head alone.

    Local heads cut the network: a perturbation's effect ends at the next head, so that fewer
    directions share one scalar.  Where the layers up to the head keep tokens or groups of channels
    independent, every token and group has a replica of the loss to answer to.

    Args:
        losses: `replicated`, or `one` for one loss at every head.  `projection` always takes one.

    Raises:
        UsageError: an option is out of its range; `init` finds a local head that cannot cut the
            network where it is.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", §4.

    Examples:
        >>> head = dn.nn.LocalHead(2, groups=2)  # with a replica of its loss for each group
        >>> layers = {"hidden": dn.nn.Linear(4), "head": head, "output": dn.nn.Linear(2)}
        >>> task = dn.learning.Task(dn.nn.Sequential(layers), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> rule, backend = dn.learning.GreedyActivityPerturbation(), dn.backends.get("numpy")
        >>> start = rule.start(task, batch.inputs, dn.Key(0))
        >>> done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        >>> print(done.gradients["hidden"]["w"].round(3))  # each group of channels has its own d
        [[-0.023 -0.023  0.021 -0.021]
         [-0.101  0.101 -0.047  0.047]
         [ 0.134  0.134 -0.039 -0.039]]
    """

    losses: str = "replicated"

    name: ClassVar[str] = "lg-fg-a"
    locality: ClassVar[str] = "greedy"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("lg-fg-a", "losses", self.losses, ("replicated", "one"))
        if self.output_layers != "exact":
            raise UsageError(
                "lg-fg-a: output_layers must be exact, as local heads have their exact gradient, "
                f"got {self.output_layers!r}; use fg-a"
            )

    def answered(self, derivatives: Array) -> Array:
        if self.losses == "replicated":
            return derivatives
        return np.sum(derivatives, axis=(2, 3), keepdims=True)


# --- parts that the rules share -------------------------------------------------------------------


def weighted_directions(
    d: Array,
    cuts: list[Cut],
    aggregate: str,
    independence: Mapping[str, Independence],
    directions: ActivityDirections,
    shard: Shard,
) -> Iterator[Array]:
    """Return Σ_i c_i u_i at every cut, `(n, *S)`, each when it is asked for.

    Args:
        d: derivatives `(k, n, P, G)` along the directions of all cuts together.
        cuts: where directions u were put in.
        aggregate: how c follows from d, one of `ACTIVITY_AGGREGATIONS`.
        independence: by site; it says to which derivatives the parts of an activity answer.
        directions, shard: as for `Rule.measure`.
    """
    processes = shard.context.processes
    if aggregate == "mean":
        mean = d / len(d)
        return (
            weighted_sum(mean, cut.directions, independence[cut.path], processes) for cut in cuts
        )
    of_examples = directions.along_all(np.sum(d, axis=(2, 3)))
    coupled = not all(independence[cut.path].examples for cut in cuts)
    if coupled:
        of_batch = processes.add(np.sum(of_examples, axis=1, keepdims=True))
        of_examples = np.broadcast_to(of_batch, of_examples.shape)
    gram = inner_products(directions.all_at(cuts, shard))
    if coupled:
        gram = processes.add(gram.sum(0, keepdims=True))
    c = directions.own(projection_coefficients(of_examples, gram))
    return (_weighted_alike(c, cut.directions) for cut in cuts)


def _weighted_alike(c: Array, u: Stack) -> Array:
    """Return Σ_i c_i u_i for c `(k, n)`, the same for a whole activity, and u `(k, n, *S)`."""
    k, n = c.shape
    sums = summed_by_part(np.reshape(c, (k, n, 1, 1)), np.reshape(u, (k, n, 1, 1, -1)), False)
    return np.reshape(sums, u.shape[1:])


def inner_products(stacks: list[Stack]) -> Array:
    """Return G `(n, k, k)`, the inner products of each example's directions over all sites.

    Args:
        stacks: the directions of each site, `(k, n, *S)`.

    Returns:
        In double precision.
    """
    k, n = stacks[0].shape[:2]
    by_example = [np.reshape(np.swapaxes(u, 0, 1), (n, k, -1)).astype(np.float64) for u in stacks]
    u = concatenate(by_example, axis=-1)
    return exact_matmul(u, np.swapaxes(u, 1, 2))


def projection_coefficients(d: Array, gram: Array) -> Array:
    """Return c `(k, n)` of least norm with G c = d, computed in double precision.

    What rounding leaves of a singular G counts as 0: k may exceed the number of live units.

    Args:
        d: derivatives along the directions of all cuts together, `(k, n)`.
        gram: G, the inner products of the directions of all cuts together: `(n, k, k)`, or
            `(1, k, k)` if all examples of the batch share one.
    """
    rounding = max(float(np.finfo(d.dtype).eps), len(d) * float(np.finfo(np.float64).eps))
    c = solution_by_eigenvectors(gram, d.T.astype(np.float64), rounding)
    return np.swapaxes(c, 0, 1).astype(d.dtype)
