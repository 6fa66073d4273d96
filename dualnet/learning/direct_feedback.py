"""`dfa`, `dkp`, `fdfa`: the output error, sent straight to every hidden activity.

    δ_l = e B_l,   e `(n, outputs)` the error at the outputs, B_l `(outputs, *S)`

and from δ_l the unit's own weight gradient.  The rules differ in where B_l comes from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.backends.overridable import matrix_product
from dualnet.errors import UsageError
from dualnet.learning.cut_pass import Cut, Segment, Sites, measure_locally
from dualnet.learning.directions.activities import (
    ActivityDirections,
    require_sampler,
    require_share,
)
from dualnet.learning.rule import Measurement
from dualnet.learning.sites import hidden_units
from dualnet.learning.task import Shard, Task
from dualnet.nn.initial import kaiming
from dualnet.nn.network import Context
from dualnet.random import Key
from dualnet.tree import Tree


def project_error(error: Any, matrix: Any) -> Any:
    """e B: errors `(n, outputs)` and B `(outputs, *S)` to `(n, *S)`."""
    rows = np.reshape(matrix, (len(matrix), math.prod(matrix.shape[1:])))
    return np.reshape(matrix_product(error, rows), (len(error), *matrix.shape[1:]))


@dataclass(frozen=True)
class Feedback:
    """How feedback matrices learn; they are a dict from a place's path to B.

    * `fixed`: they stay as drawn, Kaiming-uniform with the outputs as fan-in.
    * `outer-product`: B follows eᵀ h, the gradient that a weight from h to the outputs would have:
      B ← B - rate · (mean(eᵀ h) + decay · B).
    * `forward-gradient`: B tends to the mean Jacobian of the outputs by h, which one jvp estimates:
      with directions u at all places and d the outputs' tangent, E[dᵀ u] is that Jacobian.
      B ← (1 - rate) B + rate · mean(dᵀ u), over examples and directions; starts at 0.
      Directions put in before the activation reach h times its slope s, and say more where s is
      large: B ← B + rate · mean(dᵀ (s u) - s² B).

    Args:
        kind: one of these.
        rate, decay: as above.

    Sources: Nøkland 2016, "Direct Feedback Alignment"; Webster et al. 2021, "Learning the
    Connections in Direct Feedback Alignment"; Bacho and Chu, "Low-Variance Forward Gradients
    using Direct Feedback Alignment and Momentum", Eq. 10-13.
    """

    kind: str
    rate: float = 0.0
    decay: float = 0.0

    def init(
        self, key: Key, task: Task, params: Tree, state: Tree, inputs: Any, place: str = "after"
    ) -> Tree:
        """B for every hidden activity; its key is the path `before` or `after` the activation."""
        places = {getattr(unit, place) for unit in hidden_units(task.network, params)}
        shapes: dict[str, tuple] = {}

        def tap(path: str, h: Any) -> Any:
            if path in places:
                shapes[path] = h.shape[1:]
            return h

        outputs, _ = task.network.apply(params, state, inputs, Context(tap=tap))
        if outputs.ndim != 2:
            raise UsageError(
                f"feedback matrices need outputs (N, outputs), the network gives {outputs.shape}"
            )
        count = outputs.shape[1]

        def start(path: str, shape: tuple) -> Any:
            if self.kind == "forward-gradient":
                return np.zeros_like(outputs, shape=(count, *shape))
            drawn = kaiming(key.fold_in(path), (count, *shape), count).astype(outputs.dtype)
            return np.asarray(drawn, like=outputs)

        return {path: start(path, shape) for path, shape in shapes.items()}

    def statistics(self, segment: Segment) -> dict:
        """What this shard says about B: sums over its examples."""
        if self.kind == "fixed":
            return {}
        sums: dict[str, Any] = {}
        for cut in segment.cuts:  # a unit that is applied twice has two cuts at one path
            part = self._of_cut(segment, cut)
            sums[cut.path] = tree.add(sums[cut.path], part) if cut.path in sums else part
        return {"feedback": sums}

    def _of_cut(self, segment: Segment, cut: Cut) -> dict:
        """Sums over examples: what B is pulled to, and how much weight that has."""
        if self.kind == "outer-product":
            return {
                "pull": -_outer(segment.error, cut.activity),
                "weight": self.decay * len(segment.error),
            }
        k, moved = len(cut.directions), cut.directions
        weight: Any = len(cut.activity)
        if cut.slope is not None:
            moved, weight = moved * cut.slope, np.sum(np.square(cut.slope), axis=0)
        return {"pull": sum(map(_outer, segment.effect, moved)) / k, "weight": weight}

    def update(self, learned: Tree, sums: Tree | None, n: int) -> Tree:
        """B after a step on n examples; a place whose weights are constants says nothing."""
        sums = sums or {}
        return {
            path: b + (self.rate / n) * (sums[path]["pull"] - sums[path]["weight"] * b)
            if path in sums
            else b
            for path, b in learned.items()
        }


def _outer(a: Any, b: Any) -> Any:
    """Σ_n a_n ⊗ b_n."""
    rows = np.reshape(b, (len(b), math.prod(b.shape[1:])))
    return np.reshape(matrix_product(a.T, rows), (a.shape[1], *b.shape[1:]))


@dataclass(frozen=True)
class DirectFeedback:
    """`dfa`: δ_l = e B_l with B_l fixed as drawn.

    Perturbs nothing and learns no feedback: one forward pass, and each unit's own weight gradient.

    Source: Nøkland 2016, "Direct Feedback Alignment Provides Learning in Deep Neural Networks".
    """

    @property
    def feedback(self) -> Feedback:
        """Where B comes from."""
        return Feedback("fixed")

    def init(self, key: Key, task: Task, params: Tree, state: Tree, inputs: Any) -> Tree:
        return self.feedback.init(key, task, params, state, inputs)

    def sample(self, key: Key, task: Task, params: Tree, backend: Backend, n: int) -> Any:
        return None

    def measure(
        self, task: Task, params: Tree, state: Tree, learned: Tree, directions: Any, shard: Shard
    ) -> Measurement:
        sites: Sites = {unit.after: None for unit in hidden_units(task.network, params)}

        def respond(segment: Segment) -> tuple[list, dict]:
            errors = [project_error(segment.error, learned[cut.path]) for cut in segment.cuts]
            return errors, self.feedback.statistics(segment) if errors else {}

        draw = directions.drawer(shard) if directions else None
        return measure_locally(task, params, state, shard, sites, draw, False, respond)

    def estimate(
        self, total: dict, directions: Any, params: Tree, learned: Tree, n: int
    ) -> tuple[Tree, Tree]:
        gradients = tree.map(lambda g: g / n, total["gradients"])
        return gradients, self.feedback.update(learned, total.get("feedback"), n)


@dataclass(frozen=True)
class DirectKolenPollack(DirectFeedback):
    """`dkp`: `dfa` whose B_l follows the gradient eᵀ h_l that a forward weight would have.

    Args:
        feedback_rate: how fast.
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
        """Where B comes from."""
        return Feedback("outer-product", self.feedback_rate, self.feedback_decay)


@dataclass(frozen=True)
class ForwardDirectFeedback(DirectFeedback):
    """`fdfa`: `dfa` whose B_l tends to the outputs' mean Jacobian, estimated forward.

    One pass with k random directions at every hidden activity together; δ_l uses the B_l of
    before the step.

    Args:
        tangents: k.
        sampler: `normal` or `rademacher`.
        feedback_rate: β of the moving average.

    Source: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
    Momentum", Algorithm 1, Eq. 10-13.
    """

    tangents: int = 1
    sampler: str = "normal"
    feedback_rate: float = 0.01

    def __post_init__(self) -> None:
        require_sampler("fdfa", self.tangents, self.sampler)
        require_share("fdfa", "feedback_rate", self.feedback_rate)

    @property
    def feedback(self) -> Feedback:
        """Where B comes from."""
        return Feedback("forward-gradient", self.feedback_rate)

    def sample(
        self, key: Key, task: Task, params: Tree, backend: Backend, n: int
    ) -> ActivityDirections:
        return ActivityDirections.of(self, key, backend)
