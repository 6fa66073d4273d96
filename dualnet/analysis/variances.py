"""How much of an estimate's variance the data bring, and how much the rule adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualnet.analysis.point import Point
from dualnet.analysis.rows import Moments, require_at_least, sums_by_leaf
from dualnet.random import Key
from dualnet.types import Array


@dataclass(frozen=True)
class Variance:
    """A gradient's variance, summed over the entries of a leaf.

    For an unbiased rule total = data + added.

    Attributes:
        layer: path of a leaf, or `total`.
        total: of the estimate, over batches and draws together.
        data: of the exact gradient, over batches.
        added: of the estimate over draws, in the mean over batches.

    Examples:
        >>> row = dn.analysis.Variance("total", total=5.1, data=1.0, added=4.0)
        >>> f"the rule adds {row.added / row.data:.0f} times what the data bring"
        'the rule adds 4 times what the data bring'
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

    Returns:
        A row for each leaf of the parameters, and `total`.

    Raises:
        UsageError: one of the numbers is too small.

    Source: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
    Momentum", Proposition 1 (Eq. 16-18), after Wen et al. 2018 and Ren et al. 2023.

    Examples:
        >>> from dualnet import analysis, learning, nn
        >>> x, y, backend = np.eye(3), np.ones((3, 1)), dn.backends.get("numpy")
        >>> task = learning.Task(nn.Linear(1, weights="zeros"), nn.mean_squared_error)
        >>> for rule in learning.Backprop(), learning.WeightPerturbation():
        ...     point = analysis.Point(rule, *rule.start(task, x, dn.Key(0)), backend)
        ...     *_, total = analysis.variance(point, x, y, 1, dn.Key(0))
        ...     print(total.added == 0.0, total.added > total.data)
        True False
        False True
    """
    for argument, number, least in (
        ("batch_size", batch_size, 1),
        ("batches", batches, 2),
        ("draws", draws, 2),
    ):
        require_at_least("variance", argument, number, least)
    firsts, exact, added = Moments(), Moments(), Moments()
    for batch_key in key.split(batches):
        drawn = np.random.Generator(np.random.SFC64(batch_key.bits)).integers(
            len(inputs), size=batch_size
        )
        chosen = point.backend.asarray(drawn)
        batch = inputs[chosen], targets[chosen]
        within = Moments()
        for i, draw_key in enumerate(batch_key.split(draws)):
            estimate = point.estimate(*batch, draw_key)
            within = within.including(estimate)
            firsts = firsts.including(estimate) if i == 0 else firsts
        added = added.including(within.variance)
        exact = exact.including(point.exact(*batch, batch_key))
    sums = sums_by_leaf(
        lambda *parts: [float(part.sum()) for part in parts],
        firsts.variance,
        exact.variance,
        added.mean,
    )
    return [Variance(layer, *map(float, parts)) for layer, parts in sums.items()]
