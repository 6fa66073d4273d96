"""How a hop, a linear map and its transpose are written: t(a) is the tangent of a, and c(a) its
cotangent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from dualnet import linear
from dualnet.core.dual import getitem
from dualnet.naming import shortened
from dualnet.tour.hops import Hop, Moving, Value
from dualnet.tour.layout import number, numbers
from dualnet.tour.shown import Seen, Shown, same
from dualnet.types import Array

_OPERATORS: Mapping[Any, str] = {
    np.add: "+",
    np.subtract: "-",
    np.multiply: "*",
    np.true_divide: "/",
    np.matmul: "@",
    np.power: "**",
}
"""Function → the operator that NumPy makes it of."""

_MAPS: Mapping[Any, tuple[str, str]] = {
    linear.broadcast_to: ("repeat({t})", "add_up({t})"),
    linear.sum: ("sum({t})", "repeat({t})"),
    linear.scale: ("{t} * {p}", "{t} * {p}"),
    linear.divide: ("{t} / {p}", "{t} / {p}"),
    linear.matmul: ("{t} @ {p}", "{t} @ {p}ᵀ"),
    linear.matmul_from_left: ("{p} @ {t}", "{p}ᵀ @ {t}"),
    linear.reshape: ("reshape({t})", "reshape({t})"),
    linear.select: ("select({t})", "select({t})"),
    linear.transpose: ("transpose({t})", "transpose({t})"),
    linear.index: ("{t}[{p}]", "zeros with {t} at [{p}]"),
}
"""Linear map → how it and its transpose are written, with t for what they are applied to.

Others are written as `name(t)` and `nameᵀ(t)`."""


class Sent(NamedTuple):
    """What a hop, transposed, sends to one of its arguments.

    Attributes:
        to: the argument.
        text: the formula.
        cotangent: what arrives there from this hop; None where the tangents of the argument and of
            the result are one, and so are their cotangents.
    """

    to: Value
    text: str
    cotangent: Array | None


def written(hop: Hop, constants: Mapping[str, Array]) -> str:
    """Write the call of a hop's function, such as `#1 + b`.

    Args:
        hop: which one.
        constants: arrays that have names.
    """
    parts = [_argument(x, constants) for x in hop.arguments]
    name = getattr(hop.function, "__name__", "function").strip("_")
    if len(parts) == 2 and not hop.keywords and (hop.function in _OPERATORS or name == "pow"):
        return f"{parts[0]} {_OPERATORS.get(hop.function, '**')} {parts[1]}"
    if hop.function is np.negative and len(parts) == 1:
        return f"-{parts[0]}"
    if hop.function is getitem:
        return f"{parts[0]}[{_index(hop.arguments[1])}]"
    parts += [f"{key}={_argument(x, constants)}" for key, x in hop.keywords.items()]
    within = f", a part of {hop.within}" if hop.within else ""
    return f"{name}({', '.join(parts)}){within}"


def pushed(hop: Hop, constants: Mapping[str, Array]) -> str:
    """Write how the tangent of a hop's result follows from those of its arguments."""
    names = _names(hop)

    def of(t: Shown) -> str:
        if id(t) in names:
            return f"t({names[id(t)].name})"
        if t.linear_map is None:
            return " + ".join(map(of, t.parents))
        return _applied(0, t, t.linear_map, of(t.parents[0]), hop, constants)

    return f"t({hop.out.name}) = {of(hop.out.tangent)}"


def maps_of(hop: Hop) -> list[str]:
    """Return the names of the linear maps that a hop's tangents went through."""
    names = _names(hop)

    def follow(t: Shown) -> Iterator[str]:
        if id(t) not in names:
            for parent in t.parents:
                yield from follow(parent)
            if t.linear_map is not None and _is_worth_a_word(t, t.linear_map):
                yield t.linear_map.itself.__name__

    return list(dict.fromkeys(follow(hop.out.tangent)))


def pulled(hop: Hop, constants: Mapping[str, Array]) -> list[Sent]:
    """Return what the transposed hop sends to its arguments, once the record was transposed."""
    names, sent = _names(hop), []

    def follow(t: Shown, text: str, cotangent: Array) -> None:
        if id(t) in names:
            sent.append(Sent(names[id(t)], text, cotangent[0]))
        elif t.linear_map is None:
            for parent in t.parents:
                follow(parent, text, cotangent)
        elif t.linear_map.sent is not None:  # None where nothing arrived
            onward = _applied(1, t, t.linear_map, text, hop, constants)
            follow(t.parents[0], onward, t.linear_map.sent)

    name, t = f"c({hop.out.name})", hop.out.tangent
    if id(t) in names:
        return [Sent(names[id(t)], name, None)]
    follow(t, name, None)
    return sent


