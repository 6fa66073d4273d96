"""`dfa`, `dkp`, `fdfa`: the output error, sent straight to every hidden activity.

    δ_l = e B_l,   e `(n, outputs)` the error at the outputs, B_l `(outputs, *S)`

and from δ_l the unit's own weight gradient.  The rules differ in where B_l comes from.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.backends.overridable import matmul
from dualnet.backends.pieces import by_pieces
from dualnet.core.transforms import vjp
from dualnet.errors import UsageError
from dualnet.learning.cut_pass import Cut, Segment, measure_with_cuts
from dualnet.learning.directions.activities import (
    ActivityDirections,
    DrawsActivities,
    require_sampler,
)
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Measurement, Rule
from dualnet.learning.sites import Sites
from dualnet.learning.task import LearnerState, Shard
from dualnet.nn.initial import kaiming, scaled_normal
from dualnet.nn.replicated import average
from dualnet.optim import Adam
from dualnet.options import require_choice, require_share
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Shape

STARTS = ("kaiming", "kaiming-activities", "scaled-normal", "zeros")
"""How feedback matrices may start: uniform in ±√(6 / m) with m the number of outputs or, as torch
counts, of activities; normal with standard deviation min(2 / √m, 0.1), m again of activities; or at
zero."""
TOKENS = ("own", "shared")
"""Whether each token or pixel of an activity has a feedback matrix of its own."""
ERRORS = ("outputs", "own")
"""Which error a fixed matrix may send to an activity: see `DirectFeedback`."""
FEEDBACK_OPTIMIZERS = ("sgd", "adam")
"""What may turn the gradients of feedback matrices into updates."""
_ADAM = Adam()


def project_error(error: Array, matrix: Array) -> Array:
    """Return e B, `(n, *S)`, of errors `(n, outputs)` and B `(outputs, *S)`."""
    rows = np.reshape(matrix, (len(matrix), math.prod(matrix.shape[1:])))
    return np.reshape(matmul(error, rows), (len(error), *matrix.shape[1:]))


@dataclass(frozen=True)
class Feedback:
    """How feedback matrices learn; they are a dict from a site's path to B.

    * `fixed`: they stay as drawn.
    * `outer-product`: B follows eᵀ h, the gradient that a weight from h to the outputs would have:
      B ← B - rate · (mean(eᵀ h) + decay · B).
    * `forward-gradient`: B tends to the mean Jacobian of the outputs by h, which one jvp estimates:
      with directions u at all sites and d the outputs' tangent, E[dᵀ u] is that Jacobian.
      B ← (1 - rate) B + rate · mean(dᵀ u), over examples and directions; starts at 0.
      Directions put in before the activation reach h times its slope s, and say more where s is
      large: B ← B + rate · mean(dᵀ (s u) - s² B).

    With the optimizer `adam`, what a formula adds to B, without its rate, is minus the gradient
    that Adam gets, and `rate` is Adam's.  The published code of Bacho and Chu does so.

    Args:
        kind: one of these names.
        rate, decay: as in the formulas.
        start: one of `STARTS`; `forward-gradient` always starts at zero.
        optimizer: one of `FEEDBACK_OPTIMIZERS`.
        tokens: one of `TOKENS`; `shared` is for `fixed`.

    Sources: Nøkland 2016, "Direct Feedback Alignment"; Webster et al. 2021, "Learning the
    Connections in Direct Feedback Alignment"; Bacho and Chu, "Low-Variance Forward Gradients
    using Direct Feedback Alignment and Momentum", Eq. 10-13.
    """

    kind: str
    rate: float = 0.0
    decay: float = 0.0
    start: str = "kaiming"
    optimizer: str = "sgd"
    tokens: str = "own"

    def init(self, key: Key, plan: Plan, sites: Container[str]) -> Tree:
        """Return what is learned, at the start: B for the activity at each site, by its path; under
        `adam` among the optimizer's state and the number of updates."""
        outputs = plan.outputs
        if outputs.ndim != 2:
            raise UsageError(
                f"feedback matrices need outputs (N, outputs), the network gives {outputs.shape}"
            )
        count = outputs.shape[1]

        def start(path: str, shape: Shape) -> Array:
            shape = shape if self.tokens == "own" else shape[-1:]
            if self.kind == "forward-gradient" or self.start == "zeros":
                return np.zeros_like(outputs, shape=(count, *shape))
            fan_in = count if self.start == "kaiming" else math.prod(shape)
            draw = scaled_normal if self.start == "scaled-normal" else kaiming
            drawn = draw(key.fold_in(path), (count, *shape), fan_in).astype(outputs.dtype)
            return np.asarray(drawn, like=outputs)

        matrices = {p: start(p, shape) for p, shape in plan.shapes.items() if p in sites}
        if self.optimizer == "sgd":
            return matrices
        step = np.zeros_like(outputs, shape=())  # an array, as all that is learned
        return {"matrices": matrices, **_ADAM.init_opt_state(matrices), "step": step}

    def matrices(self, rule_state: Tree) -> Tree:
        """Return B for the activity at each site, by its path, from what is learned."""
        return rule_state if self.optimizer == "sgd" else rule_state["matrices"]

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
        # One product for all directions and examples.
        effect = segment.effect / k if k > 1 else segment.effect
        return {"pull": _outer(_joined(effect), _joined(moved)), "weight": weight}

    def update(self, rule_state: Tree, sums: Tree | None, n: int) -> Tree:
        """Return what is learned after a step on n examples; sites whose weights are constants keep
        their B."""
        matrices, by_sgd = self.matrices(rule_state), self.optimizer == "sgd"

        def towards(b: Array, pull: Array, weight: Array) -> Array:
            """Return B after a step of gradient descent, or the gradient that Adam gets."""

            def formula(b: Array, pull: Array) -> tuple[Array]:
                missing = pull - weight * b
                return (b + (self.rate / n) * missing if by_sgd else missing / -n,)

            # A weight for each entry does not go by pieces of B.
            (found,) = formula(b, pull) if np.ndim(weight) else by_pieces(formula, b, pull)
            return found

        found = {path: towards(matrices[path], **of_site) for path, of_site in (sums or {}).items()}
        if by_sgd:
            return {**matrices, **found}
        names = _ADAM.state_names
        step = rule_state["step"] + 1
        moved, moments = _ADAM.apply(
            found,
            {name: {path: rule_state[name][path] for path in found} for name in names},
            {path: matrices[path] for path in found},
            self.rate,
            step,
        )
        kept = {name: {**rule_state[name], **moments[name]} for name in names}
        return {"matrices": {**matrices, **moved}, **kept, "step": step}


