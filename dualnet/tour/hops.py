"""Hops: one for each function that the engine evaluated, with its value and its tangent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from dualnet.core.dual import Dual
from dualnet.tour.shown import Shown
from dualnet.tour.watch import Call
from dualnet.types import Array


@dataclass(frozen=True)
class Value:
    """A value of the pass that moves.

    Attributes:
        name: of an input, or `#` and the number of a hop.
        primal: its value.
        tangent: how it moves.
    """

    name: str
    primal: Array
    tangent: Shown


@dataclass(frozen=True)
class Hop:
    """A function that the engine evaluated on values that move.

    Attributes:
        function: which one.
        arguments: by position; a `Value` where one moves.
        keywords: by name.
        out: the result.
        within: the name of the function that is written with this one; empty if it was called
            itself.
    """

    function: Callable
    arguments: tuple
    keywords: dict[str, Any]
    out: Value
    within: str = ""

    @property
    def moving(self) -> list[Value]:
        """The arguments that move, also those inside lists."""
        return list(_values((self.arguments, self.keywords)))


class Moving(NamedTuple):
    """What a `Dual` was when it was noted: writing into it gives it another primal and tangent."""

    primal: Any
    tangent: Any


def noted(x: Any) -> Any:
    """Return what is kept of the arguments or the result of a call: a `Moving` for each `Dual`."""
    if isinstance(x, Dual):
        return Moving(x.primal, x.tangent)
    if isinstance(x, dict):
        return {name: noted(value) for name, value in x.items()}
    if isinstance(x, (list, tuple)):
        items = [noted(item) for item in x]
        return items if isinstance(x, list) else tuple(items)
    return x


def hops_of(calls: Iterable[Call], inputs: Iterable[Value]) -> list[Hop]:
    """Return the hops of a pass.

    A function that is written with others, as `np.linalg.norm` is, stands for those: they are the
    hops.  What belongs to another derivative, inside the function, is left out where it carries no
    directions.

    Args:
        calls: of `core.dual.evaluate`, watched, with what was `noted` of each.
        inputs: the values that move from the start.
    """
    known = {_identity(value): value for value in inputs}
    hops: list[Hop] = []

    def named(x: Any) -> Any:
        if isinstance(x, Moving):
            return known.get(_identity(x), x)
        if isinstance(x, list):
            return [named(item) for item in x]
        return tuple([named(item) for item in x]) if isinstance(x, tuple) else x

    for call, within in _innermost(calls):
        fn, args, kwargs = (call.arguments[name] for name in ("fn", "args", "kwargs"))
        arguments = tuple(map(named, args))
        keywords = {name: named(x) for name, x in kwargs.items()}
        for result in _results(call.result):
            out = Value(f"#{len(hops) + 1}", result.primal, result.tangent)
            known[_identity(out)] = out
            hops.append(Hop(fn, arguments, keywords, out, within))
    return hops


def _innermost(calls: Iterable[Call], within: str = "") -> Iterator[tuple[Call, str]]:
    """Yield the calls with a result that moves, where no call inside has one, and the name of the
    outermost function that each is a part of."""
    for call in calls:
        is_made_of_others = not within and bool(_results(call.result))
        name = getattr(call.arguments["fn"], "__name__", "") if is_made_of_others else within
        inside = list(_innermost(call.inner, name))
        if inside:
            yield from inside
        elif _results(call.result):
            yield call, within


def _results(result: Any) -> list[Moving]:
    """Return the parts of a function's result that move."""
    parts = [result] if isinstance(result, Moving) else result
    parts = parts if isinstance(parts, (list, tuple)) else []
    moving = [x for x in parts if isinstance(x, Moving) and isinstance(x.tangent, Shown)]
    return [x for x in moving if 0 not in x.primal.shape]


def _identity(x: Value | Moving) -> tuple[int, int]:
    """Return what tells two values of a pass apart: a sum with a constant has the very tangent of
    its argument, and a Python number and the array made of it are one value."""
    return id(x.primal), id(x.tangent)


def _values(x: Any) -> Iterator[Value]:
    if isinstance(x, Value):
        yield x
    elif isinstance(x, dict):
        yield from _values(list(x.values()))
    elif isinstance(x, (list, tuple)):
        for item in x:
            yield from _values(item)
