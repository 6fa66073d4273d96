"""`Dual`: a value and its tangent, and the engine that carries tangents through functions.

The finite difference (f(x + εv) − f(x)) / ε asks how f changes along v.  Forward mode gets the
same answer exactly: every value travels with its tangent, `(x, ẋ)`, and every function has a
rule that says how the tangent of its result follows from those of its arguments, linearly.

Conventions, used everywhere:

* A tangent of a primal of shape `S` is a stack `(k, *S)` of k directions, or a structured
  tangent that stands for one (`core.spaces`).  No tangent at all means constant: the argument
  is simply not a `Dual`.
* A rule has the signature `(t, out, *primals, **params)`: t is the tangent of one argument,
  out the result, primals and params the arguments of the call.  It is linear in t.
* Each call of a transform opens a `Level`.  Where duals of several levels meet, the innermost
  (largest) level is handled first and all others count as part of the primals.  Telling
  levels apart is what keeps nested derivatives right: in

      d(lambda x: x * d(lambda y: x + y)(1.0))(1.0)

  the answer is 1, because inside the inner derivative x is a constant.  If the inner d could
  not tell its own tangent from that of x, it would count x's too and answer 2.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.dispatch import Traced, name_of, register, rule_of
from dualnet.errors import DualConversionError, EscapedDualError, MissingRuleError


class Level:
    """The identity of one call of a transform; `serial` orders nested calls."""

    __slots__ = ("open", "serial")
    _serial = itertools.count(1)

    def __init__(self) -> None:
        self.serial = next(Level._serial)
        self.open = True


@contextmanager
def new_level() -> Iterator[Level]:
    """Open a level for the duration of one transform; duals of it are refused afterwards."""
    level = Level()
    try:
        yield level
    finally:
        level.open = False


class Dual(Traced):
    """A primal and its tangent.  Made by transforms; behaves like a NumPy array.

    Attributes:
        primal: the value: an array, or a Dual of an outer transform.
        tangent: a stack `(k, *primal.shape)` or a structured tangent of the primal's dtype.
        level: the transform it belongs to.
    """

    __slots__ = ("level", "primal", "tangent")

    def __init__(self, primal: Any, tangent: Any, level: Level):
        self.primal = primal
        self.tangent = tangent
        self.level = level

    # --- the two protocols ---

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            raise MissingRuleError(
                f"np.{ufunc.__name__}.{method} has no derivative rule; write np.sum, np.prod, "
                "np.max, np.cumsum, ... instead"
            )
        if kwargs.get("out") is not None:
            raise _in_place(f"np.{ufunc.__name__} with out= (or an operator such as +=)")
        return self.handle(ufunc, inputs, kwargs)

    def __array_function__(self, fn: Callable, _types: Any, args: tuple, kwargs: dict) -> Any:
        if kwargs.get("out") is not None:
            raise _in_place(f"{name_of(fn)} with out=")
        return self.handle(fn, args, kwargs)

    def handle(self, fn: Callable, args: tuple, kwargs: dict) -> Any:
        """Evaluate `fn` on arguments among which are duals."""
        return rule_of(fn)(innermost(args, kwargs, fn), args, kwargs)

    # --- what must not happen silently ---

    def __array__(self, *_args: Any, **_kwargs: Any) -> Any:
        raise DualConversionError(
            f"a Dual of shape {self.shape} cannot become a plain array: its tangent would be lost. "
            "Writing `a[i] = dual` into an array? Collect the parts and use np.stack or "
            "np.where. Want the value alone? Use dn.stop_gradient(x)"
        )

    def _no_number(self) -> Any:
        raise DualConversionError(
            "a Dual cannot become a Python number: its tangent would be lost. Use NumPy functions "
            "(np.exp instead of math.exp), or dn.stop_gradient(x) for the value alone"
        )

    __float__ = __int__ = __index__ = __complex__ = _no_number
    item = tolist = _no_number

    def __setitem__(self, key: Any, value: Any) -> None:
        raise _in_place("x[i] = v")

    def sort(self, *_args: Any, **_kwargs: Any) -> None:
        raise _in_place("x.sort()")

    def __bool__(self) -> bool:
        return bool(self.primal)  # branches look at the primal only

    __hash__ = None  # type: ignore[assignment]  # as for arrays: == is elementwise

    def __repr__(self) -> str:
        return f"Dual(primal={self.primal!r}, tangent={self.tangent!r})"

    # --- what arrays have ---

    @property
    def shape(self) -> tuple[int, ...]:
        return self.primal.shape

    @property
    def ndim(self) -> int:
        return self.primal.ndim

    @property
    def size(self) -> int:
        return self.primal.size

    @property
    def dtype(self) -> np.dtype:
        return self.primal.dtype

    @property
    def T(self) -> Any:
        return np.transpose(self)

    @property
    def mT(self) -> Any:
        return np.swapaxes(self, -1, -2)

    def __len__(self) -> int:
        return len(self.primal)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        return getitem(self, key)

    def astype(self, dtype: Any, **_kwargs: Any) -> Any:
        """Another dtype; a conversion to integers or booleans drops the tangent."""
        return astype(self, dtype)

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, **kwargs)

    def transpose(self, *axes: Any) -> Any:
        return np.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def flatten(self, *args: Any, **kwargs: Any) -> Any:
        return np.ravel(self, *args, **kwargs)

    def copy(self, *_args: Any, **_kwargs: Any) -> Any:
        return self  # immutable, so itself

    def clip(self, min: Any = None, max: Any = None) -> Any:
        return np.clip(self, min, max)


def _method(fn: Any) -> Any:
    """An operator or method that is the NumPy function `fn` with the dual first."""

    def method(self: Dual, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], linear.Structured):
            return NotImplemented  # x * t in a rule: t knows what to do
        if kwargs.get("out") is not None:
            raise _in_place(f"{name_of(fn)} with out=")
        return self.handle(fn, (self, *args), kwargs)

    return method


def _reflected(fn: Callable) -> Any:
    """The reflected operator: the dual comes second."""

    def method(self: Dual, other: Any) -> Any:
        return self.handle(fn, (other, self), {})

    return method


for _name, _ufunc in {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": np.power,
    "matmul": np.matmul,
}.items():
    setattr(Dual, f"__{_name}__", _method(_ufunc))
    setattr(Dual, f"__r{_name}__", _reflected(_ufunc))

for _name, _fn in {
    "__neg__": np.negative,
    "__pos__": np.positive,
    "__abs__": np.absolute,
    "__eq__": np.equal,
    "__ne__": np.not_equal,
    "__lt__": np.less,
    "__le__": np.less_equal,
    "__gt__": np.greater,
    "__ge__": np.greater_equal,
    "sum": np.sum,
    "mean": np.mean,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
    "var": np.var,
    "std": np.std,
    "cumsum": np.cumsum,
    "cumprod": np.cumprod,
    "trace": np.trace,
    "dot": np.dot,
    "ravel": np.ravel,
    "squeeze": np.squeeze,
    "swapaxes": np.swapaxes,
    "repeat": np.repeat,
    "take": np.take,
    "diagonal": np.diagonal,
    "round": np.round,
    "argmax": np.argmax,
    "argmin": np.argmin,
    "argsort": np.argsort,
    "nonzero": np.nonzero,
    "any": np.any,
    "all": np.all,
}.items():
    setattr(Dual, _name, _method(_fn))


def getitem(x: Any, key: Any) -> Any:
    """`x[key]` as a function, so that indexing has a rule like everything else."""
    return x.handle(getitem, (x, key), {}) if isinstance(x, Dual) else x[key]


def astype(x: Any, dtype: Any) -> Any:
    """`x.astype(dtype)` as a function."""
    return x.handle(astype, (x, dtype), {}) if isinstance(x, Dual) else x.astype(dtype)


# --- the engine --------------------------------------------------------------------------------


def innermost(args: Iterable, kwargs: dict, fn: Callable) -> Level:
    """The largest level among the arguments (looking into lists and tuples of arrays)."""
    found: Level | None = None
    for arg in args:
        for x in arg if isinstance(arg, (list, tuple)) else (arg,):
            if isinstance(x, Dual) and (found is None or x.level.serial > found.serial):
                found = x.level
    if found is None or any(isinstance(v, Dual) for v in kwargs.values()):
        raise MissingRuleError(
            f"{name_of(fn)}: pass arrays that carry tangents by position, not by keyword or in "
            "nested lists (np.stack builds an array from duals)"
        )
    if not found.open:
        raise EscapedDualError(
            f"{name_of(fn)} met a Dual whose transform has already returned. A value was kept "
            "from inside the differentiated function (in a list, an attribute, a closure); return "
            "it instead, with has_aux=True where it is not to be differentiated"
        )
    return found


def primal_at(x: Any, level: Level) -> Any:
    """The argument as it is outside `level`; lists and tuples of arrays item by item."""
    if isinstance(x, Dual):
        return x.primal if x.level is level else x
    if isinstance(x, (list, tuple)) and any(isinstance(item, Dual) for item in x):
        return [primal_at(item, level) for item in x]
    return x


def tangent_at(x: Any, level: Level) -> Any:
    """Its tangent at `level`, None if there is none; a list of tangents for a list of arrays."""
    if isinstance(x, Dual):
        return x.tangent if x.level is level else None
    if isinstance(x, (list, tuple)):
        tangents = [tangent_at(item, level) for item in x if isinstance(item, Dual)]
        if any(t is not None for t in tangents):
            return [tangent_at(item, level) for item in x]
    return None


def with_tangent(out: Any, t: Any, level: Level) -> Any:
    """The Dual of a result; the plain result where no tangent reached it."""
    if t is None:
        return out
    if linear.shape_of(t) != out.shape:
        t = linear.broadcast_to(t, out.shape)
    if t.dtype != out.dtype:
        t = linear.cast(t, out.dtype)
    return Dual(out, t, level)


def primal_of(x: Any) -> Any:
    """The plain value under all levels."""
    while isinstance(x, Dual):
        x = x.primal
    return x


def _in_place(what: str) -> DualConversionError:
    return DualConversionError(
        f"{what} writes in place, and duals are immutable. Use the result of the function: "
        "y = np.add(x, 1), x = x + v, np.where(mask, v, x), np.concatenate or np.stack"
    )


# --- registration: the forms a rule can take -----------------------------------------------------


def _register(fn: Callable, evaluate: Callable, parts: Iterable[Callable], leading: int) -> None:
    """Register `evaluate`, refusing arguments that the functions a rule is made of do not take.

    Without this, `np.sum(x, where=mask)` would end in a TypeError about a function that its
    reader has never seen.  The first `leading` parameters of the parts are not arguments.
    """
    known: set[str] | None = None  # None: any keyword
    most = math.inf
    for part in parts:
        parameters = inspect.signature(part).parameters.values()
        kinds = [p.kind for p in parameters]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            names = {p.name for p in parameters}
            known = names if known is None else known & names
        if inspect.Parameter.VAR_POSITIONAL not in kinds:
            most = min(most, kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) - leading)

    def checked(level: Level, args: tuple, kwargs: dict) -> Any:
        unknown = [f"{name}=" for name in kwargs if known is not None and name not in known]
        if len(args) > most:
            unknown.append(f"number {most + 1} by position")
        if unknown:
            raise MissingRuleError(
                f"{name_of(fn)}: the argument {unknown[0]} has no derivative rule; leave it out, "
                "or use another function for it (np.where for where=, x.astype for dtype=)"
            )
        return evaluate(level, args, kwargs)

    register(fn, checked)


def rule(fn: Callable, *by_argument: Callable | None) -> None:
    """Register `fn` by one linear map `(t, out, *primals, **params)` for each argument.

    None marks an argument that cannot carry a tangent (an index, a shape).  For an argument
    that is a sequence of arrays, t is the list of their tangents, None where absent.
    """

    def evaluate(level: Level, args: tuple, kwargs: dict) -> Any:
        primals = [primal_at(a, level) for a in args]
        out = fn(*primals, **kwargs)
        total = None
        for position, argument in enumerate(args):
            t = tangent_at(argument, level)
            if t is None:
                continue
            linear_map = by_argument[position] if position < len(by_argument) else None
            if linear_map is None:
                raise MissingRuleError(
                    f"{name_of(fn)} cannot be differentiated by argument {position}; "
                    "pass dn.stop_gradient(x) there"
                )
            contribution = linear_map(t, out, *primals, **kwargs)
            total = contribution if total is None else linear.add(total, contribution)
        return with_tangent(out, total, level)

    _register(fn, evaluate, filter(None, by_argument), leading=2)


def elementwise(fn: Callable, *by_argument: Callable | None) -> None:
    """Like `rule`, for functions that broadcast: t arrives with the rank of the result, so a
    map can be written with operators, as in `lambda t, out, x, y: t * y`."""

    def aligned(linear_map: Callable | None) -> Callable | None:
        if linear_map is None:
            return None

        @functools.wraps(linear_map)
        def of_aligned(t: Any, out: Any, *primals: Any, **kwargs: Any) -> Any:
            return linear_map(linear.align(t, out.ndim), out, *primals, **kwargs)

        return of_aligned

    rule(fn, *(aligned(linear_map) for linear_map in by_argument))


def linearizer(fn: Callable) -> Callable:
    """Decorator: register `fn` by a function of the same arguments that returns `(out, maps)`.

    `maps` holds one linear map for each array argument (None where it has no derivative), or
    is a single map where only the first has one.  The maps may share whatever was computed.
    """

    def decorate(function: Callable) -> Callable:
        def evaluate(level: Level, args: tuple, kwargs: dict) -> Any:
            out, maps = function(*(primal_at(a, level) for a in args), **kwargs)
            if callable(maps):
                maps = (maps,)
            total = None
            for linear_map, argument in zip(maps, args, strict=False):
                t = tangent_at(argument, level)
                if t is None or linear_map is None:
                    continue
                contribution = linear_map(t)
                total = contribution if total is None else linear.add(total, contribution)
            return with_tangent(out, total, level)

        _register(fn, evaluate, [function], leading=0)
        return function

    return decorate


def composed(*fns: Callable) -> Callable:
    """Decorator: register `fns` by a function of the same arguments, written with functions
    that have rules.  For functions that only move entries: the primal is then exactly NumPy's."""

    def decorate(function: Callable) -> Callable:
        for fn in fns:
            _register(
                fn, lambda _level, args, kwargs: function(*args, **kwargs), [function], leading=0
            )
        return function

    return decorate


def zero_derivative(*fns: Callable) -> None:
    """Register functions whose result does not move with small changes of their arguments:
    comparisons, floor, sign, argmax, ...  They see plain values and return plain values."""

    def evaluator(fn: Callable) -> Callable:
        def evaluate(_level: Level, args: tuple, kwargs: dict) -> Any:
            return fn(*map(_plain, args), **kwargs)

        return evaluate

    for fn in fns:
        register(fn, evaluator(fn))


def _plain(x: Any) -> Any:
    if isinstance(x, (list, tuple)) and any(isinstance(item, Dual) for item in x):
        return [_plain(item) for item in x]
    return primal_of(x)
