"""The engine: the forms that a derivative rule can take, and what each does with duals.

A function's arguments are taken apart at the innermost level: primals go into the function itself,
tangents through the rule's linear maps, and what the maps return is added up.

    rule             a linear map `(t, out, *primals, **params)` for each argument
    elementwise      the same for functions that broadcast
    linearizer       one function that returns the result and the maps, which share what it computed
    composed         the function written with others that have rules
    zero_derivative  functions whose result does not move with small changes of their arguments

In `(t, out, *primals, **params)`, t is the tangent of one argument, out is the result, and primals
and params are the arguments of the call.  A map is linear in t; one whose result does not have the
shape `(k, *out.shape)` is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import numpy as np

from dualnet.core import linear, refusals
from dualnet.core.aliasing import own
from dualnet.core.arguments import known_arguments
from dualnet.core.arrays import join_lists, operand
from dualnet.core.dual import RULES, Dual, Level, Rule, innermost_level
from dualnet.core.half import wide_enough
from dualnet.core.plain import plain, require_accepted
from dualnet.core.symbolic import Symbolic
from dualnet.types import Array, Tangent


def rule(fn: Callable, *by_argument: Callable | None, sequences: Container[int] = ()) -> None:
    """Register `fn` by one linear map `(t, out, *primals, **params)` for each argument.

    None marks an argument that cannot carry a tangent (an index, a shape).  `sequences` says which
    arguments are sequences of arrays; t is then the list of their tangents, None where one has
    none.  In any other place a list with duals in it stands for the array that NumPy makes of it.
    """
    arrays = tuple(position for position, m in enumerate(by_argument) if m is not None)

    def evaluate(level: Level, args: tuple, kwargs: dict) -> Any:
        primals, tangents = take_apart(args, level, sequences)
        for position, x in enumerate(primals):
            if position in arrays and isinstance(x, (list, tuple)):
                primals[position] = operand(x)
        out = fn(*primals, **kwargs)
        return with_tangent(fn, level, out, tangents, by_argument, (out, *primals), kwargs)

    register(fn, evaluate, filter(None, by_argument), leading=2)


def elementwise(fn: Callable, *by_argument: Callable | None) -> None:
    """Register a function that broadcasts its arguments, otherwise as `rule` does.

    Every t arrives with the rank of the result, so that a map can be written with operators, as in
    `lambda t, out, x, y: t * y`.  A map must give the shape of the result: where neither t nor
    another operand has it, the map is `moves_alike`, which stretches t.
    """
    rule(fn, *(None if m is None else aligned(m) for m in by_argument))


def aligned(linear_map: Callable) -> Callable:
    """Make a rule's map that gets t with the rank of the result."""

    @functools.wraps(linear_map)
    def of_aligned(t: Tangent, out: Array, *primals: Any, **params: Any) -> Tangent:
        t = linear.align(t, out.ndim)
        if out.dtype.char == "e" or len(primals) > 1:
            t, out, *primals = wide_enough(t, out, *primals)  # type: ignore[assignment]
        return linear_map(t, out, *primals, **params)

    return of_aligned


def moves_alike(t: Tangent, out: Array, *_primals: Any) -> Tangent:
    """Map t to itself, stretched to the result's shape: the result moves as the argument does."""
    return linear.stretch(t, out.shape)


def linearizer(fn: Callable, sequences: Container[int] = ()) -> Callable:
    """Register `fn` by a function of the same arguments that returns `(out, maps)` (a decorator).

    `maps` holds one linear map of t alone for each array argument (None where it cannot carry a
    tangent), or is a single map where only the first argument can.  `sequences` is as for `rule`.
    """

    def decorate(function: Callable) -> Callable:
        def evaluate(level: Level, args: tuple, kwargs: dict) -> Any:
            primals, tangents = take_apart(args, level, sequences)
            out, maps = function(*primals, **kwargs)
            maps = (maps,) if callable(maps) else maps
            return with_tangent(fn, level, out, tangents, maps, (), {})

        register(fn, evaluate, [function])
        return function

    return decorate