def _names(hop: Hop) -> dict[int, Value]:
    return {id(value.tangent): value for value in hop.moving}


def _applied(
    way: int, t: Shown, seen: Seen, text: str, hop: Hop, constants: Mapping[str, Array]
) -> str:
    """Write the map that made t, applied to a text: itself where way is 0, transposed where 1."""
    itself, (parent,) = seen.itself, t.parents
    if not _is_worth_a_word(t, seen):
        return text
    form = _MAPS.get(itself, (f"{itself.__name__}({{t}})", f"{itself.__name__}ᵀ({{t}})"))[way]
    if itself is linear.index:
        p = _index(t.params[0])
    else:
        p = _constant(t.params[0], hop, constants) if t.params else ""
    done = form.format(t=text if "({t})" in form else _term(text), p=p)
    stretched = itself in (linear.scale, linear.divide) and parent.shape != t.shape
    return f"add_up({done})" if way and stretched else done


def _term(text: str) -> str:
    """Put a formula in parentheses unless it is a single term."""
    depth = 0
    for one in text:
        depth += (one in "([") - (one in ")]")
        if one == " " and not depth:
            return f"({text})"
    return text


def _is_worth_a_word(t: Shown, seen: Seen) -> bool:
    """Tell whether the map that made t does more than to add or take away axes of length 1."""
    shapes = [[n for n in one.shape if n != 1] for one in (t, t.parents[0])]
    return seen.itself not in (same, linear.reshape) or shapes[0] != shapes[1]


def _constant(p: Any, hop: Hop, constants: Mapping[str, Array]) -> str:
    """Write what a map multiplies by: by its name where it is an argument or the result.

    Arguments that move arrive at a map as they are, or as a view; the others may be copied.
    """
    own = [value for value in (*hop.moving, hop.out) if p is value.primal]
    if own:
        return own[0].name
    if isinstance(p, (bool, int, float, tuple)) or p is None:
        return number(p) if isinstance(p, float) else str(p)
    array = np.asarray(_plain(p))
    for value in (*hop.moving, hop.out):
        if _equal(array, value.primal) and np.shares_memory(array, value.primal):
            return value.name
    for x in hop.arguments:
        if isinstance(x, np.ndarray) and x.ndim and _equal(array, x):
            return _argument(x, constants)
    return _short(array)


def _equal(a: Array, b: Any) -> bool:
    """Tell whether two arrays hold the same but for axes of length 1."""
    a, b = np.squeeze(a), np.squeeze(np.asarray(_plain(b)))
    return a.shape == b.shape and bool(np.all(a == b))


def _plain(x: Any) -> Any:
    """Return the value of what moves in a derivative inside the function, too."""
    while hasattr(x, "primal"):
        x = x.primal
    return x


def _argument(x: Any, constants: Mapping[str, Array]) -> str:
    if isinstance(x, Value):
        return x.name
    if isinstance(x, (list, tuple)) and not isinstance(x, Moving):
        inside = ", ".join(_argument(item, constants) for item in x)
        return f"[{inside}]" if isinstance(x, list) else f"({inside})"
    for name, constant in constants.items():
        if x is constant:
            return name
    if isinstance(x, (np.ndarray, float, np.floating, Moving)):
        return _short(np.asarray(_plain(x)))
    return "..." if callable(x) else shortened(repr(x), 30)


def _short(x: Array) -> str:
    text = re.sub(r"\[ +", "[", " ".join(numbers(x).split()))
    return text if len(text) <= 44 else f"array{x.shape}"


def _index(key: Any) -> str:
    """Write what stands between the brackets of an index."""
    if isinstance(key, tuple):
        return ", ".join(map(_index, key))
    if isinstance(key, slice):
        ends = ["" if one is None else str(one) for one in (key.start, key.stop)]
        return ":".join(ends) + ("" if key.step is None else f":{key.step}")
    return "..." if key is Ellipsis else _short(key) if isinstance(key, np.ndarray) else repr(key)
