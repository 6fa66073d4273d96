"""Functions that change the shape or the order of entries, or join arrays.

Nothing here computes: primals come out exactly as NumPy gives them, and tangents go the way their
primals went.  Functions that only rearrange (flip, roll, repeat, sort, ...) share one rule: what
they do to the positions of the entries says where every entry came from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from dualnet.backends.overridable import concatenate
from dualnet.core import linear, refusals
from dualnet.core.arrays import arange_like, asarray_like
from dualnet.core.dual import astype, getitem, primal_of
from dualnet.core.engine import composed, linearizer, rule
from dualnet.core.tables import linear_maps
from dualnet.core.tables.reductions import axes_from_end
from dualnet.types import Array, Tangent

# --- the same entries in another shape ---


def _reads_in_order(fn: Callable) -> None:
    @linearizer(fn)
    def _(x: Array, *args: Any, **kwargs: Any) -> Any:
        out = fn(x, *args, **kwargs)
        (order,) = [a for a in (*args, *kwargs.values()) if isinstance(a, str)] or ["C"]
        if order == "C":
            return out, lambda t: linear.reshape(t, out.shape)
        positions = np.empty_like(primal_of(x), dtype=int)  # orders A and K go by x's layout
        positions[...] = positions_of(x)
        positions = fn(positions, *args, **kwargs)
        return out, lambda t: linear_maps.gather(t, positions)


_fn: Callable
for _fn in (np.reshape, np.ravel):
    _reads_in_order(_fn)
for _fn in (np.expand_dims, np.squeeze, np.copy):
    rule(_fn, lambda t, out, x, *_, **__: linear.reshape(t, out.shape))


def _raises_rank(fn: Callable) -> None:
    @composed(fn)
    def _(*arrays: Any) -> Any:
        raised = tuple(np.reshape(a, fn(np.broadcast_to(0, np.shape(a))).shape) for a in arrays)
        return raised[0] if len(raised) == 1 else raised


for _fn in (np.atleast_1d, np.atleast_2d, np.atleast_3d):
    _raises_rank(_fn)

rule(np.broadcast_to, lambda t, out, x, shape: linear.broadcast_to(t, out.shape))


@composed(np.broadcast_arrays)
def _broadcast_arrays(*arrays: Any) -> tuple:
    shape = np.broadcast_shapes(*(np.shape(a) for a in arrays))
    whole = (getattr(a, "shape", None) == shape for a in arrays)
    return tuple(a if w else np.broadcast_to(a, shape) for a, w in zip(arrays, whole, strict=True))


@composed(np.full_like)
def _full_like(x: Array, value: Any, dtype: Any = None) -> Any:
    if isinstance(value, (int, float, complex)):
        value = asarray_like(np.asarray(value), x)
    dtype = np.result_type(x) if dtype is None else np.dtype(dtype)
    if np.iscomplexobj(value) and dtype.kind != "c":
        raise refusals.no_conversion(np.full_like, f"{dtype} from complex")
    return astype(np.broadcast_to(value, np.shape(x)), dtype)


@composed(np.astype)
def _np_astype(x: Array, dtype: Any, *, copy: bool = True, device: Any = None) -> Any:
    if device not in (None, "cpu"):
        raise ValueError(f"np.astype: device must be 'cpu', got {device!r}")
    return x.astype(dtype, copy=copy)


# --- axes in another order ---


def _transposed(t: Tangent, out: Array, x: Array, axes: Sequence[int] | None = None) -> Tangent:
    order: Any = reversed(range(x.ndim)) if axes is None else axes
    if isinstance(order, (int, np.integer)):  # the axis of a vector
        order = (order,)
    return linear.transpose(t, tuple(a if a < 0 else a - x.ndim for a in order))


rule(np.transpose, _transposed)


def _moves_axes(fn: Callable) -> None:
    @composed(fn)
    def _(x: Array, *args: Any, **kwargs: Any) -> Any:
        # The axes of the example have lengths of their own, so that the result tells their order.
        example = np.broadcast_to(0, tuple(range(x.ndim)))
        return np.transpose(x, fn(example, *args, **kwargs).shape)


for _fn in (np.swapaxes, np.moveaxis, np.matrix_transpose, np.linalg.matrix_transpose):
    _moves_axes(_fn)

# --- entries in another order, some of them repeated or left out ---


def positions_of(x: Array) -> Any:
    """Number the entries of `x` in an array of its shape: their flat positions."""
    return np.reshape(arange_like(x.size, x), x.shape)


def _rearranges(fn: Callable) -> None:
    @linearizer(fn)
    def _(x: Array, *args: Any, **kwargs: Any) -> Any:
        positions = fn(positions_of(x), *args, **kwargs)
        return fn(x, *args, **kwargs), lambda t: linear_maps.gather(t, positions)


for _fn in (np.flip, np.fliplr, np.flipud, np.rot90, np.roll, np.tile, np.repeat):
    _rearranges(_fn)
for _fn in (np.take, np.take_along_axis, np.diagonal, np.linalg.diagonal, np.delete):
    _rearranges(_fn)


@linearizer(np.sort)
def _sort(x: Array, axis: int | None = -1, **kind: Any) -> Any:
    # Equal entries keep their order.
    out = np.sort(x, axis=axis, **kind)
    order = np.argsort(primal_of(x), axis=axis, kind="stable")
    if axis is None:
        return out, lambda t: linear_maps.gather(t, order)
    positions = np.take_along_axis(positions_of(x), order, axis)
    return out, lambda t: linear_maps.gather(t, positions)


# --- joining ---


@linearizer(np.concatenate, sequences=(0,))
def _concatenate(arrays: Sequence, axis: int | None = 0, **how: Any) -> Any:
    out = concatenate(arrays, axis, **how)

    def of_tangents(ts: Any) -> Any:
        parts = arrays
        if not isinstance(ts, list):  # the argument is one array, whose rows are joined
            ts = [linear_maps.index(ts, (i,)) for i in range(len(parts))]
        if axis is None:
            parts = [np.ravel(a) for a in parts]
            ts = [
                t if t is None else linear.reshape(t, a.shape)
                for t, a in zip(ts, parts, strict=True)
            ]
        (a,) = axes_from_end(axis or 0, out.ndim)
        return linear_maps.concatenate(ts, [np.shape(x) for x in parts], a)

    return out, of_tangents


composed(np.stack, sequences=(0,))(
    lambda arrays, axis=0: np.concatenate([np.expand_dims(a, axis) for a in arrays], axis)
)
composed(np.vstack, sequences=(0,))(
    lambda arrays: np.concatenate([np.atleast_2d(a) for a in arrays], 0)
)
composed(np.dstack, sequences=(0,))(
    lambda arrays: np.concatenate([np.atleast_3d(a) for a in arrays], 2)
)
composed(np.column_stack, sequences=(0,))(
    lambda arrays: np.hstack([np.ravel(a)[:, None] if np.ndim(a) < 2 else a for a in arrays])
)


@composed(np.hstack, sequences=(0,))
def _hstack(arrays: Sequence) -> Any:
    columns = [np.atleast_1d(a) for a in arrays]
    return np.concatenate(columns, 0 if columns[0].ndim == 1 else 1)


@composed(np.append)
def _append(x: Array, values: Array, axis: int | None = None) -> Any:
    if isinstance(values, (int, float)):
        values = asarray_like(np.asarray(values), x)
    if axis is None:
        x, values, axis = np.ravel(x), np.ravel(values), 0
    return np.concatenate([x, values], axis)


# --- cutting apart ---


@composed(np.split)
def _split(x: Array, indices_or_sections: Any, axis: int = 0) -> list:
    if np.ndim(indices_or_sections) == 0 and x.shape[axis] % indices_or_sections:
        raise ValueError("np.split: the array does not divide equally; np.array_split cuts it")
    return np.array_split(x, indices_or_sections, axis)


@composed(np.array_split)
def _array_split(x: Array, indices_or_sections: Any, axis: int = 0) -> list:
    # NumPy's own cuts of the positions along the axis say where each part starts and ends.
    parts = np.array_split(np.arange(x.shape[axis]), indices_or_sections)
    before = (slice(None),) * normalize_axis_index(axis, x.ndim)
    spans = [slice(p[0], p[-1] + 1) if p.size else slice(0, 0) for p in parts]
    return [getitem(x, (*before, span)) for span in spans]


@composed(np.vsplit)
def _vsplit(x: Array, indices_or_sections: Any) -> list:
    if x.ndim < 2:
        raise ValueError("vsplit only works on arrays of 2 or more dimensions")
    return np.split(x, indices_or_sections, 0)


composed(np.hsplit)(
    lambda x, indices_or_sections: np.split(x, indices_or_sections, min(x.ndim, 2) - 1)
)
composed(np.dsplit)(lambda x, indices_or_sections: np.split(x, indices_or_sections, 2))
