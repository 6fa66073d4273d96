"""A rule at a point of training, and the exact gradient that it estimates."""

from __future__ import annotations

from dataclasses import dataclass

from dualnet.backends import Backend
from dualnet.backends.processes import ALONE, Processes
from dualnet.learning import (
    Backprop,
    Batch,
    GreedyBackprop,
    LearnerState,
    LocalBackprop,
    Plan,
    Rule,
    estimate_gradient,
)
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array

EXACT: dict[str, Rule] = {
    "global": Backprop(),
    "local": LocalBackprop(),
    "greedy": GreedyBackprop(),
}
"""Locality of a rule → the rule whose gradient it estimates."""


@dataclass(frozen=True)
class Point:
    """A rule, and where in training it is looked at.

    Attributes:
        rule: estimates the gradient.
        plan: of the task whose gradient it is.
        learner: where training stands; the rule state stays as it is here.
        backend: draws the directions.
        shards: pieces a batch is split into.

    Examples:
        >>> from dualnet import analysis, learning, nn
        >>> x, y, backend = np.eye(2), np.array([[1.0], [2.0]]), dn.backends.get("numpy")
        >>> task = learning.Task(nn.Linear(1, bias=False, weights="zeros"), nn.mean_squared_error)
        >>> rule = learning.WeightPerturbation()
        >>> point = analysis.Point(rule, *rule.start(task, x, dn.Key(0)), backend)
        >>> point.exact(x, y, dn.Key(0))["w"].tolist()  # 2 xᵀ (x w - y) / N
        [[-1.0], [-2.0]]
    """

    rule: Rule
    plan: Plan
    learner: LearnerState
    backend: Backend
    shards: int = 1

    def estimate(self, inputs: Array, targets: Array, key: Key) -> Tree:
        """Return the rule's gradient of the mean loss over a batch."""
        at = self.plan, self.learner, Batch(inputs, targets), key, self.backend, self.shards
        return estimate_gradient(self.rule, *at).gradients

    def exact(
        self,
        inputs: Array,
        targets: Array,
        key: Key,
        processes: Processes = ALONE,
        examples: int | None = None,
    ) -> Tree:
        """Return the gradient that the rule estimates.

        Args:
            inputs, targets: of a batch, `(N, ...)`.
            key: decides what the network itself draws (dropout), as it does in `estimate`.
            processes, examples: that share the batch, as in `estimate_gradient`.
        """
        exact, learner = EXACT[self.rule.locality], self.learner._replace(rule_state={})
        at = self.plan, learner, Batch(inputs, targets), key, self.backend, self.shards
        return estimate_gradient(exact, *at, processes, examples).gradients
