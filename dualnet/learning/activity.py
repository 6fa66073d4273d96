"""`fg-a`, `lg-fg-a`, `fg-a-cv`: forward gradients by perturbing the activities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.learning.directions import (
    ActivityDirections,
    require_choice,
    require_sampler,
    require_share,
)
from dualnet.learning.feedback import Feedback, project_error
from dualnet.learning.local import Cut, Segment, measure_locally
from dualnet.learning.rule import Measurement
from dualnet.learning.sites import hidden_units
from dualnet.learning.task import Shard, Task
from dualnet.nn.network import couples_examples
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

    Batch norm lets each example move the others' losses; then d is the batch's total, and the
    projection that of the whole batch's activity gradient.

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

        def respond(segment: Segment) -> tuple[list, dict]:
            if not segment.cuts:
                return [], {}
            coupled = couples_examples(task.network)
            return corrections(segment.derivatives, segment.cuts, self.aggregate, coupled), {}

        draw = directions.drawer(shard)
        return measure_locally(
            task, params, state, shard, places, draw, self.locality == "greedy", respond
        )

    def estimate(
        self, total: dict, directions: ActivityDirections, params: Tree, learned: Tree, n: int
    ) -> tuple[Tree, Tree]:
        return tree.map(lambda g: g / n, total["gradients"]), learned


@dataclass(frozen=True)
class GreedyActivityPerturbation(ActivityPerturbation):
    """`fg-a` in which every block answers to its own local head alone.

    Local heads cut the network: a perturbation's effect ends at the next head, so that fewer
    directions share one scalar.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", §4.
    """

    locality: ClassVar[str] = "greedy"


@dataclass(frozen=True)
class ResidualForwardGradient:
    """g = ĝ + λ Σ_i c_i u_i, where c follows from what the guess ĝ leaves: d_i - ⟨ĝ, u_i⟩.

    `fg-a` with a control variate.  As E[u uᵀ] = I, g is unbiased for every guess that does not
    depend on the present directions (λ = 1, mean), and its variance is that of a forward gradient
    of ∇ - ĝ instead of ∇.  The guess is the projected error e·B of FDFA, whose B is learned from
    the same pass (and used from the next step on), or of DFA, whose B stays as drawn.

    Perturbed is the pre-activation, as in `fg-a`; the guess there is e·B times the activation's
    slope.

    Args:
        tangents: k.
        sampler: `normal` or `rademacher`.
        guess: `fdfa` or `dfa`.
        shrink: λ; 1 is unbiased, about k / (q + k) has the least squared error for q activities.
        aggregate: `mean` or `projection`, of the residual.
        feedback_rate: β of FDFA's moving average, `Feedback`.
    """

    tangents: int = 1
    sampler: str = "normal"
    guess: str = "fdfa"
    shrink: float = 1.0
    aggregate: str = "mean"
    feedback_rate: float = 0.01

    def __post_init__(self) -> None:
        require_sampler("fg-a-cv", self.tangents, self.sampler)
        require_choice("fg-a-cv", "aggregate", self.aggregate, AGGREGATIONS)
        require_choice("fg-a-cv", "guess", self.guess, ("fdfa", "dfa"))
        require_share("fg-a-cv", "shrink", self.shrink)
        require_share("fg-a-cv", "feedback_rate", self.feedback_rate)

    @property
    def feedback(self) -> Feedback:
        """How the guess learns."""
        return Feedback("forward-gradient" if self.guess == "fdfa" else "fixed", self.feedback_rate)

    def init(self, key: Key, task: Task, params: Tree, state: Tree, inputs: Any) -> Tree:
        return self.feedback.init(key, task, params, state, inputs, place="before")

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
        places = {u.before: u.activation for u in hidden_units(task.network, params)}

        def respond(segment: Segment) -> tuple[list, dict]:
            if not segment.cuts:
                return [], {}
            guesses = [guess_at(segment.error, learned[cut.path], cut) for cut in segment.cuts]
            expected = sum(
                np.sum(g * cut.directions, axis=tuple(range(2, g.ndim + 1)))
                for g, cut in zip(guesses, segment.cuts, strict=True)
            )
            residual = segment.derivatives - expected
            coupled = couples_examples(task.network)
            parts = corrections(residual, segment.cuts, self.aggregate, coupled)
            errors = [g + self.shrink * c for g, c in zip(guesses, parts, strict=True)]
            return errors, self.feedback.statistics(segment)

        draw = directions.drawer(shard)
        return measure_locally(task, params, state, shard, places, draw, False, respond)

    def estimate(
        self, total: dict, directions: ActivityDirections, params: Tree, learned: Tree, n: int
    ) -> tuple[Tree, Tree]:
        return (
            tree.map(lambda g: g / n, total["gradients"]),
            self.feedback.update(learned, total.get("feedback"), n),
        )


def guess_at(error: Any, matrix: Any, cut: Cut) -> Any:
    """The gradient of a pre-activation `(n, *S)` by direct feedback."""
    guess = project_error(error, matrix)
    return guess if cut.slope is None else guess * cut.slope


# --- parts that the rules share -------------------------------------------------------------------


def corrections(d: Any, cuts: list[Cut], aggregate: str, coupled: bool) -> list:
    """Σ_i c_i u_i at every cut, for derivatives d `(k, n)` along all cuts' directions together.

    Where examples are coupled, a direction is one of the batch's activities: all examples answer
    to the sum of d.
    """
    if coupled:
        d = np.broadcast_to(d.sum(1, keepdims=True), d.shape)
    c = d / len(d) if aggregate == "mean" else projection(d, cuts, coupled)
    return [np.einsum("kn,kn...->n...", c, cut.directions) for cut in cuts]


def projection(d: Any, cuts: list[Cut], coupled: bool) -> Any:
    """c `(k, n)` of least norm with G c = d, in double precision.

    What rounding leaves of a singular G counts as 0: k may exceed the number of live units.
    """
    stacks = [
        np.reshape(np.swapaxes(c.directions, 0, 1), (d.shape[1], len(d), -1)).astype(np.float64)
        for c in cuts
    ]
    u = np.concatenate(stacks, axis=-1)
    gram = u @ np.swapaxes(u, 1, 2)  # (n, k, k)
    if coupled:
        gram = gram.sum(0, keepdims=True)
    values, vectors = np.linalg.eigh(gram)
    rounding = max(float(np.finfo(d.dtype).eps), len(d) * float(np.finfo(np.float64).eps))
    kept = values > rounding * values[:, -1:]
    inverse = np.where(kept, 1.0 / np.where(kept, values, 1.0), 0.0)
    c = vectors @ (inverse[..., None] * (np.swapaxes(vectors, 1, 2) @ d.T[..., None]))
    return np.swapaxes(c[..., 0], 0, 1).astype(d.dtype)
