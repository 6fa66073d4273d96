"""What an estimate of the gradient is worth: its alignment, its bias, the variance it adds.

Every function holds a learning rule against the gradient that the rule estimates, which is exact
backpropagation of the same losses: `bp`, or `l-bp` and `lg-bp` for rules with local losses.
Results are lists of rows, one for each leaf of the parameters and a last one, `total`, for all of
them together as one vector; `table` prints them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.core.transforms import vjp
from dualnet.errors import UsageError
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
from dualnet.learning.direct_feedback import DirectErrors, project_error
from dualnet.nn.context import Context
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array

__all__ = [
    "EXACT",
    "TOTAL",
    "Bias",
    "Comparison",
    "Point",
    "Variance",
    "alignment",
    "bias",
    "compare",
    "error_alignment",
    "table",
    "variance",
]

TOTAL = "total"
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
    """

    rule: Rule
    plan: Plan
    learner: LearnerState
    backend: Backend
    shards: int = 1

    def estimate(self, inputs: Array, targets: Array, key: Key) -> Tree:
        """Return the rule's gradient of the mean loss over a batch."""
        return self._gradients(self.rule, self.learner, Batch(inputs, targets), key)

    def exact(self, inputs: Array, targets: Array, key: Key) -> Tree:
        """Return the gradient that the rule estimates.

        The key decides what the network itself draws (dropout), as it does in `estimate`.
        """
        exact, learner = EXACT[self.rule.locality], self.learner._replace(rule_state={})
        return self._gradients(exact, learner, Batch(inputs, targets), key)

    def _gradients(self, rule: Rule, learner: LearnerState, batch: Batch, key: Key) -> Tree:
        done = estimate_gradient(rule, self.plan, learner, batch, key, self.backend, self.shards)
        return done.gradients


