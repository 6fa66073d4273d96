"""JAX's derivatives, evaluated by NumPy: what JAX traces is run here one primitive after another.

A random program is run once, and XLA would compile for a second what runs for a millisecond.  JAX's
own functions and derivative rules decide which primitives are asked for; NumPy only evaluates them.
A primitive that is not in the table is evaluated by JAX itself.
"""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special

asked_of_jax: Counter = Counter()
"""How often each primitive was not in the table."""


def evaluate(f: Callable, *args: Any) -> Any:
    """Evaluate a function written for JAX; its result is a list of NumPy's arrays."""
    import jax

    traced = jax.make_jaxpr(f)(*args)
    with np.errstate(all="ignore"):
        flat = [np.asarray(x) for x in jax.tree_util.tree_leaves(args)]
        return run(traced.jaxpr, traced.consts, flat)


def run(jaxpr: Any, constants: Any, args: Any) -> list:
    """Evaluate a traced function."""
    known: dict = dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
    known |= zip(jaxpr.invars, args, strict=True)

    for equation in jaxpr.eqns:
        operands = [_literal(x) if hasattr(x, "val") else known[x] for x in equation.invars]
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            results = CALLS[name](operands, **params)
        elif name in ONE:
            aval = equation.outvars[0].aval
            results = [np.asarray(ONE[name](*operands, **params), aval.dtype).reshape(aval.shape)]
        else:
            asked_of_jax[name] += 1
            results = equation.primitive.bind(*operands, **params)
            several = equation.primitive.multiple_results
            results = [np.asarray(r) for r in (results if several else [results])]
        known |= zip(equation.outvars, results, strict=True)
    return [_literal(x) if hasattr(x, "val") else known[x] for x in jaxpr.outvars]


def _literal(x: Any) -> np.ndarray:
    return np.asarray(x.val, x.aval.dtype)


# --- primitives with functions among their parameters --------------------------------------------


def _called(operands: list, *, jaxpr: Any = None, call_jaxpr: Any = None, **_how: Any) -> list:
    called = call_jaxpr if jaxpr is None else jaxpr
    closed = hasattr(called, "jaxpr")
    return run(called.jaxpr, called.consts, operands) if closed else run(called, [], operands)


def _while(
    operands: list, *, cond_jaxpr: Any, body_jaxpr: Any, cond_nconsts: int, body_nconsts: int
) -> list:
    of_cond, rest = operands[:cond_nconsts], operands[cond_nconsts:]
    of_body, state = rest[:body_nconsts], rest[body_nconsts:]
    while bool(_called([*of_cond, *state], jaxpr=cond_jaxpr)[0]):
        state = _called([*of_body, *state], jaxpr=body_jaxpr)
    return state


def _scan(
    operands: list,
    *,
    jaxpr: Any,
    length: int,
    reverse: bool,
    num_consts: int,
    num_carry: int,
    **_how: Any,
) -> list:
    constants, rest = operands[:num_consts], operands[num_consts:]
    state, rows = rest[:num_carry], rest[num_carry:]
    steps = range(length)
    columns: list = []
    for i in reversed(steps) if reverse else steps:
        results = _called([*constants, *state, *(r[i] for r in rows)], jaxpr=jaxpr)
        state = results[:num_carry]
        columns.append(results[num_carry:])
    if reverse:
        columns.reverse()
    shapes = [v.aval for v in jaxpr.jaxpr.outvars[num_carry:]]
    stacked = [
        np.stack([c[j] for c in columns]) if columns else np.zeros((0, *a.shape), a.dtype)
        for j, a in enumerate(shapes)
    ]
    return [*state, *stacked]


def _cond(operands: list, *, branches: Any, **_how: Any) -> list:
    which = min(max(int(operands[0]), 0), len(branches) - 1)
    return _called(operands[1:], jaxpr=branches[which])


def _linear_solve(operands: list, *, const_lengths: Any, jaxprs: Any) -> list:
    counts = [const_lengths.matvec, const_lengths.vecmat, const_lengths.solve]
    before = sum(counts[:2])
    constants = operands[before : before + counts[2]]
    right = operands[before + counts[2] + const_lengths.transpose_solve :]
    return _called([*constants, *right], jaxpr=jaxprs.solve)


def _sort(operands: list, *, dimension: int, num_keys: int, **_how: Any) -> list:
    moved = [np.moveaxis(x, dimension, -1) for x in operands]
    order = np.lexsort(moved[:num_keys][::-1], axis=-1)  # stable
    return [np.moveaxis(np.take_along_axis(x, order, -1), -1, dimension) for x in moved]


def _split(operands: list, *, sizes: Any, axis: int) -> list:
    return np.split(operands[0], np.cumsum(sizes)[:-1], axis)


