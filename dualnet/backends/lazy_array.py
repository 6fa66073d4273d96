"""The arrays that functions get inside `lazy.run`: they follow NumPy's protocols, and compute late.

A function of NumPy that works entry by entry becomes a node (`expressions`).  Some others have a
lazy form of their own (`lazy_functions`).  All the rest get CuPy arrays, as if nothing were lazy.
"""

from __future__ import annotations

import functools
import inspect
import math
import operator
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cupy
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from dualnet import tree
from dualnet.backends import expressions
from dualnet.backends.computing import (
    PENDING,
    compute,
    compute_all,
    draw_all,
    view_of,
)
from dualnet.backends.expressions import FORMULAS, Node, Number
from dualnet.backends.overridable import matmul
from dualnet.backends.placeholders import PlaceholderNumber
from dualnet.types import Array, Shape

FUNCTIONS: dict[Callable, Callable] = {}
"""NumPy's functions that lazy arrays answer themselves (`lazy_functions`).  If one returns
NotImplemented, CuPy answers."""

PYTHON_NUMBERS = (bool, int, float)

_ANY = cupy.empty((1,), np.float32)
"""A CuPy array by which CuPy is asked for its answers."""


def plain(x: Any) -> Any:
    """Return a CuPy array for a lazy one, and anything else as it is."""
    return x.computed() if isinstance(x, LazyArray) else x


class LazyArray(NDArrayOperatorsMixin):
    """An array that stands for its CuPy array, which is computed when somebody needs it."""

    __slots__ = ("__weakref__", "node")

    def __init__(self, node: Node):
        self._set(node)

    def _set(self, node: Node) -> None:
        self.node = node
        node.holder = weakref.ref(self)
        if node.array is None:
            PENDING[-1][node] = None

    # --- what is known without its entries ---

    shape = property(lambda self: self.node.shape)
    dtype = property(lambda self: self.node.dtype)
    ndim = property(lambda self: len(self.node.shape))
    size = property(lambda self: math.prod(self.node.shape))
    itemsize = property(lambda self: self.node.dtype.itemsize)
    nbytes = property(lambda self: self.size * self.itemsize)

    @property
    def base(self) -> Any:
        """The memory that this array shows: one object for an array and its views.

        Duals find out by it which arrays a change in place changes too.
        """
        node = self.node.shown
        return node if node.array is None else node.array.data.mem

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def computed(self) -> Array:
        """Return the CuPy array."""
        draw_all()
        if self.node.array is None:
            compute([self.node])
        return self.node.array

    # --- NumPy's protocols ---

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if not all(map(_is_operand, inputs)):
            return NotImplemented
        out = kwargs.get("out")
        if out is not None:
            return _in_place(ufunc, method, inputs, kwargs)
        if method == "at":
            compute_all()
        if method == "__call__" and not kwargs:
            if ufunc is np.matmul:
                return wrapped(matmul(*unwrapped(inputs)))
            result = _noted(ufunc, inputs)
            if result is not None:
                return result
        return _by_cupy("__array_ufunc__", ufunc, method, *inputs, **kwargs)

    def __array_function__(self, function: Callable, types: Any, args: Any, kwargs: Any) -> Any:
        if not all(issubclass(t, (LazyArray, cupy.ndarray, np.ndarray)) for t in types):
            return NotImplemented
        known = FUNCTIONS.get(function)
        if known is not None:
            result = known(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if _writes(function, args, kwargs):
            compute_all()
        types = tuple({cupy.ndarray if t is LazyArray else t for t in types})
        return _by_cupy("__array_function__", function, types, args, kwargs)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.computed().__array__(*args, **kwargs)

    # --- entries ---

    def __getitem__(self, key: Any) -> Any:
        shown = expressions.shown_by(self.shape, key)
        if shown is None:
            return wrapped(self.computed()[unwrapped(key)])
        return rearranged(self, *shown)

    def __setitem__(self, key: Any, value: Any) -> None:
        value = unwrapped(value)
        compute_all()
        array = self.computed()
        _require_own_places(array)
        array[unwrapped(key)] = value

    def __iter__(self) -> Iterable:
        return (self[i] for i in range(len(self)))

    __bool__ = lambda self: bool(self.computed())  # noqa: E731
    __int__ = lambda self: int(self.computed())  # noqa: E731
    __float__ = lambda self: float(self.computed())  # noqa: E731
    __index__ = lambda self: operator.index(self.computed())  # noqa: E731

    # --- methods ---

    T = property(lambda self: np.transpose(self))
    mT = property(lambda self: np.swapaxes(self, -1, -2))

    def astype(self, dtype: Any, copy: bool = True) -> LazyArray:
        """Convert to another dtype; without a copy where it has this dtype already."""
        dtype = np.dtype(dtype)
        if self.dtype == dtype and not copy:
            return self
        if None in (expressions.c_type(dtype), expressions.c_type(self.dtype)):
            return wrapped(self.computed().astype(dtype, copy=copy))
        return noted_function("{0}", (self,), (dtype,), self.shape, dtype)

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        """Return the array in another shape; see `np.reshape`."""
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, **kwargs)

    def transpose(self, *axes: Any) -> Any:
        """Return the array with its axes in another order; see `np.transpose`."""
        return np.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def __getattr__(self, name: str) -> Any:
        if name in _METHODS_OF_NUMPY:
            function = getattr(np, name)
            return lambda *args, **kwargs: function(self, *args, **kwargs)
        if name not in _OF_CUPY:
            raise AttributeError(f"'LazyArray' object has no attribute {name!r}")
        found = getattr(self.computed(), name)
        if not callable(found):
            return wrapped(found)

        def method(*args: Any, **kwargs: Any) -> Any:
            if name not in _READS_ONLY or "out" in kwargs or len(args) > 2:
                compute_all()
            return wrapped(found(*unwrapped(args), **unwrapped(kwargs)))

        return method

    def __repr__(self) -> str:
        state = "computed" if self.node.array is not None else "not computed yet"
        return f"LazyArray({self.dtype}{self.shape}, {state})"


