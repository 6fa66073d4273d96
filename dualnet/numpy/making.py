"""Functions of NumPy that make arrays, or go through them, and ask no argument what it means.

Each leaves a call without duals to NumPy's function of the same name, and returns what that does.
A Dual is copied where NumPy copies an array, and in the order in which NumPy does.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from dualnet.core.arrays import asarray_like
from dualnet.core.dual import Dual, astype, primal_of
from dualnet.errors import DualConversionError
from dualnet.numpy.lists import dual_in, stacked
from dualnet.types import Array

# --- from lists, numbers and arrays --------------------------------------------------------------


def _making(fn: Callable, ndmin: int = 0) -> Callable:
    """Make `fn(x, dtype)` take duals and nested lists of them; x gets at least `ndmin` axes."""

    @functools.wraps(fn)
    def make(*args: Any, **kwargs: Any) -> Any:
        x = args[0] if args else None
        if isinstance(x, np.ndarray) and x.dtype.kind == "O":
            x = x.tolist()  # a list of duals that was kept as an array
        if dual_in(x) is None:
            return fn(*args, **kwargs)
        x = _of_dtype(stacked(x), args[1] if len(args) > 1 else kwargs.get("dtype"))
        x = _in_memory(fn, x, args, kwargs)
        missing = max(ndmin, kwargs.get("ndmin", 0)) - x.ndim
        return np.reshape(x, (1,) * missing + x.shape) if missing > 0 else x

    make.__module__ = "dualnet.numpy"
    return make


array = _making(np.array)
asarray = _making(np.asarray)
asanyarray = _making(np.asanyarray)
ascontiguousarray = _making(np.ascontiguousarray, ndmin=1)
asfortranarray = _making(np.asfortranarray, ndmin=1)
require = _making(np.require)


def _in_memory(fn: Callable, x: Any, args: tuple, kwargs: dict) -> Any:
    """Copy a Dual if `fn` copies its value, in the order that it chooses."""
    plain = primal_of(x)
    if not isinstance(plain, np.ndarray):
        return x
    value = fn(plain, *args[1:], **kwargs)
    if np.shares_memory(value, plain):
        return x
    by_columns = value.flags.f_contiguous and not value.flags.c_contiguous
    return np.copy(x, "F" if by_columns else "C")


def _of_dtype(x: Dual, dtype: Any) -> Any:
    """Convert a Dual; as everywhere, a conversion to integers or booleans drops the tangent."""
    if dtype is None or dtype == x.dtype:
        return x
    if np.dtype(dtype).kind not in "fiub":
        raise DualConversionError(
            f"an array of dtype {np.dtype(dtype)} cannot hold duals; expected a real dtype, such "
            "as float. Duals are kept without an array in a list"
        )
    return astype(x, dtype)


@functools.wraps(np.fromiter)
def fromiter(iter: Iterable, dtype: Any, count: int = -1, **kwargs: Any) -> Any:
    items = list(itertools.islice(iter, count if count >= 0 else None))
    if dual_in(items) is None:
        return np.fromiter(items, dtype, count, **kwargs)
    if len(items) < count:
        raise ValueError(f"np.fromiter: expected {count} items, got {len(items)}")
    return array(items, dtype)


@functools.wraps(np.full)
def full(shape: Any, fill_value: Any, dtype: Any = None, **kwargs: Any) -> Any:
    if dual_in(fill_value) is None:
        return np.full(shape, fill_value, dtype, **kwargs)
    return np.broadcast_to(array(fill_value, dtype), shape)


@functools.wraps(np.full_like)
def full_like(a: Any, fill_value: Any, dtype: Any = None, **kwargs: Any) -> Any:
    if dual_in(fill_value) is None:
        return np.full_like(primal_of(stacked(a)), fill_value, dtype, **kwargs)
    a, shape = asarray(a), kwargs.get("shape")
    return full(a.shape if shape is None else shape, fill_value, dtype or a.dtype)


@functools.wraps(np.arange)
def arange(*args: Any, **kwargs: Any) -> Any:
    """Start and step move the points; the stop, which decides only how many there are, does not."""
    like = dual_in((*args, *kwargs.values()))
    if like is None:
        return np.arange(*args, **kwargs)
    plain = [_host_number(x) for x in args]
    points = np.arange(*plain, **{name: _host_number(x) for name, x in kwargs.items()})
    if points.dtype.kind != "f":
        return asarray_like(points, like)
    starts = len(args) > 1 or (len(args) == 1 and "stop" in kwargs)
    start = args[0] if starts else kwargs.get("start", 0)
    step = args[2] if len(args) > 2 else kwargs.get("step", 1)
    tangents = _minus_itself(start) + _minus_itself(step) * np.arange(points.size)
    return asarray_like(points, like) + astype(tangents, points.dtype)


def _host_number(x: Any) -> Any:
    x = primal_of(x)
    return x.dtype.type(float(x)) if getattr(x, "shape", None) == () else x


def _minus_itself(x: Any) -> Any:
    """Return zero, with the tangent of x."""
    return x - primal_of(x) if isinstance(x, Dual) else 0.0


# --- joining by their places in the result -------------------------------------------------------


def row_stack(tup: Any, **kwargs: Any) -> Any:
    """Join rows: the old name of `np.vstack`, which NumPy has up to version 2.4."""
    if dual_in(tup) is None:
        return getattr(np, "row_stack", np.vstack)(tup, **kwargs)
    return np.vstack([stacked(row) for row in tup], **kwargs)


@functools.wraps(np.block)
def block(arrays: Any) -> Any:
    if dual_in(arrays) is None:
        return np.block(arrays)
    entries = _Entries()

    def numbered(part: Any) -> Any:
        return list(map(numbered, part)) if isinstance(part, list) else entries.numbers_of(part)

    return entries.at(np.block(numbered(arrays)))


class _Joining:
    """`np.r_` or `np.c_`, for duals too."""

    def __init__(self, joining: Any):
        self._numpys = joining

    def __getitem__(self, key: Any) -> Any:
        items = key if isinstance(key, tuple) else (key,)
        bounds = [(x.start, x.stop, x.step) if isinstance(x, slice) else x for x in items]
        if dual_in(bounds) is None:
            return self._numpys[key]
        entries = _Entries()
        items = tuple(_range(x) if isinstance(x, slice) else x for x in items)
        numbers = tuple(x if isinstance(x, str) else entries.numbers_of(x) for x in items)
        dtypes = (_weak(x) for x in items if not isinstance(x, str))
        return astype(entries.at(self._numpys[numbers]), np.result_type(*dtypes))

    def __len__(self) -> int:
        return len(self._numpys)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._numpys, name)


r_ = _Joining(np.r_)
c_ = _Joining(np.c_)


def _range(item: slice) -> Any:
    """Make the array that a slice stands for in `np.r_`, where the step 5j asks for 5 points."""
    start, step = 0 if item.start is None else item.start, 1 if item.step is None else item.step
    if isinstance(step, complex):
        return np.linspace(start, item.stop, int(abs(step)))
    return arange(start, item.stop, step)


def _weak(item: Any) -> Any:
    """Return what an item of `np.r_` says about the dtype: a Python number does not widen it."""
    return item if isinstance(item, (bool, int, float)) else asarray(item).dtype


class _Entries:
    """The entries of several arrays, numbered.

    Where a function only moves entries, it may as well move their numbers, which then say where
    each entry of the result comes from.
    """

    def __init__(self) -> None:
        self._parts: list[Array] = []
        self._count = 0

    def numbers_of(self, part: Any) -> np.ndarray:
        """Return an array of the part's shape that holds the numbers of its entries."""
        x = part if hasattr(part, "dtype") else asarray(part)
        self._parts.append(np.ravel(x))
        first, self._count = self._count, self._count + x.size
        return np.arange(first, self._count).reshape(x.shape)

    def at(self, numbers: np.ndarray) -> Any:
        """Return the entries with these numbers."""
        like = dual_in(self._parts)
        parts = [x if isinstance(x, Dual) else asarray_like(x, like) for x in self._parts]
        return np.take(np.concatenate(parts), numbers)


