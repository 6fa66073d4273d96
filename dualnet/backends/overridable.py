"""Functions in whose place a backend may put kernels of its own.

Everything above this floor is written in NumPy's calls, which run on any array that answers
NumPy's protocols.  Some functions would be many calls there, each of which reads and writes all
of an array; a backend that has something better says so here, for its own kind of array.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

OVERRIDABLE: set[str] = set()
"""The qualified names of all functions so decorated."""

_KERNELS: dict[tuple[type, str], Callable] = {}


def overridable(function: Callable) -> Callable:
    """Decorator: calls go through `dispatch_kernel`."""
    name = function.__qualname__
    if name in OVERRIDABLE:
        raise ValueError(f"there is a overridable function {name} already")
    OVERRIDABLE.add(name)

    @functools.wraps(function)
    def chosen(*args: Any) -> Any:
        return dispatch_kernel(function, *args) if _KERNELS else function(*args)

    return chosen


def dispatch_kernel(function: Callable, *args: Any) -> Any:
    """Call the kernel that a backend has in the place of a function for these arrays, or itself.

    A kernel takes the same arguments and returns the same, or NotImplemented where it does not
    serve them (a dtype, a layout).  The kind of array is that of the first argument for whose type
    there is a kernel of the function's qualified name.
    """
    for argument in args:
        kernel = _KERNELS.get((type(argument), function.__qualname__))
        if kernel is not None:
            result = kernel(*args)
            return function(*args) if result is NotImplemented else result
    return function(*args)


def put_kernels(array: type, kernels: dict[str, Callable]) -> None:
    """Put kernels in the place of the functions of these names, for arrays of a type."""
    _KERNELS.update({(array, name): kernel for name, kernel in kernels.items()})


@overridable
def bytes_at_a_time(like: Any, in_cache: int) -> int:
    """How much of arrays such as `like` to work on at once: what stays in the host's cache.

    A device has another answer: each piece takes a launch of its own.
    """
    return in_cache


@overridable
def matrix_product(x: Any, y: Any, out: Any = None) -> Any:
    """x @ y, of the library's own large products; `out` is given by position, as `np.matmul` takes
    it, or not at all.

    A device may take the operands as they lie in memory, transposed or repeated, and may round
    float32 factors where it has been asked to.
    """
    return np.matmul(x, y) if out is None else np.matmul(x, y, out=out)


@overridable
def exact_product(x: Any, y: Any) -> Any:
    """x @ y of arrays, whose factors no device rounds: where errors would grow, as in the inner
    products of directions."""
    return np.matmul(x, y)
