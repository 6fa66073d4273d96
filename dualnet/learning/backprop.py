"""`bp`, `l-bp`, `lg-bp`: the exact gradient, by reverse mode.

The baseline every other rule is held against; with local losses, of their sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from dualnet import tree
from dualnet.backends import Backend
from dualnet.core.derivatives import value_and_grad
from dualnet.core.transforms import stop_gradient
from dualnet.learning.rule import Measurement
from dualnet.learning.sites import cutting_heads, local_heads
from dualnet.learning.task import Shard, Task, correct
from dualnet.nn.network import Context
from dualnet.random import Key
from dualnet.tree import Tree

LOCALITIES = ("global", "local", "greedy")
"""Whether local heads are ignored, add their losses, or also cut the gradient behind them."""


def segment_losses(
    task: Task, params: Tree, state: Tree, shard: Shard, context: Context, locality: str
) -> tuple[list, Any, Tree]:
    """Per-example losses `(n,)` of the local heads in order and, last, of the outputs; the
    outputs; the new state."""
    heads = {} if locality == "global" else dict(local_heads(task.network))
    if locality == "greedy":
        heads = cutting_heads(task.network)
    readouts = {f"{head}/linear" if head else "linear" for head in heads}
    losses = []

    def tap(path: str, y: Any) -> Any:
        if path in readouts:
            losses.append(task.loss(y, shard.targets))
        if path in heads and locality == "greedy":
            y = stop_gradient(y)
        return context.tap(path, y)

    own, (outputs, state) = task.losses(params, state, shard, replace(context, tap=tap))
    return [*losses, own], outputs, state


@dataclass(frozen=True)
class Backprop:
    """`bp`: gradient of the loss by the transpose of its linearization.  No randomness."""

    locality: ClassVar[str] = "global"

    def init(self, key: Key, task: Task, params: Tree, state: Tree, inputs: Any) -> Tree:
        return {}

    def sample(self, key: Key, task: Task, params: Tree, backend: Backend, n: int) -> None:
        return None

    def measure(
        self, task: Task, params: Tree, state: Tree, learned: Tree, directions: None, shard: Shard
    ) -> Measurement:
        def total_loss(p: Tree) -> tuple[Any, Any]:
            losses, outputs, new_state = segment_losses(
                task, p, state, shard, shard.context, self.locality
            )
            return sum(losses).sum(), (losses[-1], outputs, new_state)

        (_, (losses, outputs, state)), gradients = value_and_grad(total_loss, has_aux=True)(params)
        total = {
            "loss": losses.sum(),
            "correct": correct(outputs, shard.targets),
            "gradients": gradients,
        }
        return Measurement(total, state)

    def estimate(
        self, total: dict, directions: None, params: Tree, learned: Tree, n: int
    ) -> tuple[Tree, Tree]:
        return tree.map(lambda g: g / n, total["gradients"]), learned


@dataclass(frozen=True)
class LocalBackprop(Backprop):
    """`l-bp`: with the local heads' losses added; the gradient still flows between blocks.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 6.
    """

    locality: ClassVar[str] = "local"


@dataclass(frozen=True)
class GreedyBackprop(Backprop):
    """`lg-bp`: every block answers to its local head alone."""

    locality: ClassVar[str] = "greedy"
