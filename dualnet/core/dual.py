"""`Dual`: a value and its tangent.

The finite difference (f(x + εv) − f(x)) / ε asks how f changes along v.  Forward mode gives the
same answer exactly: every value travels with its tangent, `(x, ẋ)`, and every function has a rule
that says how the tangent of its result follows from the tangents of its arguments, linearly.

These conventions hold everywhere:

* A tangent of a primal of shape `S` is a stack `(k, *S)` of k directions, or a structured tangent
  that stands for one (`core.spaces`).  A constant has no tangent: it is simply no `Dual`.
* A rule has the signature `(t, out, *primals, **params)`: t is the tangent of one argument, out is
  the result, and primals and params are the arguments of the call.  A rule is linear in t.
* Each call of a transform opens a `Level`.  Where duals of several levels meet, the innermost
  (newest) level is handled first, and all others count as part of the primals.  Levels keep nested
  derivatives apart.  In

      d(lambda x: x * d(lambda y: x + y)(1.0))(1.0)

  the answer is 1, because inside the inner derivative x is a constant.  A program that could not
  tell the inner tangent from the tangent of x would count both and answer 2.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet.core import refusals
from dualnet.types import Array, Tangent


class Level:
    """The identity of one call of a transform.  Duals of a level that was left are refused."""

    __slots__ = ("open", "serial")
    _serial = itertools.count(1)

    def __init__(self) -> None:
        self.serial = next(Level._serial)
        self.open = True

    def __enter__(self) -> Level:
        return self

    def __exit__(self, *_error: object) -> None:
        self.open = False


@dataclass(frozen=True, slots=True)
class Rule:
    """How a function is evaluated where duals are among its arguments."""

    evaluate: Callable[[Level | None, tuple, dict], Any]  # (level, args, kwargs) -> result
    positional: float  # the largest number of arguments by position
    keywords: frozenset[str] | None  # the arguments by keyword; None for any
    anywhere: bool = False  # takes duals by keyword and in nested lists too: it passes them on


RULES: dict[Callable, Rule] = {}
"""The rule of every function that has one.  `core.engine` fills the table."""


def evaluate(fn: Callable, args: tuple, kwargs: dict) -> Any:
    """Evaluate `fn` on arguments among which are duals.  Every call on a Dual arrives here.

    Raises:
        MissingRuleError: `fn`, or one of its arguments, has no derivative rule.
        EscapedDualError: a dual is used whose transform has returned.
    """
    rule = RULES.get(fn)
    if rule is None:
        raise refusals.missing_rule(fn)
    level = innermost_level(args)
    if not rule.anywhere and (level is None or Dual in map(type, kwargs.values())):
        raise refusals.out_of_place(fn)
    unknown = kwargs and rule.keywords is not None and not kwargs.keys() <= rule.keywords
    if unknown or len(args) > rule.positional:
        raise refusals.missing_argument(fn, rule.positional, rule.keywords, args, kwargs)
    if level is not None and not level.open:
        raise refusals.escaped(fn)
    return rule.evaluate(level, args, kwargs)


def innermost_level(args: Iterable) -> Level | None:
    """Find the newest level among the arguments; lists and tuples of arrays are looked into."""
    found: Level | None = None
    for arg in args:
        for x in arg if isinstance(arg, (list, tuple)) else (arg,):
            if isinstance(x, Dual) and (found is None or x.level.serial > found.serial):
                found = x.level
    return found


def primitive(fn: Callable) -> Callable:
    """Let a function that NumPy does not have take duals too, by a rule (a decorator)."""

    @functools.wraps(fn)
    def dispatching(*args: Any, **kwargs: Any) -> Any:
        if innermost_level(args) is not None or (kwargs and innermost_level(kwargs.values())):
            return evaluate(dispatching, args, kwargs)
        return fn(*args, **kwargs)

    return dispatching


def _operator(fn: Callable) -> Any:
    """Make the operator that is the NumPy function `fn`, with the dual on the left."""

    def operator(self: Dual, other: Any) -> Any:
        if getattr(other, "__array_ufunc__", self) is None:
            return NotImplemented  # NumPy's convention: the other side knows what to do
        return evaluate(fn, (self, other), {})

    return operator


def _reflected(fn: Callable) -> Any:
    """Make the operator that is the NumPy function `fn`, with the dual on the right."""
    return lambda self, other: evaluate(fn, (other, self), {})


def _method(fn: Callable) -> Any:
    """Make the method that is the NumPy function `fn`, with the dual as its first argument."""

    def method(self: Dual, *args: Any, **kwargs: Any) -> Any:
        refusals.require_no_out(fn, kwargs)
        return evaluate(fn, (self, *args), kwargs)

    return method


class Dual:
    """A primal and its tangent.  Transforms make duals; they behave like NumPy arrays.

    Attributes:
        primal: the value, an array or a Dual of an outer transform.
        tangent: a stack `(k, *primal.shape)` or a structured tangent, of the primal's dtype.
        level: the transform that the dual belongs to.
    """

    __slots__ = ("level", "primal", "tangent")

    def __init__(self, primal: Array, tangent: Tangent, level: Level):
        self.primal = primal
        self.tangent = tangent
        self.level = level

    # --- NumPy's two protocols: a foreign array is asked what a function means to it ---

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            raise refusals.ufunc_method(ufunc, method)
        if kwargs:
            refusals.require_no_out(ufunc, kwargs)
        return evaluate(ufunc, inputs, kwargs)

    def __array_function__(self, fn: Callable, _types: Any, args: tuple, kwargs: dict) -> Any:
        if kwargs:
            refusals.require_no_out(fn, kwargs)
        return evaluate(fn, args, kwargs)

    # --- what must not happen without a word ---

    def __array__(self, *_args: Any, **_kwargs: Any) -> Any:
        raise refusals.no_plain_array(self.shape)

    def _no_number(self) -> Any:
        raise refusals.no_python_number()

    __float__ = __int__ = __index__ = __complex__ = item = tolist = _no_number

    def __setitem__(self, key: Any, value: Any) -> None:
        raise refusals.in_place("x[i] = v")

    def sort(self, *_args: Any, **_kwargs: Any) -> None:
        raise refusals.in_place("x.sort()")

    def __bool__(self) -> bool:
        return bool(self.primal)  # branches look at primals only

    def __repr__(self) -> str:
        return f"Dual(primal={self.primal!r}, tangent={self.tangent!r})"

    # --- what arrays have ---

    shape = property(lambda self: self.primal.shape)
    ndim = property(lambda self: self.primal.ndim)
    size = property(lambda self: self.primal.size)
    dtype = property(lambda self: self.primal.dtype)
    T = property(lambda self: np.transpose(self))
    mT = property(lambda self: np.swapaxes(self, -1, -2))

    def __len__(self) -> int:
        return len(self.primal)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        return getitem(self, key)

    def astype(self, dtype: Any, **_kwargs: Any) -> Any:
        """Convert to another dtype; a conversion to integers or booleans drops the tangent."""
        return astype(self, dtype)

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, **kwargs)

    def transpose(self, *axes: Any) -> Any:
        return np.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def copy(self, *_args: Any, **_kwargs: Any) -> Any:
        return self  # a dual is immutable, so it is its own copy

    # --- operators and methods that are NumPy functions ---

    __add__, __radd__ = _operator(np.add), _reflected(np.add)
    __sub__, __rsub__ = _operator(np.subtract), _reflected(np.subtract)
    __mul__, __rmul__ = _operator(np.multiply), _reflected(np.multiply)
    __truediv__, __rtruediv__ = _operator(np.divide), _reflected(np.divide)
    __floordiv__, __rfloordiv__ = _operator(np.floor_divide), _reflected(np.floor_divide)
    __mod__, __rmod__ = _operator(np.remainder), _reflected(np.remainder)
    __pow__, __rpow__ = _operator(np.power), _reflected(np.power)
    __matmul__, __rmatmul__ = _operator(np.matmul), _reflected(np.matmul)
    __eq__, __ne__ = _operator(np.equal), _operator(np.not_equal)
    __lt__, __le__ = _operator(np.less), _operator(np.less_equal)
    __gt__, __ge__ = _operator(np.greater), _operator(np.greater_equal)
    __hash__ = None  # type: ignore[assignment]  # as for arrays: == is elementwise

    __neg__, __pos__, __abs__ = _method(np.negative), _method(np.positive), _method(np.absolute)
    sum, mean, prod = _method(np.sum), _method(np.mean), _method(np.prod)
    max, min, var, std = _method(np.max), _method(np.min), _method(np.var), _method(np.std)
    cumsum, cumprod, trace = _method(np.cumsum), _method(np.cumprod), _method(np.trace)
    dot, clip, round, take = _method(np.dot), _method(np.clip), _method(np.round), _method(np.take)
    ravel, flatten, squeeze = _method(np.ravel), _method(np.ravel), _method(np.squeeze)
    swapaxes, repeat, diagonal = _method(np.swapaxes), _method(np.repeat), _method(np.diagonal)
    argmax, argmin, argsort = _method(np.argmax), _method(np.argmin), _method(np.argsort)
    nonzero, any, all = _method(np.nonzero), _method(np.any), _method(np.all)


def getitem(x: Array, key: Any) -> Array:
    """Evaluate `x[key]`: a function, so that indexing has a rule like everything else."""
    return evaluate(getitem, (x, key), {}) if isinstance(x, Dual) else x[key]


def astype(x: Array, dtype: Any) -> Array:
    """Evaluate `x.astype(dtype)`: a function, as `getitem` is."""
    return evaluate(astype, (x, dtype), {}) if isinstance(x, Dual) else x.astype(dtype)


def primal_of(x: Any) -> Any:
    """Find the plain value under all levels."""
    while isinstance(x, Dual):
        x = x.primal
    return x
