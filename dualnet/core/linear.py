"""The linear operations: the whole vocabulary that derivative rules may use on tangents.

A rule says only one thing: the linear map from the tangents of its arguments to the tangent
of its result.  It says it with the functions of this file, and each of them is written down
twice: what it does to a stack of tangents, and its transpose (written with the same
functions).  Forward mode needs the first, reverse mode is nothing but the second.

Shapes: a tangent of a primal of shape `S` is a stack `(k, *S)`: k directions, k leading, the
letter k for nothing else.  Shapes and axes given to these functions never mention k, and axes
count from the end, so one line serves every kind of tangent:

* an array, or a `Dual` of an outer transform (nesting), is acted on directly;
* a `Structured` tangent answers for itself through its method `act`:
  `symbolic.Symbolic` records what was done, for later evaluation or transposition;
  `spaces.RankOne` and `spaces.DirectSum` do something cheaper than a dense stack would.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualnet.backends.replaceable import matrix_product
from dualnet.core.joining import concatenated
from dualnet.core.scatter import zeros_plus, zeros_with

Shape = tuple[int, ...]
Tangent = Any  # an array or Dual of shape `(k, *S)`, or a Structured tangent


class LinearMap:
    """One word of the vocabulary: a function linear in its first argument, and its transpose.

    `forward(t, *params)` maps a stack `(k, *S)` to a stack `(k, *R)` for any k, zero
    included.  `transpose(ct, shape, *params)` maps a cotangent stack `(k, *R)` back to
    `(k, *S)`, where `shape` is `S`.
    """

    def __init__(self, forward: Callable[..., Tangent]):
        self.forward = forward
        self.__name__ = forward.__name__
        self.__doc__ = forward.__doc__

    def __call__(self, t: Tangent, *params: Any) -> Tangent:
        if isinstance(t, Structured):
            return t.act(self, params)
        return self.forward(t, *params)

    def transposed(self, transpose: Callable[..., Tangent]) -> None:
        """Decorator that gives the transpose."""
        self.transpose = transpose

    def __repr__(self) -> str:
        return f"linear.{self.__name__}"


class Structured:
    """A tangent that is not a dense stack.  `shape` is the primal's shape, without k."""

    shape: Shape
    dtype: np.dtype

    __array_ufunc__ = None  # NumPy arrays on the left hand over to the operators below

    def act(self, linear_map: LinearMap, params: tuple) -> Tangent:
        """The image of this tangent under `linear_map(·, *params)`."""
        raise NotImplementedError

    def plus(self, other: Tangent) -> Tangent:
        """The sum of this tangent and another of the same transform."""
        raise NotImplementedError

    def __mul__(self, c: Any) -> Tangent:
        return scale(self, c)

    __rmul__ = __mul__

    def __truediv__(self, c: Any) -> Tangent:
        return divide(self, c)

    def __neg__(self) -> Tangent:
        return scale(self, -1.0)

    def __add__(self, other: Tangent) -> Tangent:
        return add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Tangent) -> Tangent:
        return add(self, -other)

    def __matmul__(self, y: Any) -> Tangent:
        return matmul(self, y)

    def __rmatmul__(self, x: Any) -> Tangent:
        return matmul_from_left(self, x)


def shape_of(t: Tangent) -> Shape:
    """The primal's shape, without k."""
    return t.shape if isinstance(t, Structured) else t.shape[1:]


def align(t: Tangent, ndim: int) -> Tangent:
    """Insert unit axes after k until the primal's rank is `ndim`.

    Without this, a stack `(k, 3)` met by an operand `(2, 3)` would fail, or for k = 2
    silently pair directions with rows.
    """
    shape = shape_of(t)
    return t if len(shape) >= ndim else reshape(t, (1,) * (ndim - len(shape)) + shape)


def _align_with(t: Tangent, operand: Any) -> Tangent:
    return align(t, getattr(operand, "ndim", 0))


# --- sums ------------------------------------------------------------------------------------


def add(t: Tangent, u: Tangent) -> Tangent:
    """t + u, their shapes broadcast against each other behind k."""
    if isinstance(t, Structured):
        return t.plus(u)
    if isinstance(u, Structured):
        return u.plus(t)
    ndim = max(t.ndim, u.ndim) - 1
    return align(t, ndim) + align(u, ndim)


