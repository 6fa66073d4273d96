"""Roots that know their squares, whose second derivatives exist where those of the roots do not.

A rule for |x| alone cannot give the second derivative of |x|² at 0 (see `kinks`).  So in a nested
derivative the result of a root is a Dual that remembers its square.  `np.linalg.norm(x) ** 2` is
then the sum of squares for its derivatives; its value stays NumPy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.core.aliasing import own
from dualnet.core.dual import Dual, evaluate, primal_of
from dualnet.core.tables.elementwise import valued
from dualnet.core.tables.kinks import extend
from dualnet.core.tables.reductions import Axis
from dualnet.types import Array


class RootDual(Dual):
    """A Dual that knows its square, which may be smooth where the root has a kink."""

    __slots__ = ("_seen", "_square")

    def __init__(self, root: Dual, square: Callable):
        super().__init__(root.primal, root.tangent, root.level)
        self._seen, self._square = root.tangent, square

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "__call__" and not kwargs:
            return _of_root(ufunc, inputs, kwargs)
        return super().__array_ufunc__(ufunc, method, *inputs, **kwargs)

    def even_power(self, fn: Callable, args: tuple) -> Any:
        """Evaluate `fn(*args)` by the square, if it is an even power of this root; else None."""
        exponent: float
        if fn is np.square or (fn is np.multiply and args[0] is args[1]):
            exponent = 2
        elif "pow" in fn.__name__ and args[0] is self and isinstance(args[1], (int, float)):
            exponent = args[1]
        else:
            return None
        if exponent < 2 or exponent % 2 or self.tangent is not self._seen:  # it was written to
            return None
        square = self._square()
        return square if square is None or exponent == 2 else square ** (int(exponent) // 2)


def _of_root(fn: Callable, args: tuple, kwargs: dict) -> Any:
    if isinstance(args[0], RootDual):
        power = args[0].even_power(fn, args)
        if power is not None:
            return valued(power, fn(*map(primal_of, args)))
    return evaluate(fn, args, kwargs)


RootDual.evaluate = staticmethod(_of_root)


def remembers(fn: Callable, square: Callable) -> None:
    """Let the results of `fn` know their squares, which `square` of the same arguments gives.

    It returns None where the square is not known.
    """

    def remember(out: Dual, args: tuple, kwargs: dict) -> Any:
        args = tuple(map(_snapshot, args))
        return RootDual(out, lambda: square(*args, **kwargs))

    extend(fn, remember)


def _snapshot(x: Any) -> Any:
    """Keep an argument as it is now: whoever holds it may write to it."""
    return Dual(x.primal, x.tangent, x.level) if isinstance(x, Dual) else own(x)


def _square_of_norm(x: Array, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Any:
    """Sum up the squares, if the norm is that of vectors by length, or of matrices by entries."""
    of_vectors = isinstance(axis, int) or (axis is None and x.ndim == 1)
    if ord in (None, "fro", "f") or (ord == 2 and of_vectors):
        return np.sum(np.square(x), axis=axis, keepdims=keepdims)
    return None


for _fn in (np.absolute, np.fabs):
    remembers(_fn, np.square)
# The root of a negative number is NaN, and so is its square.
remembers(np.sqrt, lambda x: x * np.where(x < 0, math.nan, 1))
remembers(np.hypot, lambda x, y: np.square(x) + np.square(y))
remembers(np.std, np.var)
remembers(np.linalg.norm, _square_of_norm)
remembers(
    np.linalg.vector_norm,
    lambda x, *, axis=None, keepdims=False, ord=2: (
        np.sum(np.square(x), axis=axis, keepdims=keepdims) if ord == 2 else None
    ),
)
