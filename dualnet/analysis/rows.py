"""The rows that all functions of the analysis return, and the sums and means behind them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.errors import UsageError
from dualnet.tree import Tree

TOTAL = "total"
"""The name of the row for all leaves together."""


def table(rows: Sequence[Any]) -> str:
    """Format rows of one kind, each a dataclass of a layer and numbers, in aligned columns.

    Args:
        rows: what a function of the analysis returned; at least one row.

    Examples:
        >>> estimate, exact = {"w": np.array([1.0, 1.0])}, {"w": np.array([2.0, 0.0])}
        >>> print(dn.analysis.table(dn.analysis.compare(estimate, exact)))
        layer  cosine  angle  norm_ratio
        w      0.7071     45      0.7071
        total  0.7071     45      0.7071
    """
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
class Moments:
    """Running mean and variance of trees, in double precision (Welford's recursion)."""

    count: int = 0
    mean: Tree = None
    squares: Tree = None  # sums of squared deviations

    def including(self, sample: Tree) -> Moments:
        sample = tree.map(lambda x: x.astype(np.float64), sample)
        if self.count == 0:
            return Moments(1, sample, tree.map(np.zeros_like, sample))
        n = self.count + 1
        off = tree.map(np.subtract, sample, self.mean)
        mean = tree.map(lambda m, d: m + d / n, self.mean, off)
        squares = tree.map(lambda s, d: s + np.square(d) * ((n - 1) / n), self.squares, off)
        return Moments(n, mean, squares)

    @property
    def variance(self) -> Tree:
        return tree.map(lambda s: s / (self.count - 1), self.squares)


def sums_by_leaf(f: Callable[..., list[float]], *trees: Tree) -> dict[str, np.ndarray]:
    """Return for each leaf the sums that `f` makes of it, and last those over all leaves."""
    by_leaf = dict(tree.items(tree.map(lambda *leaves: np.array(f(*leaves)), *trees)))
    return {**by_leaf, TOTAL: sum(by_leaf.values())}


def ratio(a: float, b: float) -> float:
    """Return a / b; NaN where b is 0."""
    return float(a) / float(b) if b > 0 else math.nan


def require_at_least(function: str, argument: str, number: int, least: int) -> None:
    """Raise a UsageError unless a number is large enough."""
    if number < least:
        raise UsageError(f"{function}: {argument}: expected at least {least}, got {number}")
