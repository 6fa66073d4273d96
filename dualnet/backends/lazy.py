"""Lazy arrays: what a step computes entry by entry is noted, and computed by few kernels.

The layers, rules and optimizers above are written in NumPy's functions, each of which would read
and write whole arrays.  Inside `run`, arrays are lazy: functions that work entry by entry only note
what is to be computed (`expressions`).  When a function needs the entries (a matrix product, a
reduction, a kernel of its own) or the step ends, one generated kernel computes the whole
expression (`fused`).

Every function that is not known here gets CuPy arrays, as if nothing were lazy.
"""

from __future__ import annotations

import functools
import inspect
import math
import operator
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import cupy
import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.lib.mixins import NDArrayOperatorsMixin

from dualnet import tree
from dualnet.backends import draws, expressions, fused, reductions
from dualnet.backends.expressions import FORMULAS, WHERE, Node, Number
from dualnet.backends.overridable import matmul
from dualnet.backends.placeholders import PlaceholderNumber
from dualnet.tree import Tree
from dualnet.types import Array, Shape

_PYTHON_NUMBERS = (bool, int, float)

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
        return function(*[_wrapped(x) for x in args])
    except BaseException:
        if len(_running) == 1:  # else what goes on around this call still needs them
            _UNDRAWN.clear()
        raise
    finally:
        _running.pop()


def force(values: Tree) -> Tree:
    """Return a tree with a CuPy array in the place of each lazy one."""
    compute([x for x in tree.leaves(values) if isinstance(x, LazyArray)])
    return tree.map(plain, values)


def store(values: Sequence[Any], targets: Sequence[Array]) -> None:
    """Write arrays, lazy or not, to contiguous CuPy arrays of the same shapes and dtypes.

    What is still to be computed is written there by the kernel that computes it.
    """
    _require_like(values, targets)
    here = [(x, t) for x, t in zip(values, targets, strict=True) if isinstance(x, LazyArray)]
    compute([x for x, _ in here], [t for _, t in here])
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
    _UNDRAWN.append((out, draw))
    return known(out)


def _draw_all() -> None:
    """Draw all that is noted and not drawn yet."""
    if _UNDRAWN:
        noted = list(_UNDRAWN)
        _UNDRAWN.clear()
        draws.fill_many(*zip(*noted, strict=True))


_UNDRAWN: list[tuple[Array, draws.Draw]] = []
"""The arrays that stand for random numbers that are not drawn yet."""


@contextmanager
def lane() -> Generator[None]:
    """Keep apart what is noted on a stream of its own, beside which other streams work.

    What is noted inside is not computed on the stream of another lane.  Random numbers are drawn on
    the stream of the lane, at the latest when it ends.  All else may stay noted until the streams
    are joined, and arrays of all lanes can then be computed together.

    Arrays that several lanes read must be computed before the first one begins; see `compute_all`.
    """
    _pending.append(weakref.WeakSet())
    try:
        yield
        _draw_all()
    finally:
        noted = _pending.pop()
        _pending[-1].update(noted)


def reduced(values: Tree) -> Tree:
    """Return a tree after all reductions that its lazy arrays depend on were computed.

    These take launches of their own at any time, so they had better be beside those of other lanes.
    """
    _draw_all()
    arrays = [x for x in tree.leaves(values) if isinstance(x, LazyArray)]
    for node in _reductions_before([x._node for x in arrays]):
        fused.reduce(node)
    return values


def plain(x: Any) -> Any:
    """Return a CuPy array for a lazy one, and anything else as it is."""
    return x.computed() if isinstance(x, LazyArray) else x


