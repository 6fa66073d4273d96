"""Choosing, inserting, padding, cutting: what moves entries, beside `core.tables.shaping`.

Where entries are only moved, the primal is exactly NumPy's.  Several functions are found by giving
the entries of their arguments numbers and letting NumPy itself move the numbers: where each one
ends up says which entry goes there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from dualnet.core.arrays import arange_like, operand, operand_like
from dualnet.core.dual import Dual, astype, getitem, primal_of, primitive
from dualnet.core.engine import composed, linearizer
from dualnet.core.python_floats import common_dtype
from dualnet.core.tables import linear_maps
from dualnet.core.tables.elementwise import valued
from dualnet.core.tables.shaping import positions_of
from dualnet.core.tables.signals import _sliced
from dualnet.errors import MissingRuleError
from dualnet.types import Array

# --- one of several values for each entry --------------------------------------------------------


@composed(np.select, anywhere=True)
def _select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """Take the choice of the first condition that holds; only that one gets a tangent."""
    conditions, choices = list(condlist), list(choicelist)
    if len(conditions) != len(choices):
        raise ValueError("list of cases must be same length as list of conditions")
    if not conditions:
        raise ValueError("select with an empty condition list is not possible")
    *choices, result = _alike([*choices, default])
    for condition, choice in zip(conditions[::-1], choices[::-1], strict=True):
        mask = operand_like(condition, result)
        if np.result_type(primal_of(mask)).kind != "b":
            raise TypeError("np.select: conditions must be arrays of booleans")
        result = np.where(mask, choice, result)
    return result


def _alike(parts: Sequence) -> list:
    """Turn numbers, lists and arrays into arrays of the dtype that NumPy gives all of them."""
    parts = list(map(operand, parts))
    dtype = common_dtype(*parts)
    like = next((x for x in parts if isinstance(x, Dual)), None)
    return [astype(operand_like(x, like), dtype) for x in parts]


@composed(np.choose, anywhere=True)
def _choose(a: Array, choices: Any, *, mode: Any = "raise") -> Any:
    """Take entry by entry from the choice that the integers `a` name."""
    arrays = np.broadcast_arrays(*_alike(choices))
    numbers = np.stack([positions_of(arrays[0]) + i * arrays[0].size for i in range(len(arrays))])
    return getitem(_in_a_row(*arrays), np.choose(primal_of(a), numbers, mode=mode))


@composed(np.piecewise, sequences=(2,))
def _piecewise(x: Array, condlist: Any, funclist: Sequence, *args: Any, **kw: Any) -> Any:
    """Call each function on the entries for which its condition holds; 0 where none does."""
    several = isinstance(condlist, (list, tuple)) or np.ndim(condlist) > 0
    if not several or (np.ndim(condlist[0]) == 0 and x.ndim > 0):
        condlist = [condlist]
    conditions = [operand(condition) for condition in condlist]
    if any(np.shape(condition) != x.shape for condition in conditions):
        raise ValueError(f"np.piecewise: every condition must have the shape of x, {x.shape}")
    conditions = [np.reshape(condition, (x.size,)) for condition in conditions]
    if len(funclist) == len(conditions) + 1:
        conditions.append(np.logical_not(np.any(np.stack(conditions), axis=0)))
    if len(funclist) != len(conditions):
        raise ValueError(
            f"with {len(conditions)} condition(s), either {len(conditions)} or "
            f"{len(conditions) + 1} functions are expected"
        )
    entries = np.reshape(x, (x.size,))
    parts = [np.zeros_like(primal_of(x), shape=(1,))]
    source = np.zeros_like(positions_of(entries))  # into the parts, one after another
    for condition, function in zip(conditions, funclist, strict=True):
        chosen = getitem(entries, condition)
        if chosen.size == 0:
            continue
        value = function(chosen, *args, **kw) if callable(function) else function
        before = sum(part.size for part in parts)
        parts.append(astype(np.broadcast_to(operand_like(value, x), chosen.shape), x.dtype))
        numbers = before - 1 + np.cumsum(condition)
        source = np.where(condition, numbers, source)
    return np.reshape(getitem(np.concatenate(parts), source), x.shape)


# --- picked by a condition or by position --------------------------------------------------------


@composed(np.resize)
def _resize(x: Array, new_shape: Any) -> Any:
    """Repeat the entries in their order; where there are none, NumPy gives zeros."""
    if not x.size:
        return np.resize(primal_of(x), new_shape)
    return getitem(np.ravel(x), np.resize(positions_of(x), new_shape))


def _picks(fn: Callable) -> None:
    """Register a function of a condition and an array, which keeps some entries of the array."""

    @linearizer(fn)
    def _(condition: Any, x: Array, *axis: Any, **by_name: Any) -> Any:
        condition = primal_of(condition)
        positions = fn(condition, positions_of(x), *axis, **by_name)
        return fn(condition, x, *axis, **by_name), (
            None,
            lambda t: linear_maps.gather(t, positions),
        )


for _fn in (np.compress, np.extract):
    _picks(_fn)


@composed(np.trim_zeros)
def _trim_zeros(x: Array, trim: str = "fb", axis: Any = None) -> Any:
    """Cut off zeros at the ends, where the value is 0 now."""
    trim = trim.lower()
    if trim not in ("fb", "bf", "f", "b"):
        raise ValueError(f"unexpected character(s) in `trim`: {trim!r}")
    axes = range(x.ndim) if axis is None else normalize_axis_tuple(axis, x.ndim)
    key = [slice(None)] * x.ndim
    for a, places in enumerate(np.nonzero(np.atleast_1d(primal_of(x)))):
        if a in axes:
            first, last = (int(places.min()), int(places.max()) + 1) if places.size else (0, 0)
            empty = places.size == 0
            start = first if "f" in trim or empty else None
            key[a] = slice(start, last if "b" in trim or empty else None)
    return getitem(x, tuple(key))


@composed(np.insert)
def _insert(x: Array, obj: Any, values: Any, axis: int | None = None) -> Any:
    """Insert values, by the array and by the values, which take the dtype of the array."""
    like = x if isinstance(x, Dual) else values
    x, values = operand_like(x, like), operand_like(values, like)
    numbers = x.size + positions_of(values)
    positions = np.insert(positions_of(x), primal_of(obj), numbers, axis)
    return getitem(_in_a_row(x, astype(values, x.dtype)), positions)


def _in_a_row(*arrays: Array) -> Array:
    """Join the entries of all arrays in one axis."""
    return np.concatenate([np.reshape(a, (np.size(a),)) for a in arrays])


# --- axes, blocks and lanes ----------------------------------------------------------------------


@composed(np.rollaxis)
def _rollaxis(x: Array, axis: int, start: int = 0) -> Any:
    # An array whose lengths number its axes shows in its shape where each axis goes.
    return np.transpose(x, np.rollaxis(np.empty(tuple(range(x.ndim))), axis, start).shape)


if hasattr(np, "unstack"):  # since NumPy 2.1

    @composed(np.unstack)
    def _unstack(x: Array, *, axis: int = 0) -> tuple:
        return tuple(np.moveaxis(x, axis, 0))


@composed(np.block, anywhere=True)
def _block(arrays: Any) -> Any:
    """Join blocks of nested lists, the innermost along the last axis."""
    depth, rank = _depth_and_rank(arrays)
    like = _first_dual(arrays)

    def join(part: Any, axis: int) -> Array:
        if isinstance(part, list):
            return np.concatenate([join(p, axis + 1) for p in part], axis)
        part = operand_like(part, like)
        return np.reshape(part, (1,) * (max(rank, depth) - part.ndim) + part.shape)

    return join(arrays, -depth)


def _depth_and_rank(part: Any) -> tuple[int, int]:
    """Return how deep lists are nested, and the largest number of axes in them."""
    if not isinstance(part, list):
        return 0, np.ndim(part)
    depths, ranks = zip(*map(_depth_and_rank, part), strict=True) if part else ((-1,), (0,))
    if len(set(depths)) > 1 or depths[0] < 0:
        raise ValueError("np.block: lists must not be empty, and all be nested equally deep")
    return depths[0] + 1, max(ranks)


def _first_dual(part: Any) -> Any:
    if not isinstance(part, list):
        return part if isinstance(part, Dual) else None
    return next((found for p in part if (found := _first_dual(p)) is not None), None)


@composed(np.apply_along_axis)
def _apply_along_axis(func1d: Callable, axis: int, arr: Array, *args: Any, **kwargs: Any) -> Any:
    """Call a function on every lane along an axis, and put its results in the axis's place."""
    axis = normalize_axis_index(axis, arr.ndim)
    moved = np.moveaxis(arr, axis, -1)
    others, n = moved.shape[:-1], moved.shape[-1]
    if 0 in others:
        raise ValueError("Cannot apply_along_axis when any iteration dimensions are 0")
    lanes = np.reshape(moved, (math.prod(others), n))
    results = [operand_like(func1d(lane, *args, **kwargs), arr) for lane in lanes]
    stacked = np.stack(results)
    result = np.reshape(stacked, (*others, *stacked.shape[1:]))
    new = range(len(others), result.ndim)
    return np.moveaxis(result, tuple(new), tuple(axis + i for i in range(len(new))))


