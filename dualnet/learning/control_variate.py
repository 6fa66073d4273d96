"""`fg-a-cv`: a guess of the activity gradient, and a forward gradient of what it leaves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dualnet.learning.activity_perturbation import ACTIVITY_AGGREGATIONS, weighted_directions
from dualnet.learning.cut_pass import Cut, Segment, measure_with_cuts
from dualnet.learning.directions.activities import (
    ActivityDirections,
    DrawsActivities,
    require_sampler,
)
from dualnet.learning.feedback import Feedback, project_error
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Measurement
from dualnet.learning.task import LearnerState, Shard
from dualnet.options import require_choice, require_share
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array


class Guess(Protocol):
    """Guesses the gradient of every pre-activation, and learns from the steps before."""

    def init(self, key: Key, plan: Plan) -> Tree:
        """Return what it learns, at the start: a dict from a site's path."""
        ...

    def at(self, site_state: Array, segment: Segment, cut: Cut) -> Array:
        """Return the guess at a cut, `(n, *S)`, from what is learned for its site."""
        ...

    def statistics(self, segment: Segment, errors: list[Array]) -> dict[str, Any]:
        """Return sums over examples of what a shard says, given the estimates `(n, *S)` at its
        cuts."""
        ...

    def update(self, rule_state: Tree, sums: Tree | None, n: int) -> Tree:
        """Return what is learned after a step on n examples."""
        ...


@dataclass(frozen=True)
class ProjectedError:
    """Guesses the output error through a feedback matrix, times the activation's slope.

    Args:
        feedback: how the matrices learn: as in `fdfa`, from the very same pass (and used from the
            next step on), or as in `dfa`, not at all.
    """

    feedback: Feedback

    def init(self, key: Key, plan: Plan) -> Tree:
        return self.feedback.init(key, plan, {unit.before for unit in plan.units})

    def at(self, site_state: Array, segment: Segment, cut: Cut) -> Array:
        guess = project_error(segment.error, site_state)
        return guess if cut.slope is None else guess * cut.slope

    def statistics(self, segment: Segment, errors: list[Array]) -> dict[str, Any]:
        return self.feedback.statistics(segment)

    def update(self, rule_state: Tree, sums: Tree | None, n: int) -> Tree:
        return self.feedback.update(rule_state, sums, n)


@dataclass(frozen=True)
class LastEstimate:
    """Guesses the mean over examples of the last estimates, the same for all of a batch.

    Args:
        rate: β of a moving average over steps; 1 is the last step's alone.
    """

    rate: float

    def init(self, key: Key, plan: Plan) -> Tree:
        shapes = {unit.before: plan.shapes[unit.before] for unit in plan.units}
        return {path: np.zeros_like(plan.outputs, shape=s) for path, s in shapes.items()}

    def at(self, site_state: Array, segment: Segment, cut: Cut) -> Array:
        guess = np.broadcast_to(site_state, cut.activity.shape)
        return guess if cut.slope is None else np.where(np.equal(cut.slope, 0), 0, guess)

    def statistics(self, segment: Segment, errors: list[Array]) -> dict[str, Any]:
        visits = Counter(cut.path for cut in segment.cuts)  # of a layer that is applied twice
        sums: dict[str, Any] = {}
        for cut, error in zip(segment.cuts, errors, strict=True):
            own = np.sum(error, axis=0) / visits[cut.path]
            sums[cut.path] = sums[cut.path] + own if cut.path in sums else own
        return {"feedback": sums}

    def update(self, rule_state: Tree, sums: Tree | None, n: int) -> Tree:
        sums = sums or {}
        return {
            path: g + self.rate * (sums[path] / n - g) if path in sums else g
            for path, g in rule_state.items()
        }