# --- going through the entries -------------------------------------------------------------------


class vectorize(np.vectorize):
    """`np.vectorize`, also of functions that take or return duals.

    Raises:
        DualConversionError: duals and a `signature=`; or `otypes=` is not given and the first
            result is an integer, to which NumPy would cut all others.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if dual_in((*args, *kwargs.values())) is None:
            try:
                return super().__call__(*args, **kwargs)
            except DualConversionError:
                pass  # it returned duals of which it knows by itself, and is called anew
        return self._of_duals(*args, **kwargs)

    def _of_duals(self, *args: Any, **kwargs: Any) -> Any:
        if self.signature is not None:
            raise DualConversionError(
                "np.vectorize: signature= cannot be used with duals; write a loop and np.stack"
            )
        over = {i: a for i, a in [*enumerate(args), *kwargs.items()] if i not in self.excluded}
        arrays = dict(zip(over, np.broadcast_arrays(*map(asarray, over.values())), strict=True))
        shape = np.shape(next(iter(arrays.values()), 0))
        results = []
        for index in np.ndindex(shape):
            entry = {name: a[index] for name, a in arrays.items()}
            at = [entry.get(i, a) for i, a in enumerate(args)]
            named = {name: entry.get(name, a) for name, a in kwargs.items()}
            results.append(self.pyfunc(*at, **named))
        if not results and self.otypes is None:
            raise ValueError("np.vectorize: arrays of size 0 need otypes=, as in otypes=[float]")
        if not isinstance(results[0] if results else None, tuple):
            return self._gathered(results, 0, shape)
        columns = zip(*results, strict=True)
        return tuple(self._gathered(list(c), i, shape) for i, c in enumerate(columns))

    def _gathered(self, results: list, number: int, shape: tuple) -> Any:
        if self.otypes is not None:
            dtype = np.dtype(self.otypes[number])
        else:
            dtype = np.result_type(asarray(results[0]))
            if dtype.kind != "f" and dual_in(results) is not None:
                raise DualConversionError(
                    f"np.vectorize: the first result is {dtype}, and NumPy cuts all others to "
                    "that; expected floats. Return 0.0 instead of 0, or give otypes=[float]"
                )
        return np.reshape(array(results, dtype), shape)


class ndenumerate(np.ndenumerate):
    """`np.ndenumerate`, also of a Dual."""

    def __new__(cls, arr: Any) -> Any:
        arr = stacked(arr)
        return _enumerated(arr) if isinstance(arr, Dual) else np.ndenumerate(arr)


def _enumerated(x: Dual) -> Iterator:
    return ((index, x[index]) for index in np.ndindex(x.shape))


# --- questions about values ----------------------------------------------------------------------


@functools.wraps(np.isscalar)
def isscalar(element: Any) -> bool:
    return np.isscalar(primal_of(element))


@functools.wraps(np.iterable)
def iterable(y: Any) -> bool:
    return np.iterable(primal_of(y))
