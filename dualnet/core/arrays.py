"""Arrays that functions make: of the same kind as their arguments, and without writing in place.

Two rules of the house are kept here.  An array that a function makes lives where the function's
arguments live, because a host array that meets an array of a device is an error, and a copy from
the host makes the host wait.  And nothing is written in place where a `Dual` may be, because rules
may have recorded its primal: the two functions that fill an array of zeros make the array and
write in one go, so that they can have a derivative rule like any other function.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from dualnet.backends.overridable import overridable
from dualnet.core.dual import innermost_level, primal_of, primitive
from dualnet.types import Array, Shape


def arange_like(n: int, x: Array) -> Array:
    """Make the integers 0 … n-1 as an array of x's kind; x may be a Dual or a NumPy scalar."""
    x = primal_of(x)
    return np.arange(n, like=x) if hasattr(x, "__array_function__") else np.arange(n)


def asarray_like(constant: Array, x: Array) -> Array:
    """Turn a host array into one of x's kind; it is returned as it is where x is of the host."""
    x = primal_of(x)
    return np.asarray(constant, like=x) if hasattr(x, "__array_function__") else constant


def as_array(x: Any) -> Array:
    """Turn a NumPy scalar into the array of no axes that it stands for; others are returned."""
    return np.asarray(x) if isinstance(x, np.generic) else x


@primitive
def pad_zeros(x: Array, key: Any, shape: Shape) -> Array:
    """Make an array of zeros of `shape` that holds `x` at the basic index `key`."""
    result = np.zeros_like(x, shape=shape)
    result[key] = x
    return result


@primitive
@overridable
def scatter_add_zeros(x: Array, positions: np.ndarray, shape: Shape) -> Array:
    """Make zeros `(k, *shape)` and add `x` `(k, ...)` at flat positions; repeats add up."""
    k, size = x.shape[0], math.prod(shape)
    rows = np.reshape(x, (k, positions.size))
    flat = np.ravel(positions)
    result = np.zeros_like(x, shape=(k, size))
    for row, total in zip(rows, result, strict=True):
        if row.dtype.itemsize > 8:
            np.add.at(total, flat, row)
        else:
            total[:] = np.bincount(flat, weights=row, minlength=size)  # sums in double precision
    return np.reshape(result, (k, *shape))


def join_lists(args: Sequence, sequences: Container[int]) -> Sequence:
    """Make arrays of the lists with duals in them, where NumPy would make arrays of lists."""
    for i, x in enumerate(args):
        if isinstance(x, (list, tuple)) and innermost_level(x) is not None:
            parts = join_lists(x, ())
            args = (*args[:i], parts if i in sequences else np.stack(parts), *args[i + 1 :])
    return args


def operand_like(x: Any, like: Array) -> Array:
    """Turn numbers, and lists of them, into an array that lives where `like` does."""
    array = operand(x)
    plain = isinstance(x, (bool, int, float, list, tuple)) and innermost_level((x,)) is None
    return asarray_like(np.asarray(array), like) if plain else array


def operand(x: Any) -> Any:
    """Turn a list of numbers into an array, where a function expects an array."""
    if not isinstance(x, (list, tuple)):
        return x
    if innermost_level(x) is not None:
        return join_lists((x,), ())[0]
    return x if any(hasattr(item, "dtype") for item in x) else np.asarray(x)