_METHODS_OF_NUMPY = {
    *("sum", "mean", "max", "min", "argmax", "swapaxes", "squeeze", "var", "copy"),
}
"""The methods that do what NumPy's functions of these names do."""

_OF_CUPY = {name for name in dir(cupy.ndarray) if not name.startswith("_")}
"""The names of what CuPy's arrays have; an array is not computed when it is asked for another."""

_READS_ONLY = {
    *("all", "any", "argsort", "astype", "copy", "diagonal", "flatten", "get", "item", "ravel"),
    *("nonzero", "repeat", "take", "tolist", "trace", "view"),
}
"""CuPy's methods that are known to change no array, if they are given no `out`."""

# --- from CuPy arrays and back -------------------------------------------------------------------


def known(array: Array) -> LazyArray:
    """Return a lazy array for a CuPy array that is there already."""
    return LazyArray(Node(array.shape, array.dtype, array))


def wrapped(values: Any) -> Any:
    """Return a tree with a lazy array in the place of each CuPy array."""
    return tree.map(lambda x: known(x) if isinstance(x, cupy.ndarray) else x, values)


def unwrapped(values: Any) -> Any:
    """Return arguments with a CuPy array in the place of each lazy one."""
    if isinstance(values, LazyArray):
        return values.computed()
    if type(values) is dict:
        return {name: unwrapped(x) for name, x in values.items()}
    return type(values)(map(unwrapped, values)) if type(values) in (list, tuple) else values


