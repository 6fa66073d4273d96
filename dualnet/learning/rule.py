"""What a learning rule is: a map over shards of the batch and a reduce.

    init      makes what the rule itself learns, when a run starts
    sample    draws the rule's random directions, from a key alone
    measure   says what one shard of the batch contributes, as a tree that adds up over shards
    estimate  turns the sum into gradients, and updates what the rule itself learns

The sum over shards is the only place where shards meet, but for two options of several processes,
so the same rule runs on a whole batch, on micro-batches, or on threads.  A rule is a frozen
dataclass; its fields are its options, on the command line too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import reduce
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.backends.blas import threads_for
from dualnet.backends.processes import ALONE, Processes
from dualnet.errors import UsageError
from dualnet.learning.plan import Plan
from dualnet.learning.sharing import (
    normalizing_together,
    part_of_batch,
    require_own_part,
    require_sum_of_losses,
)
from dualnet.learning.task import Batch, LearnerState, Shard, Task, split_batch
from dualnet.naming import assigned, shortened
from dualnet.nn.context import Context
from dualnet.options import Options
from dualnet.random import Key, require_key
from dualnet.tree import Tree
from dualnet.types import Array

LOCALITIES = ("global", "local", "greedy")
"""Whether local heads are ignored, add their losses, or also cut the gradient behind them."""


_NEEDED = {"loss", "correct"}
"""What every measurement holds."""


class Measurement(NamedTuple):
    """What `measure` returns.

    Attributes:
        total: adds up over shards; holds at least `loss` (the sum of the examples' losses) and
            `correct` (the number of examples classified correctly).
        model_state: the network's new state, as of this shard.

    Examples:
        >>> task = dn.learning.Task(dn.nn.Linear(2, weights="zeros"), dn.nn.softmax_cross_entropy)
        >>> rule, shard = dn.learning.Backprop(), dn.learning.Shard(np.eye(3), np.array([0, 1, 1]))
        >>> plan, learner = rule.start(task, shard.inputs, dn.Key(0))
        >>> total = rule.measure(plan, learner, None, shard).total
        >>> float(total["loss"].round(4)), int(total["correct"])  # 3 log 2; ties are class 0
        (2.0794, 1)
        >>> total["gradients"]["w"].tolist()  # sums over examples, not means
        [[-0.5, 0.5], [0.5, -0.5], [0.5, -0.5]]
    """

    total: dict[str, Any]
    model_state: Tree


class Rule(Options, ABC):
    """How a gradient is estimated: a map over shards of the batch, and a reduce.

    `init` makes what the rule itself learns, `sample` draws random directions, `measure` says what
    a shard contributes, and `estimate` makes gradients of the sum over shards.  A rule is a frozen
    dataclass of options.  It needs `measure`; the others have defaults.

    Attributes:
        locality: what local heads mean to the rule, one of `LOCALITIES`.

    Raises:
        UsageError: an option has no such name or is of another type; `start` and `init`: the rule
            cannot learn on the network.

    Examples:
        >>> class SignDescent(dn.learning.Backprop):
        ...     def estimate(self, total, directions, learner, n):
        ...         gradients, rule_state = super().estimate(total, directions, learner, n)
        ...         return dn.tree.map(np.sign, gradients), rule_state
        >>> task = dn.learning.Task(dn.nn.Linear(1, weights="zeros"), dn.nn.mean_squared_error)
        >>> batch = dn.learning.Batch(np.array([[2.0, -3.0]]), np.array([[1.0]]))
        >>> rule, backend = SignDescent(), dn.backends.get("numpy")
        >>> start = rule.start(task, batch.inputs, dn.Key(0))
        >>> done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        >>> done.gradients["w"].tolist()
        [[-1.0], [1.0]]
    """

    locality: ClassVar[str] = "global"

    def start(self, task: Task, inputs: Array, key: Key) -> tuple[Plan, LearnerState]:
        """Return what the first step of learning a task needs: its plan, and the learner.

        Args:
            task: a network and its loss.
            inputs: examples `(n, *in_shape)`, one or more, of the floating-point dtype that the
                network shall have; only shape and dtype count.
            key: of everything that starts at random.

        Raises:
            UsageError: `inputs` is no array of floats, the network does not fit it, the rule
                cannot learn on the network, or `key` is no `Key`.
        """
        where = f"{type(self).__name__}.start"
        require_key(where, key)
        if np.ndim(inputs) == 0 or getattr(inputs, "dtype", np.dtype(int)).kind != "f":
            raise UsageError(
                f"{where}: inputs must be an array of floats (n, *in_shape), as the network gets "
                f"their dtype; got {shortened(tree.describe(inputs), 60)}"
            )
        params, model_state, _ = task.network.init(key.fold_in("init"), inputs.shape[1:])
        params, model_state = (
            tree.map(lambda a: np.asarray(a, inputs.dtype, like=inputs), each)
            for each in (params, model_state)
        )
        plan = Plan.of(task, params, model_state, inputs)
        rule_state = self.init(key.fold_in("rule"), plan, params)
        return plan, LearnerState(params, model_state, rule_state)

    def init(self, key: Key, plan: Plan, params: Tree) -> Tree:
        """Return what the rule learns beside the parameters, at the start; by default {}.

        Raises:
            UsageError: the rule cannot learn on this network.
        """
        plan.heads(self.locality)  # which raises where a head cannot cut
        return {}

    def sample(self, key: Key, plan: Plan, params: Tree, backend: Backend, n: int) -> Any:
        """Return random directions for one step on n examples; by default None."""
        return None

    @abstractmethod
    def measure(
        self, plan: Plan, learner: LearnerState, directions: Any, shard: Shard
    ) -> Measurement:
        """Return what one shard contributes."""

    def measure_along(
        self,
        plan: Plan,
        learner: LearnerState,
        directions: Any,
        shard: Shard,
        part: range,
        processes: Processes,
    ) -> Measurement:
        """Return what one shard contributes along some of the directions.

        Over parts that have every direction once, totals add up to that of `measure`, but for
        rounding.

        Args:
            part: which of the `tangents` directions; at least one.
            processes: that have a part each, with which the rule may exchange what it needs of all
                directions.

        Raises:
            UsageError: the rule has no directions to share, as by default.
        """
        raise UsageError(
            f"{type(self).__name__} has no directions that processes could share; let them share "
            f"the batch: {assigned('share', 'batch')}"
        )

    def estimate(
        self, total: dict[str, Any], directions: Any, learner: LearnerState, n: int
    ) -> tuple[Tree, Tree]:
        """Return gradients of the mean loss over n examples, a tree like the parameters, and the
        new rule state.

        By default `total` has the summed `gradients`, and the rule state stays as it is.
        """
        if "gradients" not in total:
            raise UsageError(
                f"{type(self).__name__}: estimate by default needs the summed gradients in a "
                f"measurement's total, got {sorted(total)}; put them there, or write estimate"
            )
        return tree.map(lambda g: g / n, total["gradients"]), learner.rule_state


class Estimate(NamedTuple):
    """The outcome of one step.

    Attributes:
        gradients: of the mean loss, a tree like the parameters, of the same shapes and dtypes.
        model_state: the network's new state.
        rule_state: what the rule learns, updated.
        loss: mean loss over the batch, in the loss's own unit; an array of no axes.
        correct: how many examples were classified correctly; an integer of no axes.

    Examples:
        >>> task = dn.learning.Task(dn.nn.Linear(2, weights="zeros"), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> rule, backend = dn.learning.Backprop(), dn.backends.get("numpy")
        >>> start = rule.start(task, batch.inputs, dn.Key(0))
        >>> done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        >>> float(done.loss.round(4)), int(done.correct), done.rule_state  # log 2
        (0.6931, 1, {})
    """

    gradients: Tree
    model_state: Tree
    rule_state: Tree
    loss: Array
    correct: Array


def estimate_gradient(
    rule: Rule,
    plan: Plan,
    learner: LearnerState,
    batch: Batch,
    key: Key,
    backend: Backend,
    shards: int = 1,
    processes: Processes = ALONE,
    examples: int | None = None,
) -> Estimate:
    """Estimate the gradient of the mean loss over a batch.

    Args:
        rule: how to estimate it.
        plan: of the task whose loss it is.
        learner: where training stands; none of its trees is changed.
        batch: inputs and targets, `(N, ...)`.
        key: all randomness of this step.
        backend: draws the directions and runs the shards.
        shards: pieces the batch is split into; the result does not depend on it but for rounding.
            A network or a loss that couples examples (batch norm) gets the batch in one piece,
            and so does a loss that needs the whole batch.
        processes: that share the batch, each with so many shards, or the directions.  All give the
            same arguments, but for parts of a batch, and get the same estimate.  Where they share
            the batch, batch norm takes its statistics as `processes.statistics` says, and a
            network's state becomes that of the first process.
        examples: N, where processes share the batch and `batch` is a process's own part of it, as
            `processes.part(range(N))` tells; any one example of it for a process that has none.

    Returns:
        The gradients, the new states, and the figures of the step.

    Raises:
        UsageError: what `measure` or `estimate` returns is not what a rule's should; several
            processes share a batch whose loss needs all of it; one has no example for the
            statistics of batch norm; or `batch` is no part of so many `examples`.

    Examples:
        >>> task = dn.learning.Task(dn.nn.Linear(2), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> rule, backend = dn.learning.WeightPerturbation(tangents=4), dn.backends.get("numpy")
        >>> start = rule.start(task, batch.inputs, dn.Key(0))  # a plan and a learner
        >>> done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        >>> split = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend, shards=3)
        >>> bool(np.allclose(done.gradients["w"], split.gradients["w"]))
        True
    """
    require_key("estimate_gradient", key)
    with threads_for(plan.largest_product * len(batch.inputs)):
        return _estimate(rule, plan, learner, batch, key, backend, shards, processes, examples)


def _estimate(
    rule: Rule,
    plan: Plan,
    learner: LearnerState,
    batch: Batch,
    key: Key,
    backend: Backend,
    shards: int,
    processes: Processes,
    examples: int | None,
) -> Estimate:
    """Do what `estimate_gradient` says, on BLAS's threads as they are."""
    if examples is not None:
        require_own_part(batch, processes, examples)
    n = len(batch.inputs) if examples is None else examples
    context = Context(train=True, key=key.fold_in("network"), backend=backend)
    pieces = 1 if plan.task.needs_whole_batch else shards
    directions = rule.sample(key, plan, learner.params, backend, n)
    if processes.shares == "tangents":
        k = getattr(rule, "tangents", 1)
        of_this = processes.part(range(k))
        # One shard after the other, as the rule may exchange something in each.
        measurements = [
            rule.measure_along(plan, learner, directions, shard, of_this or range(1), processes)
            for shard in split_batch(batch, pieces, context)
        ]
    else:
        if processes.size > 1:
            require_sum_of_losses(plan.task)
        of_this = processes.part(range(n))
        together = normalizing_together(plan.task, processes, n)
        context = replace(context, start=of_this.start, processes=together)
        if examples is None and processes.size > 1:
            some = part_of_batch(processes, n)
            batch = Batch(*(x[some.start : some.stop] for x in batch))
        measurements = backend.map(
            lambda shard: rule.measure(plan, learner, directions, shard),
            split_batch(batch, pieces, context),
        )
    for m in measurements:
        if not isinstance(m, Measurement) or not _NEEDED <= m.total.keys():
            raise _no_measurement(rule, m)
    total = reduce(tree.add, (m.total for m in measurements))
    if not of_this:  # this process has no part, and adds nothing, in the others' shapes
        total = tree.map(np.zeros_like, total)
    total = processes.add(total)
    if processes.shares == "tangents":
        # Each process gave the share of the count that its directions are of all.
        total = {**total, "correct": np.rint(total["correct"]).astype(np.int64)}
    estimated = rule.estimate(total, directions, learner, n)
    if not isinstance(estimated, tuple) or len(estimated) != 2:
        raise UsageError(
            f"{type(rule).__name__}.estimate: expected (gradients, rule state), got "
            f"{tree.describe(estimated)}; a rule that learns nothing returns "
            "(gradients, learner.rule_state)"
        )
    gradients, rule_state = estimated
    model_state = measurements[-1].model_state
    if processes.shares == "batch" and tree.leaves(model_state):
        model_state = processes.of_first(model_state)
    return Estimate(gradients, model_state, rule_state, total["loss"] / n, total["correct"])


def scaled(total: dict[str, Any], factor: float) -> dict[str, Any]:
    """Return what a measurement adds up, so many times."""
    return tree.map(lambda x: x * factor, total)


def _no_measurement(rule: Rule, got: Any) -> UsageError:
    total = got.total if isinstance(got, Measurement) else got
    return UsageError(
        f"{type(rule).__name__}.measure: expected a Measurement whose total holds "
        f"{sorted(_NEEDED)}, got {tree.describe(total)}; return Measurement({{'loss': ..., "
        "'correct': ..., 'gradients': ...}, new model state)"
    )
