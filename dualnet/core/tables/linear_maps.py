"""The linear maps that some tables of rules need beside those of `core.linear`.

They follow the same contract: a forward form on stacks `(k, *S)`, and a transpose that is written
with linear maps.
"""

from __future__ import annotations

import functools
import itertools
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
    """Return t where the mask holds and 0 elsewhere, where `scale(t, mask)` has NaN for 0 · inf.

    Examples:
        >>> dn.linear.select(np.array([[1.0, np.inf]]), np.array([True, False])).tolist()
        [[1.0, 0.0]]
    """
    return np.where(mask, align(t, getattr(mask, "ndim", 0)), 0)


@LinearMap
def index(t: Stack, key: tuple) -> Stack:
    """Return t[key] for a basic index: integers, slices, None and Ellipsis.

    Examples:
        >>> t = np.array([[1.0, 2.0, 3.0]])  # k = 1
        >>> dn.linear.index(t, (slice(None, 2),)).tolist(), dn.linear.index(t, (-1,)).tolist()
        ([[1.0, 2.0]], [3.0])
    """
    behind_k = (slice(None), *key)
    return t[behind_k]


@LinearMap
def place(t: Stack, key: tuple, shape: Shape) -> Stack:
    """Make zeros of `shape` with t at the basic index `key`: the transpose of `index`.

    Examples:
        >>> dn.linear.place(np.array([[5.0]]), (slice(1, 2),), (3,)).tolist()
        [[0.0, 5.0, 0.0]]
    """
    return pad_zeros(t, (slice(None), *key), (t.shape[0], *shape))


@LinearMap
def cumsum(t: Stack, axis: int) -> Stack:
    """Sum up along a (negative) axis, entry after entry.

    Examples:
        >>> t = np.array([[1.0, 2.0, 3.0]])  # k = 1
        >>> dn.linear.cumsum(t, -1).tolist()
        [[1.0, 3.0, 6.0]]
        >>> dn.linear.cumsum.transpose(t, (3,), -1).tolist()  # from the end
        [[6.0, 5.0, 3.0]]
    """
    return np.cumsum(t, axis=axis)


@cumsum.transposed
def _(ct: Cotangent, _shape: Shape, axis: int) -> Cotangent:
    backwards = (..., slice(None, None, -1)) + (slice(None),) * (-axis - 1)
    return index(cumsum(index(ct, backwards), axis), backwards)


@LinearMap
def solve(t: Stack, a: Array) -> Stack:
    """Return a⁻¹ t for t `(k, ..., n, m)` and a constant a `(..., n, n)`.

    Raises:
        LinAlgError: a is singular.

    Examples:
        >>> t = np.array([[[2.0], [4.0]]])  # k = 1, a matrix (2, 1)
        >>> dn.linear.solve(t, np.diag([2.0, 8.0])).tolist()
        [[[1.0], [0.5]]]
    """
    t = align(t, a.ndim)
    stack = np.broadcast_shapes(a.shape[:-2], t.shape[:-2])  # CuPy's solve stretches neither
    return np.linalg.solve(*(np.broadcast_to(x, (*stack, *x.shape[-2:])) for x in (a, t)))


@LinearMap
def contract(t: Stack, subscripts: tuple[str, ...], result: str, *constants: Array) -> Stack:
    """Evaluate the einsum of t, which comes first, with constants.

    Args:
        t: stack `(k, ...)`.
        subscripts: one string for t (no letter twice, each also in another string) and one
            for each constant; `k` stands for the directions and must not occur in them.
        result: the result's subscripts.
        constants: arrays.

    Examples:
        >>> t = np.array([[[1.0, 2.0], [3.0, 4.0]]])  # k = 1
        >>> dn.linear.contract(t, ("ij", "j"), "i", np.array([1.0, 10.0])).tolist()
        [[21.0, 43.0]]
    """
    spec = ",".join(("k" + subscripts[0], *subscripts[1:])) + "->k" + result
    return np.einsum(spec, t, *constants, optimize=len(constants) > 1)


def concatenate(ts: Sequence[Tangent | None], shapes: Sequence[Shape], axis: int) -> Tangent:
    """Join along a (negative) axis; None stands for zeros.

    Args:
        ts: tangents, not all None.
        shapes: the primals' shapes.
        axis: negative.

    Examples:
        >>> dn.linear.concatenate([np.array([[1.0, 2.0]]), None], [(2,), (3,)], -1).tolist()
        [[1.0, 2.0, 0.0, 0.0, 0.0]]
    """
    if any(isinstance(t, StructuredTangent) for t in ts):
        ends = list(itertools.accumulate(shape[axis] for shape in shapes))
        whole = list(shapes[0])
        whole[axis] = ends[-1]
        parts = [
            place(t, (..., slice(end - shape[axis], end), *(slice(None),) * (-axis - 1)), (*whole,))
            for t, shape, end in zip(ts, shapes, ends, strict=True)
            if t is not None
        ]
        return functools.reduce(add, parts)
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

    Examples:
        >>> t = np.array([[[1.0, 2.0], [3.0, 4.0]]])  # k = 1
        >>> dn.linear.gather(t, np.array([3, 0, 0])).tolist()
        [[4.0, 1.0, 1.0]]
    """
    return np.take(np.reshape(t, (t.shape[0], math.prod(t.shape[1:]))), positions, axis=1)


@LinearMap
def scatter_add(t: Stack, positions: np.ndarray, shape: Shape) -> Stack:
    """Add t at flat positions to zeros of `shape`: the transpose of `gather`.

    Examples:
        >>> t = np.array([[1.0, 10.0, 100.0]])
        >>> dn.linear.scatter_add(t, np.array([3, 0, 0]), (2, 2)).tolist()
        [[[110.0, 0.0], [0.0, 1.0]]]
    """
    return scatter_add_zeros(t, positions, shape)


# --- the transposes that are a line each ---------------------------------------------------------

select.transposed(lambda ct, shape, mask: unbroadcast(select(ct, mask), shape))
index.transposed(lambda ct, shape, key: place(ct, key, shape))
place.transposed(lambda ct, _shape, key, _to: index(ct, key))
solve.transposed(lambda ct, shape, a: unbroadcast(solve(ct, a.swapaxes(-1, -2)), shape))
gather.transposed(lambda ct, shape, positions: scatter_add(ct, positions, shape))
scatter_add.transposed(lambda ct, _shape, positions, _to: gather(ct, positions))
contract.transposed(
    lambda ct, _shape, subscripts, result, *constants: contract(
        ct, (result, *subscripts[1:]), subscripts[0], *constants
    )
)
