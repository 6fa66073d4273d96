"""`ap`: activities perturbed for real, and the losses' differences in the place of derivatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from dualnet.backends.overridable import stack
from dualnet.learning.activity_perturbation import ActivityPerturbation, weighted_directions
from dualnet.learning.cut_pass import Segment, measure_with_cuts
from dualnet.learning.differences import Differences
from dualnet.learning.directions.activities import ActivityDirections
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Measurement
from dualnet.learning.task import LearnerState, Shard
from dualnet.types import Array

Moves = Mapping[tuple[str, int], Array]
"""Path of a site and which visit to it → what is added to its activity, `(n, *S)`."""


@dataclass(frozen=True, kw_only=True)
class ActivityDifferences(Differences, ActivityPerturbation):
    """`ap`: `fg-a` with d_i = (f(activities + ε u_i) - f(activities)) / ε; node perturbation.

    One pass gives the losses and each unit's own weight gradient, and one more for each direction
    gives the losses of the moved activities; no pass carries tangents.  With the directions of
    `fg-a` it tends to `fg-a` as ε → 0, until rounding takes over.  But a difference passes through
    a stop-gradient, which only derivatives obey.

    Args:
        difference: ε, above 0.

    Raises:
        UsageError: an option is out of its range; the network has a layer `StopGradient`, or the
            loss stops gradients; with `independent=False`, examples move each other's losses.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", their published code
    (`perturb_activations`).

    Examples:
        >>> layers = {"hidden": dn.nn.Linear(4), "output": dn.nn.Linear(2)}
        >>> task = dn.learning.Task(dn.nn.Sequential(layers), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> backend, gradients = dn.backends.get("numpy"), []
        >>> for rule in (dn.learning.ActivityDifferences(), dn.learning.ActivityPerturbation()):
        ...     start = rule.start(task, batch.inputs, dn.Key(0))
        ...     done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        ...     gradients.append(done.gradients["hidden"]["w"])
        >>> bool(np.abs(gradients[0] - gradients[1]).max() < 1e-3)  # along the same directions
        True
    """

    name: ClassVar[str] = "ap"
    by_derivatives: ClassVar[str] = "fg-a"

    difference: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_difference()

    def measure(
        self, plan: Plan, learner: LearnerState, directions: ActivityDirections, shard: Shard
    ) -> Measurement:
        draw = directions.drawer(shard)
        independence = plan.independence(self.locality, through_norms=self.batch_loss == "own")

        def respond(segment: Segment) -> tuple[Iterable, dict]:
            if not segment.cuts:
                return [], {}
            cuts = [
                replace(cut, directions=draw(cut.path, cut.visit, cut.activity, cut.slope))
                for cut in segment.cuts
            ]
            differences = []
            for i in range(directions.k):
                moves = {(cut.path, cut.visit): self.difference * cut.directions[i] for cut in cuts}
                moved = losses_of_moved(plan, learner, shard, moves)
                differences.append((moved - segment.losses) / self.difference)
            d = stack(differences)[:, :, None, None]
            return weighted_directions(d, cuts, self.aggregate, independence, directions, shard), {}

        sites = self.sites(plan)
        return measure_with_cuts(plan, learner, shard, sites, None, self.locality, respond)


def losses_of_moved(plan: Plan, learner: LearnerState, shard: Shard, moves: Moves) -> Array:
    """Return the losses `(n,)` of a pass that adds something to the activities at sites."""
    visits: Counter[str] = Counter()

    def tap(path: str, z: Array) -> Array:
        visits[path] += 1
        site = path, visits[path]
        return z + moves[site] if site in moves else z

    context = replace(shard.context, tap=tap)
    network = plan.task.network
    outputs, _ = network.apply(learner.params, learner.model_state, shard.inputs, context)
    if ("", 1) in moves:  # the network is a single layer, which no container taps
        outputs = tap("", outputs)
    return plan.task.losses_of(outputs, shard.targets)
