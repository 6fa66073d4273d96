"""`dfa`, `dkp`, `fdfa`: the output error, sent straight to every hidden activity.

    δ_l = e B_l,   e `(n, outputs)` the error at the outputs, B_l `(outputs, *S)`

and from δ_l the unit's own weight gradient.  The rules differ in where B_l comes from.
"""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.backends.overridable import matmul
from dualnet.errors import UsageError
from dualnet.learning.cut_pass import Cut, Segment, measure_with_cuts
from dualnet.learning.directions.activities import (
    ActivityDirections,
    DrawsActivities,
    require_sampler,
    require_share,
)
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Measurement, Rule
from dualnet.learning.sites import Sites
from dualnet.learning.task import LearnerState, Shard
from dualnet.nn.initial import kaiming
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Shape


def project_error(error: Array, matrix: Array) -> Array:
    """Return e B, `(n, *S)`, of errors `(n, outputs)` and B `(outputs, *S)`."""
    rows = np.reshape(matrix, (len(matrix), math.prod(matrix.shape[1:])))
    return np.reshape(matmul(error, rows), (len(error), *matrix.shape[1:]))


@dataclass(frozen=True)
class Feedback:
    """How feedback matrices learn; they are a dict from a site's path to B.

    * `fixed`: they stay as drawn, Kaiming-uniform with the outputs as fan-in.
    * `outer-product`: B follows eᵀ h, the gradient that a weight from h to the outputs would have:
      B ← B - rate · (mean(eᵀ h) + decay · B).
    * `forward-gradient`: B tends to the mean Jacobian of the outputs by h, which one jvp estimates:
      with directions u at all sites and d the outputs' tangent, E[dᵀ u] is that Jacobian.
      B ← (1 - rate) B + rate · mean(dᵀ u), over examples and directions; starts at 0.
      Directions put in before the activation reach h times its slope s, and say more where s is
      large: B ← B + rate · mean(dᵀ (s u) - s² B).

    Args:
        kind: one of these names.
        rate, decay: as in the formulas.

    Sources: Nøkland 2016, "Direct Feedback Alignment"; Webster et al. 2021, "Learning the
    Connections in Direct Feedback Alignment"; Bacho and Chu, "Low-Variance Forward Gradients
    using Direct Feedback Alignment and Momentum", Eq. 10-13.
    """

    kind: str
    rate: float = 0.0
    decay: float = 0.0

    def init(self, key: Key, plan: Plan, sites: Container[str]) -> Tree:
        """Return B for the activity at each site, by its path."""
        outputs = plan.outputs
        if outputs.ndim != 2:
            raise UsageError(
                f"feedback matrices need outputs (N, outputs), the network gives {outputs.shape}"
            )
        count = outputs.shape[1]

        def start(path: str, shape: Shape) -> Array:
            if self.kind == "forward-gradient":
                return np.zeros_like(outputs, shape=(count, *shape))
            drawn = kaiming(key.fold_in(path), (count, *shape), count).astype(outputs.dtype)
            return np.asarray(drawn, like=outputs)

        return {path: start(path, shape) for path, shape in plan.shapes.items() if path in sites}

    def statistics(self, segment: Segment) -> dict[str, Any]:
        """Return sums over a shard's examples of what they say about B."""
        if self.kind == "fixed":
            return {}
        sums: dict[str, Any] = {}
        for cut in segment.cuts:  # a unit that is applied twice has two cuts at one path
            part = self._at_cut(segment, cut)
            sums[cut.path] = tree.add(sums[cut.path], part) if cut.path in sums else part
        return {"feedback": sums}

    def _at_cut(self, segment: Segment, cut: Cut) -> dict[str, Any]:
        """Return sums over examples: what B is pulled to, and how much weight that has."""
        if self.kind == "outer-product":
            return {
                "pull": -_outer(segment.error, cut.activity),
                "weight": self.decay * len(segment.error),
            }
        k, moved = len(cut.directions), cut.directions
        weight: Array = len(cut.activity)
        if cut.slope is not None:
            moved, weight = moved * cut.slope, np.sum(np.square(cut.slope), axis=0)
        return {"pull": sum(map(_outer, segment.effect, moved)) / k, "weight": weight}

    def update(self, rule_state: Tree, sums: Tree | None, n: int) -> Tree:
        """Return B after a step on n examples; sites whose weights are constants keep theirs."""
        sums = sums or {}
        return {
            path: b + (self.rate / n) * (sums[path]["pull"] - sums[path]["weight"] * b)
            if path in sums
            else b
            for path, b in rule_state.items()
        }


