"""`dfa`, `dkp`, `fdfa`: the output error, sent straight to every hidden activity.

    δ_l = e B_l,   e `(n, outputs)` the error at the outputs, B_l `(outputs, *S)`

and from δ_l the unit's own weight gradient.  The rules differ in where B_l comes from.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet.backends.overridable import matmul
from dualnet.core.transforms import vjp
from dualnet.learning.cut_pass import Segment, measure_with_cuts
from dualnet.learning.directions.activities import (
    ActivityDirections,
    DrawsActivities,
    require_sampler,
)
from dualnet.learning.feedback import (
    FEEDBACK_OPTIMIZERS,
    STARTS,
    TOKENS,
    Feedback,
    project_error,
)
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Measurement, Rule
from dualnet.learning.sites import Sites
from dualnet.learning.task import LearnerState, Shard
from dualnet.nn.replicated import average
from dualnet.options import require_choice, require_share
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array

ERRORS = ("outputs", "own")
"""Which error a fixed matrix may send to an activity: see `DirectFeedback`."""


@dataclass(frozen=True)
class DirectErrors(Rule):
    """δ_l = e B_l: one forward pass, and each unit's own weight gradient.

    What derives from it says by `feedback` how B learns.
    """

    @property
    @abstractmethod
    def feedback(self) -> Feedback:
        """How B learns."""

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
        matrices = self.feedback.matrices(learner.rule_state)

        def losses(outputs: Array) -> Array:
            return plan.task.losses_of(outputs, shard.targets)

        def respond(segment: Segment) -> tuple[Iterable, dict]:
            errors = (
                self.error_at(cut.activity, matrices[cut.path], segment.error, losses)
                for cut in segment.cuts
            )
            return errors, self.feedback.statistics(segment) if segment.cuts else {}

        draw = directions.drawer(shard) if directions else None
        return measure_with_cuts(plan, learner, shard, sites, draw, self.locality, respond)

    def error_at(
        self, activity: Array, matrix: Array, error: Array, losses: Callable[[Array], Array]
    ) -> Array:
        """Return δ of an activity.

        Args:
            activity: `(n, *S)`.
            matrix: its B.
            error: at the outputs, `(n, outputs)`.
            losses: of outputs, `(n, outputs)` to `(n,)`.

        Returns:
            `(n, *S)`.
        """
        return project_error(error, matrix)

    def estimate(
        self,
        total: dict[str, Any],
        directions: ActivityDirections | None,
        learner: LearnerState,
        n: int,
    ) -> tuple[Tree, Tree]:
        gradients, rule_state = super().estimate(total, directions, learner, n)
        return gradients, self.feedback.update(rule_state, total.get("feedback"), n)


@dataclass(frozen=True, kw_only=True)
class DirectFeedback(DirectErrors):
    """`dfa`: δ_l = e B_l with B_l fixed as drawn.

    The rule perturbs nothing and learns no feedback.  With `shared` tokens, B is `(outputs, C)` for
    an activity with P tokens (or pixels) of C channels, and every token gets δ = e B / P, as if
    B were a read-out of their average.

    In the published code of Ren et al., e is not the error at the outputs, but that of the layer's
    `own` fixed random read-out: the derivative of the loss of h Bᵀ, where h is the activity, or the
    average of its tokens if they share B.

    Args:
        feedback_start: how B is drawn, one of `STARTS` but `zeros`.
        feedback_tokens: whether tokens have their `own` part of B, or a `shared` one.
        feedback_error: of the `outputs`, or the layer's `own`.

    Rule state: by the path of each hidden activity `(N, *S)` its B `(outputs, *S)`, or
    `(outputs, C)` with shared tokens.

    Raises:
        UsageError: an option is out of its range; `init` finds outputs that are not `(N, outputs)`.

    Source: Nøkland 2016, "Direct Feedback Alignment Provides Learning in Deep Neural Networks",
    as Bacho and Chu write it in "Low-Variance Forward Gradients using Direct Feedback Alignment and
    Momentum", Eq. 6;
    shared tokens and own errors: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", in
    their published code.

    Examples:
        >>> layers = {"hidden": dn.nn.Linear(4), "output": dn.nn.Linear(2, weights="zeros")}
        >>> task = dn.learning.Task(dn.nn.Sequential(layers), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> rule, backend = dn.learning.DirectFeedback(), dn.backends.get("numpy")
        >>> start = rule.start(task, batch.inputs, dn.Key(0))
        >>> done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        >>> (matrix,) = done.rule_state.values()
        >>> error = np.array([[-0.5, 0.5], [0.5, -0.5], [0.5, -0.5]])  # softmax less the label
        >>> matrix.shape, bool(np.allclose(done.gradients["hidden"]["w"], error @ matrix / 3))
        ((2, 4), True)
    """

    feedback_start: str = "kaiming"
    feedback_tokens: str = "own"
    feedback_error: str = "outputs"

    def __post_init__(self) -> None:
        require_choice("dfa", "feedback_start", self.feedback_start, STARTS[:3])
        require_choice("dfa", "feedback_tokens", self.feedback_tokens, TOKENS)
        require_choice("dfa", "feedback_error", self.feedback_error, ERRORS)

    @property
    def feedback(self) -> Feedback:
        return Feedback("fixed", start=self.feedback_start, tokens=self.feedback_tokens)

    def error_at(
        self, activity: Array, matrix: Array, error: Array, losses: Callable[[Array], Array]
    ) -> Array:
        shared, shape = self.feedback_tokens == "shared", activity.shape
        if self.feedback_error == "own":
            read = average(activity) if shared else activity
            rows = np.reshape(read, (len(read), math.prod(read.shape[1:])))
            columns = np.reshape(matrix, (len(matrix), rows.shape[1]))
            values, pull = vjp(losses, matmul(rows, columns.T))
            (error,) = pull(np.ones_like(values))
        delta = project_error(error, matrix)
        if not shared:
            return delta
        of_token = np.reshape(delta, (len(delta), *(1 for _ in shape[1:-1]), shape[-1]))
        return np.broadcast_to(of_token / math.prod(shape[1:-1]), shape)


@dataclass(frozen=True, kw_only=True)
class DirectKolenPollack(DirectErrors):
    """`dkp`: `dfa` whose B_l follows the gradient eᵀ h_l that a forward weight would have.

        B_l ← B_l - rate · (mean(eᵀ h_l) + decay · B_l)

    Args:
        feedback_rate: how fast B follows, or Adam's rate.
        feedback_decay: weight decay of B.
        feedback_start: how B starts, one of `STARTS`.
        feedback_optimizer: one of `FEEDBACK_OPTIMIZERS`.

    Rule state: by the path of each hidden activity `(N, *S)` its B `(outputs, *S)`; with `adam`
    this is `matrices`, beside Adam's state.

    Raises:
        UsageError: an option is out of its range; `init` finds outputs that are not `(N, outputs)`.

    Source: Webster et al. 2021, "Learning the Connections in Direct Feedback Alignment".

    Examples:
        >>> layers = {"hidden": dn.nn.Linear(4), "output": dn.nn.Linear(2)}
        >>> task = dn.learning.Task(dn.nn.Sequential(layers), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> rule = dn.learning.DirectKolenPollack(feedback_start="zeros", feedback_rate=0.1)
        >>> start, backend = rule.start(task, batch.inputs, dn.Key(0)), dn.backends.get("numpy")
        >>> done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        >>> (matrix,) = done.rule_state.values()  # it moved as the weights of the output would
        >>> bool(np.allclose(matrix, -0.1 * done.gradients["output"]["w"].T))
        True
    """

    feedback_rate: float = 0.01
    feedback_decay: float = 1e-6
    feedback_start: str = "kaiming"
    feedback_optimizer: str = "sgd"

    def __post_init__(self) -> None:
        require_share("dkp", "feedback_rate", self.feedback_rate)
        require_share("dkp", "feedback_decay", self.feedback_decay)
        require_choice("dkp", "feedback_start", self.feedback_start, STARTS)
        require_choice("dkp", "feedback_optimizer", self.feedback_optimizer, FEEDBACK_OPTIMIZERS)

    @property
    def feedback(self) -> Feedback:
        return Feedback(
            "outer-product",
            self.feedback_rate,
            self.feedback_decay,
            self.feedback_start,
            self.feedback_optimizer,
        )


@dataclass(frozen=True, kw_only=True)
class ForwardDirectFeedback(DrawsActivities, DirectErrors):
    """`fdfa`: `dfa` whose B_l tends to the outputs' mean Jacobian, estimated forward.

    One pass carries k random directions u at every hidden activity together.  With ẏ the tangent of
    the outputs, E[ẏᵀ u] is their Jacobian:

        B_l ← (1 - β) B_l + β · mean(ẏᵀ u_l)

    B_l starts at 0, and δ_l uses the B_l of before the step.

    Args:
        feedback_rate: β of the moving average, or Adam's rate.
        feedback_optimizer: one of `FEEDBACK_OPTIMIZERS`; `sgd` is the moving average.

    Rule state: by the path of each hidden activity `(N, *S)` its B `(outputs, *S)`; with `adam`
    this is `matrices`, beside Adam's state.

    Raises:
        UsageError: an option is out of its range; `init` finds outputs that are not `(N, outputs)`.

    Source: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
    Momentum", Algorithm 1, Eq. 7-14; Adam: their appendix A.

    Examples:
        >>> layers = {"hidden": dn.nn.Linear(4), "output": dn.nn.Linear(2)}
        >>> task = dn.learning.Task(dn.nn.Sequential(layers), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> rule = dn.learning.ForwardDirectFeedback(tangents=4000, feedback_rate=1.0)
        >>> start, backend = rule.start(task, batch.inputs, dn.Key(0)), dn.backends.get("numpy")
        >>> done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        >>> (matrix,) = done.rule_state.values()  # near the Jacobian, here wᵀ of the output layer
        >>> bool(np.abs(matrix - start[1].params["output"]["w"].T).max() < 0.05)
        True
    """

    feedback_rate: float = 0.01
    feedback_optimizer: str = "sgd"

    def __post_init__(self) -> None:
        require_sampler("fdfa", self.tangents, self.sampler)
        require_share("fdfa", "feedback_rate", self.feedback_rate)
        require_choice("fdfa", "feedback_optimizer", self.feedback_optimizer, FEEDBACK_OPTIMIZERS)

    @property
    def feedback(self) -> Feedback:
        optimizer = self.feedback_optimizer
        return Feedback("forward-gradient", self.feedback_rate, optimizer=optimizer)