def _unstack(operands: list, *, axis: int) -> list:
    return list(np.moveaxis(operands[0], axis, 0))


CALLS: dict[str, Callable] = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call"), _called),
    **dict.fromkeys(("custom_lin", "remat", "core_call", "checkpoint"), _called),
    "while": _while,
    "scan": _scan,
    "cond": _cond,
    "custom_linear_solve": _linear_solve,
    "sort": _sort,
    "split": _split,
    "unstack": _unstack,
}

# --- gather and scatter --------------------------------------------------------------------------


def _positions(shape: tuple, indices: Any, window: Any, axes: Any, pairs: Any, mode: Any) -> tuple:
    """Find which entries of an array each window has.

    Args:
        shape: the array's.
        indices: where windows start, (*batch, len(axes)).
        window: the sizes of a window, one for each axis of the array.
        axes: the axis of the array that each column of `indices` belongs to.
        pairs: axes of the array that are batch axes, and which they are of `indices`.
        mode: what is done about windows that leave the array.

    Returns:
        The positions of the entries in the flat array, (*batch, *window), and which windows are
        inside, of the same rank.
    """
    batch = indices.shape[:-1]
    starts = np.zeros((*batch, len(shape)), np.int64)
    starts[..., list(axes)] = indices
    for axis, of_indices in pairs:
        along = [1] * len(batch)
        along[of_indices] = -1
        starts[..., axis] = np.arange(batch[of_indices]).reshape(along)
    last = np.array(shape) - np.array(window)
    inside = np.all((starts >= 0) & (starts <= last), axis=-1)
    starts = np.clip(starts, 0, np.maximum(last, 0))
    offsets = np.indices(window)
    coordinates = [
        starts[..., axis].reshape(*batch, *(1,) * len(window)) + offsets[axis]
        for axis in range(len(shape))
    ]
    positions = np.zeros((*batch, *window), np.int64)
    for size, at in zip(shape, coordinates, strict=True):
        positions = positions * size + at
    keeps = mode is None or "FILL" in str(mode)
    inside = inside if keeps else np.ones_like(inside)
    return positions, inside.reshape(*batch, *(1,) * len(window))


def _gather(
    x: Any,
    indices: Any,
    *,
    dimension_numbers: Any,
    slice_sizes: Any,
    mode: Any,
    fill_value: Any,
    **_how: Any,
) -> Any:
    d = dimension_numbers
    pairs = list(zip(d.operand_batching_dims, d.start_indices_batching_dims, strict=True))
    at, inside = _positions(x.shape, indices, slice_sizes, d.start_index_map, pairs, mode)
    if fill_value is None:
        fill_value = (
            np.nan
            if x.dtype.kind == "f"
            else np.iinfo(x.dtype).min
            if x.dtype.kind == "i"
            else True
        )
    entries = np.where(inside, x.ravel()[at] if x.size else np.zeros(at.shape, x.dtype), fill_value)
    rank = indices.ndim - 1
    gone = [rank + axis for axis in (*d.collapsed_slice_dims, *d.operand_batching_dims)]
    entries = np.squeeze(entries, tuple(gone))
    of_windows = range(rank, entries.ndim)
    return np.moveaxis(entries, of_windows, d.offset_dims)


def _scatter(
    write: Callable,
    x: Any,
    indices: Any,
    updates: Any,
    *,
    dimension_numbers: Any,
    mode: Any,
    **_how: Any,
) -> Any:
    d = dimension_numbers
    pairs = list(zip(d.operand_batching_dims, d.scatter_indices_batching_dims, strict=True))
    gone = {*d.inserted_window_dims, *d.operand_batching_dims}
    rank = indices.ndim - 1
    sizes = iter([updates.shape[axis] for axis in d.update_window_dims])
    window = [1 if axis in gone else next(sizes) for axis in range(x.ndim)]
    axes = d.scatter_dims_to_operand_dims
    at, inside = _positions(x.shape, indices, window, axes, pairs, mode)
    moved = np.moveaxis(updates, d.update_window_dims, range(rank, updates.ndim))
    moved = moved.reshape(at.shape)
    inside = np.broadcast_to(inside, at.shape)
    out = x.flatten()
    write(out, at[inside], moved[inside])
    return out.reshape(x.shape)


# --- everything else: one result -----------------------------------------------------------------


def _dot(x: Any, y: Any, *, dimension_numbers: Any, **_how: Any) -> Any:
    (of_x, of_y), (batch_x, batch_y) = dimension_numbers
    batch = list(range(len(batch_x)))
    letters = iter(range(len(batch), 60))
    summed = [next(letters) for _ in of_x]
    names_x = _names(x.ndim, [*batch_x, *of_x], [*batch, *summed], letters)
    names_y = _names(y.ndim, [*batch_y, *of_y], [*batch, *summed], letters)
    free = [n for n in (*names_x, *names_y) if n not in batch and n not in summed]
    return np.einsum(x, names_x, y, names_y, [*batch, *free])


