"""Tangents that are neither dense stacks nor recorded: outer products, and sums of spaces.

`dualnet.learning.directions` adds sums of outer products, and directions for each example.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dualnet.backends.overridable import as_rows, matmul
from dualnet.core import linear, refusals
from dualnet.core.linear import LinearMap, StructuredTangent, add
from dualnet.types import Array, Stack, Tangent


class RankOne(StructuredTangent):
    """k directions of a matrix `(p, q)`, each an outer product `left[i] ⊗ right[i]`.

    `x @ w` has the tangent `(x · left[i]) right[i]`, which takes p + q multiplications for each row
    of x where a dense direction takes p·q.  An array of more axes is a stack of matrices
    `(*b, p, q)` with factors of their own: a kernel `(kh, kw, p, q)` has an outer product at each
    pixel.  A map without a shortcut acts on the dense stack.

    Args:
        left: array `(k, *b, p)`.
        right: array `(k, *b, q)`, of the same dtype.

    Raises:
        TangentError: the factors' shapes or dtypes do not fit.

    Examples:
        >>> t = dn.RankOne(left=np.array([[1.0, 2.0]]), right=np.array([[10.0, 1.0, 0.0]]))
        >>> t, t.dense().tolist()
        (RankOne(k=1, float64(2, 3)), [[[10.0, 1.0, 0.0], [20.0, 2.0, 0.0]]])
        >>> x, w = np.array([[1.0, 1.0]]), np.zeros((2, 3))
        >>> dn.jvp(lambda w: x @ w, (w,), (t,))[1].tolist()  # (x · left) right
        [[[30.0, 3.0, 0.0]]]
    """

    def __init__(self, left: Array, right: Array):
        refusals.require_factors(left, right)
        self.left = left
        self.right = right
        self.k = left.shape[0]
        self.shape = (*left.shape[1:], right.shape[-1])
        self.dtype = left.dtype

    def dense(self) -> Stack:
        """Return the stack `(k, *b, p, q)`."""
        return self.left[..., :, None] * self.right[..., None, :]

    def apply_map(self, linear_map: LinearMap, params: tuple) -> Tangent:
        short = _SHORTCUTS.get(linear_map)
        result = short(self, *params) if short else None
        return linear_map(self.dense(), *params) if result is None else result


_SHORTCUTS: dict[LinearMap, Callable[..., Tangent | None]] = {}


def shortcut(linear_map: LinearMap) -> Callable:
    """Say how `linear_map` acts on a RankOne at less cost than on its dense stack (a decorator).

    The function takes the RankOne and the map's params, and returns None where it has no cheaper
    way.
    """

    def decorate(function: Callable[..., Tangent | None]) -> Callable:
        _SHORTCUTS[linear_map] = function
        return function

    return decorate


@shortcut(linear.matmul_from_left)
def _(t: RankOne, x: Array) -> Tangent | None:
    """Use x @ (left ⊗ right) = (x left) ⊗ right, for all k at once."""
    if len(t.shape) == 2:
        k, q = t.right.shape
        inner = matmul(t.left, np.swapaxes(as_rows(x), 0, 1))  # (k, rows), as it lies in memory
        return np.reshape(inner[:, :, None] * t.right[:, None, :], (k, *x.shape[:-1], q))
    if x.shape[:-2] != t.shape[:-2]:
        return None
    inner = np.moveaxis(matmul(x, np.moveaxis(t.left, 0, -1)), -1, 0)  # (k, *b, rows)
    return inner[..., None] * t.right[..., None, :]


@shortcut(linear.transpose)
def _(t: RankOne, axes: tuple) -> RankOne | None:
    swapped = (*range(-len(axes), -2), -1, -2)
    return RankOne(t.right, t.left) if axes == swapped else None


@shortcut(linear.reshape)
def _(t: RankOne, shape: tuple) -> RankOne | None:
    """Keep the factors where only the axes of the stack change."""
    if shape[-2:] != t.shape[-2:]:
        return None
    k, (*b, p, q) = len(t.left), shape
    return RankOne(np.reshape(t.left, (k, *b, p)), np.reshape(t.right, (k, *b, q)))


@shortcut(linear.scale)
def _(t: RankOne, c: Array) -> RankOne | None:
    if np.ndim(c):
        return None
    left = t.left * c
    return RankOne(left, t.right) if left.dtype == t.right.dtype else None  # c widens


class DirectSum(StructuredTangent):
    """One tangent from each of several spaces, carried side by side through one pass.

    Every map acts on every part.  `cut_pass.CutPass` uses it: part 0 is the dense effect of the
    directions that were put in, part 1 the symbolic dependence on the parameters.

    Args:
        parts: tangents of one shape, or None where a space has nothing; not all are None.
    """

    def __init__(self, *parts: Tangent):
        self.parts = parts
        present = [p for p in parts if p is not None][0]  # noqa: RUF015, quicker than next()
        self.shape = linear.shape_of(present)
        self.dtype = present.dtype

    def apply_map(self, linear_map: LinearMap, params: tuple) -> DirectSum:
        return DirectSum(*[None if p is None else linear_map(p, *params) for p in self.parts])

    def add(self, other: DirectSum) -> DirectSum:
        pairs = zip(self.parts, other.parts, strict=True)
        return DirectSum(*[a if b is None else b if a is None else add(a, b) for a, b in pairs])


def dense(t: Tangent) -> Stack:
    """Return the stack `(k, *S)` of a tangent that holds k directions."""
    return t.dense() if isinstance(t, StructuredTangent) else t


def direction_count(t: Tangent) -> int:
    """Return k of a tangent that holds k directions."""
    return t.k if isinstance(t, StructuredTangent) else t.shape[0]
