"""What a Dual has of an array: attributes, operators and methods, which are NumPy's functions."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dualnet.core import aliasing, refusals

_FEW = 8
"""Of how many entries `repr` shows each."""


def _operators(fn: Callable) -> tuple[Any, Any, Any]:
    """Make the operators that are `fn`: with the dual on the left, on the right, and in place."""

    def left(self: Any, other: Any) -> Any:
        meaning = getattr(other, "__array_ufunc__", self)
        if meaning is None or (meaning is self and hasattr(other, "__array_priority__")):
            return NotImplemented  # NumPy's conventions: the other side knows what to do
        return self.evaluate(fn, (self, other), {})

    def in_place(self: Any, other: Any) -> Any:
        return aliasing.write(self, self.evaluate(fn, (self, other), {}), fn)

    return left, lambda self, other: self.evaluate(fn, (other, self), {}), in_place


def _equality(fn: Callable, operator: Callable) -> Any:
    """Make the operator == or != of which `fn` is the function."""
    evaluated = _operators(fn)[0]

    def compare(self: Any, other: Any) -> Any:
        try:
            return evaluated(self, other)
        except TypeError:  # of text, which is unequal to all numbers for NumPy's operator alone
            return operator(self._value(), aliasing.value_of(other))

    return compare


def _method(fn: Callable) -> Any:
    """Make the method that is the NumPy function `fn`, with the dual as its first argument."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs:
            return aliasing.evaluate_into(self.evaluate, fn, (self, *args), kwargs)
        return self.evaluate(fn, (self, *args), kwargs)

    return method


def _no_setter(name: str, instead: str) -> Callable:
    def refuse(_self: Any, _value: Any) -> None:
        raise refusals.no_method(f"x.{name} that can be set", f"Write {instead}")

    return refuse


_OF_MEMORY = {
    **dict.fromkeys(("view", "getfield", "setfield"), "Write x.astype(dtype) or x[...]"),
    **dict.fromkeys(("byteswap", "setflags", "flags"), "Write x.copy()"),
    "resize": "Write np.pad, np.concatenate or x.reshape",
    **dict.fromkeys(("tofile", "dump", "dumps", "ctypes"), "Write dn.stop_gradient(x)"),
}
"""method of arrays → what to write instead."""


def _shown(x: Any) -> str:
    """Return a small array of NumPy's with its entries, and any other as its dtype and shape."""
    small = not isinstance(x, np.ndarray) or x.size <= _FEW
    return repr(x) if small else f"{x.dtype}{x.shape}"