# --- alignment ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """An estimate g beside the exact gradient ∇.

    Attributes:
        layer: path of a leaf, or `total`.
        cosine: of the angle between them; NaN where one of them is 0.
        angle: the angle in degrees, the alignment angle of the papers on feedback.
        norm_ratio: |g| / |∇|; NaN where ∇ is 0.
    """

    layer: str
    cosine: float
    angle: float
    norm_ratio: float


def compare(estimate: Tree, exact: Tree) -> list[Comparison]:
    """Compare an estimate with the exact gradient: cosine, angle and norm ratio.

    Args:
        estimate, exact: trees of arrays of equal shapes.

    Raises:
        TreeError: the trees differ in structure.
    """

    def products(g: Array, e: Array) -> list[float]:
        g, e = g.astype(np.float64), e.astype(np.float64)
        return [float(np.vdot(g, e)), float(np.vdot(g, g)), float(np.vdot(e, e))]

    rows = []
    for layer, (inner, estimate_squared, exact_squared) in _sums(products, estimate, exact).items():
        cosine = _ratio(inner, math.sqrt(estimate_squared) * math.sqrt(exact_squared))
        cosine = float(np.clip(cosine, -1.0, 1.0))
        norm_ratio = _ratio(math.sqrt(estimate_squared), math.sqrt(exact_squared))
        rows.append(Comparison(layer, cosine, math.degrees(math.acos(cosine)), norm_ratio))
    return rows


def alignment(
    point: Point, inputs: Array, targets: Array, key: Key, draws: int = 1
) -> list[Comparison]:
    """Compare a rule's mean estimate over several draws with the exact gradient.

    Args:
        point: which rule, and where.
        inputs, targets: the batch, `(N, ...)`.
        key: all randomness; draws are independent.
        draws: how many; their mean shows a rule's bias rather than its noise.

    Source: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
    Momentum", section 4.4 and Figure 7.
    """
    _require("alignment", "draws", draws, 1)
    estimates, exact = _Moments(), _Moments()
    for draw_key in key.split(draws):
        estimates = estimates.including(point.estimate(inputs, targets, draw_key))
        exact = exact.including(point.exact(inputs, targets, draw_key))
    return compare(estimates.mean, exact.mean)


def error_alignment(point: Point, inputs: Array, targets: Array, key: Key) -> list[Comparison]:
    """Compare the error e·B that a rule sends to each hidden activity with the true gradient.

    That is the loss's gradient by the activity; all examples of the batch are one vector.

    Args:
        point: a rule that sends its error straight to the activities: `dfa`, `dkp`, `fdfa`.
        inputs, targets: the batch, `(N, ...)`.
        key: what the network itself draws.

    Returns:
        A row for each site, in `layer` its path, and `total`.

    Raises:
        UsageError: the rule is none of these.
    """
    if not isinstance(point.rule, DirectErrors):
        raise UsageError(
            "error_alignment: rule: expected one that sends the output error to activities (dfa, "
            f"dkp, fdfa), got {type(point.rule).__name__}; `alignment` compares any rule's "
            "gradients"
        )

    task, (params, model_state, rule_state) = point.plan.task, point.learner
    matrices = point.rule.feedback.matrices(rule_state)

    def outputs_of(moved: dict[str, Array]) -> Array:
        tap = lambda path, h: h + moved[path] if path in moved else h  # noqa: E731
        context = Context(train=True, key=key.fold_in("network"), tap=tap, backend=point.backend)
        return task.network.apply(params, model_state, inputs, context)[0]

    nowhere = {
        path: np.zeros_like(b, shape=(len(inputs), *b.shape[1:])) for path, b in matrices.items()
    }
    outputs, pull = vjp(outputs_of, nowhere)
    losses, pull_loss = vjp(lambda y: task.loss(y, targets), outputs)
    (error,) = pull_loss(np.ones_like(losses))
    (exact,) = pull(error)
    return compare({path: project_error(error, b) for path, b in matrices.items()}, exact)


# --- bias ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bias:
    """How far the mean of many estimates is from the exact gradient, in units of its norm.

    Attributes:
        layer: path of a leaf, or `total`.
        distance: |mean - ∇| / |∇|.
        standard_error: the root mean square that `distance` would have without any bias, from
            the spread of the draws, but no less than rounding leaves.
        deviations: distance / standard_error.  About 1 for an unbiased rule; whatever the
            correlations are, it exceeds z at most as often as a normal number exceeds ±z, so
            that above 4 there is a bias.
    """

    layer: str
    distance: float
    standard_error: float
    deviations: float


def bias(point: Point, inputs: Array, targets: Array, key: Key, draws: int = 100) -> list[Bias]:
    """Hold the mean of independent estimates on one batch against the exact gradient.

    Args:
        point: which rule, and where.
        inputs, targets: the batch, `(N, ...)`.
        key: all randomness.
        draws: how many estimates, at least 2; the standard error falls as 1 / sqrt(draws).

    Raises:
        UsageError: too few draws.
    """
    _require("bias", "draws", draws, 2)
    differences, exact = _Moments(), _Moments()
    for draw_key in key.split(draws):
        target = point.exact(inputs, targets, draw_key)
        estimate = point.estimate(inputs, targets, draw_key)
        # by pairs, so that dropout is the same for both
        differences = differences.including(tree.map(np.subtract, estimate, target))
        exact = exact.including(target)

    def squares(mean: Array, variance: Array, target: Array) -> list[float]:
        return [float(np.square(mean).sum()), float(variance.sum()), float(np.square(target).sum())]

    rounding = max(100.0 * float(np.finfo(p.dtype).eps) for p in tree.leaves(point.learner.params))
    rows = []
    for layer, (distance, variance, norm) in _sums(
        squares, differences.mean, differences.variance, exact.mean
    ).items():
        off = _ratio(math.sqrt(distance), math.sqrt(norm))
        error = max(_ratio(math.sqrt(variance / draws), math.sqrt(norm)), rounding)
        rows.append(Bias(layer, off, error, off / error))
    return rows


# --- variance -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variance:
    """A gradient's variance, summed over the entries of a leaf.

    For an unbiased rule total = data + added.

    Attributes:
        layer: path of a leaf, or `total`.
        total: of the estimate, over batches and draws together.
        data: of the exact gradient, over batches.
        added: of the estimate over draws, in the mean over batches.
    """

    layer: str
    total: float
    data: float
    added: float


def variance(
    point: Point,
    inputs: Array,
    targets: Array,
    batch_size: int,
    key: Key,
    batches: int = 100,
    draws: int = 2,
) -> list[Variance]:
    """Measure how much of an estimate's variance comes from the data, and how much the rule adds.

    With x the batch and u the rule's directions, Var[g] = Var_x[E_u g] + E_x[Var_u g], and E_u g
    is the exact gradient of an unbiased rule.  The three are measured each on its own: nothing
    makes them add up but the theorem.  A biased rule's mean varies otherwise than the exact
    gradient, so there they need not.

    What a rule learns stays as it is in `point`: the noise of the steps in which `fdfa` learned
    its feedback shows in none of the three.  What the network draws counts as a draw.

    Args:
        point: which rule, and where.
        inputs, targets: the examples from which batches are drawn, `(M, ...)`.
        batch_size: of the batches; examples are drawn independently, with replacement.
        key: all randomness.
        batches: how many, at least 2.
        draws: estimates on each batch, at least 2.  `total` uses the first of each alone, so for
            a given time more batches are better than more draws.

    Raises:
        UsageError: one of the numbers is too small.

    Source: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
    Momentum", Proposition 1 (Eq. 16-18), after Wen et al. 2018 and Ren et al. 2023.
    """
    for argument, number, least in (
        ("batch_size", batch_size, 1),
        ("batches", batches, 2),
        ("draws", draws, 2),
    ):
        _require("variance", argument, number, least)
    firsts, exact, added = _Moments(), _Moments(), _Moments()
    for batch_key in key.split(batches):
        drawn = np.random.Generator(np.random.SFC64(batch_key.bits)).integers(
            len(inputs), size=batch_size
        )
        chosen = point.backend.asarray(drawn)
        batch = inputs[chosen], targets[chosen]
        within = _Moments()
        for i, draw_key in enumerate(batch_key.split(draws)):
            estimate = point.estimate(*batch, draw_key)
            within = within.including(estimate)
            firsts = firsts.including(estimate) if i == 0 else firsts
        added = added.including(within.variance)
        exact = exact.including(point.exact(*batch, batch_key))
    sums = _sums(
        lambda *parts: [float(part.sum()) for part in parts],
        firsts.variance,
        exact.variance,
        added.mean,
    )
    return [Variance(layer, *map(float, parts)) for layer, parts in sums.items()]


# --- parts that they share ----------------------------------------------------------------------


def table(rows: Sequence[Any]) -> str:
    """Format rows of one kind, each a dataclass of a layer and numbers, in aligned columns."""
    names = [f.name for f in dataclasses.fields(rows[0])]
    lines = [names]
    for row in rows:
        layer, *numbers = dataclasses.astuple(row)
        lines.append([layer, *(f"{number:.4g}" for number in numbers)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


@dataclass(frozen=True)
class _Moments:
    """Running mean and variance of trees, in double precision (Welford's recursion)."""

    count: int = 0
    mean: Tree = None
    squares: Tree = None  # sums of squared deviations

    def including(self, sample: Tree) -> _Moments:
        sample = tree.map(lambda x: x.astype(np.float64), sample)
        if self.count == 0:
            return _Moments(1, sample, tree.map(np.zeros_like, sample))
        n = self.count + 1
        off = tree.map(np.subtract, sample, self.mean)
        mean = tree.map(lambda m, d: m + d / n, self.mean, off)
        squares = tree.map(lambda s, d: s + np.square(d) * ((n - 1) / n), self.squares, off)
        return _Moments(n, mean, squares)

    @property
    def variance(self) -> Tree:
        return tree.map(lambda s: s / (self.count - 1), self.squares)


def _sums(f: Callable[..., list[float]], *trees: Tree) -> dict[str, np.ndarray]:
    """Return for each leaf the sums that `f` makes of it, and last those over all leaves."""
    by_leaf = dict(tree.items(tree.map(lambda *leaves: np.array(f(*leaves)), *trees)))
    return {**by_leaf, TOTAL: sum(by_leaf.values())}


def _ratio(a: float, b: float) -> float:
    return float(a) / float(b) if b > 0 else math.nan


def _require(function: str, argument: str, number: int, least: int) -> None:
    if number < least:
        raise UsageError(f"{function}: {argument}: expected at least {least}, got {number}")
