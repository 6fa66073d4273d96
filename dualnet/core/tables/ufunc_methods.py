"""The methods of ufuncs: reductions, running results, products of all pairs, sums at an index.

Everything here is written with functions that have rules of their own:

    add.reduce, .accumulate  sum and cumsum; for other ufuncs, the ufunc entry after entry
    add.reduceat             reductions of slices
    add.outer(x, y)          x[..., None] + y
    add.at(x, key, v)        x[key] += v where entries that are named twice are added twice

What NumPy refuses of an array, it refuses of an array of ones, too, which is asked first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.core import aliasing, refusals
from dualnet.core.arrays import as_array, asarray_like, operand, scatter_add_zeros
from dualnet.core.dual import RULES, astype, getitem, primal_of
from dualnet.core.engine import composed, zero_derivative
from dualnet.core.tables.keywords import REDUCTIONS, as_numpy, reduction_by
from dualnet.core.tables.reductions import axes_from_end
from dualnet.core.tables.shaping import positions_of
from dualnet.types import Array


def _asked(method: Callable, x: Array, *args: Any, **how: Any) -> tuple[Array, Any]:
    """Ask NumPy about ones; return x in the dtype in which it computes, and what it makes of them.

    The ones take the memory of a single one.
    """
    of_ones = method(np.broadcast_to(np.ones((), x.dtype), x.shape), *args, **how)
    return (x if of_ones.dtype == x.dtype else astype(x, of_ones.dtype)), of_ones


def _along(axis: int, key: Any) -> tuple:
    """Make the index of a part along a (negative) axis."""
    return (..., key, *(slice(None),) * (-axis - 1))


def _entries(x: Array, axis: int) -> list:
    """List the parts of x along a (negative) axis."""
    return [getitem(x, _along(axis, i)) for i in range(x.shape[axis])]


def _reduce(ufunc: np.ufunc) -> Callable:
    def reduce(x: Array, axis: Any = 0, dtype: Any = None, *, keepdims: bool = False) -> Any:
        x, of_ones = _asked(ufunc.reduce, operand(x), axis, dtype, keepdims=keepdims)
        axes = axes_from_end(axis, x.ndim)
        if not all(x.shape[a] for a in axes):  # the result is the ufunc's identity
            return asarray_like(of_ones, x)
        out = x
        for a in axes:
            out = np.expand_dims(functools.reduce(ufunc, _entries(out, a)), a)
        out = np.copy(out)  # because a single entry is a view
        out = out if keepdims else np.squeeze(out, axes)
        # Along several axes, NumPy has an order of its own.
        return out if len(axes) < 2 else as_numpy(out, ufunc.reduce, x, axis, keepdims=keepdims)

    return reduce


def _accumulate(ufunc: np.ufunc) -> Callable:
    def accumulate(x: Array, axis: Any = 0, dtype: Any = None, out: None = None) -> Any:
        refusals.require_no_out(ufunc.accumulate, out)
        given = operand(x)
        x, _ = _asked(ufunc.accumulate, given, axis, dtype)
        (a,) = axes_from_end(axis, x.ndim)
        if ufunc in _RUNNING:
            return _RUNNING[ufunc](given, axis=a, **({} if dtype is None else {"dtype": dtype}))
        results = _entries(x, a)
        for i in range(1, len(results)):
            results[i] = ufunc(results[i - 1], results[i])
        return np.stack(results, a) if results else x

    return accumulate


def _reduceat(ufunc: np.ufunc) -> Callable:
    def reduceat(x: Array, indices: Any, axis: Any = 0, dtype: Any = None) -> Any:
        starts = [int(i) for i in indices]
        x, _ = _asked(ufunc.reduceat, operand(x), starts, axis, dtype)
        (a,) = axes_from_end(axis, x.ndim)
        # NumPy takes the one entry at the start where the next start does not lie behind it.
        parts = [
            ufunc.reduce(getitem(x, _along(a, slice(start, max(end, start + 1)))), a, dtype)
            for start, end in zip(starts, [*starts[1:], x.shape[a]], strict=False)
        ]
        return np.stack(parts, a) if parts else getitem(x, _along(a, slice(0)))

    return reduceat


def _outer(ufunc: np.ufunc) -> Callable:
    def outer(x: Array, y: Array) -> Any:
        return ufunc(np.reshape(operand(x), np.shape(x) + (1,) * np.ndim(y)), operand(y))

    return outer


_RUNNING: dict[Any, Callable] = {np.add: np.cumsum, np.multiply: np.cumprod}


for _ufunc in [fn for fn in RULES if isinstance(fn, np.ufunc) and (fn.nin, fn.nout) == (2, 1)]:
    if _ufunc.signature is None:
        composed(_ufunc.outer)(_outer(_ufunc))
        if "dd->?" in _ufunc.types:  # booleans do not move
            zero_derivative(_ufunc.reduce, _ufunc.accumulate, _ufunc.reduceat)
            continue
        composed(_ufunc.reduce)(
            reduction_by(_ufunc, 0) if _ufunc in REDUCTIONS else _reduce(_ufunc)
        )
        composed(_ufunc.accumulate)(_accumulate(_ufunc))
        composed(_ufunc.reduceat)(_reduceat(_ufunc))


def _at(ufunc: np.ufunc) -> None:
    @composed(ufunc.at)
    def at(x: Array, key: Any, value: Array) -> None:
        if not hasattr(x, "tangent"):
            raise refusals.in_place(f"{refusals.name_of(ufunc)}.at")
        positions = as_array(positions_of(primal_of(x))[key])
        if not hasattr(value, "tangent"):
            value = asarray_like(np.asarray(value), x)
        value = np.broadcast_to(astype(value, x.dtype), positions.shape)
        added = scatter_add_zeros(np.expand_dims(value, 0), positions, x.shape)[0]
        aliasing.write(x, ufunc(x, added), ufunc)


_at(np.add)
_at(np.subtract)