def composed(*fns: Callable, sequences: Container[int] = (), anywhere: bool = False) -> Callable:
    """Register `fns` by a function of the same arguments, written with functions that have rules.

    The primal is the composition's own.  On NumPy it is equal to the function's result; on a device
    it is equal up to rounding, and bit for bit where entries are only moved.
    `sequences` is as for `rule`, and `anywhere` as for `Rule`.
    """

    def decorate(function: Callable) -> Callable:
        def evaluate(fn: Callable, _level: Level, args: tuple, kwargs: dict) -> Any:
            try:
                return function(*(args if anywhere else join_lists(args, sequences)), **kwargs)
            except Exception as error:
                require_accepted(fn, args, kwargs, error)
                raise

        for fn in fns:
            one = functools.partial(evaluate, fn)
            register(fn, one, [function], anywhere=anywhere, composed=True)
        return function

    return decorate


def zero_derivative(*fns: Callable) -> None:
    """Register functions that see plain values and return plain values.

    Comparisons, floor, sign, argmax and their like do not move with small changes.
    """
    for fn in fns:
        register(fn, lambda _level, args, kwargs, fn=fn: fn(*map(plain, args), **kwargs))


# --- parts ---------------------------------------------------------------------------------------


def register(
    fn: Callable, evaluate: Callable, parts: Iterable = (), leading: int = 0, **more: Any
) -> None:
    """Give `fn` its rule, for the arguments that all `parts` take; a second rule is refused.

    Of what a part takes, so many arguments as `leading` come before those of `fn` itself: with 2,
    t and out.  `more` are fields of `Rule`.
    """
    rules = getattr(fn, "own_rules", RULES)  # a function of the user's takes its rule along
    if fn in rules:
        raise refusals.second_rule(fn)
    rules[fn] = Rule(evaluate, *known_arguments(parts, leading), **more)


def take_apart(args: Sequence, level: Level, sequences: Container[int] = ()) -> tuple[list, list]:
    """Separate the arguments' primals and tangents at a level.

    A tangent is None where an argument has none.  A sequence of arrays becomes a list of primals
    and a list of tangents.  While tangents are recorded, constants are copied, because the user may
    change them before the record is read.
    """
    primals, tangents, recorded = [], [], False
    if any([isinstance(x, (list, tuple)) for x in args]):
        args = join_lists(args, sequences)
    for x in args:
        t = None
        if isinstance(x, Dual):
            if x.alias is not None:
                x.alias.require_current()
            if x.level is level:
                x, t = x.primal, x.tangent
                recorded = recorded or isinstance(t, Symbolic)
        elif isinstance(x, (list, tuple)) and innermost_level(x) is not None:
            x, t = take_apart(x, level)
            t = t if any(item is not None for item in t) else None
        elif isinstance(x, np.ndarray) and type(x) not in refusals.PLAIN:
            raise refusals.array_subclass(type(x).__name__)
        primals.append(x)
        tangents.append(t)
    if recorded:
        primals = [own(x) if t is None else x for x, t in zip(primals, tangents, strict=True)]
    return primals, tangents


def with_tangent(
    fn: Callable,
    level: Level,
    out: Any,
    tangents: list,
    maps: Sequence[Callable | None],
    operands: tuple,
    params: dict,
) -> Any:
    """Pair a result with the sum of what the maps make of the arguments' tangents.

    A map is called with the tangent, then `operands` and `params`: for a `rule` those are the
    result, the primals and the keyword arguments, for a `linearizer` there are none.  The result
    itself is returned where no argument has a tangent.
    """
    total = None
    for position, t in enumerate(tangents):
        if t is None:
            continue
        linear_map = maps[position] if position < len(maps) else None
        if linear_map is None:
            raise refusals.no_derivative_by(fn, position)
        if getattr(getattr(out, "dtype", None), "kind", None) != "f":
            raise refusals.no_array(fn, out)
        try:
            image = linear_map(t, *operands, **params)
        except (TypeError, AttributeError) as error:
            refusals.require_arrays(fn, position, t, error)
            raise
        refusals.require_fit(fn, position, t, image, out.shape)
        total = image if total is None else linear.add(total, image)
    if total is None:
        return out
    if total.dtype != out.dtype:  # the result's dtype decides, as in NumPy
        total = linear.cast(total, out.dtype)
    return Dual(out, total, level)
