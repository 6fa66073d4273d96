"""What a learning rule is: a map over shards of the batch and a reduce.

    sample    draws the rule's random directions, from a key alone
    measure   says what one shard of the batch contributes, as a tree that adds up over shards
    estimate  turns the sum into gradients, and updates what the rule itself learns

The sum over shards is the only place where shards meet, so the same rule runs on a whole batch,
on micro-batches, or on threads.  A rule is a frozen dataclass; its fields are its options, on
the command line too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

from dualnet import tree
from dualnet.backends import Backend
from dualnet.learning.task import Shard, Task, cut
from dualnet.nn.network import Context
from dualnet.random import Key
from dualnet.tree import Tree


@dataclass(frozen=True)
class Measurement:
    """What `measure` returns.

    Attributes:
        total: adds up over shards; holds at least `loss` (the sum of the examples' losses) and
            `correct` (the number of examples classified correctly).
        state: the network's new state, as of this shard.
    """

    total: dict[str, Any]
    state: Tree


class Rule(Protocol):
    """See the head of this file.  `learned` is the rule's own tree ({} if it learns nothing)."""

    def init(self, key: Key, task: Task, params: Tree, state: Tree, inputs: Any) -> Tree:
        """What the rule learns beside the parameters, at the start; `inputs` `(n, *in_shape)`
        are a batch by whose shape it may find the shapes of activities."""
        ...

    def sample(self, key: Key, task: Task, params: Tree, backend: Backend, n: int) -> Any:
        """Random directions for one step on n examples."""
        ...

    def measure(
        self, task: Task, params: Tree, state: Tree, learned: Tree, directions: Any, shard: Shard
    ) -> Measurement:
        """What one shard contributes."""
        ...

    def estimate(
        self, total: dict, directions: Any, params: Tree, learned: Tree, n: int
    ) -> tuple[Tree, Tree]:
        """Gradients of the mean loss over n examples, a tree like params, and `learned` anew."""
        ...


@dataclass(frozen=True)
class Step:
    """The outcome of one step.

    Attributes:
        gradients: of the mean loss, a tree like the parameters.
        learned: what the rule learns, updated.
        state: the network's new state.
        loss: mean loss over the batch.
        correct: examples classified correctly.
    """

    gradients: Tree
    learned: Tree
    state: Tree
    loss: Any
    correct: Any


def step(
    rule: Rule,
    task: Task,
    params: Tree,
    state: Tree,
    learned: Tree,
    inputs: Any,
    targets: Any,
    key: Key,
    backend: Backend,
    shards: int = 1,
) -> Step:
    """Estimate the gradient of the mean loss over a batch.

    Args:
        rule, task: what to estimate, and of what.
        params, state, learned: trees; none is changed.
        inputs, targets: the batch, `(N, ...)`.
        key: all randomness of this step.
        backend: draws the directions and runs the shards.
        shards: pieces the batch is cut into; the result does not depend on it but for rounding.
            A network that couples examples (batch norm) gets the batch in one piece, and so does
            a loss that does.
    """
    n = len(inputs)
    context = Context(train=True, key=key.fold_in("network"), backend=backend)
    pieces = 1 if task.one_piece else shards
    directions = rule.sample(key, task, params, backend, n)
    measure: Callable[[Shard], Measurement] = lambda shard: rule.measure(  # noqa: E731
        task, params, state, learned, directions, shard
    )
    measurements = backend.map(measure, cut(inputs, targets, pieces, context))
    total = reduce(tree.add, (m.total for m in measurements))
    gradients, learned = rule.estimate(total, directions, params, learned, n)
    return Step(gradients, learned, measurements[-1].state, total["loss"] / n, total["correct"])
