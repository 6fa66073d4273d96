"""x w + b as one function: the bias is added in place, and tangents while they are in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dualnet.backends.host import are_of_host
from dualnet.backends.overridable import as_rows, matmul
from dualnet.core import linear
from dualnet.core.dual import Dual, Level, primitive
from dualnet.core.engine import register, take_apart, with_tangent
from dualnet.core.spaces import RankOne, direction_count
from dualnet.types import Array, Tangent

_BLOCK_BYTES, _BLOCK_ROWS = 1 << 20, 1 << 10
"""A block of a tangent is written and then added to, so it should stay in the cache; in products of
fewer rows BLAS takes long to arrange the weights."""


@primitive
def affine(x: Array, w: Array, b: Array) -> Array:
    """Return x w + b: `(..., q)` for x `(..., p)`, w `(p, q)` and b `(q,)`."""
    y = add_bias(matmul(as_rows(x), w), b)
    return y if x.ndim == 2 else np.reshape(y, (*x.shape[:-1], w.shape[1]))


@primitive
def add_bias(y: Array, b: Array) -> Array:
    """Return y + b, written to y where y `(..., q)` and b `(q,)` are arrays of the host.

    It is for what a product or a convolution has just made: nobody else may hold y or its tangent.
    """
    if are_of_host(y, b):
        y += b
        return y
    return y + b


def _evaluate_bias(level: Level, args: tuple, kwargs: dict) -> Any:
    primals, tangents = take_apart(args, level)
    out, (ty, tb) = add_bias(*primals), tangents
    if are_of_host(ty, tb):
        ty += np.reshape(tb, (len(tb), *(1,) * (out.ndim - 1), tb.shape[1]))
        return Dual(out, ty, level)
    return with_tangent(add_bias, level, out, tangents, _BIAS_MAPS, (out, *primals), {})


_BIAS_MAPS = (
    lambda t, out, y, b: t,
    lambda t, out, y, b: linear.stretch(t, out.shape),
)
register(add_bias, _evaluate_bias, _BIAS_MAPS, leading=2)


_MAPS = (
    lambda t, out, x, w, b: linear.matmul(t, w),
    lambda t, out, x, w, b: linear.matmul_from_left(t, x),
    lambda t, out, x, w, b: linear.stretch(t, out.shape),
)


def _evaluate(level: Level, args: tuple, kwargs: dict) -> Any:
    primals, tangents = take_apart(args, level)
    out = affine(*primals)
    if _are_stacks(primals, tangents):
        total = _sum_of_tangents(*primals, *tangents)
        return Dual(out, np.reshape(total, (len(total), *out.shape)), level)
    return with_tangent(affine, level, out, tangents, _MAPS, (out, *primals), {})


register(affine, _evaluate, _MAPS, leading=2)


def _are_stacks(primals: Sequence, tangents: Sequence) -> bool:
    """Tell whether `_sum_of_tangents` serves: w has directions, and all are arrays of the host."""
    _, tw, _ = tangents
    if tw is None:
        return False
    factors = (tw.left, tw.right) if isinstance(tw, RankOne) else (tw,)
    parts = (*primals, *factors, tangents[0], tangents[2])
    return are_of_host(*[x for x in parts if x is not None])


def _sum_of_tangents(
    x: Array, w: Array, _b: Array, tx: Array | None, tw: Tangent, tb: Array | None
) -> Array:
    """Return the tangent tx w + x tw + tb of all rows, `(k, rows, q)`, block by block."""
    x = as_rows(x)
    rows, q = len(x), w.shape[1]
    factors = _with_bias(x, tw, tb) if isinstance(tw, RankOne) else None
    k = direction_count(tw)
    out = np.empty_like(w, shape=(k, rows, q))
    tx = None if tx is None else np.reshape(tx, (k, rows, x.shape[1]))
    for directions, some in _blocks(k, rows, q * w.itemsize):
        block = out[directions, some]
        if tx is not None:  # one product, because the rows of a block follow one another
            np.matmul(as_rows(tx[directions, some]), w, out=as_rows(block))
        by_weights = block if tx is None else None
        if factors:
            left, right = factors
            by_weights = np.matmul(left[directions, some], right[directions], out=by_weights)
        else:
            by_weights = np.matmul(x[some], tw[directions], out=by_weights)
            if tb is not None:
                by_weights += tb[directions, None]
        if tx is not None:
            block += by_weights
    return out


def _with_bias(x: Array, tw: RankOne, tb: Array | None) -> tuple[Array, Array]:
    """Return factors `(k, rows, 2)` and `(k, 2, q)` of which x tw + tb is the product.

    Without tb the second term is 0: BLAS has no fast product of one column and one row.
    """
    left = np.ones_like(x, shape=(tw.k, len(x), 2))
    left[..., 0] = matmul(tw.left, np.swapaxes(x, 0, 1))
    return left, np.stack([tw.right, np.zeros_like(tw.right) if tb is None else tb], 1)


def _blocks(k: int, rows: int, row_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of the directions and of the rows; all rows where they are few."""
    most = max(_BLOCK_ROWS, _BLOCK_BYTES // max(1, row_bytes))
    directions = max(1, most // max(1, rows))
    for first in range(0, k, directions):
        for row in range(0, rows, most):
            yield slice(first, first + directions), slice(row, row + most)
