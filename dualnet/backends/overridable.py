"""Functions that a backend may replace by kernels of its own.

All code above this layer is written in NumPy's calls, which run on any array that follows NumPy's
protocols.  Some functions take many such calls, each of which reads and writes a whole array.  For
these, a backend can put one kernel in the place of the function, for its own kind of array.

This file is all that the code above needs to know of devices: the decorator `overridable`, a few of
NumPy's functions under their own names (`matmul`, `concatenate`, `stack`), and some that NumPy does
not have.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualnet.backends.host import are_of_host
from dualnet.types import Array

OVERRIDABLE: set[str] = set()
"""The names of all overridable functions."""

_KERNELS: dict[tuple[type, str], Callable] = {}
"""Type of array and name of a function → the kernel that is called in its place."""


def overridable(function: Callable) -> Callable:
    """Let backends replace the function: its calls go through `dispatch_kernel` (a decorator).

    It takes one of NumPy's functions too, and then returns the function for arrays of any backend.

    Raises:
        ValueError: another overridable function has the same name.
    """
    name = function.__name__
    if name in OVERRIDABLE:
        raise ValueError(f"there is an overridable function {name} already; choose another name")
    OVERRIDABLE.add(name)

    @functools.wraps(function)
    def dispatched(*args: Any, **kwargs: Any) -> Any:
        if _KERNELS:
            return dispatch_kernel(function, *args, **kwargs)
        return function(*args, **kwargs)

    return dispatched


def dispatch_kernel(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call the kernel that a backend has for these arrays, or the function itself if there is none.

    The kernel is found by the function's name and by the type of an array: the first one
    for whose type there is a kernel decides, among the arguments and in lists of arguments.  A
    kernel takes the arguments of the function and returns the same result.  Where it does not serve
    the arguments, because of a dtype or a layout, it returns NotImplemented and the function is
    called.
    """
    for argument in args if _KERNELS else ():
        for x in argument if isinstance(argument, (list, tuple)) else (argument,):
            kernel = _KERNELS.get((type(x), function.__name__))
            if kernel is not None:
                result = kernel(*args, **kwargs)
                return function(*args, **kwargs) if result is NotImplemented else result
    return function(*args, **kwargs)


def put_kernels(array: type, kernels: dict[str, Callable]) -> None:
    """Register kernels for arrays of a type.

    Args:
        array: the type.
        kernels: name of a function → the kernel that is called in its place.
    """
    _KERNELS.update({(array, name): kernel for name, kernel in kernels.items()})


matmul = overridable(np.matmul)
"""`np.matmul`, for the large products of layers and rules.

A device may read the operands as they lie in memory, transposed or repeated, and may round float32
factors where the user allows it."""

_FEW_ROWS, _MANY_ENTRIES, _LONG_ROWS = 128, 1 << 17, 128


def matmul_of_rows(x: Array, y: Array) -> Array:
    """Return x @ y for two matrices, as `matmul`, and quicker on the host where x has few rows.

    In reverse mode y is the transpose of a matrix of weights, read as it lies in memory.  For up to
    128 rows OpenBLAS then takes 1.1 to 2.7 times as long as for (yᵀ xᵀ)ᵀ, which is copied here.
    """
    if (
        are_of_host(x, y)
        and len(x) <= _FEW_ROWS
        and y.size >= _MANY_ENTRIES
        and len(y) >= _LONG_ROWS
        and y.flags.f_contiguous
    ):
        return np.ascontiguousarray(np.matmul(y.T, x.T).T)
    return matmul(x, y)


def as_rows(x: Array) -> Array:
    """Return x `(..., n)` as a matrix, so that a product with it is one and not a stack of many."""
    return x if x.ndim == 2 else np.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


concatenate = overridable(np.concatenate)
"""`np.concatenate`, for arrays that may be many.

CuPy's own function sends a list of their addresses to the device, which a recorded step cannot
do."""

stack = overridable(np.stack)
"""`np.stack`, for arrays that may be many; see `concatenate`."""


@overridable
def exact_matmul(x: Array, y: Array) -> Array:
    """Return x @ y with factors that no device rounds.

    It is for products whose errors would grow, such as the inner products of directions.
    """
    return np.matmul(x, y)


@overridable
def multiply_onto(x: Array, y: Array, out: Array) -> Array:
    """Add x @ y to `out` in place, and return `out`.

    A device may add where it writes the product, and may round float32 factors as `matmul` does.
    """
    out += np.matmul(x, y)
    return out


@overridable
def bytes_at_a_time(like: Array, in_cache: int) -> int:
    """Return how many bytes of arrays such as `like` to work on at once: `in_cache` on the host.

    A device gives a larger number, because each piece of work takes a launch of its own.
    """
    return in_cache


@overridable
def to_host(arrays: Sequence[Any]) -> list[np.ndarray]:
    """Return numbers and arrays as NumPy arrays; those of a device are moved, all at once."""
    return [np.asarray(x) for x in arrays]


@overridable
def finish(arrays: Sequence[Any]) -> None:
    """Return when arrays are computed, for which a device may need a while.  Timers need this."""


@overridable
def back_from_host(arrays: Sequence[np.ndarray], like: Sequence[Any]) -> Sequence[Array]:
    """Return NumPy arrays, each moved to a device if the one in its place in `like` is there."""
    return arrays
