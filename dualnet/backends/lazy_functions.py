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
    """Return the lazy form of `np.zeros_like` and its like."""

    def like(x: Any, dtype: Any = None, *, shape: Any = None, **how: Any) -> Any:
        dtype = x.dtype if dtype is None else np.dtype(dtype)
        if how or dtype.name not in expressions.C_TYPES:
            return NotImplemented
        shape = x.shape if shape is None else shape
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        return noted_function(text, (), (), shape, dtype)

    return like


def _where(condition: Any, *choices: Any) -> Any:
    inputs = (condition, *choices)
    arrays = all(isinstance(x, (LazyArray, cupy.ndarray, *PYTHON_NUMBERS)) for x in inputs)
    if len(choices) != 2 or not arrays or not all(map(has_c_type, inputs)):
        return NotImplemented
    of_choices = [x if isinstance(x, PYTHON_NUMBERS) else x.dtype for x in choices]
    dtype = np.result_type(*of_choices)
    shape = expressions.broadcast([getattr(x, "shape", ()) for x in inputs])
    fit = all(fits(x, dtype) for x in choices) and dtype.name in expressions.C_TYPES
    if not fit or kind_of(condition) != np.dtype(bool):
        return NotImplemented
    return noted_function(WHERE, inputs, (np.dtype(bool), dtype, dtype), shape, dtype)


# --- reductions ----------------------------------------------------------------------------------


def _reduction(function: Callable, kind: str) -> Callable:
    """Return the lazy form of a reduction of NumPy's.

    The entries that are reduced are computed on the way where the axes are neighbors.
    """
    on_known = reductions.NUMPY_REDUCTIONS[function]

    def reduced(x: Any, axis: Any = None, dtype: Any = None, out: Any = None, **how: Any) -> Any:
        if not isinstance(x, LazyArray) or dtype is not None or out is not None:
            return NotImplemented
        if function is np.argmax and isinstance(axis, (tuple, list)):
            raise TypeError(f"np.argmax takes one axis, or None for all; got {axis}")
        if x.dtype == bool and kind == "sum":
            x = x.astype(np.int64)
        keepdims = how.pop("keepdims", False)
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
            result = on_known(x.computed(), axis=axis, keepdims=keepdims, **how)
            return result if result is NotImplemented else known(result)
        shape = tuple(
            1 if i in axes else n for i, n in enumerate(x.shape) if keepdims or i not in axes
        )
        divisor = math.prod(x.shape[a] for a in axes) if function is np.mean else 1
        result = np.dtype(np.int64) if kind == "argmax" else x.dtype
        return LazyArray(Node(shape, result, None, (x.node,), reduction=(kind, axes, divisor)))

    return reduced


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """Return the axes that NumPy means by an argument `axis`."""
    return tuple(range(ndim)) if axis is None else normalize_axis_tuple(axis, ndim)


# --- axes ----------------------------------------------------------------------------------------


def _broadcast_to(x: Any, shape: Any) -> Any:
    if not isinstance(x, LazyArray):
        return NotImplemented
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if np.broadcast_shapes(x.shape, shape) != shape:
        return NotImplemented
    lead = len(shape) - x.ndim
    axes = tuple(lead + i if n > 1 or shape[lead + i] == 1 else None for i, n in enumerate(x.shape))
    return rearranged(x, shape, axes)


def _transpose(x: Any, axes: Any = None) -> Any:
    if not isinstance(x, LazyArray):
        return NotImplemented
    order = tuple(reversed(range(x.ndim)))
    if axes is not None:
        order = normalize_axis_tuple(axes, x.ndim)
    if len(order) != x.ndim:
        return NotImplemented
    return rearranged(x, tuple(x.shape[a] for a in order), tuple(map(order.index, range(x.ndim))))


def _swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    if not isinstance(x, LazyArray):
        return NotImplemented
    order = list(range(x.ndim))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return _transpose(x, order)


def _moveaxis(x: Any, source: Any, destination: Any) -> Any:
    if not (isinstance(x, LazyArray) and isinstance(source, int) and isinstance(destination, int)):
        return NotImplemented
    (source,), (destination,) = _axes(source, x.ndim), _axes(destination, x.ndim)
    order = [a for a in range(x.ndim) if a != source]
    order.insert(destination, source)
    return _transpose(x, order)


def _expand_dims(x: Any, axis: Any) -> Any:
    if not isinstance(x, LazyArray) or not isinstance(axis, int):
        return NotImplemented
    (at,) = _axes(axis, x.ndim + 1)
    return x[(slice(None),) * at + (None,)]


def _copy(x: Any, **how: Any) -> Any:
    if not isinstance(x, LazyArray) or how or x.dtype.name not in expressions.C_TYPES:
        return NotImplemented
    return noted_function("{0}", (x,), (x.dtype,), x.shape, x.dtype)


def _reshape(x: Any, shape: Any, **how: Any) -> Any:
    """Reshape; without computing where only axes of length 1 come or go."""
    if not isinstance(x, LazyArray) or how:
        return NotImplemented
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if x.node.array is None and -1 not in shape:
        long = [i for i, n in enumerate(shape) if n != 1]
        own = [i for i, n in enumerate(x.shape) if n != 1]
        if [shape[i] for i in long] == [x.shape[i] for i in own]:
            place = dict(zip(own, long, strict=True))
            return rearranged(x, shape, tuple(place.get(i) for i in range(x.ndim)))
    return known(x.computed().reshape(shape))


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
    np.sum: _reduction(np.sum, "sum"),
    np.mean: _reduction(np.mean, "sum"),
    np.max: _reduction(np.max, "max"),
    np.amax: _reduction(np.amax, "max"),
    np.min: _reduction(np.min, "min"),
    np.amin: _reduction(np.amin, "min"),
    np.argmax: _reduction(np.argmax, "argmax"),
}
