"""Lazy arrays: what a step computes entry by entry is noted, and computed by few kernels.

The layers, rules and optimizers above are written in NumPy's functions, each of which would read
and write whole arrays.  Inside `run`, arrays are lazy: functions that work entry by entry only note
what is to be computed (`expressions`).  When a function needs the entries (a matrix product, a
reduction, a kernel of its own) or the step ends, one generated kernel computes the whole
expression (`fused`).

Every function that is not known here gets CuPy arrays, as if nothing were lazy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cupy

from dualnet import tree
from dualnet.backends import (
    draws,
    fused,
    lazy_functions,  # noqa: F401 (its import registers them)
)
from dualnet.backends.computing import (
    UNDRAWN,
    compute,
    compute_all,
    draw_all,
    lane,
    reductions_before,
)
from dualnet.backends.lazy_array import LazyArray, known, plain, unwrapped, wrapped
from dualnet.tree import Tree
from dualnet.types import Array

__all__ = [
    "LazyArray",
    "compute_all",
    "drawn",
    "force",
    "is_running",
    "known",
    "lane",
    "plain",
    "reduced",
    "run",
    "store",
    "with_plain_arrays",
]

_running: list[bool] = []
"""One entry for each call of `run` that goes on now."""


def is_running() -> bool:
    """Whether a function runs on lazy arrays now."""
    return bool(_running)


def run(function: Callable, *args: Any) -> Any:
    """Call a function with every CuPy array, in trees of arguments, in the form of a lazy array.

    Returns:
        What the function returns, with lazy arrays in it.
    """
    _running.append(True)
    try:
        return function(*[wrapped(x) for x in args])
    except BaseException:
        if len(_running) == 1:  # else what goes on around this call still needs them
            UNDRAWN.clear()
        raise
    finally:
        _running.pop()


def force(values: Tree) -> Tree:
    """Return a tree with a CuPy array in the place of each lazy one."""
    compute([x.node for x in tree.leaves(values) if isinstance(x, LazyArray)])
    return tree.map(plain, values)


def store(values: Sequence[Any], targets: Sequence[Array]) -> None:
    """Write arrays, lazy or not, to contiguous CuPy arrays of the same shapes and dtypes.

    What is still to be computed is written there by the kernel that computes it.
    """
    _require_like(values, targets)
    here = [(x, t) for x, t in zip(values, targets, strict=True) if isinstance(x, LazyArray)]
    compute([x.node for x, _ in here], [t for _, t in here])
    for x, target in zip(values, targets, strict=True):
        array = plain(x)
        if array is not target:
            cupy.copyto(target, array)


def _require_like(values: Sequence[Any], targets: Sequence[Array]) -> None:
    """Raise a TypeError unless values are arrays of the targets' shapes and dtypes."""
    for x, target in zip(values, targets, strict=True):
        if not isinstance(x, (LazyArray, cupy.ndarray)):
            raise TypeError(f"expected a CuPy array, got {type(x).__name__}")
        if x.shape != target.shape or x.dtype != target.dtype:
            raise TypeError(f"expected {target.dtype}{target.shape}, got {x.dtype}{x.shape}")


def drawn(out: Array, draw: draws.Draw) -> LazyArray:
    """Return a lazy array of random numbers, drawn into `out` when entries are first needed.

    Then all arrays that were noted here are drawn by one launch.
    """
    UNDRAWN.append((out, draw))
    return known(out)


def reduced(values: Tree) -> Tree:
    """Return a tree after all reductions that its lazy arrays depend on were computed.

    These take launches of their own at any time, so they had better be beside those of other lanes.
    """
    draw_all()
    for node in reductions_before(
        [x.node for x in tree.leaves(values) if isinstance(x, LazyArray)]
    ):
        fused.reduce(node)
    return values


def with_plain_arrays(kernel: Callable, writes: bool = False) -> Callable:
    """Return the form of a kernel for lazy arrays: it computes its arguments first.

    Args:
        kernel: the kernel.
        writes: whether it writes to an argument.
    """

    def on_lazy(*args: Any, **kwargs: Any) -> Any:
        if writes:
            compute_all()
        result = kernel(*unwrapped(args), **unwrapped(kwargs))
        return result if result is NotImplemented else wrapped(result)

    return on_lazy
