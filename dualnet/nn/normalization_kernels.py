"""What `normalization` computes on plain arrays, in blocks that stay in the cache and in place.

Every array is seen as `(A, M, B, D)` with M and D normalized and A and B kept: A = D = 1 for batch
norm, M = B = 1 for layer norm, none of them for group norm.  A block is a few rows of A or,
where one is too large, a part of its M; then the sums over all parts come first.  Where B·D is
small, r rows of M lie side by side as one row of an array `(A, M/r, r·B·D)`: loops along a row
are long then, and running sums over rows short, which keeps their digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from dualnet.backends.host import are_of_host
from dualnet.backends.overridable import bytes_at_a_time, overridable
from dualnet.backends.sums import FEW_ROWS, sum_rows
from dualnet.types import Array, Axes, Shape

_BLOCK_BYTES = 1 << 20
"""A block of t is read three times and written four: it should stay in the second-level cache."""

_LONG_ROW = 1 << 10
"""Entries from which on NumPy's loops along a row take much longer than their start."""


def normalized(x: Array, axes: Axes, epsilon: float) -> tuple[Array, Array]:
    """Return the normalized x `(*S)`, and s = 1 / sqrt(variance + ε) with unit (negative) axes."""
    view = BlockView(x.shape, axes)
    y, s = normalized_in_view(view.of(x), view, epsilon)
    return view.back(y), np.reshape(s, view.with_unit_axes)


@overridable
def normalized_in_view(x: Array, view: BlockView, epsilon: float) -> tuple[Array, Array]:
    """Compute `normalized` for x in a view; s is `(A, 1, B)`."""
    y = np.empty_like(x, order="C")
    s = np.empty_like(x, shape=view.kept)
    for rows, block in view.blocks(x):
        mean = view.spread(view.mean(x[part] for part in block))
        for part in block:
            np.subtract(x[part], mean, out=y[part])
        variance = view.mean_of_products((y[part], y[part], None) for part in block)
        scale = 1.0 / np.sqrt(variance + epsilon)
        s[rows] = scale
        for part in block:
            y[part] *= view.spread(scale)
    return y, s


def normalized_by(
    x: Array, mean: Array, variance: Array, axes: Axes, epsilon: float
) -> tuple[Array, Array]:
    """Compute `normalized` for x whose `moments` over the same axes are known."""
    view = BlockView(x.shape, axes)
    kept = (np.reshape(statistic, view.kept) for statistic in (mean, variance))
    y, s = normalized_by_in_view(view.of(x), *kept, view, epsilon)
    return view.back(y), np.reshape(s, view.with_unit_axes)


@overridable
def normalized_by_in_view(
    x: Array, mean: Array, variance: Array, view: BlockView, epsilon: float
) -> tuple[Array, Array]:
    """Compute `normalized_by` for x in a view; mean, variance and s are `(A, 1, B)`."""
    y = np.empty_like(x, order="C")
    s = 1.0 / np.sqrt(variance + epsilon)
    for rows, block in view.blocks(x):
        center, scale = view.spread(mean[rows]), view.spread(s[rows])
        for part in block:
            np.subtract(x[part], center, out=y[part])
            y[part] *= scale
    return y, s


def tangent(t: Array, y: Array, s: Array, axes: Axes) -> Array:
    """Return (t - mean(t) - y · mean(y t)) · s for a stack t `(k, *S)`."""
    view = BlockView(y.shape, axes)
    return view.back(tangent_in_view(view.of(t), view.of(y), np.reshape(s, view.kept), view))


@overridable
def tangent_in_view(t: Array, y: Array, s: Array, view: BlockView) -> Array:
    """Compute `tangent` for t and y in a view, and s `(A, 1, B)`."""
    out = np.empty_like(t, order="C")
    for rows, block in view.blocks(t):
        mean = view.spread(view.mean(t[part] for part in block))
        # The products are written into `out`, so that a block needs no temporaries.
        slope = view.spread(view.mean_of_products((y[part], t[part], out[part]) for part in block))
        scale = view.spread(s[rows])
        for part in block:
            change = np.multiply(y[part], slope, out=out[part])
            np.subtract(t[part], change, out=change)
            change -= mean
            change *= scale
    return out


def moments(x: Array, axes: Axes) -> tuple[Array, Array]:
    """Return mean and biased variance over the (negative) axes, of the shape of the others."""
    view = BlockView(x.shape, axes)
    mean, variance = moments_in_view(view.of(x), view)
    shape = tuple(n for i, n in enumerate(view.shape) if i - len(view.shape) not in axes)
    return np.reshape(mean, shape), np.reshape(variance, shape)


@overridable
def moments_in_view(x: Array, view: BlockView) -> tuple[Array, Array]:
    """Compute `moments` for x in a view; both are `(A, 1, B)`."""
    mean, variance = np.empty_like(x, shape=view.kept), np.empty_like(x, shape=view.kept)
    for rows, block in view.blocks(x):
        mean[rows] = center = view.mean(x[part] for part in block)
        center = view.spread(center)
        centered = (x[part] - center for part in block)
        variance[rows] = view.mean_of_products((y, y, y) for y in centered)
    return mean, variance


