"""Feedback matrices: what sends the error at the outputs to an activity, and how it learns.

    δ_l = e B_l,   e `(n, outputs)` the error at the outputs, B_l `(outputs, *S)`

`dfa`, `dkp` and `fdfa` take δ_l for the gradient of the activity, `fg-a-cv` for a guess of it.
"""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.backends.overridable import matmul
from dualnet.backends.pieces import by_pieces
from dualnet.errors import UsageError
from dualnet.learning.cut_pass import Cut, Segment
from dualnet.learning.plan import Plan
from dualnet.nn.initial import kaiming, scaled_normal
from dualnet.optim import Adam
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Shape

STARTS = ("kaiming", "kaiming-activities", "scaled-normal", "zeros")
"""How feedback matrices may start: uniform in ±√(6 / m) with m the number of outputs or, as torch
counts, of activities; normal with standard deviation min(2 / √m, 0.1), m again of activities; or at
zero."""
TOKENS = ("own", "shared")
"""Whether each token or pixel of an activity has a feedback matrix of its own."""
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
      with directions u at all sites and ẏ the outputs' tangent, E[ẏᵀ u] is that Jacobian.
      B ← (1 - rate) B + rate · mean(ẏᵀ u), over examples and directions; starts at 0.
      Directions put in before the activation reach h times its slope s, and say more where s is
      large: B ← B + rate · mean(ẏᵀ (s u) - s² B).

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
    using Direct Feedback Alignment and Momentum", Eq. 7-13.
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