class LazyArray(NDArrayOperatorsMixin):
    """An array that stands for its CuPy array, which is computed when somebody needs it."""

    __slots__ = ("__weakref__", "_node")

    def __init__(self, node: Node):
        self._set(node)

    def _set(self, node: Node) -> None:
        self._node = node
        node.holder = weakref.ref(self)
        if node.array is None:
            _pending[-1].add(node)

    # --- what is known without its entries ---

    shape = property(lambda self: self._node.shape)
    dtype = property(lambda self: self._node.dtype)
    ndim = property(lambda self: len(self._node.shape))
    size = property(lambda self: math.prod(self._node.shape))
    itemsize = property(lambda self: self._node.dtype.itemsize)
    nbytes = property(lambda self: self.size * self.itemsize)

    @property
    def base(self) -> Any:
        """The memory that this array shows: one object for an array and its views.

        Duals find out by it which arrays a change in place changes too.
        """
        node = self._node.shown
        return node if node.array is None else node.array.data.mem

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def computed(self) -> Array:
        """Return the CuPy array."""
        _draw_all()
        if self._node.array is None:
            compute([self])
        return self._node.array

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
                return _wrapped(matmul(*_unwrapped(inputs)))
            result = _noted(ufunc, inputs)
            if result is not None:
                return result
        return _by_cupy("__array_ufunc__", ufunc, method, *inputs, **kwargs)

    def __array_function__(self, function: Callable, types: Any, args: Any, kwargs: Any) -> Any:
        if not all(issubclass(t, (LazyArray, cupy.ndarray, np.ndarray)) for t in types):
            return NotImplemented
        known = _FUNCTIONS.get(function)
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
        shown = _shown_by(self.shape, key)
        if shown is None:
            return _wrapped(self.computed()[_unwrapped(key)])
        return _rearranged(self, *shown)

    def __setitem__(self, key: Any, value: Any) -> None:
        value = _unwrapped(value)
        compute_all()
        array = self.computed()
        _require_own_places(array)
        array[_unwrapped(key)] = value

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
        if not {dtype.name, self.dtype.name} <= expressions.C_TYPES.keys():
            return _wrapped(self.computed().astype(dtype, copy=copy))
        return _function("{0}", (self,), (dtype,), self.shape, dtype)

    def transpose(self, *axes: Any) -> LazyArray:
        """Return the array with its axes in another order; see `np.ndarray.transpose`."""
        return np.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def reshape(self, *shape: Any, **kwargs: Any) -> LazyArray:
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
            return _wrapped(found)

        def method(*args: Any, **kwargs: Any) -> Any:
            if name not in _READS_ONLY or "out" in kwargs or len(args) > 2:
                compute_all()
            return _wrapped(found(*_unwrapped(args), **_unwrapped(kwargs)))

        return method

    def __repr__(self) -> str:
        state = "computed" if self._node.array is not None else "not computed yet"
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

_pending: list[weakref.WeakSet[Node]] = [weakref.WeakSet()]
"""The nodes for which lazy arrays stood that were not computed, so that they can be before memory
is overwritten.  The last set belongs to the innermost `lane` that goes on now."""


# --- from CuPy arrays and back -------------------------------------------------------------------


def known(array: Array) -> LazyArray:
    """Return a lazy array for a CuPy array that is there already."""
    return LazyArray(Node(array.shape, array.dtype, array))


def _wrapped(values: Any) -> Any:
    """Return a tree with a lazy array in the place of each CuPy array."""
    return tree.map(lambda x: known(x) if isinstance(x, cupy.ndarray) else x, values)


def _unwrapped(values: Any) -> Any:
    """Return arguments with a CuPy array in the place of each lazy one."""
    if isinstance(values, LazyArray):
        return values.computed()
    if type(values) is dict:
        return {name: _unwrapped(x) for name, x in values.items()}
    return type(values)(map(_unwrapped, values)) if type(values) in (list, tuple) else values