def _joined(x: Array) -> Array:
    """Return k stacks of n rows as one of k n rows."""
    return np.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))


def _outer(a: Array, b: Array) -> Array:
    """Return Σ_n a_n ⊗ b_n."""
    rows = np.reshape(b, (len(b), math.prod(b.shape[1:])))
    return np.reshape(matmul(a.T, rows), (a.shape[1], *b.shape[1:]))


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

    Source: Nøkland 2016, "Direct Feedback Alignment Provides Learning in Deep Neural Networks";
    shared tokens and own errors: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", in
    their published code.
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

    Args:
        feedback_rate: how fast B follows, or Adam's rate.
        feedback_decay: weight decay of B.
        feedback_start: how B starts, one of `STARTS`.
        feedback_optimizer: one of `FEEDBACK_OPTIMIZERS`.

    Source: Webster et al. 2021, "Learning the Connections in Direct Feedback Alignment".
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

    One pass carries k random directions at every hidden activity together; δ_l uses the B_l of
    before the step.

    Args:
        feedback_rate: β of the moving average, or Adam's rate.
        feedback_optimizer: one of `FEEDBACK_OPTIMIZERS`; `sgd` is the moving average.

    Source: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
    Momentum", Algorithm 1, Eq. 10-13; Adam: their appendix A.
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
