"""`bp`: the exact gradient, by reverse mode.  The baseline every other rule is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dualnet import tree
from dualnet.backends import Backend
from dualnet.core.derivatives import value_and_grad
from dualnet.learning.rule import Measurement
from dualnet.learning.task import Shard, Task, correct
from dualnet.random import Key
from dualnet.tree import Tree


@dataclass(frozen=True)
class Backprop:
    """Gradient of the loss by the transpose of its linearization.  No randomness, no options."""

    def init(self, key: Key, task: Task, params: Tree) -> Tree:
        return {}

    def sample(self, key: Key, params: Tree, backend: Backend, n: int) -> None:
        return None

    def measure(
        self, task: Task, params: Tree, state: Tree, learned: Tree, directions: None, shard: Shard
    ) -> Measurement:
        def total_loss(p: Tree) -> tuple[Any, Any]:
            losses, aux = task.losses(p, state, shard, shard.context)
            return losses.sum(), aux

        (loss, (outputs, state)), gradients = value_and_grad(total_loss, has_aux=True)(params)
        total = {"loss": loss, "correct": correct(outputs, shard.targets), "gradients": gradients}
        return Measurement(total, state)

    def estimate(
        self, total: dict, directions: None, params: Tree, learned: Tree, n: int
    ) -> tuple[Tree, Tree]:
        return tree.map(lambda g: g / n, total["gradients"]), learned