def _names(rank: int, axes: list, names: list, others: Any) -> list:
    known = dict(zip(axes, names, strict=True))
    return [known[axis] if axis in known else next(others) for axis in range(rank)]


def _broadcast(x: Any, *_: Any, shape: Any, broadcast_dimensions: Any, **_how: Any) -> Any:
    stretched = [1] * len(shape)
    for size, axis in zip(x.shape, broadcast_dimensions, strict=True):
        stretched[axis] = size
    return np.broadcast_to(x.reshape(stretched), shape)


def _pad(x: Any, value: Any, *, padding_config: Any) -> Any:
    for axis, (low, high, between) in enumerate(padding_config):
        size = x.shape[axis]
        full = size + between * max(size - 1, 0) + max(low, 0) + max(high, 0)
        shape = [*x.shape[:axis], full, *x.shape[axis + 1 :]]
        out = np.full(shape, value, x.dtype)
        key: list = [slice(None)] * x.ndim
        first = max(low, 0)
        key[axis] = slice(first, first + max(size - 1, 0) * (between + 1) + (size > 0), between + 1)
        out[tuple(key)] = x
        key[axis] = slice(max(-low, 0), full - max(-high, 0))
        x = out[tuple(key)]
    return x


def _reshape(x: Any, *_: Any, new_sizes: Any, dimensions: Any, **_how: Any) -> Any:
    return (x if dimensions is None else x.transpose(dimensions)).reshape(new_sizes)


def _slice(x: Any, *, start_indices: Any, limit_indices: Any, strides: Any) -> Any:
    strides = strides or [1] * x.ndim
    return x[tuple(map(slice, start_indices, limit_indices, strides))]


def _starts(x: Any, starts: Any, sizes: Any) -> tuple:
    return tuple(
        slice(low := min(max(int(at), 0), full - size), low + size)
        for at, size, full in zip(starts, sizes, x.shape, strict=True)
    )


def _dynamic_slice(x: Any, *starts: Any, slice_sizes: Any) -> Any:
    return x[_starts(x, starts, slice_sizes)]


def _dynamic_update(x: Any, update: Any, *starts: Any) -> Any:
    out = x.copy()
    out[_starts(x, starts, update.shape)] = update
    return out


def _rev(x: Any, *, dimensions: Any) -> Any:
    return np.flip(x, dimensions)


def _iota(*_: Any, dtype: Any, shape: Any, dimension: int, **_how: Any) -> Any:
    along = [1] * len(shape)
    along[dimension] = -1
    return np.broadcast_to(np.arange(shape[dimension], dtype=dtype).reshape(along), shape)


def _running(ufunc: Any) -> Callable:
    def running(x: Any, *, axis: int, reverse: bool) -> Any:
        if reverse:
            return np.flip(ufunc.accumulate(np.flip(x, axis), axis), axis)
        return ufunc.accumulate(x, axis)

    return running


def _reduced(ufunc: Any, initial: Any = None) -> Callable:
    def reduced(x: Any, *, axes: Any, **_how: Any) -> Any:
        least = {np.maximum: -np.inf, np.minimum: np.inf}.get(ufunc, initial)
        if x.dtype.kind != "f" or x.size:
            least = None if x.size else initial
        return ufunc.reduce(x, axis=tuple(axes), initial=least) if axes else x

    return reduced


def _of_index(fn: Callable) -> Callable:
    return lambda x, *, axes, index_dtype: fn(x, axes[0])


def _select(which: Any, *cases: Any) -> Any:
    which = which.astype(int) if which.dtype == bool else which
    return np.choose(np.broadcast_to(which, cases[0].shape), cases)


def _clamp(low: Any, x: Any, high: Any) -> Any:
    return np.minimum(np.maximum(x, low), high)


def _divide(x: Any, y: Any) -> Any:
    if np.result_type(x, y).kind == "f":
        return np.divide(x, y)
    quotient = np.floor_divide(np.abs(x), np.where(y == 0, 1, np.abs(y)))
    return quotient * np.sign(x) * np.sign(y)


def _round(x: Any, *, rounding_method: Any) -> Any:
    even = "EVEN" in str(rounding_method)
    return np.rint(x) if even else np.trunc(x + np.copysign(0.5, x))