@dataclass(frozen=True, kw_only=True)
class ControlVariate(DrawsActivities):
    """`fg-a-cv`: g = ĝ + λ Σ_i c_i u_i; c follows from what the guess ĝ leaves, d_i - ⟨ĝ, u_i⟩.

    `fg-a` with a control variate.  As E[u uᵀ] = I, g is unbiased for every guess that does not
    depend on the present directions (λ = 1, mean), and its variance is that of a forward gradient
    of ∇ - ĝ instead of ∇.  The pre-activation is perturbed, as in `fg-a`.

    Args:
        guess: `fdfa` or `dfa` for `ProjectedError`, `last` for `LastEstimate`.
        shrink: λ; 1 is unbiased, about k / (q + k) has the least squared error for q activities.
        aggregate: `mean` or `projection`, of what the guess leaves.
        feedback_rate: β of the guess's moving average; `dfa` has none.

    Rule state: by the path of each pre-activation `(N, *S)` its B `(outputs, *S)`; for `last` its
    mean estimate `(*S)`.

    Source: this project's own.  The parts are `fg-a`, `fdfa` and `dfa`; see their sources.

    Raises:
        UsageError: an option is out of its range; `init` finds outputs that are not `(N, outputs)`.

    Examples:
        >>> layers = {"hidden": dn.nn.Linear(4), "output": dn.nn.Linear(2)}
        >>> task = dn.learning.Task(dn.nn.Sequential(layers), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> rule, backend = dn.learning.ControlVariate(), dn.backends.get("numpy")
        >>> plan, learner = rule.start(task, batch.inputs, dn.Key(0))
        >>> jacobian = learner.params["output"]["w"].T  # B for a guess that leaves nothing
        >>> learner = learner._replace(rule_state={"hidden": jacobian})
        >>> exact, estimate = (
        ...     dn.learning.estimate_gradient(each, plan, learner, batch, dn.Key(1), backend)
        ...     for each in (dn.learning.Backprop(), rule)
        ... )
        >>> bool(np.allclose(estimate.gradients["hidden"]["w"], exact.gradients["hidden"]["w"]))
        True
    """

    guess: str = "fdfa"
    shrink: float = 1.0
    aggregate: str = "mean"
    feedback_rate: float = 0.01

    def __post_init__(self) -> None:
        require_sampler("fg-a-cv", self.tangents, self.sampler)
        require_choice("fg-a-cv", "aggregate", self.aggregate, ACTIVITY_AGGREGATIONS)
        require_choice("fg-a-cv", "guess", self.guess, ("fdfa", "dfa", "last"))
        require_share("fg-a-cv", "shrink", self.shrink)
        require_share("fg-a-cv", "feedback_rate", self.feedback_rate)

    @property
    def guesser(self) -> Guess:
        """What guesses, as the options say."""
        if self.guess == "last":
            return LastEstimate(self.feedback_rate)
        kind = "forward-gradient" if self.guess == "fdfa" else "fixed"
        return ProjectedError(Feedback(kind, self.feedback_rate))

    def init(self, key: Key, plan: Plan, params: Tree) -> Tree:
        return self.guesser.init(key, plan)

    def measure(
        self, plan: Plan, learner: LearnerState, directions: ActivityDirections, shard: Shard
    ) -> Measurement:
        sites = {unit.before: unit.activation for unit in plan.units}
        independence, guesser = plan.independence(self.locality), self.guesser

        def respond(segment: Segment) -> tuple[list, dict]:
            if not segment.cuts:
                return [], {}
            guesses = [
                guesser.at(learner.rule_state[cut.path], segment, cut) for cut in segment.cuts
            ]
            expected = sum(
                np.sum(g * cut.directions, axis=tuple(range(2, g.ndim + 1)))
                for g, cut in zip(guesses, segment.cuts, strict=True)
            )
            left = segment.derivatives - expected[:, :, None, None]
            parts = weighted_directions(
                left, segment.cuts, self.aggregate, independence, directions, shard
            )
            errors = [g + self.shrink * c for g, c in zip(guesses, parts, strict=True)]
            return errors, guesser.statistics(segment, errors)

        draw = directions.drawer(shard)
        return measure_with_cuts(plan, learner, shard, sites, draw, self.locality, respond)

    def estimate(
        self, total: dict[str, Any], directions: ActivityDirections, learner: LearnerState, n: int
    ) -> tuple[Tree, Tree]:
        gradients, rule_state = super().estimate(total, directions, learner, n)
        return gradients, self.guesser.update(rule_state, total.get("feedback"), n)