@LinearMap
def sum(t: Tangent, axes: Shape, keepdims: bool = False) -> Tangent:
    """Sum over the (negative) axes."""
    return np.sum(t, axis=axes, keepdims=keepdims)


@sum.transposed
def _(ct: Tangent, shape: Shape, axes: Shape, keepdims: bool = False) -> Tangent:
    kept = tuple(1 if i - len(shape) in axes else n for i, n in enumerate(shape))
    return broadcast_to(reshape(ct, kept), shape)


@LinearMap
def broadcast_to(t: Tangent, shape: Shape) -> Tangent:
    """Repeat along new and unit axes until the primal's shape is `shape`."""
    if t.shape[1:] == shape:
        return t
    return np.broadcast_to(align(t, len(shape)), (t.shape[0], *shape))


@broadcast_to.transposed
def _(ct: Tangent, shape: Shape, _to: Shape) -> Tangent:
    return unbroadcast(ct, shape)


def unbroadcast(t: Tangent, shape: Shape) -> Tangent:
    """Sum over the axes along which `shape` was broadcast: the transpose of `broadcast_to`."""
    have = shape_of(t)
    if have == shape:
        return t
    extra = len(have) - len(shape)
    axes = tuple(
        i - len(have) for i, n in enumerate(have) if i < extra or (shape[i - extra] == 1 and n != 1)
    )
    return reshape(sum(t, axes, True) if axes else t, shape)


@LinearMap
def cumsum(t: Tangent, axis: int) -> Tangent:
    """Running sum along a (negative) axis."""
    return np.cumsum(t, axis=axis)


@cumsum.transposed
def _(ct: Tangent, _shape: Shape, axis: int) -> Tangent:
    backwards = (..., slice(None, None, -1)) + (slice(None),) * (-axis - 1)
    return index(cumsum(index(ct, backwards), axis), backwards)


# --- products with constants -------------------------------------------------------------------


@LinearMap
def scale(t: Tangent, c: Any) -> Tangent:
    """c · t entry by entry, shapes broadcast against each other behind k."""
    return _align_with(t, c) * c


@scale.transposed
def _(ct: Tangent, shape: Shape, c: Any) -> Tangent:
    return unbroadcast(scale(ct, c), shape)


@LinearMap
def divide(t: Tangent, c: Any) -> Tangent:
    """t / c entry by entry, shapes broadcast against each other behind k."""
    return _align_with(t, c) / c


@divide.transposed
def _(ct: Tangent, shape: Shape, c: Any) -> Tangent:
    return unbroadcast(divide(ct, c), shape)


@LinearMap
def select(t: Tangent, mask: Any) -> Tangent:
    """t where the mask holds, else 0; unlike `scale(t, mask)` it gives 0 for 0 · inf too."""
    return np.where(mask, _align_with(t, mask), 0)


@select.transposed
def _(ct: Tangent, shape: Shape, mask: Any) -> Tangent:
    return unbroadcast(select(ct, mask), shape)


@LinearMap
def cast(t: Tangent, dtype: Any) -> Tangent:
    """Convert to another floating dtype."""
    return t.astype(dtype)


@cast.transposed
def _(ct: Tangent, _shape: Shape, _dtype: Any) -> Tangent:
    return ct  # the caller of the transpose converts to the input's dtype, once, at the end


@LinearMap
def matmul(t: Tangent, y: Any) -> Tangent:
    """t @ y for t `(k, ..., m, n)` and a constant y `(..., n, p)`."""
    if y.ndim == 2:  # one product for all directions
        return np.reshape(matrix_product(_rows(t), y), (*t.shape[:-1], y.shape[1]))
    return matrix_product(align(t, y.ndim), y)


@matmul.transposed
def _(ct: Tangent, shape: Shape, y: Any) -> Tangent:
    return unbroadcast(matmul(ct, np.swapaxes(y, -1, -2)), shape)


@LinearMap
def matmul_from_left(t: Tangent, x: Any) -> Tangent:
    """x @ t for a constant x `(..., m, n)` and t `(k, ..., n, p)`."""
    if t.ndim == 3 and x.ndim > 2:  # t is a stack of plain matrices: all rows of x at once
        return np.reshape(matrix_product(_rows(x), t), (t.shape[0], *x.shape[:-1], t.shape[-1]))
    return matrix_product(x, align(t, x.ndim))