@composed(np.apply_over_axes)
def _apply_over_axes(func: Callable, a: Array, axes: Any) -> Any:
    """Call a reduction for each axis in turn, and keep the axes."""
    for axis in np.atleast_1d(axes).tolist():
        axis = axis + a.ndim if axis < 0 else axis
        result = func(a, axis)
        if result.ndim != a.ndim:
            result = np.expand_dims(result, axis)
        if result.ndim != a.ndim:
            raise ValueError("function is not returning an array of the correct shape")
        a = result
    return a


# --- padding -------------------------------------------------------------------------------------

_COPIES = ("edge", "reflect", "symmetric", "wrap")
_STATISTICS = {"maximum": np.max, "minimum": np.min, "mean": np.mean, "median": np.median}


@primitive
def pad_by_copies(x: Array, pairs: Sequence, mode: Any, **how: Any) -> Any:
    """Pad with constants, or with entries of x."""
    return np.pad(x, pairs, mode, **how)


@linearizer(pad_by_copies)
def _pad_by_copies(x: Array, pairs: Sequence, mode: Any, **how: Any) -> Any:
    out = pad_by_copies(x, pairs, mode, **how)
    if mode == "constant":
        inside = tuple(slice(a, a + n) for (a, _), n in zip(pairs, x.shape, strict=True))
        return out, lambda t: linear_maps.place(t, inside, out.shape)
    positions = np.pad(positions_of(x), pairs, mode, **how)
    return out, lambda t: linear_maps.gather(t, positions)


