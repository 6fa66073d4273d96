"""`fg-a-cv`: a guess of the activity gradient, and a forward gradient of what it leaves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.learning.activity_perturbation import AGGREGATIONS, corrections
from dualnet.learning.cut_pass import Cut, Segment, measure_locally
from dualnet.learning.direct_feedback import Feedback, project_error
from dualnet.learning.directions.activities import (
    ActivityDirections,
    require_choice,
    require_sampler,
    require_share,
)
from dualnet.learning.independence import separations
from dualnet.learning.rule import Measurement
from dualnet.learning.sites import hidden_units
from dualnet.learning.task import Shard, Task
from dualnet.random import Key
from dualnet.tree import Tree


class Guess(Protocol):
    """A guess of the gradient of every pre-activation, learned from the steps before."""

    def init(self, key: Key, task: Task, params: Tree, state: Tree, inputs: Any) -> Tree:
        """What it learns, at the start: a dict from a place's path."""
        ...

    def at(self, learned: Any, segment: Segment, cut: Cut) -> Any:
        """The guess at a cut, `(n, *S)`, from what is learned for its place."""
        ...

    def statistics(self, segment: Segment, errors: list) -> dict:
        """What a shard, and the estimates `(n, *S)` at its cuts, say: sums over examples."""
        ...

    def update(self, learned: Tree, sums: Tree | None, n: int) -> Tree:
        """What is learned after a step on n examples."""
        ...


@dataclass(frozen=True)
class ProjectedError:
    """The output error through a feedback matrix, times the activation's slope: that of `fdfa`,
    learned from the very same pass (and used from the next step on), or of `dfa`, as drawn.

    Args:
        feedback: how the matrices learn.
    """

    feedback: Feedback

    def init(self, key: Key, task: Task, params: Tree, state: Tree, inputs: Any) -> Tree:
        return self.feedback.init(key, task, params, state, inputs, place="before")

    def at(self, learned: Any, segment: Segment, cut: Cut) -> Any:
        guess = project_error(segment.error, learned)
        return guess if cut.slope is None else guess * cut.slope

    def statistics(self, segment: Segment, errors: list) -> dict:
        return self.feedback.statistics(segment)

    def update(self, learned: Tree, sums: Tree | None, n: int) -> Tree:
        return self.feedback.update(learned, sums, n)


@dataclass(frozen=True)
class LastEstimate:
    """The mean over examples of the last estimates: one guess for all examples of a batch.

    Args:
        rate: β of a moving average over steps; 1 is the last step's alone.
    """

    rate: float

    def init(self, key: Key, task: Task, params: Tree, state: Tree, inputs: Any) -> Tree:
        shapes = Feedback("forward-gradient").init(key, task, params, state, inputs, "before")
        return {path: matrix[0] for path, matrix in shapes.items()}  # zeros, one for each unit

    def at(self, learned: Any, segment: Segment, cut: Cut) -> Any:
        guess = np.broadcast_to(learned, cut.activity.shape)
        return guess if cut.slope is None else np.where(np.equal(cut.slope, 0), 0, guess)

    def statistics(self, segment: Segment, errors: list) -> dict:
        visits = Counter(cut.path for cut in segment.cuts)  # of a layer that is applied twice
        sums: dict[str, Any] = {}
        for cut, error in zip(segment.cuts, errors, strict=True):
            own = np.sum(error, axis=0) / visits[cut.path]
            sums[cut.path] = sums[cut.path] + own if cut.path in sums else own
        return {"feedback": sums}

    def update(self, learned: Tree, sums: Tree | None, n: int) -> Tree:
        sums = sums or {}
        return {
            path: g + self.rate * (sums[path] / n - g) if path in sums else g
            for path, g in learned.items()
        }


@dataclass(frozen=True)
class ControlVariate:
    """g = ĝ + λ Σ_i c_i u_i, where c follows from what the guess ĝ leaves: d_i - ⟨ĝ, u_i⟩.

    `fg-a` with a control variate.  As E[u uᵀ] = I, g is unbiased for every guess that does not
    depend on the present directions (λ = 1, mean), and its variance is that of a forward gradient
    of ∇ - ĝ instead of ∇.  Perturbed is the pre-activation, as in `fg-a`.

    Args:
        tangents: k.
        sampler: `normal` or `rademacher`.
        guess: `fdfa` or `dfa` for `ProjectedError`, `last` for `LastEstimate`.
        shrink: λ; 1 is unbiased, about k / (q + k) has the least squared error for q activities.
        aggregate: `mean` or `projection`, of the residual.
        feedback_rate: β of the guess's moving average; `dfa` has none.
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
        require_choice("fg-a-cv", "guess", self.guess, ("fdfa", "dfa", "last"))
        require_share("fg-a-cv", "shrink", self.shrink)
        require_share("fg-a-cv", "feedback_rate", self.feedback_rate)

    @property
    def guesser(self) -> Guess:
        """The guess that the options name."""
        if self.guess == "last":
            return LastEstimate(self.feedback_rate)
        kind = "forward-gradient" if self.guess == "fdfa" else "fixed"
        return ProjectedError(Feedback(kind, self.feedback_rate))

    def init(self, key: Key, task: Task, params: Tree, state: Tree, inputs: Any) -> Tree:
        return self.guesser.init(key, task, params, state, inputs)

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
        kept = separations(task, greedy=False)
        guesser = self.guesser

        def respond(segment: Segment) -> tuple[list, dict]:
            if not segment.cuts:
                return [], {}
            guesses = [guesser.at(learned[cut.path], segment, cut) for cut in segment.cuts]
            expected = sum(
                np.sum(g * cut.directions, axis=tuple(range(2, g.ndim + 1)))
                for g, cut in zip(guesses, segment.cuts, strict=True)
            )
            residual = segment.derivatives - expected[:, :, None, None]
            parts = corrections(residual, segment.cuts, self.aggregate, kept)
            errors = [g + self.shrink * c for g, c in zip(guesses, parts, strict=True)]
            return errors, guesser.statistics(segment, errors)

        draw = directions.drawer(shard)
        return measure_locally(task, params, state, shard, places, draw, False, respond)

    def estimate(
        self, total: dict, directions: ActivityDirections, params: Tree, learned: Tree, n: int
    ) -> tuple[Tree, Tree]:
        return (
            tree.map(lambda g: g / n, total["gradients"]),
            self.guesser.update(learned, total.get("feedback"), n),
        )