def _by_cupy(protocol: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Let CuPy's arrays answer one of NumPy's protocols."""
    result = getattr(_ANY, protocol)(function, *unwrapped(args), **unwrapped(kwargs))
    return result if result is NotImplemented else wrapped(result)


# --- functions that are noted --------------------------------------------------------------------


_WRITE = {np.copyto, np.fill_diagonal, np.place, np.put, np.put_along_axis, np.putmask}
"""NumPy's functions that write to their first argument."""


def _writes(function: Callable, args: tuple, kwargs: dict) -> bool:
    """Whether a call of a function of NumPy's writes to an array that is there."""
    if function in _WRITE or kwargs.get("out") is not None:
        return True
    place = _place_of_out(function)
    return place is not None and len(args) > place and args[place] is not None


@functools.cache
def _place_of_out(function: Callable) -> int | None:
    """Return which argument of a function of NumPy's, by position, is `out`; None if none is."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # functions in C do not always say what they take
        return None
    by_place = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    return by_place.index("out") if "out" in by_place else None


def _require_own_places(array: Array) -> None:
    """Raise a ValueError if entries have their place in memory in common, before it is written."""
    steps = zip(array.shape, array.strides, strict=True)
    if array.size and any(step == 0 and n > 1 for n, step in steps):
        raise ValueError(
            f"an array of shape {array.shape} that repeats its entries cannot be changed in place; "
            "change x.copy()"
        )


def _is_operand(x: Any) -> bool:
    """Whether x is of a kind that CuPy's functions take."""
    kinds = (LazyArray, cupy.ndarray, np.ndarray, np.generic, *PYTHON_NUMBERS)
    return isinstance(x, (*kinds, PlaceholderNumber))


def kind_of(x: Any) -> Any:
    """Return what decides of x about the dtype of a result."""
    if isinstance(x, PYTHON_NUMBERS):
        return bool if isinstance(x, bool) else type(x)
    return float if isinstance(x, PlaceholderNumber) else x.dtype


def _noted(ufunc: Any, inputs: Sequence[Any]) -> LazyArray | None:
    """Note a function of NumPy that works entry by entry; None for one that is left to CuPy."""
    if ufunc not in FORMULAS or not all(map(has_c_type, inputs)):
        return None
    _require_floats(inputs)
    kinds = tuple(np.dtype(bool) if k is bool else k for k in map(kind_of, inputs))
    dtypes = expressions.resolved(ufunc, kinds)
    if dtypes is None or not all(map(fits, inputs, dtypes[:-1])):
        return None
    shape = expressions.broadcast([getattr(x, "shape", ()) for x in inputs])
    formula = expressions.formula(ufunc, dtypes[-1])
    return noted_function(formula, inputs, dtypes[:-1], shape, dtypes[-1])


def has_c_type(x: Any) -> bool:
    """Whether an operand is a number, or an array on the device of a dtype that C has."""
    if isinstance(x, (LazyArray, cupy.ndarray)):
        return expressions.c_type(x.dtype) is not None
    return not isinstance(x, np.ndarray)


def fits(x: Any, dtype: np.dtype) -> bool:
    """Whether an operand can be converted to a dtype; a number may be too large an integer."""
    if not isinstance(x, int) or dtype.kind != "i":
        return True
    return np.iinfo(dtype).min <= x <= np.iinfo(dtype).max


def _require_floats(inputs: Sequence[Any]) -> None:
    """Raise a TypeError for a placeholder beside integers.

    Whether it stands for an integer, and so of which dtype the result is, is not known.
    """
    for number in inputs:
        if isinstance(number, PlaceholderNumber):
            for x in inputs:
                if isinstance(x, LazyArray) and x.dtype.kind != "f":
                    raise TypeError(
                        f"the number {number.formula} is not known while a step is recorded, and "
                        f"so of which dtype its result with {x.dtype} is; convert the array"
                    )


def noted_function(
    formula: str, inputs: Sequence[Any], types: tuple, shape: Shape, dtype: np.dtype
) -> LazyArray:
    """Note a function by its C text."""
    nodes = tuple(map(_input, inputs))
    if sum(node.functions for node in nodes) >= expressions.MOST_FUNCTIONS:
        compute([x.node for x in inputs if isinstance(x, LazyArray)])
    return LazyArray(Node(shape, dtype, None, nodes, formula, types))


def _input(x: Any) -> Node | Number:
    """Return the node of an array, or a number."""
    if isinstance(x, LazyArray):
        return x.node
    return Node(x.shape, x.dtype, x) if isinstance(x, cupy.ndarray) else Number(x)


def rearranged(x: LazyArray, shape: Shape, axes: tuple[int | None, ...]) -> LazyArray:
    """Show x in another shape: its axis i is the axis `axes[i]` of the result.

    An array that is computed already is shown by CuPy's own view, so that both share memory.
    """
    node = x.node
    if node.array is not None:
        return known(view_of(node.array, shape, axes))
    return LazyArray(Node(shape, node.dtype, None, (node,), axes=axes))


# --- writing in place ----------------------------------------------------------------------------


def _in_place(ufunc: Any, method: str, inputs: Sequence, kwargs: dict) -> Any:
    """Write a function's result into an array that is there: what reads it is computed first."""
    (target,) = kwargs["out"]
    usual = method == "__call__" and set(kwargs) == {"out"} and isinstance(target, LazyArray)
    node = target.node if usual else None
    if node is not None and node.array is None and not node.users and node.axes is None:
        # nobody else has seen the old entries, so they need not be computed
        result = _noted(ufunc, inputs)
        if result is not None and (result.shape, result.dtype) == (target.shape, target.dtype):
            target._set(result.node)
            return target
    compute_all()
    if usual:
        if ufunc is np.matmul:
            matmul(*unwrapped(inputs), target.computed())
            return target
        result = _noted(ufunc, inputs)
        array = target.computed()
        _require_own_places(array)
        if result is not None and result.shape == array.shape and result.dtype == array.dtype:
            array[...] = result.computed()
            return target
    out = tuple(unwrapped(x) for x in kwargs["out"])
    _by_cupy("__array_ufunc__", ufunc, method, *inputs, **{**kwargs, "out": out})
    return target
