"""What the rules share that take differences of losses in the place of derivatives: `wp`, `ap`."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from dualnet.backends import Backend
from dualnet.errors import UsageError
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Rule
from dualnet.naming import assigned
from dualnet.nn.layers import StopGradient
from dualnet.nn.network import walk
from dualnet.random import Key
from dualnet.tree import Tree


class Differences(Rule):
    """Refuses what stops gradients, because a difference passes through it.

    It stands before the rule that it changes among the bases of a class.

    Attributes:
        name: of the rule, for messages.
        by_derivatives: the name of the rule that it tends to.
        difference: ε, above 0.
    """

    name: ClassVar[str]
    by_derivatives: ClassVar[str]
    difference: float

    def require_difference(self) -> None:
        """Raise a UsageError unless ε is above 0 and finite."""
        if not 0 < self.difference < math.inf:
            raise UsageError(
                f"{self.name}: difference must be above 0 and finite, got {self.difference}"
            )

    def init(self, key: Key, plan: Plan, params: Tree) -> Tree:
        self._require_no_stop(plan)  # before a run has a folder
        return super().init(key, plan, params)

    def sample(self, key: Key, plan: Plan, params: Tree, backend: Backend, n: int) -> Any:
        self._require_no_stop(plan)
        return super().sample(key, plan, params, backend, n)

    def _require_no_stop(self, plan: Plan) -> None:
        stops = [path for path, layer in walk(plan.task.network) if isinstance(layer, StopGradient)]
        if plan.task.declared_loss.stops_gradients or stops:
            where = f"at {stops[0]}" if stops else "of the contrastive loss"
            remedy = assigned("readout" if stops else "stop", False)
            raise UsageError(
                f"{self.name}: a difference passes through the stop-gradient {where}; use "
                f"{assigned('rule', self.by_derivatives)}, or {remedy}"
            )