def _outer(a: Array, b: Array) -> Array:
    """Return Σ_n a_n ⊗ b_n."""
    rows = np.reshape(b, (len(b), math.prod(b.shape[1:])))
    return np.reshape(matmul(a.T, rows), (a.shape[1], *b.shape[1:]))


@dataclass(frozen=True)
class DirectFeedback(Rule):
    """`dfa`: δ_l = e B_l with B_l fixed as drawn.

    The rule perturbs nothing and learns no feedback.  It takes one forward pass, and each unit's
    own weight gradient.

    Source: Nøkland 2016, "Direct Feedback Alignment Provides Learning in Deep Neural Networks".
    """

    @property
    def feedback(self) -> Feedback:
        """How B learns."""
        return Feedback("fixed")

    def init(self, key: Key, plan: Plan, params: Tree) -> Tree:
        return self.feedback.init(key, plan, {unit.after for unit in plan.units})

    def measure(
        self,
        plan: Plan,
        learner: LearnerState,
        directions: ActivityDirections | None,
        shard: Shard,
    ) -> Measurement:
        sites: Sites = {unit.after: None for unit in plan.units}
        matrices = learner.rule_state

        def respond(segment: Segment) -> tuple[list, dict]:
            errors = [project_error(segment.error, matrices[cut.path]) for cut in segment.cuts]
            return errors, self.feedback.statistics(segment) if errors else {}

        draw = directions.drawer(shard) if directions else None
        return measure_with_cuts(plan, learner, shard, sites, draw, self.locality, respond)

    def estimate(
        self,
        total: dict[str, Any],
        directions: ActivityDirections | None,
        learner: LearnerState,
        n: int,
    ) -> tuple[Tree, Tree]:
        gradients, rule_state = super().estimate(total, directions, learner, n)
        return gradients, self.feedback.update(rule_state, total.get("feedback"), n)


@dataclass(frozen=True)
class DirectKolenPollack(DirectFeedback):
    """`dkp`: `dfa` whose B_l follows the gradient eᵀ h_l that a forward weight would have.

    Args:
        feedback_rate: how fast B follows.
        feedback_decay: weight decay of B.

    Source: Webster et al. 2021, "Learning the Connections in Direct Feedback Alignment".
    """

    feedback_rate: float = 0.01
    feedback_decay: float = 1e-6

    def __post_init__(self) -> None:
        require_share("dkp", "feedback_rate", self.feedback_rate)
        require_share("dkp", "feedback_decay", self.feedback_decay)

    @property
    def feedback(self) -> Feedback:
        """How B learns."""
        return Feedback("outer-product", self.feedback_rate, self.feedback_decay)


@dataclass(frozen=True)
class ForwardDirectFeedback(DrawsActivities, DirectFeedback):
    """`fdfa`: `dfa` whose B_l tends to the outputs' mean Jacobian, estimated forward.

    One pass carries k random directions at every hidden activity together; δ_l uses the B_l of
    before the step.

    Args:
        feedback_rate: β of the moving average.

    Source: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
    Momentum", Algorithm 1, Eq. 10-13.
    """

    feedback_rate: float = 0.01

    def __post_init__(self) -> None:
        require_sampler("fdfa", self.tangents, self.sampler)
        require_share("fdfa", "feedback_rate", self.feedback_rate)

    @property
    def feedback(self) -> Feedback:
        """How B learns."""
        return Feedback("forward-gradient", self.feedback_rate)