@matmul_from_left.transposed
def _(ct: Tangent, shape: Shape, x: Any) -> Tangent:
    if len(shape) == 2 and x.ndim > 2:
        x = _rows(x)
        ct = reshape(ct, (x.shape[0], shape[-1]))
    return unbroadcast(matmul_from_left(ct, np.swapaxes(x, -1, -2)), shape)


def _rows(x: Any) -> Any:
    """x `(..., n)` as a matrix `(rows, n)`."""
    return np.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


@LinearMap
def solve(t: Tangent, a: Any) -> Tangent:
    """a⁻¹ t for t `(k, ..., n, m)` and a constant a `(..., n, n)`."""
    t = align(t, a.ndim)
    stack = np.broadcast_shapes(a.shape[:-2], t.shape[:-2])  # CuPy's solve stretches neither
    return np.linalg.solve(*(np.broadcast_to(x, (*stack, *x.shape[-2:])) for x in (a, t)))


@solve.transposed
def _(ct: Tangent, shape: Shape, a: Any) -> Tangent:
    return unbroadcast(solve(ct, np.swapaxes(a, -1, -2)), shape)


@LinearMap
def contract(t: Tangent, subscripts: tuple[str, ...], result: str, *constants: Any) -> Tangent:
    """einsum of t, which comes first, with constants.

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
def _(ct: Tangent, _s: Shape, subscripts: tuple[str, ...], result: str, *constants: Any) -> Tangent:
    return contract(ct, (result, *subscripts[1:]), subscripts[0], *constants)


# --- shapes and places -------------------------------------------------------------------------


@LinearMap
def reshape(t: Tangent, shape: Shape) -> Tangent:
    """Give the primal's part another shape."""
    return np.reshape(t, (t.shape[0], *shape))


@reshape.transposed
def _(ct: Tangent, shape: Shape, _to: Shape) -> Tangent:
    return reshape(ct, shape)


@LinearMap
def transpose(t: Tangent, axes: Shape) -> Tangent:
    """Permute: axis i of the result is the (negative) axis `axes[i]` of t."""
    return np.transpose(t, (0, *(a + t.ndim for a in axes)))


@transpose.transposed
def _(ct: Tangent, _shape: Shape, axes: Shape) -> Tangent:
    inverse = [0] * len(axes)
    for to, origin in enumerate(axes):
        inverse[origin] = to - len(axes)
    return transpose(ct, tuple(inverse))


def concatenate(ts: Sequence[Tangent | None], shapes: Sequence[Shape], axis: int) -> Tangent:
    """Join along a (negative) axis; None stands for zeros.

    Args:
        ts: tangents, not all None.
        shapes: the primals' shapes.
        axis: negative.
    """
    if any(isinstance(t, Structured) for t in ts):
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
    return concatenated(stacks, axis)


@LinearMap
def index(t: Tangent, key: tuple) -> Tangent:
    """t[key] for a basic index: integers, slices, None and Ellipsis."""
    behind_k = (slice(None), *key)
    return t[behind_k]


@index.transposed
def _(ct: Tangent, shape: Shape, key: tuple) -> Tangent:
    return place(ct, key, shape)


@LinearMap
def place(t: Tangent, key: tuple, shape: Shape) -> Tangent:
    """Zeros of `shape` with t at the basic index `key`: the transpose of `index`."""
    return zeros_with(t, (slice(None), *key), (t.shape[0], *shape))


@place.transposed
def _(ct: Tangent, _shape: Shape, key: tuple, _to: Shape) -> Tangent:
    return index(ct, key)


@LinearMap
def gather(t: Tangent, positions: np.ndarray) -> Tangent:
    """Pick entries by their positions in the flattened primal, repeats allowed.

    Every indexing with arrays and every rearrangement (flip, roll, repeat, sort, ...) is a
    gather; the caller finds the positions by doing the same to `arange(size)`.
    """
    return np.take(np.reshape(t, (t.shape[0], math.prod(t.shape[1:]))), positions, axis=1)


@gather.transposed
def _(ct: Tangent, shape: Shape, positions: np.ndarray) -> Tangent:
    return scatter_add(ct, positions, shape)


@LinearMap
def scatter_add(t: Tangent, positions: np.ndarray, shape: Shape) -> Tangent:
    """Zeros of `shape` to which t is added at flat positions: the transpose of `gather`."""
    return zeros_plus(t, positions, shape)


@scatter_add.transposed
def _(ct: Tangent, _shape: Shape, positions: np.ndarray, _to: Shape) -> Tangent:
    return gather(ct, positions)