class BlockView:
    """Shows arrays `(..., *shape)` as `(..., A, M/r, r·B·D)`, and takes statistics over M and D.

    The four sizes are read off the shape: axes that are neighbors and are normalized alike are one
    run, and runs of kept and normalized axes take turns.

    Attributes:
        kept: shape `(A, 1, B)` of a statistic.
        with_unit_axes: the same entries, in the rank of `shape`.
    """

    def __init__(self, shape: Shape, axes: Axes):
        ndim = len(shape)
        self.shape = shape
        self.with_unit_axes = tuple(1 if i - ndim in axes else n for i, n in enumerate(shape))
        self.order: tuple[int, ...] = tuple(range(-ndim, 0))
        sizes = _runs(shape, axes)
        if (
            len(sizes) > 4
        ):  # the runs are too many, so the normalized axes are brought together at the end
            self.order = (*(i for i in self.order if i not in axes), *axes)
            sizes = _runs(tuple(shape[i] for i in self.order), tuple(range(-len(axes), 0)))
        if len(sizes) == 2:
            sizes = [sizes[0], 1, 1, sizes[1]]
        self.a, self.m, self.b, self.d = (*sizes, 1, 1, 1)[:4]
        room = max(1, _LONG_ROW // max(1, self.b * self.d))
        self.r = math.gcd(self.m, 1 << (room.bit_length() - 1))
        self.kept = (self.a, 1, self.b)

    def of(self, x: Array) -> Array:
        """Return the array in this view; it is a copy only where entries lie in another order."""
        lead = x.shape[: x.ndim - len(self.shape)]
        moved = np.transpose(x, (*range(len(lead)), *(i + x.ndim for i in self.order)))
        return np.reshape(moved, (*lead, self.a, self.m // self.r, self.r * self.b * self.d))

    def back(self, x: Array) -> Array:
        """Return an array of this view in the shape that it had."""
        lead = x.shape[:-3]
        ndim = len(lead) + len(self.shape)
        moved = np.reshape(x, (*lead, *(self.shape[i] for i in self.order)))
        inverse = sorted(range(len(self.order)), key=lambda i: self.order[i])
        return np.transpose(
            moved, (*range(len(lead)), *(i + ndim - len(self.shape) for i in inverse))
        )

    def blocks(self, x: Array) -> Iterator[tuple[slice, list[tuple]]]:
        """Yield each block's rows of A, and its parts as indices `(..., rows, part of M, :)`."""
        long_rows = self.m // self.r
        row = max(1, x.nbytes // max(1, self.a))
        most = bytes_at_a_time(x, _BLOCK_BYTES)
        rows = max(1, most // row)
        step = max(1, min(long_rows, most * long_rows // row))
        for a in range(0, self.a if x.size else 0, rows):
            chosen = slice(a, a + rows)
            parts = [slice(m, m + step) for m in range(0, long_rows, step)]
            yield chosen, [(..., chosen, part, slice(None)) for part in parts]

    def mean(self, parts: Iterable) -> Array:
        """Return the mean `(..., a, 1, B)` over all parts of a block `(..., a, m, r·B·D)`."""
        total: Array = 0.0
        for part in parts:
            total = total + _sum_of_rows(part) if self.m > 1 else part
        if self.r > 1:
            shape = (*total.shape[:-1], self.r, self.b * self.d)
            total = np.sum(np.reshape(total, shape), axis=-2)
        if self.d > 1:
            total = np.reshape(total, (*total.shape[:-1], self.b, self.d))
            total = _sums_along(total) if self.b == 1 else np.sum(total, axis=-1)
        return total / (self.m * self.d)

    def mean_of_products(self, parts: Iterable) -> Array:
        """Return the mean of x · y over all parts `(x, y, out)` of a block.

        The products may be written into `out`, which is None where there is no memory for them.
        """
        if self.m * self.b > 1:
            return self.mean(np.multiply(x, y, out=out) for x, y, out in parts)
        ((x, y, out),) = parts
        if are_of_host(x, y) and self.d > 1:
            return np.vecdot(x, y)[..., None] / self.d
        return self.mean([np.multiply(x, y, out=out)])

    def spread(self, statistic: Array) -> Array:
        """Return a statistic `(..., a, 1, B)` that broadcasts against `(..., a, m, r·B·D)`."""
        if self.m == 1 or self.r * self.d == 1:
            return statistic
        shape = (*statistic.shape[:-1], self.r, self.b, self.d)
        repeated = np.broadcast_to(statistic[..., None, :, None], shape)
        return np.reshape(repeated, (*statistic.shape[:-1], self.r * self.b * self.d))


def _sum_of_rows(x: Array) -> Array:
    """Return the sum `(..., 1, n)` over the rows of x `(..., m, n)`."""
    if are_of_host(x) and x.shape[-2] > FEW_ROWS:
        return sum_rows(x)[..., None, :]
    return np.sum(x, axis=-2, keepdims=True)


def _sums_along(x: Array) -> Array:
    """Return the sums `(...)` of rows of x `(..., n)`."""
    if are_of_host(x):
        return np.vecdot(x, np.ones_like(x, shape=(x.shape[-1],)))
    return np.sum(x, axis=-1)


def _runs(shape: Shape, axes: Axes) -> list[int]:
    """Return the sizes of runs of neighboring axes that are kept, normalized, kept, and so on.

    The first may be an empty run of size 1.
    """
    sizes, normalizing = [1], False
    for i, n in enumerate(shape):
        if n == 1:
            continue
        if (i - len(shape) in axes) != normalizing:
            sizes.append(1)
            normalizing = not normalizing
        sizes[-1] *= n
    return sizes