class ArrayMethods:
    """The base class of `Dual`, which has `primal` and evaluates functions of duals."""

    primal: Any
    __slots__ = ()

    # --- what arrays have ---

    shape = property(lambda self: self.primal.shape, _no_setter("shape", "x = x.reshape(shape)"))
    ndim = property(lambda self: self.primal.ndim)
    size = property(lambda self: self.primal.size)
    dtype = property(lambda self: self.primal.dtype, _no_setter("dtype", "x = x.astype(dtype)"))
    T = property(lambda self: np.transpose(self))
    mT = property(lambda self: np.swapaxes(self, -1, -2))

    def __repr__(self: Any) -> str:
        return f"Dual(primal={_shown(self.primal)}, tangent={_shown(self.tangent)})"

    def __len__(self: Any) -> int:
        return len(self.primal)

    def __iter__(self: Any) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def reshape(self: Any, *shape: Any, **kwargs: Any) -> Any:
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, **kwargs)

    def transpose(self: Any, *axes: Any) -> Any:
        return np.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def copy(self: Any, order: Any = "C") -> Any:
        return np.copy(self, order)

    def flatten(self: Any, order: Any = "C") -> Any:
        return np.ravel(np.copy(self, "K"), order)  # not a view, as np.ravel may give

    __copy__ = copy
    __deepcopy__ = lambda self, _memo: np.copy(self, "K")  # noqa: E731

    def __reduce_ex__(self, _protocol: Any) -> Any:
        raise refusals.no_pickle()

    # --- what looks at the value alone, as comparisons do ---

    def _value(self: Any) -> Any:
        return aliasing.value_of(self)[()]

    def __contains__(self: Any, entry: Any) -> bool:
        return aliasing.value_of(entry) in self._value()

    def __divmod__(self: Any, other: Any) -> tuple:
        return self // other, self % other

    def __rdivmod__(self: Any, other: Any) -> tuple:
        return other // self, other % self

    def __round__(self: Any, digits: int | None = None) -> Any:
        return round(self._value(), digits)

    __floor__ = lambda self: math.floor(self._value())  # noqa: E731
    __ceil__ = lambda self: math.ceil(self._value())  # noqa: E731
    __trunc__ = lambda self: math.trunc(self._value())  # noqa: E731

    def __format__(self: Any, spec: str) -> str:
        return format(self._value(), spec) if spec else str(self)

    def __getattr__(self: Any, name: str) -> Any:
        if name in _OF_MEMORY:
            raise refusals.no_method(f"x.{name}", _OF_MEMORY[name])
        raise AttributeError(f"a Dual has no attribute {name!r}")

    # --- methods that write ---

    def fill(self: Any, value: Any) -> None:
        self[...] = value

    def put(self: Any, positions: Any, values: Any, mode: str = "raise") -> None:
        self.evaluate(np.put, (self, positions, values, mode), {})

    def partition(self: Any, kth: Any, axis: int = -1, kind: Any = "introselect") -> None:
        """Partition in place; `np.partition` returns a copy."""
        aliasing.write(self, np.partition(self, kth, axis, kind), np.partition)

    def compress(self: Any, condition: Any, axis: int | None = None) -> Any:
        return np.compress(condition, self, axis)

    def clip(self: Any, min: Any = None, max: Any = None, *out: Any, **kwargs: Any) -> Any:
        return np.clip(self, min, max, *out, **kwargs)  # where bounds that are floats are weak

    def sort(self: Any, axis: int = -1, **kind: Any) -> None:
        """Sort in place, as `x.sort()` does; `np.sort` returns a sorted copy."""
        aliasing.write(self, np.sort(self, axis, **kind), np.sort)

    # --- operators and methods that are NumPy functions ---

    __add__, __radd__, __iadd__ = _operators(np.add)
    __sub__, __rsub__, __isub__ = _operators(np.subtract)
    __mul__, __rmul__, __imul__ = _operators(np.multiply)
    __truediv__, __rtruediv__, __itruediv__ = _operators(np.divide)
    __floordiv__, __rfloordiv__, __ifloordiv__ = _operators(np.floor_divide)
    __mod__, __rmod__, __imod__ = _operators(np.remainder)
    __pow__, __rpow__, __ipow__ = _operators(operator.pow)
    __matmul__, __rmatmul__, __imatmul__ = _operators(np.matmul)
    __lt__, __gt__ = _operators(np.less)[:2]  # x > y is y < x
    __le__, __ge__ = _operators(np.less_equal)[:2]
    __eq__ = _equality(np.equal, operator.eq)
    __ne__ = _equality(np.not_equal, operator.ne)
    __hash__ = None  # type: ignore[assignment]  # as for arrays: == is elementwise

    __neg__, __pos__, __abs__ = _method(np.negative), _method(np.positive), _method(np.absolute)
    sum, mean, prod = _method(np.sum), _method(np.mean), _method(np.prod)
    max, min, var, std = _method(np.max), _method(np.min), _method(np.var), _method(np.std)
    cumsum, cumprod, trace = _method(np.cumsum), _method(np.cumprod), _method(np.trace)
    dot, round, take = _method(np.dot), _method(np.round), _method(np.take)
    ravel, squeeze = _method(np.ravel), _method(np.squeeze)
    swapaxes, repeat, diagonal = _method(np.swapaxes), _method(np.repeat), _method(np.diagonal)
    argmax, argmin, argsort = _method(np.argmax), _method(np.argmin), _method(np.argsort)
    nonzero, any, all = _method(np.nonzero), _method(np.any), _method(np.all)
    argpartition, searchsorted = _method(np.argpartition), _method(np.searchsorted)
    choose = _method(np.choose)
    conj = conjugate = lambda self: self  # as of every real array; np.conjugate makes a copy
    real = property(lambda self: self, fill)
    imag = property(lambda self: np.imag(self))
    flat = property(aliasing.flat, lambda self, v: self.put(range(self.size), v))
    itemsize = property(lambda self: self.dtype.itemsize)
    nbytes = property(lambda self: self.size * self.itemsize)
