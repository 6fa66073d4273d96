"""The linear maps that some tables of rules need beside those of `core.linear`.

They follow the same contract: a forward form on stacks `(k, *S)`, and a transpose that is written
with linear maps.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence

import numpy as np

from dualnet.backends import overridable
from dualnet.core.arrays import pad_zeros, scatter_add_zeros
from dualnet.core.linear import (
    LinearMap,
    StructuredTangent,
    add,
    align,
    unbroadcast,
)
from dualnet.types import Array, Cotangent, Shape, Stack, Tangent


@LinearMap
def select(t: Stack, mask: Array) -> Stack:
    """Return t where the mask holds and 0 elsewhere, where `scale(t, mask)` has NaN for 0 · inf."""
    return np.where(mask, align(t, getattr(mask, "ndim", 0)), 0)


@select.transposed
def _(ct: Cotangent, shape: Shape, mask: Array) -> Cotangent:
    return unbroadcast(select(ct, mask), shape)


@LinearMap
def index(t: Stack, key: tuple) -> Stack:
    """Return t[key] for a basic index: integers, slices, None and Ellipsis."""
    behind_k = (slice(None), *key)
    return t[behind_k]


@index.transposed
def _(ct: Cotangent, shape: Shape, key: tuple) -> Cotangent:
    return place(ct, key, shape)


@LinearMap
def place(t: Stack, key: tuple, shape: Shape) -> Stack:
    """Make zeros of `shape` with t at the basic index `key`: the transpose of `index`."""
    return pad_zeros(t, (slice(None), *key), (t.shape[0], *shape))


@place.transposed
def _(ct: Cotangent, _shape: Shape, key: tuple, _to: Shape) -> Cotangent:
    return index(ct, key)


@LinearMap
def cumsum(t: Stack, axis: int) -> Stack:
    """Sum up along a (negative) axis, entry after entry."""
    return np.cumsum(t, axis=axis)


@cumsum.transposed
def _(ct: Cotangent, _shape: Shape, axis: int) -> Cotangent:
    backwards = (..., slice(None, None, -1)) + (slice(None),) * (-axis - 1)
    return index(cumsum(index(ct, backwards), axis), backwards)


@LinearMap
def solve(t: Stack, a: Array) -> Stack:
    """Return a⁻¹ t for t `(k, ..., n, m)` and a constant a `(..., n, n)`."""
    t = align(t, a.ndim)
    stack = np.broadcast_shapes(a.shape[:-2], t.shape[:-2])  # CuPy's solve stretches neither
    return np.linalg.solve(*(np.broadcast_to(x, (*stack, *x.shape[-2:])) for x in (a, t)))


@solve.transposed
def _(ct: Cotangent, shape: Shape, a: Array) -> Cotangent:
    return unbroadcast(solve(ct, np.swapaxes(a, -1, -2)), shape)


@LinearMap
def contract(t: Stack, subscripts: tuple[str, ...], result: str, *constants: Array) -> Stack:
    """Evaluate the einsum of t, which comes first, with constants.

    Args:
        t: stack `(k, ...)`.
        subscripts: one string for t (no letter twice, each also in another string) and one
            for each constant; `k` stands for the directions and must not occur in them.
        result: the result's subscripts.
        constants: arrays.
    """
    spec = ",".join(("k" + subscripts[0], *subscripts[1:])) + "->k" + result
    return np.einsum(spec, t, *constants, optimize=len(constants) > 1)


@contract.transposed
def _(
    ct: Cotangent, _s: Shape, subscripts: tuple[str, ...], result: str, *constants: Array
) -> Cotangent:
    return contract(ct, (result, *subscripts[1:]), subscripts[0], *constants)


def concatenate(ts: Sequence[Tangent | None], shapes: Sequence[Shape], axis: int) -> Tangent:
    """Join along a (negative) axis; None stands for zeros.

    Args:
        ts: tangents, not all None.
        shapes: the primals' shapes.
        axis: negative.
    """
    if any(isinstance(t, StructuredTangent) for t in ts):
        length = [shape[axis] for shape in shapes]
        first = shapes[0]
        whole = (*first[: len(first) + axis], builtins.sum(length), *first[len(first) + axis + 1 :])
        total, start = None, 0
        for t, n in zip(ts, length, strict=True):
            if t is not None:
                here = (..., slice(start, start + n), *(slice(None),) * (-axis - 1))
                part = place(t, here, whole)
                total = part if total is None else add(total, part)
            start += n
        return total
    like = next(t for t in ts if t is not None)
    stacks = [
        np.zeros_like(like, shape=(like.shape[0], *shape)) if t is None else t
        for t, shape in zip(ts, shapes, strict=True)
    ]
    return overridable.concatenate(stacks, axis)


@LinearMap
def gather(t: Stack, positions: np.ndarray) -> Stack:
    """Pick entries by their positions in the flattened primal, repeats allowed.

    Every indexing with arrays and every rearrangement (flip, roll, repeat, sort, ...) is a gather.
    The caller finds the positions by doing the same to the positions themselves.
    """
    return np.take(np.reshape(t, (t.shape[0], math.prod(t.shape[1:]))), positions, axis=1)


@gather.transposed
def _(ct: Cotangent, shape: Shape, positions: np.ndarray) -> Cotangent:
    return scatter_add(ct, positions, shape)


@LinearMap
def scatter_add(t: Stack, positions: np.ndarray, shape: Shape) -> Stack:
    """Add t at flat positions to zeros of `shape`: the transpose of `gather`."""
    return scatter_add_zeros(t, positions, shape)


@scatter_add.transposed
def _(ct: Cotangent, _shape: Shape, positions: np.ndarray, _to: Shape) -> Cotangent:
    return gather(ct, positions)
