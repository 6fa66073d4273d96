"""The engine: how a function is evaluated on duals, and the forms its rule can take.

A function's arguments are taken apart at the innermost level: primals go into the function
itself, tangents through the rule's linear maps, and the contributions are added.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.dispatch import name_of, register
from dualnet.core.dual import Dual, Level, primal_of
from dualnet.errors import MissingRuleError


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


def operand(x: Any) -> Any:
    """Where a function expects an array: the array that a list of numbers stands for."""
    if isinstance(x, (list, tuple)) and not any(hasattr(item, "dtype") for item in x):
        return np.asarray(x)
    return x


def with_tangent(out: Any, t: Any, level: Level) -> Any:
    """The Dual of a result; the plain result where no tangent reached it."""
    if t is None:
        return out
    if linear.shape_of(t) != out.shape:
        t = linear.broadcast_to(t, out.shape)
    if t.dtype != out.dtype:
        t = linear.cast(t, out.dtype)
    return Dual(out, t, level)


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


def _applied(linear_map: Callable, out: Any, primals: list, kwargs: dict, t: Any) -> Any:
    return linear_map(t, out, *primals, **kwargs)


def _contributions(fn: Callable, args: tuple, level: Level, maps: Sequence) -> Any:
    """The sum over the arguments of what each one's map makes of its tangent."""
    total = None
    for position, argument in enumerate(args):
        t = tangent_at(argument, level)
        if t is None:
            continue
        if position >= len(maps) or maps[position] is None:
            raise MissingRuleError(
                f"{name_of(fn)} cannot be differentiated by argument {position}; "
                "pass dn.stop_gradient(x) there"
            )
        contribution = maps[position](t)
        total = contribution if total is None else linear.add(total, contribution)
    return total


def rule(fn: Callable, *by_argument: Callable | None) -> None:
    """Register `fn` by one linear map `(t, out, *primals, **params)` for each argument.

    None marks an argument that cannot carry a tangent (an index, a shape).  For an argument
    that is a sequence of arrays, t is the list of their tangents, None where absent.
    """

    def evaluate(level: Level, args: tuple, kwargs: dict) -> Any:
        primals = [primal_at(a, level) for a in args]
        for position, linear_map in enumerate(by_argument[: len(args)]):
            if linear_map is not None:
                primals[position] = operand(primals[position])
        out = fn(*primals, **kwargs)
        maps = [
            None if m is None else functools.partial(_applied, m, out, primals, kwargs)
            for m in by_argument
        ]
        return with_tangent(out, _contributions(fn, args, level, maps), level)

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

    `maps` holds one linear map for each array argument (None where it cannot carry a tangent),
    or is a single map where only the first can.  The maps may share whatever was computed.
    """

    def decorate(function: Callable) -> Callable:
        def evaluate(level: Level, args: tuple, kwargs: dict) -> Any:
            out, maps = function(*(primal_at(a, level) for a in args), **kwargs)
            maps = (maps,) if callable(maps) else maps
            return with_tangent(out, _contributions(fn, args, level, maps), level)

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