def _triangular(
    a: Any,
    b: Any,
    *,
    left_side: bool,
    lower: bool,
    transpose_a: bool,
    conjugate_a: bool,
    unit_diagonal: bool,
) -> Any:
    a = np.tril(a) if lower else np.triu(a)
    if unit_diagonal:
        ones = np.eye(a.shape[-1])
        a = a * (1.0 - ones) + ones
    a = a.swapaxes(-1, -2) if transpose_a else a
    if left_side:
        return np.linalg.solve(a, b)
    return np.linalg.solve(a.swapaxes(-1, -2), b.swapaxes(-1, -2)).swapaxes(-1, -2)


def _alone(fn: Callable) -> Callable:
    """Make an evaluation that has no use for parameters (an accuracy, a sharding)."""
    return lambda *operands, **_how: fn(*operands)


ONE: dict[str, Callable] = {
    **{
        name: _alone(getattr(np, name))
        for name in (
            *("sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "exp2", "expm1", "log", "log1p"),
            *("sqrt", "cbrt", "square", "sign", "floor", "ceil", "abs", "nextafter"),
        )
    },
    "asin": _alone(np.arcsin),
    "acos": _alone(np.arccos),
    "atan": _alone(np.arctan),
    "asinh": _alone(np.arcsinh),
    "acosh": _alone(np.arccosh),
    "atanh": _alone(np.arctanh),
    "atan2": _alone(np.arctan2),
    "logistic": _alone(scipy.special.expit),
    "erf": _alone(scipy.special.erf),
    "erfc": _alone(scipy.special.erfc),
    "erf_inv": _alone(scipy.special.erfinv),
    "lgamma": _alone(scipy.special.gammaln),
    "digamma": _alone(scipy.special.digamma),
    "polygamma": _alone(scipy.special.polygamma),
    "bessel_i0e": _alone(scipy.special.i0e),
    "bessel_i1e": _alone(scipy.special.i1e),
    "rsqrt": _alone(lambda x: 1.0 / np.sqrt(x)),
    "integer_pow": lambda x, *, y, **_how: np.power(x, float(y)) if x.dtype.kind == "f" else x**y,
    "is_finite": _alone(np.isfinite),
    "round": _round,
    "add": _alone(np.add),
    "add_any": _alone(np.add),
    "sub": _alone(np.subtract),
    "mul": _alone(np.multiply),
    "div": _alone(_divide),
    "rem": _alone(np.fmod),
    "neg": _alone(np.negative),
    "pow": _alone(np.power),
    "max": _alone(np.maximum),
    "min": _alone(np.minimum),
    "and": _alone(np.bitwise_and),
    "or": _alone(np.bitwise_or),
    "xor": _alone(np.bitwise_xor),
    "not": _alone(np.invert),
    **{name: _alone(getattr(operator, name)) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{f"{name}_to": _alone(getattr(operator, name)) for name in ("lt", "le")},
    "clamp": _alone(_clamp),
    "select_n": _alone(_select),
    "stop_gradient": _alone(lambda x: x),
    "copy": _alone(lambda x: x),
    "copy_p": _alone(lambda x: x),
    "optimization_barrier": _alone(lambda x: x),
    "convert_element_type": lambda x, *, new_dtype, **_how: x.astype(new_dtype),
    "reshape": _reshape,
    "tile": lambda x, *, reps: np.tile(x, reps),
    "stack": lambda *xs, axis: np.stack(xs, axis),
    "squeeze": lambda x, *, dimensions: np.squeeze(x, tuple(dimensions)),
    "expand_dims": lambda x, *, dimensions: np.expand_dims(x, tuple(dimensions)),
    "transpose": lambda x, *, permutation: np.transpose(x, permutation),
    "concatenate": lambda *xs, dimension: np.concatenate(xs, dimension),
    "broadcast_in_dim": _broadcast,
    "dot_general": _dot,
    "pad": _pad,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update,
    "rev": _rev,
    "iota": _iota,
    "gather": _gather,
    "scatter": functools.partial(_scatter, operator.setitem),
    "scatter-add": functools.partial(_scatter, np.add.at),
    "scatter-sub": functools.partial(_scatter, np.subtract.at),
    "triangular_solve": _triangular,
    "scatter-mul": functools.partial(_scatter, np.multiply.at),
    "cumsum": _running(np.add),
    "cumprod": _running(np.multiply),
    "cummax": _running(np.maximum),
    "cummin": _running(np.minimum),
    "cumlogsumexp": _running(np.logaddexp),
    "reduce_sum": _reduced(np.add, 0),
    "reduce_prod": _reduced(np.multiply, 1),
    "reduce_max": _reduced(np.maximum),
    "reduce_min": _reduced(np.minimum),
    "reduce_or": _reduced(np.logical_or, False),
    "reduce_and": _reduced(np.logical_and, True),
    "argmax": _of_index(np.argmax),
    "argmin": _of_index(np.argmin),
}
