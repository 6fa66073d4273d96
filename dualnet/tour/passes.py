"""The first two parts of the tour: a tangent goes forward, and a cotangent goes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet.core.dual import Dual, evaluate
from dualnet.core.symbolic import transpose_all
from dualnet.core.transforms import jvp
from dualnet.errors import UsageError
from dualnet.tour.hops import Hop, Value, hops_of, noted
from dualnet.tour.layout import ends, formula, in_short, joined, labeled, number, paragraph, title
from dualnet.tour.notation import maps_of, pulled, pushed, written
from dualnet.tour.shown import Shown
from dualnet.tour.subject import Subject
from dualnet.tour.watch import watch
from dualnet.types import Array

STEP = 1e-5
"""The step of the central difference."""
_WHY_APART = """They differ. Near this point the function may have a kink, a jump or a pole; or it
    computes with too few digits for such a difference, as float32 has; or its value is another one
    each time, for the same arguments."""


@dataclass(frozen=True)
class Pass:
    """One pass of a function with one direction.

    Attributes:
        inputs: the arrays that move.
        hops: what the engine evaluated.
        value, slope: of the function.
        end: its value, as one of the inputs or of the results of hops.
    """

    inputs: list[Value]
    hops: list[Hop]
    value: float
    slope: float
    end: Value

    def gradient(self) -> dict[str, Array]:
        """Send the cotangent 1 of the value back through the record; the hops then show it."""
        out = self.end.tangent
        found = transpose_all([out], [np.ones_like(out.probe)], [v.tangent for v in self.inputs])
        pairs = zip(self.inputs, found, strict=True)
        return {v.name: np.zeros_like(v.primal) if ct is None else ct[0] for v, ct in pairs}


def push(subject: Subject, direction: Mapping[str, Array]) -> Pass:
    """Push a direction through the function of a subject, by `jvp`, and look on.

    Raises:
        UsageError: the value does not move, or Python did not tell of the calls that made it.
    """
    primals = subject.named()
    tangents = {name: Shown.along(v) for name, v in direction.items()}
    last: list[Any] = []

    def function(arrays: Mapping[str, Any]) -> Any:
        last.append(subject.value(arrays))
        return last[0]

    with watch(evaluate, noted=noted) as calls:
        value, slopes = jvp(function, (primals,), (tangents,))
    if not isinstance(last[0], Dual):
        raise UsageError("its value does not move with its arguments; use them in it")
    inputs = [Value(name, primals[name], tangents[name]) for name in primals]
    hops = hops_of(calls, inputs)
    every = [*inputs, *(hop.out for hop in hops)]
    end = next((value for value in reversed(every) if value.tangent is last[0].tangent), None)
    if end is None:
        raise UsageError(
            "its value came about unseen; let it compute in one thread, and use no sys.setprofile"
        )
    return Pass(inputs, hops, float(value), float(slopes[0]), end)


def central_difference(subject: Subject, direction: Mapping[str, Array]) -> float:
    """Return the slope along a direction as page 1 of the tutorial first measures it."""
    ahead, behind = (
        subject.value({name: p + step * direction[name] for name, p in subject.named().items()})
        for step in (STEP, -STEP)
    )
    return float((ahead - behind) / (2 * STEP))


def forward_part(subject: Subject, seen: Pass, difference: float, width: int) -> list[str]:
    """Write the part about the tangent."""
    start = [
        [
            *ends(value.name, f"{value.primal.shape}", width),
            *labeled("value", value.primal, width),
            *labeled("tangent", value.tangent.probe[0], width),
        ]
        for value in seen.inputs
    ]
    return [
        *title("1. Forward: a value and its tangent", width),
        *paragraph(
            """Each array that moves has a tangent of its own shape: how fast each entry moves.
            Those of the arguments are ours to choose. Here they are random numbers; together they
            are one direction v.""",
            width,
        ),
        "",
        *joined(start),
        "",
        *paragraph(
            """Now the function runs, once. Every line #1, #2, ... is a function of NumPy. It gets
            values and makes a value. Its rule gets tangents and makes a tangent. The line "by" says
            how, with t(a) for the tangent of a. A rule is linear: it adds tangents, moves their
            entries, or multiplies them by constants. Numbers in a "by" are such constants, worked
            out from the values: those of tanh are its slopes, 1 - tanh². At the right end are the
            names of the linear maps in dualnet.linear.""",
            width,
        ),
        "",
        *in_short([_forward(hop, subject, width) for hop in seen.hops], "functions"),
        "",
        *paragraph(_compared(seen, difference), width),
    ]


def _forward(hop: Hop, subject: Subject, width: int) -> list[str]:
    """Write a hop of the tangent, with the names of its maps at the right end."""
    by, names = formula(pushed(hop, subject.constants), width, "by"), ", ".join(maps_of(hop))
    call = f"{hop.out.name} = {written(hop, subject.constants)}"
    return [
        *ends(call, f"{hop.out.primal.shape}", width),
        *labeled("value", hop.out.primal, width),
        *labeled("tangent", hop.out.tangent.probe[0], width),
        *by[:-1],
        *(ends(by[-1], names, width) if names else by[-1:]),
    ]


def _compared(seen: Pass, difference: float) -> str:
    size = max(abs(difference), abs(seen.slope), 1e-3, 1e-6 * abs(seen.value))
    apart = not abs(difference - seen.slope) <= 1e-3 * size
    return f"""The value is {number(seen.value)}, and its tangent is the slope along v:
        {number(seen.slope)}. A central difference, two more evaluations at a distance of {STEP:g}
        along v, says {number(difference)}.
        {_WHY_APART if apart else ""}"""


def backward_part(
    subject: Subject,
    seen: Pass,
    gradient: Mapping[str, Array],
    direction: Mapping[str, Array],
    width: int,
) -> list[str]:
    """Write the part about the cotangent."""
    products = {name: float((g * direction[name]).sum()) for name, g in gradient.items()}
    return [
        *title("2. Back: the same maps, transposed", width),
        *paragraph(
            f"""The tangents of part 1 kept a record of the maps that made them. Read it from the
            end. Each map is replaced by its transpose, and what goes back is a cotangent: c(a) says
            how the final value moves with each entry of a. It starts at the value itself, with
            c({seen.end.name}) = 1. The constants are those of part 1: no derivative is written a
            second time.""",
            width,
        ),
        "",
        *_backward(subject, seen, gradient, width),
        "",
        *paragraph(
            """What has arrived at the arguments is the gradient. Its inner product with the
            direction v is the slope of part 1, and that is what makes it the gradient:""",
            width,
        ),
        "",
        *(
            line
            for name, product in products.items()
            for line in formula(f"<c({name}), t({name})> = {number(product)}", width)
        ),
        *formula(
            f"together {number(sum(products.values()))}; the slope is {number(seen.slope)}", width
        ),
    ]


def _backward(subject: Subject, seen: Pass, gradient: Mapping[str, Array], width: int) -> list[str]:
    """Write the hops of the cotangent, and what arrived at inputs in several parts, or in none."""
    hops: list[list[str]] = []
    parts = Counter([seen.end.name])
    whole = set()  # inputs at which all has arrived at once
    for hop in reversed(seen.hops):
        if hop.out.name not in parts:
            continue
        call = f"{hop.out.name} = {written(hop, subject.constants)}, transposed"
        lines = formula(call, width, indent=0)
        for to, text, cotangent in pulled(hop, subject.constants):
            lines += formula(f"c({to.name}) {'+=' if to.name in parts else '='} {text}", width)
            lines += [] if cotangent is None else labeled("", cotangent, width)
            parts[to.name] += 1
            if parts[to.name] == 1 and cotangent is not None:
                whole.add(to.name)
        hops.append(lines)
    sums = []
    for name, g in gradient.items():
        if name not in whole or parts[name] > 1:
            sums += [*formula(f"c({name}), all together", width, indent=0), *labeled("", g, width)]
    return [*in_short(hops, "functions"), *sums]
