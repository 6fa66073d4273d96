"""`bp`, `l-bp`, `lg-bp`: the exact gradient, by reverse mode.

It is the baseline against which every other rule is held; with local losses, of their sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import ClassVar

from dualnet import tree
from dualnet.core.derivatives import value_and_grad
from dualnet.core.transforms import stop_gradient
from dualnet.learning.checkpointing import measure_with_checkpoints
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Measurement, Rule
from dualnet.learning.task import LearnerState, Shard, correct
from dualnet.nn.context import Context
from dualnet.nn.network import Sequential
from dualnet.tree import Tree
from dualnet.types import Array


def segment_losses(
    plan: Plan,
    params: Tree,
    model_state: Tree,
    shard: Shard,
    context: Context,
    locality: str,
    replicas: bool = False,
) -> tuple[list[Array], Array, Tree]:
    """Evaluate the losses of the local heads and of the network.

    Args:
        plan: of the task.
        params, model_state: the network's trees.
        shard: the examples.
        context: what the layers are told; if there are local heads, its `tap` is replaced.
        locality: of the rule, which says whether local heads count.
        replicas: whether the losses of local heads are replicas for each of P tokens and G groups.

    Returns:
        Per-example losses `(n,)`, those of the local heads in order, or their replicas `(n, P, G)`,
        and last that of the outputs; the outputs; the new state.
    """
    losses: list[Array] = []
    if heads := plan.heads(locality):
        readouts = plan.readouts(locality)

        def losses_of(y: Array) -> Array:
            return plan.task.losses_of(y, shard.targets)

        def tap(path: str, y: Array) -> Array:
            if path in readouts and not replicas:
                losses.append(losses_of(y))
            if path in heads and replicas:
                losses.append(heads[path].replicas(tree.subtree(params, path), y, losses_of))
            return stop_gradient(y) if path in heads and locality == "greedy" else y

        context = replace(context, tap=tap)
    own, (outputs, new_state) = plan.task.losses(params, model_state, shard, context)
    return [*losses, own], outputs, new_state


@dataclass(frozen=True, kw_only=True)
class Backprop(Rule):
    """`bp`: gradient of the loss by the transpose of its linearization.  No randomness.

    Args:
        checkpointing: whether parts of the network, if it is a chain, are evaluated again on the
            way back, which takes more time and less memory; see `learning.checkpointing`.

    Sources: Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating
    errors"; reverse mode as a transpose: Radul et al. 2022, "You Only Linearize Once";
    checkpointing: Chen et al. 2016, "Training deep nets with sublinear memory cost", section 4.

    Examples:
        >>> task = dn.learning.Task(dn.nn.Linear(2, weights="zeros"), dn.nn.mean_squared_error)
        >>> batch = dn.learning.Batch(np.eye(3), np.ones((3, 2)))
        >>> rule, backend = dn.learning.Backprop(), dn.backends.get("numpy")
        >>> start = rule.start(task, batch.inputs, dn.Key(0))
        >>> done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        >>> done.gradients["b"].tolist()  # the mean of 2 (0 - 1) / 2 over the examples
        [-1.0, -1.0]
        >>> done.gradients["w"].round(3).tolist()  # each weight sees one of three examples
        [[-0.333, -0.333], [-0.333, -0.333], [-0.333, -0.333]]
    """

    checkpointing: bool = False

    def measure(
        self, plan: Plan, learner: LearnerState, directions: None, shard: Shard
    ) -> Measurement:
        network = plan.task.network
        if self.checkpointing and isinstance(network, Sequential):
            return measure_with_checkpoints(plan, learner, shard, network)
        return measure_by_reverse(plan, learner, shard, shard.context, self.locality)


@dataclass(frozen=True)
class LocalBackprop(Rule):
    """`l-bp`: with the local heads' losses added; the gradient still flows between blocks.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 6.

    Examples:
        >>> head = dn.nn.LocalHead(2, weights="zeros")  # it sends nothing back yet
        >>> layers = {"hidden": dn.nn.Linear(4), "head": head, "output": dn.nn.Linear(2)}
        >>> task = dn.learning.Task(dn.nn.Sequential(layers), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> rule, backend = dn.learning.LocalBackprop(), dn.backends.get("numpy")
        >>> start = rule.start(task, batch.inputs, dn.Key(0))
        >>> done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        >>> done.gradients["head"]["linear"]["b"].round(3).tolist()  # of its own loss
        [0.167, -0.167]
        >>> bool(np.any(done.gradients["hidden"]["w"]))  # the output's loss comes through the head
        True
    """

    locality: ClassVar[str] = "local"

    def measure(
        self, plan: Plan, learner: LearnerState, directions: None, shard: Shard
    ) -> Measurement:
        return measure_by_reverse(plan, learner, shard, shard.context, self.locality)


@dataclass(frozen=True)
class GreedyBackprop(LocalBackprop):
    """`lg-bp`: every block answers to its local head alone, whose input passes no gradient on.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 6.

    Raises:
        UsageError: `init` finds a local head that cannot cut the network where it is.

    Examples:
        >>> head = dn.nn.LocalHead(2, weights="zeros")  # it sends nothing back yet
        >>> layers = {"hidden": dn.nn.Linear(4), "head": head, "output": dn.nn.Linear(2)}
        >>> task = dn.learning.Task(dn.nn.Sequential(layers), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> rule, backend = dn.learning.GreedyBackprop(), dn.backends.get("numpy")
        >>> start = rule.start(task, batch.inputs, dn.Key(0))
        >>> done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        >>> bool(np.any(done.gradients["hidden"]["w"]))  # the output's loss ends at the head
        False
    """

    locality: ClassVar[str] = "greedy"


def measure_by_reverse(
    plan: Plan, learner: LearnerState, shard: Shard, context: Context, locality: str
) -> Measurement:
    """Measure a shard's summed gradients of all losses by reverse mode.

    Args:
        plan, learner, shard: as for `Rule.measure`.
        context: what the layers are told.
        locality: of the rule.

    Returns:
        Sums of `loss`, `correct` and `gradients`.
    """

    def total_loss(params: Tree) -> tuple[Array, tuple[Array, Array, Tree]]:
        losses, outputs, new_state = segment_losses(
            plan, params, learner.model_state, shard, context, locality
        )
        return reduce(add, losses).sum(), (losses[-1], outputs, new_state)

    value_and_gradient = value_and_grad(total_loss, has_aux=True)
    (_, (losses, outputs, new_state)), gradients = value_and_gradient(learner.params)
    total = {
        "loss": losses.sum(),
        "correct": correct(outputs, shard.targets),
        "gradients": gradients,
    }
    return Measurement(total, new_state)
