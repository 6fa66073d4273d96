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

from dualnet.core.dual import Dual, astype, evaluate, primal_of

_TAKE_WEAK = {
    *(np.where, np.clip, np.linspace, np.logspace, np.var, np.std),
    *(np.quantile, np.percentile, np.nanquantile, np.nanpercentile),
}
"""The functions that do not widen for a Python float; most others make an array of it."""


def _evaluate(fn: Callable, args: tuple, kwargs: dict) -> Any:
    """Evaluate an operator, whose result is a Python number again where all arguments are."""
    out = evaluate(fn, _converted(args), kwargs)
    if not all(type(x) in (FloatDual, bool, int, float) for x in args):
        return out
    if isinstance(out, Dual):
        return FloatDual(out.primal, out.tangent, out.level)
    return out.item() if isinstance(out, np.generic) else out  # as of s // 1 and of s > 1


def _converted(args: tuple) -> tuple:
    """Give the weak ones among the arguments of a function the dtype that NumPy gives them.

    A dual that escaped stays as it is, for the function to refuse.
    """
    strong = [getattr(x, "dtype", None) for x in args if not isinstance(x, FloatDual)]
    dtype = np.result_type(*[d for d in strong if isinstance(d, np.dtype)], 1.0)
    weak = [isinstance(x, FloatDual) and x.level.open for x in args]
    return tuple(astype(x, dtype) if w else x for x, w in zip(args, weak, strict=True))


def common_dtype(*parts: Any) -> np.dtype:
    """Find the dtype that NumPy gives arrays and Python numbers together."""
    weak = (isinstance(x, FloatDual) for x in parts)
    plain = map(primal_of, parts)
    return np.result_type(*(float(x) if w else x for x, w in zip(plain, weak, strict=True)))


class FloatDual(Dual):
    """A Dual whose primal, an array of no axes, stands for a Python float."""

    evaluate = staticmethod(_evaluate)
    __slots__ = ()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return super().__array_ufunc__(ufunc, method, *_converted(inputs), **kwargs)

    def __array_function__(self, fn: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        if fn in _TAKE_WEAK:
            kwargs = {name: _converted((*args, x))[-1] for name, x in kwargs.items()}
            args = _converted(args)
        return super().__array_function__(fn, types, args, kwargs)

    def copy(self, order: Any = "C") -> Any:
        return self

    __copy__ = copy
    __deepcopy__ = copy

    def _value(self) -> float:
        return float(primal_of(self))

    imag = property(lambda self: 0.0)

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
