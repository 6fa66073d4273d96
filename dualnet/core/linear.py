"""The linear operations: the vocabulary that derivative rules use on tangents.

Each is written down twice: what it does to a stack of tangents, and its transpose, written with
the same functions.  Forward mode needs the first, and reverse mode is nothing but the second.

Shapes: a tangent of a primal of shape `S` is a stack `(k, *S)` of k directions.  The letter k means
nothing else.  Shapes and axes given to these functions never mention k, and axes count from the
end, so that one line serves every kind of tangent.  An array, or a `Dual` of an outer transform
(nesting), is acted on directly.  A `StructuredTangent` answers for itself: `symbolic.Symbolic`
records what was done, and `spaces.RankOne` does something cheaper than a dense stack would.

These are the maps that the core's six files need.  `core.tables.linear_maps` has the rest, and
users find all of them in `dn.linear`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.backends import overridable
from dualnet.backends.sums import sum_over
from dualnet.core import refusals
from dualnet.types import Array, Axes, Cotangent, Shape, Stack, Tangent


class LinearMap:
    """A function that is linear in its first argument, and its transpose.

    `forward(t, *params)` maps a stack `(k, *S)` to `(k, *R)` for any k, zero included, and
    `transpose(ct, shape, *params)` maps a cotangent stack `(k, *R)` back, where `shape` is `S`.

    Examples:
        >>> @dn.linear.LinearMap
        ... def reversed_rows(t):
        ...     return t[:, ::-1]
        >>> reversed_rows.transposed(lambda ct, shape: reversed_rows(ct))
        >>> reversed_rows(np.array([[1.0, 2.0, 3.0]])).tolist()  # k = 1
        [[3.0, 2.0, 1.0]]
        >>> reverse = dn.custom_jvp(lambda x: x[::-1])
        >>> reverse.defjvps(lambda t, out, x: reversed_rows(t))
        >>> dn.grad(lambda x: reverse(x) @ np.array([1.0, 2.0, 4.0]))(np.zeros(3)).tolist()
        [4.0, 2.0, 1.0]
    """

    def __init__(self, forward: Callable[..., Stack]):
        self.forward = forward
        self.__name__ = forward.__name__
        self.__doc__ = forward.__doc__

    def __call__(self, t: Tangent, *params: Any) -> Tangent:
        if isinstance(t, StructuredTangent):
            return t.apply_map(self, params)
        return self.forward(t, *params)

    def transposed(self, transpose: Callable[..., Tangent]) -> None:
        """Give the map its transpose (a decorator)."""
        self.transpose = transpose

    def __repr__(self) -> str:
        return f"linear.{self.__name__}"


def shape_of(t: Tangent) -> Shape:
    """Return the primal's shape, without k.

    Examples:
        >>> dn.linear.shape_of(np.ones((5, 2, 3)))  # k = 5
        (2, 3)
    """
    return t.shape if isinstance(t, StructuredTangent) else t.shape[1:]


def align(t: Tangent, ndim: int) -> Tangent:
    """Insert unit axes behind k until the primal's rank is `ndim`.

    Without this, a stack `(k, 3)` and an operand `(2, 3)` would pair directions with rows.

    Examples:
        >>> dn.linear.align(np.ones((5, 3)), 2).shape
        (5, 1, 3)
    """
    shape = t.shape if isinstance(t, StructuredTangent) else t.shape[1:]
    return t if len(shape) >= ndim else reshape(t, (1,) * (ndim - len(shape)) + shape)


def add(t: Tangent, u: Tangent) -> Tangent:
    """Return t + u, two tangents of one shape.

    Examples:
        >>> t = dn.RankOne(np.array([[1.0, 2.0]]), np.array([[1.0, 1.0]]))
        >>> dn.linear.add(t, np.full((1, 2, 2), 10.0)).tolist()
        [[[11.0, 11.0], [12.0, 12.0]]]
    """
    if isinstance(t, StructuredTangent):
        return t.add(u)
    return u.add(t) if isinstance(u, StructuredTangent) else t + u


# --- broadcasting and sums -----------------------------------------------------------------------


@LinearMap
def broadcast_to(t: Stack, shape: Shape) -> Stack:
    """Repeat along new and unit axes until the primal's shape is `shape`.

    Examples:
        >>> dn.linear.broadcast_to(np.array([[1.0, 2.0]]), (3, 2)).tolist()
        [[[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]]
    """
    return np.broadcast_to(align(t, len(shape)), (t.shape[0], *shape))


def stretch(t: Tangent, shape: Shape) -> Tangent:
    """Broadcast a tangent to `shape`, where it does not have that shape already.

    Examples:
        >>> t = np.array([[1.0, 2.0]])
        >>> dn.linear.stretch(t, (2,)) is t, dn.linear.stretch(t, (3, 2)).shape
        (True, (1, 3, 2))
    """
    return t if shape_of(t) == shape else broadcast_to(t, shape)


def unbroadcast(t: Tangent, shape: Shape) -> Tangent:
    """Sum over the axes along which `shape` was broadcast: the transpose of `broadcast_to`.

    Examples:
        >>> dn.linear.unbroadcast(np.array([[[1.0, 2.0], [10.0, 20.0]]]), (2,)).tolist()
        [[11.0, 22.0]]
    """
    have = shape_of(t)
    if have == shape:
        return t
    padded = (1,) * (len(have) - len(shape)) + shape
    axes = tuple([i - len(have) for i, n in enumerate(have) if n != padded[i]])
    return reshape(sum(t, axes, True) if axes else t, shape)


@LinearMap
def sum(t: Stack, axes: Axes, keepdims: bool = False) -> Stack:
    """Sum over the axes, which are negative; keepdims leaves axes of length 1.

    Examples:
        >>> t = np.array([[[1.0, 2.0], [3.0, 4.0]]])  # k = 1
        >>> dn.linear.sum(t, (-1,)).tolist(), dn.linear.sum(t, (-2, -1)).tolist()
        ([[3.0, 7.0]], [10.0])
        >>> dn.linear.sum.transpose(np.array([[3.0, 7.0]]), (2, 2), (-1,)).tolist()
        [[[3.0, 3.0], [7.0, 7.0]]]
    """
    return sum_over(t, axes, keepdims)


@sum.transposed
def _(ct: Cotangent, shape: Shape, axes: Axes, keepdims: bool = False) -> Cotangent:
    if not keepdims:
        kept = [1 if i - len(shape) in axes else n for i, n in enumerate(shape)]
        ct = reshape(ct, tuple(kept))
    return broadcast_to(ct, shape)


# --- products with constants ---------------------------------------------------------------------


@LinearMap
def scale(t: Stack, c: Array) -> Stack:
    """Return c · t entry by entry; shapes broadcast against each other behind k.

    Examples:
        >>> t = np.array([[1.0, 2.0], [3.0, 4.0]])  # k = 2 directions of shape (2,)
        >>> dn.linear.scale(t, np.array([10.0, 100.0])).tolist()
        [[10.0, 200.0], [30.0, 400.0]]
    """
    return align(t, getattr(c, "ndim", 0)) * c


@LinearMap
def divide(t: Stack, c: Array) -> Stack:
    """Return t / c entry by entry; shapes broadcast against each other behind k.

    Examples:
        >>> dn.linear.divide(np.array([[1.0, 2.0]]), np.array([[2.0], [4.0]])).tolist()
        [[[0.5, 1.0], [0.25, 0.5]]]
    """
    return align(t, getattr(c, "ndim", 0)) / c


@LinearMap
def cast(t: Stack, dtype: Any) -> Stack:
    """Convert to another floating dtype.

    Examples:
        >>> dn.linear.cast(np.ones((1, 2)), np.float32).dtype.name
        'float32'
    """
    return t.astype(dtype)


@LinearMap
def matmul(t: Stack, y: Array) -> Stack:
    """Return t @ y for t `(k, ..., m, n)` and a constant y `(..., n, p)`.

    Examples:
        >>> t = np.array([[[1.0, 10.0]]])  # k = 1, a matrix (1, 2)
        >>> dn.linear.matmul(t, np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [[[31.0, 42.0]]]
    """
    if y.ndim == 2:  # one product for all directions
        rows = overridable.matmul_of_rows(overridable.as_rows(t), y)
        return np.reshape(rows, (*t.shape[:-1], y.shape[1]))
    return overridable.matmul(align(t, y.ndim), y)


@LinearMap
def matmul_from_left(t: Stack, x: Array) -> Stack:
    """Return x @ t for a constant x `(..., m, n)` and t `(k, ..., n, p)`.

    Examples:
        >>> t = np.array([[[1.0], [10.0]]])  # k = 1, a matrix (2, 1)
        >>> dn.linear.matmul_from_left(t, np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [[[21.0], [43.0]]]
    """
    if t.ndim == 3 and x.ndim > 2:  # t is a stack of plain matrices: all rows of x at once
        rows = overridable.matmul(overridable.as_rows(x), t)
        return np.reshape(rows, (t.shape[0], *x.shape[:-1], t.shape[-1]))
    return overridable.matmul(x, align(t, x.ndim))


@matmul_from_left.transposed
def _(ct: Cotangent, shape: Shape, x: Array) -> Cotangent:
    if len(shape) == 2 and x.ndim > 2:
        x = overridable.as_rows(x)
        ct = reshape(ct, (x.shape[0], shape[-1]))
    return unbroadcast(matmul_from_left(ct, x.swapaxes(-1, -2)), shape)


# --- shapes ------------------------------------------------------------------------------------


@LinearMap
def reshape(t: Stack, shape: Shape) -> Stack:
    """Give the primal's part another shape: `(k, *S)` becomes `(k, *shape)`.

    Examples:
        >>> dn.linear.reshape(np.ones((5, 6)), (2, 3)).shape
        (5, 2, 3)
    """
    return t.reshape((t.shape[0], *shape))


@LinearMap
def transpose(t: Stack, axes: Shape) -> Stack:
    """Permute the axes: axis i of the result is the (negative) axis `axes[i]` of t.

    Examples:
        >>> dn.linear.transpose(np.ones((5, 2, 3)), (-1, -2)).shape
        (5, 3, 2)
    """
    return np.transpose(t, (0, *(a + t.ndim for a in axes)))


@transpose.transposed
def _(ct: Cotangent, _shape: Shape, axes: Shape) -> Cotangent:
    inverse = [0] * len(axes)
    for to, origin in enumerate(axes):
        inverse[origin] = to - len(axes)
    return transpose(ct, tuple(inverse))


# --- the transposes that are a line each --------------------------------------------------------

broadcast_to.transposed(lambda ct, shape, _to: unbroadcast(ct, shape))
scale.transposed(lambda ct, shape, c: unbroadcast(scale(ct, c), shape))
divide.transposed(lambda ct, shape, c: unbroadcast(divide(ct, c), shape))
cast.transposed(lambda ct, _shape, _dtype: ct)  # the transform converts its answer, at the end
matmul.transposed(lambda ct, shape, y: unbroadcast(matmul(ct, y.swapaxes(-1, -2)), shape))
reshape.transposed(lambda ct, shape, _to: reshape(ct, shape))

# --- tangents that are no dense stack -----------------------------------------------------------


class StructuredTangent:
    """A tangent that is no dense stack.

    Attributes:
        shape, dtype: those of the primal, so the shape is without k.
        k: how many directions it holds; None where it only records or combines.

    Examples:
        >>> t = dn.RankOne(np.ones((5, 2)), np.ones((5, 3)))
        >>> isinstance(t, dn.linear.StructuredTangent), t.k, t.shape
        (True, 5, (2, 3))
        >>> type(2.0 * t).__name__, type(dn.linear.sum(t, (-1,))).__name__  # no shortcut for sums
        ('RankOne', 'ndarray')
    """

    shape: Shape
    dtype: np.dtype
    k: Any = None

    __array_ufunc__ = None  # NumPy arrays on the left hand over to the operators below

    def apply_map(self, linear_map: LinearMap, params: tuple) -> Tangent:
        """Return the image of this tangent under `linear_map(·, *params)`."""
        raise NotImplementedError

    def add(self, other: Tangent) -> Tangent:
        """Return the sum of this tangent and another of the same shape and transform."""
        return add(self.dense(), other)

    def dense(self) -> Stack:
        """Return the stack `(k, *S)` that this tangent stands for."""
        raise refusals.no_entries(type(self).__name__)

    def __array_function__(self, fn: Callable, _types: Any, _args: tuple, _kwargs: dict) -> Any:
        raise refusals.tangent_in_function(fn)

    def __radd__(self, other: Any) -> Tangent:
        return self if isinstance(other, int) and not other else add(self, other)  # for sum(...)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(k={self.k}, {self.dtype}{self.shape})"

    __mul__ = __rmul__ = lambda self, c: scale(self, c)
    __truediv__ = lambda self, c: divide(self, c)  # noqa: E731
    __neg__ = lambda self: scale(self, -1.0)  # noqa: E731
    __add__ = lambda self, other: add(self, other)  # noqa: E731
    __sub__ = lambda self, other: add(self, -other)  # noqa: E731
    __matmul__ = lambda self, y: matmul(self, y)  # noqa: E731
    __rmatmul__ = lambda self, x: matmul_from_left(self, x)  # noqa: E731
