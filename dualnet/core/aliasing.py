"""Writing in place: `x += v` and `x[i] = v` on duals mean what they mean on arrays.

A Dual's primal and tangent are never written to, because rules may have recorded them.  So a write
computes a new value, and the Dual takes it.  Every name of the Dual then sees the new value, as
every name of an array would.

A view, such as `row = W[0]`, is a Dual of its own.  For NumPy it is the memory of W, so a write to
the one changes the other.  Here a write to a view that came from indexing is done to W, too.  Every
other Dual that NumPy would have changed is outdated from then on, and using it is refused, because
its value would be a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dualnet.core import refusals
from dualnet.types import Array

if TYPE_CHECKING:
    from dualnet.core.dual import Dual


class Memory:
    """What an array and its views have in common: how often it was written to."""

    __slots__ = ("writes",)

    def __init__(self) -> None:
        self.writes = 0


class Alias:
    """How a Dual takes part in a memory.

    Attributes:
        memory: shared by all duals that are one memory for NumPy.
        writes: the number of writes that this Dual has seen.
        base: the Dual that it is a view of; None for the array itself.
        key: the index that gave the view; None where another function did.
    """

    __slots__ = ("base", "key", "memory", "writes")

    def __init__(self, memory: Memory, base: Dual | None = None, key: Any = None):
        self.memory, self.writes = memory, memory.writes
        self.base, self.key = base, key

    def require_current(self) -> None:
        """Refuse a Dual whose memory was written to through another one."""
        if self.writes != self.memory.writes:
            raise refusals.outdated()


def note_view(out: Dual, args: tuple, key: Any) -> None:
    """Note of which argument of a call its result is a view, if it is one.

    Args:
        out, args: the call's result and arguments.
        key: the index, if the call was `x[key]`; else None.
    """
    for x in args:
        if hasattr(x, "alias") and x is not out and _owner(x) is _owner(out):
            if x.alias is None:
                x.alias = Alias(Memory())
            whole = key is None and out.primal is x.primal  # np.squeeze can do nothing
            out.alias = Alias(x.alias.memory, x, ... if whole else key)
            return


def flat(x: Dual) -> Dual:
    """Return the entries of x in one row, as a view: what is written there is written to x.

    Where x does not lie in memory row by row, np.ravel is a copy, so no owner tells of the view.
    """
    row: Any = np.ravel(x)
    plain = value_of(x)
    if not isinstance(plain, np.generic):
        x.alias = x.alias or Alias(Memory())
        row.alias = Alias(x.alias.memory, x, np.ones_like(plain, bool))
    return row


def write(x: Dual, value: Any, fn: Callable) -> Any:
    """Let x take a new value in place, and with it the array that x is a view of.

    Args:
        x: a Dual.
        value: what an operator or an assignment made of it.
        fn: the function that the operator or the assignment is, for messages.

    Returns:
        x; or the value itself if x is a NumPy scalar, which no write changes.

    Raises:
        ValueError: entries of x are one place in memory, as NumPy refuses to write there.
    """
    from dualnet.core.dual import Dual, put_at  # which imports this module

    plain = value_of(x)
    if isinstance(plain, np.generic):
        return value
    if _is_stretched(plain):
        raise refusals.stretched(fn)
    if not isinstance(value, Dual) or value.shape != x.shape:
        got = f"shape {value.shape}" if isinstance(value, Dual) else "what has no derivative"
        raise refusals.no_write(fn, got, x.shape)
    if value.dtype != x.dtype:
        value = value.astype(x.dtype)
    _take(x, value)
    written = [x]
    while (alias := written[-1].alias) and alias.base is not None and alias.key is not None:
        base = alias.base
        _take(base, put_at(base, alias.key, written[-1]))
        written.append(base)
    if x.alias is not None:
        memory = x.alias.memory
        memory.writes += 1
        for one in written:
            one.alias = Alias(memory, *((one.alias.base, one.alias.key) if one.alias else ()))
    return x


def put(x: Dual, key: Any, value: Any) -> None:
    """Let x be what `x[key] = value` makes of it."""
    from dualnet.core.dual import put_at  # which imports this module

    written = put_at(x, key, value)
    if write(x, written, put_at) is written:
        raise TypeError(f"a Dual of {type(value_of(x)).__name__} does not support item assignment")


def evaluate_into(evaluate: Callable, fn: Callable, args: tuple, kwargs: dict) -> Any:
    """Evaluate `fn`, and with `out=` write the result into that Dual, where `where=` lets it.

    For a function of several results, `out` is a tuple with a Dual, or None, for each.

    Raises:
        DualConversionError: `out` is a plain array.
        TypeError: `out` is a number.
    """
    if (out := kwargs.pop("out", None)) is None:
        return evaluate(fn, args, kwargs)
    is_ufunc = hasattr(fn, "nin")
    targets = out if isinstance(out, tuple) else (out,)
    mask = kwargs.pop("where", True) if is_ufunc else True
    for target in targets:
        if target is not None and not hasattr(target, "tangent"):
            operator = " (or an operator such as +=)" if is_ufunc else ""
            raise refusals.in_place(f"{refusals.name_of(fn)} with out={operator}")
        if isinstance(value_of(target), np.generic):
            raise TypeError(f"{refusals.name_of(fn)}: out= must be an array, got a number")
    from dualnet.core.dual import innermost_level, put_at  # which imports this module

    def written(target: Any, value: Any) -> Any:
        value = value if mask is True else np.where(mask, value, target)
        return write(target, put_at(target, ..., value), fn)

    constant = innermost_level(args) is None
    result = fn(*args, **kwargs) if constant else evaluate(fn, args, kwargs)
    if len(targets) == 1:
        return written(targets[0], result)
    pairs = zip(targets, result, strict=True)  # as of np.modf
    return tuple(value if target is None else written(target, value) for target, value in pairs)


def value_of(x: Any) -> Any:
    """Return the plain value under all levels."""
    from dualnet.core.dual import primal_of  # which imports this module

    return primal_of(x)


def own(x: Any) -> Any:
    """Copy an array that its user could change; others are returned as they are."""
    if hasattr(x, "primal"):
        return x.copy()
    if isinstance(x, np.ndarray):
        base: Any = x
        while isinstance(base, np.ndarray) and not base.flags.writeable:
            base = base.base
        if base is None:
            return x
        return _own_stretched(x) if 0 in x.strides else x.copy(order="K")
    return np.copy(x) if hasattr(x, "__array_function__") else x


def _own_stretched(x: np.ndarray) -> np.ndarray:
    """Copy a view that repeats entries as such a view: of equal strides, products sum up in the
    same order, and what is copied is small."""
    axes = tuple(slice(None) if step else slice(0, 1) for step in x.strides)
    entries = x[axes].copy(order="K")
    entries.flags.writeable = False  # so that it is not copied again
    return np.broadcast_to(entries, x.shape)


def _is_stretched(x: Array) -> bool:
    """Tell whether several entries of x are one place in memory."""
    strides = getattr(x, "strides", ())
    if 0 not in strides or x.size == 0:
        return False
    return any(step == 0 and n > 1 for step, n in zip(strides, x.shape, strict=True))


def locked(x: Array) -> Array:
    """Return an array as a view that cannot be written to, where NumPy offers that."""
    if isinstance(x, np.ndarray):
        x = x.view()
        x.flags.writeable = False
    return x


def _take(x: Dual, value: Dual) -> None:
    """Let x stand for the value of another Dual."""
    x.primal, x.tangent, x.level = value.primal, value.tangent, value.level


def _owner(x: Any) -> Array:
    """Find the array that owns the memory of x."""
    while hasattr(x, "primal"):
        x = x.primal
    while getattr(x, "base", None) is not None:
        x = x.base
    return x