def _by_cupy(protocol: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Let CuPy's arrays answer one of NumPy's protocols."""
    result = getattr(_ANY, protocol)(function, *_unwrapped(args), **_unwrapped(kwargs))
    return result if result is NotImplemented else _wrapped(result)


def with_plain_arrays(kernel: Callable, writes: bool = False) -> Callable:
    """Return the form of a kernel for lazy arrays: it computes its arguments first.

    Args:
        kernel: the kernel.
        writes: whether it writes to an argument.
    """

    def on_lazy(*args: Any, **kwargs: Any) -> Any:
        if writes:
            compute_all()
        result = kernel(*_unwrapped(args), **_unwrapped(kwargs))
        return result if result is NotImplemented else _wrapped(result)

    return on_lazy


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
    if any(step == 0 and n > 1 for n, step in zip(array.shape, array.strides, strict=True)):
        raise ValueError(
            f"an array of shape {array.shape} that repeats its entries cannot be changed in place; "
            "change x.copy()"
        )


def _is_operand(x: Any) -> bool:
    """Whether x is of a kind that CuPy's functions take."""
    kinds = (LazyArray, cupy.ndarray, np.ndarray, np.generic, *_PYTHON_NUMBERS)
    return isinstance(x, (*kinds, PlaceholderNumber))


def _kind(x: Any) -> Any:
    """Return what decides of x about the dtype of a result."""
    if isinstance(x, _PYTHON_NUMBERS):
        return bool if isinstance(x, bool) else type(x)
    return float if isinstance(x, PlaceholderNumber) else x.dtype


def _noted(ufunc: Any, inputs: Sequence[Any]) -> LazyArray | None:
    """Note a function of NumPy that works entry by entry; None for one that is left to CuPy."""
    formula = FORMULAS.get(ufunc)
    if formula is None or not all(map(_has_c_type, inputs)):
        return None
    _require_floats(inputs)
    kinds = tuple(np.dtype(bool) if k is bool else k for k in map(_kind, inputs))
    dtypes = expressions.resolved(ufunc, kinds)
    if dtypes is None or not all(map(_fits, inputs, dtypes[:-1])):
        return None
    shape = expressions.broadcast([getattr(x, "shape", ()) for x in inputs])
    return _function(formula, inputs, dtypes[:-1], shape, dtypes[-1])


def _has_c_type(x: Any) -> bool:
    """Whether an operand is a number, or an array on the device of a dtype that C has."""
    if isinstance(x, (LazyArray, cupy.ndarray)):
        return x.dtype.name in expressions.C_TYPES
    return not isinstance(x, np.ndarray)


def _fits(x: Any, dtype: np.dtype) -> bool:
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


def _function(
    formula: str, inputs: Sequence[Any], types: tuple, shape: Shape, dtype: np.dtype
) -> LazyArray:
    """Note a function by its C text."""
    nodes = tuple(map(_input, inputs))
    if sum(node.functions for node in nodes) >= expressions.MOST_FUNCTIONS:
        compute([x for x in inputs if isinstance(x, LazyArray)])
    return LazyArray(Node(shape, dtype, None, nodes, formula, types))


def _input(x: Any) -> Node | Number:
    """Return the node of an array, or a number."""
    if isinstance(x, LazyArray):
        return x._node
    return Node(x.shape, x.dtype, x) if isinstance(x, cupy.ndarray) else Number(x)


def _constant(text: str) -> Callable:
    """Return the lazy form of `np.zeros_like` and its like."""

    def like(x: Any, dtype: Any = None, *, shape: Any = None, **how: Any) -> Any:
        dtype = x.dtype if dtype is None else np.dtype(dtype)
        if how or dtype.name not in expressions.C_TYPES:
            return NotImplemented
        shape = x.shape if shape is None else shape
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        return _function(text, (), (), shape, dtype)

    return like


def _where(condition: Any, *choices: Any) -> Any:
    inputs = (condition, *choices)
    arrays = all(isinstance(x, (LazyArray, cupy.ndarray, *_PYTHON_NUMBERS)) for x in inputs)
    if len(choices) != 2 or not arrays or not all(map(_has_c_type, inputs)):
        return NotImplemented
    of_choices = [x if isinstance(x, _PYTHON_NUMBERS) else x.dtype for x in choices]
    dtype = np.result_type(*of_choices)
    shape = expressions.broadcast([getattr(x, "shape", ()) for x in inputs])
    fit = all(_fits(x, dtype) for x in choices) and dtype.name in expressions.C_TYPES
    if not fit or _kind(condition) != np.dtype(bool):
        return NotImplemented
    return _function(WHERE, inputs, (np.dtype(bool), dtype, dtype), shape, dtype)


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
            return np.copy(_rearranged(x, shape, places))
        noted = x._node.array is None and not how and of_floats and x.size
        if not noted or len(reductions.runs_of_axes(x.shape, axes)) != 1:
            result = on_known(x.computed(), axis=axis, keepdims=keepdims, **how)
            return result if result is NotImplemented else known(result)
        shape = tuple(
            1 if i in axes else n for i, n in enumerate(x.shape) if keepdims or i not in axes
        )
        divisor = math.prod(x.shape[a] for a in axes) if function is np.mean else 1
        result = np.dtype(np.int64) if kind == "argmax" else x.dtype
        return LazyArray(Node(shape, result, None, (x._node,), reduction=(kind, axes, divisor)))

    return reduced


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """Return the axes that NumPy means by an argument `axis`."""
    return tuple(range(ndim)) if axis is None else normalize_axis_tuple(axis, ndim)


# --- axes ----------------------------------------------------------------------------------------


def _rearranged(x: LazyArray, shape: Shape, axes: tuple[int | None, ...]) -> LazyArray:
    """Show x in another shape: its axis i is the axis `axes[i]` of the result.

    An array that is computed already is shown by CuPy's own view, so that both share memory.
    """
    node = x._node
    if node.array is not None:
        return known(_view(node.array, shape, axes))
    return LazyArray(Node(shape, node.dtype, None, (node,), axes=axes))


def _view(array: Array, shape: Shape, axes: tuple[int | None, ...]) -> Array:
    """Return a view of a CuPy array with its axes rearranged as `_rearranged` says."""
    steps = [0] * len(shape)
    for n, step, axis in zip(array.shape, array.strides, axes, strict=True):
        if axis is not None and n > 1:
            steps[axis] = step
    return cupy.lib.stride_tricks.as_strided(array, shape, tuple(steps))


def _shown_by(shape: Shape, key: Any) -> tuple[Shape, tuple[int | None, ...]] | None:
    """Return what `_rearranged` takes for an index that only adds and drops axes of length 1.

    It is None for other indices.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    if not all(k is None or k is Ellipsis or type(k) is int or _is_whole(k) for k in keys):
        return None
    given = sum(k is not None and k is not Ellipsis for k in keys)
    if keys.count(Ellipsis) > 1 or given > len(shape):
        return None
    at = keys.index(Ellipsis) if Ellipsis in keys else len(keys)
    keys[at : at + 1] = [slice(None)] * (len(shape) - given)
    new_shape: list[int] = []
    axes: list[int | None] = []
    for k in keys:
        n = 1 if k is None else shape[len(axes)]
        if type(k) is int:
            if n != 1 or k not in (0, -1):
                return None
            axes.append(None)
            continue
        if k is not None:
            axes.append(len(new_shape))
        new_shape.append(n)
    return tuple(new_shape), tuple(axes)


def _is_whole(key: Any) -> bool:
    """Whether an index takes the whole of an axis."""
    return type(key) is slice and key == slice(None)


def _broadcast_to(x: Any, shape: Any) -> Any:
    if not isinstance(x, LazyArray):
        return NotImplemented
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if np.broadcast_shapes(x.shape, shape) != shape:
        return NotImplemented
    lead = len(shape) - x.ndim
    axes = tuple(lead + i if n > 1 or shape[lead + i] == 1 else None for i, n in enumerate(x.shape))
    return _rearranged(x, shape, axes)


def _transpose(x: Any, axes: Any = None) -> Any:
    if not isinstance(x, LazyArray):
        return NotImplemented
    order = tuple(reversed(range(x.ndim)))
    if axes is not None:
        order = normalize_axis_tuple(axes, x.ndim)
    if len(order) != x.ndim:
        return NotImplemented
    return _rearranged(x, tuple(x.shape[a] for a in order), tuple(map(order.index, range(x.ndim))))


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
    return x[(*[slice(None)] * at, None)]


def _copy(x: Any, **how: Any) -> Any:
    if not isinstance(x, LazyArray) or how or x.dtype.name not in expressions.C_TYPES:
        return NotImplemented
    return _function("{0}", (x,), (x.dtype,), x.shape, x.dtype)


def _reshape(x: Any, shape: Any, **how: Any) -> Any:
    """Reshape; without computing where only axes of length 1 come or go."""
    if not isinstance(x, LazyArray) or how:
        return NotImplemented
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if x._node.array is None and -1 not in shape:
        long = [i for i, n in enumerate(shape) if n != 1]
        own = [i for i, n in enumerate(x.shape) if n != 1]
        if [shape[i] for i in long] == [x.shape[i] for i in own]:
            place = dict(zip(own, long, strict=True))
            return _rearranged(x, shape, tuple(place.get(i) for i in range(x.ndim)))
    return known(x.computed().reshape(shape))


# --- computing -----------------------------------------------------------------------------------


def _in_place(ufunc: Any, method: str, inputs: Sequence, kwargs: dict) -> Any:
    """Write a function's result into an array that is there: what reads it is computed first."""
    (target,) = kwargs["out"]
    usual = method == "__call__" and set(kwargs) == {"out"} and isinstance(target, LazyArray)
    node = target._node if usual else None
    if node is not None and node.array is None and not node.users and node.axes is None:
        # nobody else has seen the old entries, so they need not be computed
        result = _noted(ufunc, inputs)
        if result is not None and (result.shape, result.dtype) == (target.shape, target.dtype):
            target._set(result._node)
            return target
    compute_all()
    if usual:
        if ufunc is np.matmul:
            matmul(*_unwrapped(inputs), target.computed())
            return target
        result = _noted(ufunc, inputs)
        array = target.computed()
        _require_own_places(array)
        if result is not None and result.shape == array.shape and result.dtype == array.dtype:
            array[...] = result.computed()
            return target
    out = tuple(_unwrapped(x) for x in kwargs["out"])
    _by_cupy("__array_ufunc__", ufunc, method, *inputs, **{**kwargs, "out": out})
    return target


def compute_all() -> None:
    """Compute every lazy array that was noted in the present lane, and outside of one all.

    That is needed before memory is overwritten that some of them read, and before other streams may
    use them.
    """
    pending = _pending[-1]
    compute([node.holder() for node in list(pending) if node.array is None and node.is_held])
    pending.clear()


def compute(arrays: Sequence[LazyArray], into: Sequence[Array] | None = None) -> None:
    """Compute lazy arrays together, so that few kernels are launched.

    Args:
        arrays: the lazy arrays.
        into: for each the contiguous CuPy array to write it to; None for new ones.
    """
    targets: list[Any] = [None] * len(arrays) if into is None else list(into)
    wanted: dict[Node, Any] = {}
    views = []
    for x, target in zip(arrays, targets, strict=True):
        if x._node.array is None:
            if target is not None and (target.shape, target.dtype) != (x.shape, x.dtype):
                raise TypeError(f"expected {target.dtype}{target.shape}, got {x.dtype}{x.shape}")
            if target is None and x._node.shares_memory:
                views.append(x._node)
            else:
                wanted.setdefault(x._node, target)
    for view in views:
        if view not in wanted and view.shown.array is None:
            wanted.setdefault(view.shown, None)
    _draw_all()
    for node in _reductions_before(list(wanted)):
        fused.reduce(node)
    for node in wanted:
        _show(node)
    wanted = _still_wanted(wanted)
    jobs = [fused.Job(nodes, {n: wanted[n] for n in nodes}) for nodes in _clusters(list(wanted))]
    fused.launch(jobs)
    for view in views:
        _show(view)


def _show(node: Node) -> None:
    """Make a rearranged node known if what it shows is known: as a view, without a kernel."""
    if node.array is None and node.axes is not None:
        (inner,) = node.inputs
        _show(inner)
        if inner.array is not None:
            node.become(_view(inner.array, node.shape, node.axes))


def _still_wanted(wanted: dict[Node, Any]) -> dict[Node, Any]:
    """Return the nodes that are not known yet, and copy those that are known to their targets."""
    for node, target in wanted.items():
        if node.array is not None and target is not None:
            cupy.copyto(target, node.array)
    return {node: target for node, target in wanted.items() if node.array is None}


def _reductions_before(nodes: list[Node]) -> list[Node]:
    """Return the reductions on which nodes depend, in an order in which they can be computed."""
    order: list[Node] = []
    seen: set[Node] = set()

    def visit(node: Any) -> None:
        if isinstance(node, Number) or node.array is not None or node in seen:
            return
        seen.add(node)
        for x in node.inputs:
            visit(x)
        if node.reduction is not None:
            order.append(node)

    for node in nodes:
        visit(node)
    return order


def _clusters(nodes: list[Node]) -> list[list[Node]]:
    """Put nodes together that have one shape and parts in common; each cluster is one kernel."""
    clusters: list[tuple[list[Node], set[Node]]] = []
    for node in nodes:
        parts = _parts(node)
        apart = []
        together, all_parts = [node], parts
        for others, theirs in clusters:
            if others[0].shape == node.shape and not parts.isdisjoint(theirs):
                together, all_parts = [*others, *together], all_parts | theirs
            else:
                apart.append((others, theirs))
        clusters = [*apart, (together, all_parts)]
    return [nodes for nodes, _ in clusters]


def _parts(node: Node) -> set[Node]:
    """Return the nodes of an expression that are still to be computed."""
    parts, left = set(), [node]
    while left:
        here = left.pop()
        if isinstance(here, Node) and here.array is None and here not in parts:
            parts.add(here)
            left += here.inputs
    return parts


_FUNCTIONS: dict[Callable, Callable] = {
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
"""NumPy's functions that lazy arrays answer themselves; NotImplemented means that CuPy answers."""

_ANY = cupy.empty((1,), np.float32)
"""A CuPy array by which CuPy is asked for its answers."""