@composed(np.pad, anywhere=True)
def _pad(
    array: Array,
    pad_width: Any,
    mode: Any = "constant",
    **how: Any,
) -> Any:
    """Pad in every mode of NumPy that is named by a string, by the array and by the constants.

    A padding that is a maximum, a minimum or a median has the conventions of that function, and
    "empty" pads with zeros.
    """
    if callable(mode) or _holds_a_dual(how.get("end_values")):
        raise MissingRuleError(
            f"np.pad: mode={getattr(mode, '__name__', mode)!r} has no derivative rule with "
            "these arguments; modes that are named by a string have, with constant end_values"
        )
    np.pad(np.zeros(1), 0, mode, **dict.fromkeys(how, 1))  # NumPy knows what each mode takes
    x, pairs = array, _pairs(pad_width, array.ndim)
    if not pairs:  # there is nothing beside a number
        return valued(x, np.pad(primal_of(x), pad_width, mode, **how))
    if mode == "empty":
        return pad_by_copies(x, pairs, "constant")
    if mode == "constant" and _holds_a_dual(how.get("constant_values")):
        return _pad_by_values(x, pairs, how["constant_values"])
    odd = how.get("reflect_type") == "odd"
    if mode == "constant" or (mode in _COPIES and not odd):
        return pad_by_copies(x, pairs, mode, **how)
    for axis, pair in enumerate(pairs):
        if mode in _STATISTICS:
            lengths = _pairs(how.get("stat_length"), x.ndim)[axis]
            x = _pad_by_statistic(x, axis, pair, lengths, _STATISTICS[mode])
        elif mode == "linear_ramp":
            x = _pad_by_ramps(x, axis, pair, _pairs(how.get("end_values", 0), x.ndim)[axis])
        else:
            x = _pad_oddly(x, axis, pair, mode == "symmetric")
    return valued(x, np.pad(primal_of(array), pairs, mode, **how))


