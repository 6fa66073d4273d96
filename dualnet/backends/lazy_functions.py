"""NumPy's functions that lazy arrays answer themselves: constants, reductions, and changes of axes.

Each returns NotImplemented for what is left to CuPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from dualnet.backends import expressions, reductions
from dualnet.backends.expressions import WHERE, Node
from dualnet.backends.lazy_array import (
    FUNCTIONS,
    PYTHON_NUMBERS,
    LazyArray,
    fits,
    has_c_type,
    kind_of,
    known,
    noted_function,
    rearranged,
)


def _constant(text: str) -> Callable:
    """Return the lazy form of `np.zeros_like` and its like.

    Args:
        text: the C text of every entry.
    """

    def like(a: Any, dtype: Any = None, *others: Any, shape: Any = None, **how: Any) -> Any:
        dtype = a.dtype if dtype is None else np.dtype(dtype)
        if others or how or expressions.c_type(dtype) is None:
            return NotImplemented
        shape = a.shape if shape is None else shape
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        return noted_function(text, (), (), shape, dtype)

    return like


def _where(condition: Any, *choices: Any) -> Any:
    """Choose entries, where `np.where` gets a condition of bool and two choices."""
    inputs = (condition, *choices)
    arrays = all(isinstance(x, (LazyArray, cupy.ndarray, *PYTHON_NUMBERS)) for x in inputs)
    if len(choices) != 2 or not arrays or not all(map(has_c_type, inputs)):
        return NotImplemented
    of_choices = [x if isinstance(x, PYTHON_NUMBERS) else x.dtype for x in choices]
    dtype = np.result_type(*of_choices)
    shape = expressions.broadcast([getattr(x, "shape", ()) for x in inputs])
    fit = all(fits(x, dtype) for x in choices) and expressions.c_type(dtype) is not None
    if not fit or kind_of(condition) != np.dtype(bool):
        return NotImplemented
    return noted_function(WHERE, inputs, (np.dtype(bool), dtype, dtype), shape, dtype)


# --- reductions ----------------------------------------------------------------------------------


def _sum(function: Callable) -> Callable:
    """Return the lazy form of `np.sum` or `np.mean`."""

    def lazy(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: Any = False,
        *others: Any,
        **how: Any,
    ) -> Any:
        if others or dtype is not None or out is not None:
            return NotImplemented
        return _reduced(function, "sum", a, axis, keepdims, how)

    return lazy


def _extreme(function: Callable, kind: str) -> Callable:
    """Return the lazy form of `np.max` and its like."""

    def lazy(
        a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *others: Any, **how: Any
    ) -> Any:
        if others or out is not None:
            return NotImplemented
        return _reduced(function, kind, a, axis, keepdims, how)

    return lazy


def _reduced(
    function: Callable, kind: str, x: Any, axis: Any, keepdims: Any, how: dict[str, Any]
) -> Any:
    """Reduce as one of NumPy's functions does.

    The entries that are reduced are computed on the way where the axes are neighbors.

    Args:
        function: NumPy's.
        kind: as of `reductions.reduction_plan`.
        x, axis, keepdims: its arguments.
        how: the other ones by keyword.
    """
    if not isinstance(x, LazyArray):
        return NotImplemented
    if function is np.argmax and isinstance(axis, (tuple, list)):
        raise TypeError(f"np.argmax takes one axis, or None for all; got {axis}")
    if x.dtype == bool and kind == "sum":
        x = x.astype(np.int64)
    of_floats = x.dtype.name in ("float32", "float64") or (
        x.dtype.name == "int64" and function is np.sum
    )
    axes = _axes(axis, x.ndim)
    if of_floats and kind != "argmax" and not how and all(x.shape[a] == 1 for a in axes):
        kept = [i for i in range(x.ndim) if keepdims or i not in axes]
        shape = tuple(x.shape[i] for i in kept)
        places = tuple(kept.index(i) if i in kept else None for i in range(x.ndim))
        return np.copy(rearranged(x, shape, places))
    noted = x.node.array is None and not how and of_floats and x.size
    if not noted or len(reductions.runs_of_axes(x.shape, axes)) != 1:
        on_known = reductions.NUMPY_REDUCTIONS[function]
        result = on_known(x.computed(), axis=axis, keepdims=keepdims, **how)
        return result if result is NotImplemented else known(result)
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape) if keepdims or i not in axes)
    divisor = math.prod(x.shape[a] for a in axes) if function is np.mean else 1
    dtype = np.dtype(np.int64) if kind == "argmax" else x.dtype
    return LazyArray(Node(shape, dtype, None, (x.node,), reduction=(kind, axes, divisor)))


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """Return the axes that NumPy means by an argument `axis`."""
    return tuple(range(ndim)) if axis is None else normalize_axis_tuple(axis, ndim)


# --- axes ----------------------------------------------------------------------------------------


def _broadcast_to(array: Any, shape: Any, *others: Any, **how: Any) -> Any:
    """Repeat entries along axes as `np.broadcast_to` does, in a view."""
    if not isinstance(array, LazyArray) or others or how:
        return NotImplemented
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if np.broadcast_shapes(array.shape, shape) != shape:
        return NotImplemented
    lead = len(shape) - array.ndim
    axes = tuple(
        lead + i if n > 1 or shape[lead + i] == 1 else None for i, n in enumerate(array.shape)
    )
    return rearranged(array, shape, axes)


def _transpose(a: Any, axes: Any = None) -> Any:
    """Put the axes in another order, reversed if none is given."""
    if not isinstance(a, LazyArray):
        return NotImplemented
    order = tuple(reversed(range(a.ndim)))
    if axes is not None:
        order = normalize_axis_tuple(axes, a.ndim)
    if len(order) != a.ndim:
        return NotImplemented
    return rearranged(a, tuple(a.shape[i] for i in order), tuple(map(order.index, range(a.ndim))))


def _swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    """Exchange two axes."""
    if not isinstance(a, LazyArray):
        return NotImplemented
    order = list(range(a.ndim))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return _transpose(a, order)


def _moveaxis(a: Any, source: Any, destination: Any) -> Any:
    """Move one axis to another place; several are left to CuPy."""
    if not (isinstance(a, LazyArray) and isinstance(source, int) and isinstance(destination, int)):
        return NotImplemented
    (source,), (destination,) = _axes(source, a.ndim), _axes(destination, a.ndim)
    order = [i for i in range(a.ndim) if i != source]
    order.insert(destination, source)
    return _transpose(a, order)


def _expand_dims(a: Any, axis: Any) -> Any:
    """Insert one axis of length 1; several are left to CuPy."""
    if not isinstance(a, LazyArray) or not isinstance(axis, int):
        return NotImplemented
    (at,) = _axes(axis, a.ndim + 1)
    return a[(slice(None),) * at + (None,)]


def _copy(a: Any, *others: Any, **how: Any) -> Any:
    """Copy entries to memory of their own."""
    here = isinstance(a, LazyArray) and expressions.c_type(a.dtype) is not None
    if not here or others or how:
        return NotImplemented
    return noted_function("{0}", (a,), (a.dtype,), a.shape, a.dtype)


def _reshape(a: Any, shape: Any, *others: Any, **how: Any) -> Any:
    """Reshape; without computing where only axes of length 1 come or go."""
    if not isinstance(a, LazyArray) or others or how:
        return NotImplemented
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if a.node.array is None and -1 not in shape:
        long = [i for i, n in enumerate(shape) if n != 1]
        own = [i for i, n in enumerate(a.shape) if n != 1]
        if [shape[i] for i in long] == [a.shape[i] for i in own]:
            place = dict(zip(own, long, strict=True))
            return rearranged(a, shape, tuple(place.get(i) for i in range(a.ndim)))
    return known(a.computed().reshape(shape))


FUNCTIONS |= {
    np.where: _where,
    np.zeros_like: _constant("0"),
    np.ones_like: _constant("1"),
    np.broadcast_to: _broadcast_to,
    np.copy: _copy,
    np.expand_dims: _expand_dims,
    np.moveaxis: _moveaxis,
    np.transpose: _transpose,
    np.swapaxes: _swapaxes,
    np.reshape: _reshape,
    np.sum: _sum(np.sum),
    np.mean: _sum(np.mean),
    np.max: _extreme(np.max, "max"),
    np.amax: _extreme(np.amax, "max"),
    np.min: _extreme(np.min, "min"),
    np.amin: _extreme(np.amin, "min"),
    np.argmax: _extreme(np.argmax, "argmax"),
}
