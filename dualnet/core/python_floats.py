"""The dual of a Python float, which is weak, as a Python float is: it takes the dtype of others.

In NumPy `1.5 * x` is float32 where x is, while a float64 array of no axes would make it float64.
So a `FloatDual` is converted to the dtype of what it meets, and what operators make of it and of
Python numbers is weak again.  It is never written to: `s += 1` gives s another value, as for any
Python float, and no other name of it changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.core.dual import Dual, astype, evaluate


def _evaluate(fn: Callable, args: tuple, kwargs: dict) -> Any:
    """Evaluate an operator, whose result is weak again where all arguments are."""
    out = evaluate(fn, _converted(args), kwargs)
    if isinstance(out, Dual) and all(type(x) in (FloatDual, bool, int, float) for x in args):
        return FloatDual(out.primal, out.tangent, out.level)
    return out


def _converted(args: tuple) -> tuple:
    """Give the weak ones among the arguments of a function the dtype that NumPy gives them."""
    dtypes = [x.dtype for x in args if hasattr(x, "dtype") and not isinstance(x, FloatDual)]
    dtype = np.result_type(*dtypes, 1.0)
    return tuple(astype(x, dtype) if isinstance(x, FloatDual) else x for x in args)


class FloatDual(Dual):
    """A Dual whose primal, an array of no axes, stands for a Python float."""

    evaluate = staticmethod(_evaluate)
    __slots__ = ()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return super().__array_ufunc__(ufunc, method, *_converted(inputs), **kwargs)

    def __array_function__(self, fn: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        if fn in (np.where, np.clip):  # most other functions make arrays of Python floats
            args = _converted(args)
        return super().__array_function__(fn, types, args, kwargs)

    def copy(self, order: Any = "C") -> Any:
        return self

    __copy__ = copy
    __deepcopy__ = copy

    # Python asks the right operand first where its class redefines the operator of the left one's.
    __radd__ = lambda self, other: _evaluate(np.add, (other, self), {})  # noqa: E731
    __rsub__ = lambda self, other: _evaluate(np.subtract, (other, self), {})  # noqa: E731
    __rmul__ = lambda self, other: _evaluate(np.multiply, (other, self), {})  # noqa: E731
    __rtruediv__ = lambda self, other: _evaluate(np.divide, (other, self), {})  # noqa: E731
    __rfloordiv__ = lambda self, other: _evaluate(np.floor_divide, (other, self), {})  # noqa: E731
    __rmod__ = lambda self, other: _evaluate(np.remainder, (other, self), {})  # noqa: E731
    __rpow__ = lambda self, other: _evaluate(np.power, (other, self), {})  # noqa: E731

    __iadd__, __isub__, __imul__ = Dual.__add__, Dual.__sub__, Dual.__mul__
    __itruediv__, __ifloordiv__ = Dual.__truediv__, Dual.__floordiv__
    __imod__, __ipow__ = Dual.__mod__, Dual.__pow__


WEAK = (float, FloatDual)
"""The types of arguments of which transforms make a FloatDual."""
