"""One tangent through three operations, with its numbers: docs/figures/three-operations.svg."""

from functools import reduce

import numpy as np
from drawing import WIDTH, Drawing

import dualnet as dn

START = 0.8
OPERATIONS = {"square": np.square, "tanh": np.tanh, "times 3": lambda x: 3 * x}
STATIONS = (75, 225, 375, 525)


def numbers() -> dict[str, list[float]]:
    """Return what each row of the picture has: one number for each place, three local slopes."""
    steps = list(OPERATIONS.values())

    def chain(some):
        return lambda x: reduce(lambda value, step: step(value), some, x)

    values = [chain(steps[:i])(START) for i in range(4)]
    pulls = [dn.vjp(chain(steps[i:]), value)[1] for i, value in enumerate(values)]
    return {
        "primal": values,
        "tangent": [dn.jvp(chain(steps[:i]), (START,), (1.0,))[1] for i in range(4)],
        "back": [pull(1.0)[0] for pull in pulls],
        "slopes": [
            dn.jvp(step, (x,), (1.0,))[1] for step, x in zip(steps, values[:-1], strict=True)
        ],
    }


def draw() -> str:
    """Return the picture."""
    rows = numbers()
    slope = _short(rows["tangent"][-1])
    d = Drawing(
        "One tangent through three operations",
        f"The value x = {START} is squared, goes through tanh, and is multiplied by 3.  Below, the"
        " tangent starts as 1, and each operation multiplies it by its local slope:"
        f" {', '.join(map(_short, rows['slopes']))}.  Below that, a cotangent starts as 1 at the"
        " end and is multiplied by the same slopes on its way back.  Both end as the slope"
        f" {slope}.",
        412,
    )
    d.text(WIDTH / 2, 32, "f(x) = 3 tanh(x²): one rule for each operation", "ink bold")
    said = {
        "primal": "Primals: the values",
        "tangent": "Tangents: each operation multiplies by its slope",
        "back": "Cotangents: the transposes, from the end back",
    }
    for y, (row, words) in zip((105, 215, 325), said.items(), strict=True):
        d.text(20, y - 36, words, f"{row} start")
        for x, number in zip(STATIONS, rows[row], strict=True):
            d.box(x - 40, y - 20, 80, 40, f"{row}-pale edge-{row}")
            d.text(x, y + 6, _short(number))
        labels = OPERATIONS if row == "primal" else (f"× {_short(x)}" for x in rows["slopes"])
        for left, label in zip(STATIONS, labels, strict=False):
            ends = (left + 42, y + 8), (left + 108, y + 8)
            d.arrow(*(reversed(ends) if row == "back" else ends), look=row)
            d.text(left + 75, y - 2, label, row)
    d.text(WIDTH / 2, 388, f"Both ways end with the slope f′({START}) = {slope}", "ink bold")
    return str(d)


def _short(x: float) -> str:
    """Return a number to three digits behind the point, without zeros at its end."""
    return f"{float(x):.3f}".rstrip("0").rstrip(".")
