"""`Dual`: a value and its tangent.

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

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.dispatch import Traced, name_of, rule_of
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


def _method(fn: Any) -> Any:
    """An operator or method that is the NumPy function `fn` with the dual first."""

    def method(self: Dual, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], linear.Structured):
            return NotImplemented  # x * t in a rule: t knows what to do
        if kwargs.pop("out", None) is not None:
            raise _in_place(f"{name_of(fn)} with out=")
        return self.handle(fn, (self, *args), kwargs)

    return method


def _reflected(fn: Callable) -> Any:
    """The reflected operator: the dual comes second."""

    def method(self: Dual, other: Any) -> Any:
        return self.handle(fn, (other, self), {})

    return method


def _in_place(what: str) -> DualConversionError:
    return DualConversionError(
        f"{what} writes in place, and duals are immutable. Use the result of the function: "
        "y = np.add(x, 1), x = x + v, np.where(mask, v, x), np.concatenate or np.stack"
    )


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
        if kwargs.pop("out", None) is not None:
            raise _in_place(f"np.{ufunc.__name__} with out= (or an operator such as +=)")
        return self.handle(ufunc, inputs, kwargs)

    def __array_function__(self, fn: Callable, _types: Any, args: tuple, kwargs: dict) -> Any:
        if kwargs.pop("out", None) is not None:
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

    def copy(self, *_args: Any, **_kwargs: Any) -> Any:
        return self  # immutable, so itself

    # --- operators and methods that are NumPy functions ---

    __add__, __radd__ = _method(np.add), _reflected(np.add)
    __sub__, __rsub__ = _method(np.subtract), _reflected(np.subtract)
    __mul__, __rmul__ = _method(np.multiply), _reflected(np.multiply)
    __truediv__, __rtruediv__ = _method(np.divide), _reflected(np.divide)
    __floordiv__, __rfloordiv__ = _method(np.floor_divide), _reflected(np.floor_divide)
    __mod__, __rmod__ = _method(np.remainder), _reflected(np.remainder)
    __pow__, __rpow__ = _method(np.power), _reflected(np.power)
    __matmul__, __rmatmul__ = _method(np.matmul), _reflected(np.matmul)
    __neg__ = _method(np.negative)
    __pos__ = _method(np.positive)
    __abs__ = _method(np.absolute)
    __eq__ = _method(np.equal)
    __ne__ = _method(np.not_equal)
    __lt__ = _method(np.less)
    __le__ = _method(np.less_equal)
    __gt__ = _method(np.greater)
    __ge__ = _method(np.greater_equal)
    __hash__ = None  # type: ignore[assignment]  # as for arrays: == is elementwise

    sum = _method(np.sum)
    mean = _method(np.mean)
    prod = _method(np.prod)
    max = _method(np.max)
    min = _method(np.min)
    var = _method(np.var)
    std = _method(np.std)
    cumsum = _method(np.cumsum)
    cumprod = _method(np.cumprod)
    trace = _method(np.trace)
    dot = _method(np.dot)
    clip = _method(np.clip)
    round = _method(np.round)
    ravel = _method(np.ravel)
    flatten = _method(np.ravel)
    squeeze = _method(np.squeeze)
    swapaxes = _method(np.swapaxes)
    repeat = _method(np.repeat)
    take = _method(np.take)
    diagonal = _method(np.diagonal)
    argmax = _method(np.argmax)
    argmin = _method(np.argmin)
    argsort = _method(np.argsort)
    nonzero = _method(np.nonzero)
    any = _method(np.any)
    all = _method(np.all)


def getitem(x: Any, key: Any) -> Any:
    """`x[key]` as a function, so that indexing has a rule like everything else."""
    return x.handle(getitem, (x, key), {}) if isinstance(x, Dual) else x[key]


def astype(x: Any, dtype: Any) -> Any:
    """`x.astype(dtype)` as a function."""
    return x.handle(astype, (x, dtype), {}) if isinstance(x, Dual) else x.astype(dtype)


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


def primal_of(x: Any) -> Any:
    """The plain value under all levels."""
    while isinstance(x, Dual):
        x = x.primal
    return x