def _pairs(values: Any, ndim: int) -> list:
    """Spell out what comes before and after each axis: one for all, a pair, pairs, or a dict."""
    if values is None:
        return [(None, None)] * ndim
    if isinstance(values, dict):
        pairs = [(0, 0)] * ndim
        for axis, width in values.items():
            pairs[axis] = (width, width) if np.ndim(width) == 0 else tuple(width)
        return pairs
    return [tuple(pair) for pair in np.broadcast_to(values, (ndim, 2)).tolist()]


def _holds_a_dual(values: Any) -> bool:
    if isinstance(values, (list, tuple)):
        return any(map(_holds_a_dual, values))
    return isinstance(values, Dual)


def _pad_by_values(x: Array, pairs: list, values: Any) -> Array:
    """Pad with constants some of which are duals; each has a number that NumPy pads with."""

    def joined(part: Any) -> Any:
        if isinstance(part, (list, tuple)):
            return np.stack([joined(p) for p in part])
        return operand_like(part, x)

    constants = np.broadcast_to(joined(values), (x.ndim, 2))
    numbers = np.reshape(np.arange(2 * x.ndim), (x.ndim, 2)).tolist()
    positions = np.pad(positions_of(x) + 2 * x.ndim, pairs, constant_values=numbers)
    return getitem(_in_a_row(astype(constants, x.dtype), x), positions)


def _repeated(x: Array, axis: int, n: int) -> Array:
    """Repeat the only entry along an axis n times."""
    return np.broadcast_to(x, (*x.shape[:axis], n, *x.shape[axis + 1 :]))


def _pad_by_statistic(x: Array, axis: int, pair: tuple, lengths: tuple, statistic: Any) -> Array:
    """Pad along an axis with a statistic of the entries next to each end, or of all."""
    n = x.shape[axis]
    first, last = (n if length is None else min(n, length) for length in lengths)
    before = statistic(x[_sliced(axis, x.ndim, 0, first)], axis=axis, keepdims=True)
    after = statistic(x[_sliced(axis, x.ndim, n - last, n)], axis=axis, keepdims=True)
    ends = [_repeated(part, axis, width) for part, width in zip((before, after), pair, strict=True)]
    return np.concatenate([ends[0], x, ends[1]], axis)


def _pad_by_ramps(x: Array, axis: int, pair: tuple, ends: tuple) -> Array:
    """Pad along an axis with ramps from the end values to the first and the last entry."""

    def ramp(edge: Array, end: float, n: int) -> Array:
        steps = np.reshape(
            arange_like(n, x).astype(x.dtype) / max(n, 1), (-1, *(1,) * (x.ndim - axis - 1))
        )
        return astype(end + (edge - end) * steps, x.dtype)

    before = ramp(x[_sliced(axis, x.ndim, 0, 1)], ends[0], pair[0])
    after = ramp(x[_sliced(axis, x.ndim, -1, None)], ends[1], pair[1])
    return np.concatenate([before, x, np.flip(after, axis)], axis)


def _pad_oddly(x: Array, axis: int, pair: tuple, with_edge: bool) -> Array:
    """Pad along an axis with reflections through the point of the edge, as often as it needs."""
    left, right = pair
    offset = 0 if with_edge else 1
    if x.shape[axis] == offset:  # a single entry is repeated
        return np.concatenate([_repeated(x, axis, left), x, _repeated(x, axis, right)], axis)
    while left or right:
        n = x.shape[axis]
        before, after = min(left, n - offset), min(right, n - offset)
        first, last = x[_sliced(axis, x.ndim, 0, 1)], x[_sliced(axis, x.ndim, n - 1, n)]
        head = np.flip(x[_sliced(axis, x.ndim, offset, offset + before)], axis)
        tail = np.flip(x[_sliced(axis, x.ndim, n - offset - after, n - offset)], axis)
        x = np.concatenate([2.0 * first - head, x, 2.0 * last - tail], axis)
        left, right = left - before, right - after
    return x
