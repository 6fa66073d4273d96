"""`Dual`: a value and its tangent.

The finite difference (f(x + εv) − f(x)) / ε asks how f changes along v.  Forward mode gives the
same answer exactly: every value travels with its tangent, `(x, ẋ)`, and every function has a rule
that says how the tangent of its result follows from the tangents of its arguments, linearly.

These conventions hold everywhere:

* A tangent of a primal of shape `S` is a stack `(k, *S)` of k directions, or a structured tangent
  that stands for one (`core.spaces`).  A constant has no tangent: it is simply no `Dual`.
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
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from dualnet.core import aliasing, late, refusals
from dualnet.core.array_methods import ArrayMethods
from dualnet.core.repeated import write_at
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

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self.open = False
        if error is not None:
            refusals.uncover(error)


class Rule(NamedTuple):
    """How a function is evaluated where duals are among its arguments."""

    evaluate: Callable[[Level | None, tuple, dict], Any]  # (level, args, kwargs) -> result
    positional: float  # the largest number of arguments by position
    keywords: frozenset[str] | None  # the arguments by keyword; None for any
    anywhere: bool = False  # takes duals by keyword and in nested lists too: it passes them on
    composed: bool = False  # the primal is a composition's, and not the function's own


RULES: dict[Callable, Rule] = {}
"""The rule of every function of NumPy's, SciPy's and ours; `core.engine` fills the table."""
_MAKERS = {np.arange, np.array, np.asarray, np.eye, np.full, np.identity, np.ones, np.zeros}


def evaluate(fn: Callable, args: tuple, kwargs: dict) -> Any:
    """Evaluate `fn` on arguments among which are duals.  Every call on a Dual arrives here.

    Raises:
        MissingRuleError: `fn`, or one of its arguments, has no derivative rule.
        EscapedDualError: a dual is used whose transform has returned.
    """
    rule = RULES.get(fn) or getattr(fn, "own_rules", RULES).get(fn)
    if rule is None and late.WAITING:
        late.register_waiting()
        rule = RULES.get(fn)
    if rule is None:
        raise refusals.missing_rule(fn)
    level = innermost_level(args)
    by_keyword = kwargs and any(isinstance(v, Dual) for v in kwargs.values())
    if (level is None or by_keyword) and not rule.anywhere:
        raise refusals.out_of_place(fn)
    unknown = kwargs and rule.keywords is not None and not kwargs.keys() <= rule.keywords
    if unknown or len(args) > rule.positional:
        raise refusals.missing_argument(fn, rule.positional, rule.keywords, args, kwargs)
    if level is not None and not level.open:
        raise refusals.escaped(fn)
    out = rule.evaluate(level, args, kwargs)
    if isinstance(out, Dual):
        primal, first = out.primal, args[0] if args else None
        if getattr(primal, "base", out) is not None or primal is getattr(first, "primal", out):
            aliasing.note_view(out, args, args[1] if fn is getitem else None)
    return out


def innermost_level(args: Iterable) -> Level | None:
    """Find the newest level among the arguments; lists and tuples are looked into."""
    found: Level | None = None
    for x in args:
        level = None
        if isinstance(x, Dual):
            level = x.level
        elif isinstance(x, (list, tuple)):
            level = innermost_level(x)
        if level is not None and (found is None or level.serial > found.serial):
            found = level
    return found


def primitive(fn: Callable) -> Callable:
    """Let a function that NumPy does not have take duals too, by a rule (a decorator)."""

    @functools.wraps(fn)
    def dispatching(*args: Any, **kwargs: Any) -> Any:
        if innermost_level(args) is not None or (kwargs and innermost_level(kwargs.values())):
            return evaluate(dispatching, args, kwargs)
        return fn(*args, **kwargs)

    return dispatching


class Dual(ArrayMethods):
    """A primal and its tangent.  Transforms make duals; they behave like NumPy arrays.

    Attributes:
        primal: the value, an array or a Dual of an outer transform.
        tangent: a stack `(k, *primal.shape)` or a structured tangent, of the primal's dtype.
        level: the transform that the dual belongs to.
        alias: which other duals NumPy would keep in the same memory; None where there are none.

    Examples:
        >>> def f(x):
        ...     print(x, "of shape", x.shape)
        ...     return np.square(x)
        >>> out, out_tangent = dn.jvp(f, (3.0,), (1.0,))
        Dual(primal=array(3.), tangent=array([1.])) of shape ()
        >>> float(out), float(out_tangent)
        (9.0, 6.0)
    """

    evaluate = staticmethod(evaluate)
    __slots__ = ("alias", "level", "primal", "tangent")

    def __init__(self, primal: Array, tangent: Tangent, level: Level):
        self.primal = primal
        self.tangent = tangent
        self.level = level
        self.alias: aliasing.Alias | None = None

    # --- NumPy's two protocols: a foreign array is asked what a function means to it ---

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        fn = ufunc if method == "__call__" else getattr(ufunc, method)  # np.add.reduce and its like
        if kwargs:
            return aliasing.evaluate_into(evaluate, fn, inputs, kwargs)
        return evaluate(fn, inputs, kwargs)

    def __array_function__(self, fn: Callable, _types: Any, args: tuple, kwargs: dict) -> Any:
        if fn in _MAKERS:  # it was called with like=self; [...] makes an array of a scalar
            return fn(*args, **kwargs, like=self.primal[...])
        if kwargs:
            return aliasing.evaluate_into(evaluate, fn, args, kwargs)
        return evaluate(fn, args, kwargs)

    # --- what must not happen without a word ---

    def __array__(self, *_args: Any, **_kwargs: Any) -> Any:
        raise refusals.no_plain_array(self.shape)

    def _no_number(self, *_args: Any) -> Any:
        raise refusals.no_python_number()

    __float__ = __int__ = __index__ = __complex__ = item = tolist = tobytes = _no_number

    def __bool__(self) -> bool:
        return bool(self.primal)  # branches look at primals only

    # --- indexing and conversion; all other methods of arrays are in `core.array_methods` ---

    def __getitem__(self, key: Any) -> Any:
        return getitem(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        aliasing.put(self, key, value)

    def astype(self, dtype: Any, order: Any = "K", *args: Any, copy: bool = True, **by: Any) -> Any:
        """Convert to another dtype; a conversion to integers or booleans drops the tangent."""
        x = primal_of(self)  # NumPy says what cannot be cast, and whether x itself is the answer
        args = (order, *args) if args or order != "K" else ()  # arrays that compute late have none
        same = (args or by or not copy) and x.astype(dtype, *args, copy=copy, **by) is x
        return self if same else np.copy(astype(self, dtype), order)


def getitem(x: Array, key: Any) -> Array:
    """Evaluate `x[key]`: a function, so that indexing has a rule like everything else."""
    return evaluate(getitem, (x, key), {}) if isinstance(x, Dual) else x[key]


def put_at(x: Array, key: Any, value: Array) -> Array:
    """Return a copy of x in which `x[key] = value` has been done; the last value stays."""
    if isinstance(x, Dual) or isinstance(value, Dual):
        return evaluate(put_at, (x, key, value), {})
    return write_at(np.copy(x), key, value)


def astype(x: Array, dtype: Any) -> Array:
    """Evaluate `x.astype(dtype)`: a function, as `getitem` is."""
    return evaluate(astype, (x, dtype), {}) if isinstance(x, Dual) else x.astype(dtype)


def primal_of(x: Any) -> Any:
    """Find the plain value under all levels."""
    while isinstance(x, Dual):
        if x.alias is not None:
            x.alias.require_current()
        x = x.primal
    return x
