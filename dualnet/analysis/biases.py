"""How far the mean of many estimates is from the exact gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dualnet import tree
from dualnet.analysis.point import Point
from dualnet.analysis.rows import Moments, ratio, require_at_least, sums_by_leaf
from dualnet.random import Key
from dualnet.types import Array


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

    Examples:
        >>> row = dn.analysis.Bias("w", distance=0.3, standard_error=0.05, deviations=6.0)
        >>> "biased" if row.deviations > 4.0 else "no bias seen"
        'biased'
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

    Returns:
        A row for each leaf of the parameters, and `total`.

    Raises:
        UsageError: too few draws.

    Examples:
        >>> from dualnet import analysis, learning, nn
        >>> x, y, backend = np.eye(3), np.ones((3, 1)), dn.backends.get("numpy")
        >>> task = learning.Task(nn.Linear(1, weights="zeros"), nn.mean_squared_error)
        >>> for rule in learning.Backprop(), learning.WeightPerturbation():
        ...     point = analysis.Point(rule, *rule.start(task, x, dn.Key(0)), backend)
        ...     *_, total = analysis.bias(point, x, y, dn.Key(0), draws=200)
        ...     print(total.distance == 0.0, total.deviations < 4.0)
        True True
        False True
    """
    require_at_least("bias", "draws", draws, 2)
    differences, exact = Moments(), Moments()
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
    for layer, (distance, variance, norm) in sums_by_leaf(
        squares, differences.mean, differences.variance, exact.mean
    ).items():
        off = ratio(math.sqrt(distance), math.sqrt(norm))
        error = max(ratio(math.sqrt(variance / draws), math.sqrt(norm)), rounding)
        rows.append(Bias(layer, off, error, off / error))
    return rows
