"""`python -m dualnet.check.listing` prints docs/functions.md: what has a rule and what it takes."""

# ruff: noqa: E501, because a paragraph of a Markdown page is one line

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.check import NOT_IN_CUPY, ROWS
from dualnet.check.conventions import CONVENTIONS
from dualnet.check.operations.zero import ZERO
from dualnet.console import make_readable
from dualnet.core.dual import RULES, Rule
from dualnet.core.refusals import name_of

_HEAD = """# Functions with a derivative rule

This page is printed by `python -m dualnet.check.listing`, and a test keeps it equal to the registry.

Operators (`+ - * / // % ** @`, comparisons, indexing, in place too) and the array methods of the same names have rules as well, and so have the methods `reduce`, `accumulate`, `reduceat` and `outer` of elementwise ufuncs of two arguments, and `np.add.at` and `np.subtract.at` on duals. Every other function raises an error that shows how to add a rule. `out=` may be a Dual; not supported are `out=` with a plain array, and complex numbers. [numpy.md](numpy.md) has what `dualnet.numpy` adds; `dualnet.scipy` and SciPy's special functions are listed in their modules.

Every rule serves both modes, k directions at once and nested derivatives. "Keywords" are the arguments that may be given by name; "rows" says how many rows of the verifier (`python -m dualnet.check`) hold the function to differences, to first and second order; "CuPy" says whether CuPy 14.2 has all, some or none of these ways to call it. "Order" is how often the function can be differentiated: all orders are served away from kinks, and where a number follows, that many at a kink. "At kinks" gives the first derivative there by convention, then the second; these numbers are rows of `dualnet/check/conventions.py`, to which the tests hold the rules. A square that is written at once, as `np.linalg.norm(x) ** 2`, `np.std(x) ** 2` or `np.abs(x) ** 2`, has the second derivative of the square at the root's kink.

| function | by position | keywords | order | at kinks | rows | CuPy |
| --- | --- | --- | --- | --- | --- | --- |
"""

_WITHOUT_SLOPE = """
## Without a slope

These take the plain values of their arguments and return plain values:

"""


def listing() -> str:
    """Return the page, as text."""
    rules = {name_of(fn): (fn, rule) for fn, rule in RULES.items() if _is_of_numpy(fn)}
    plain = [name for name, (fn, _) in rules.items() if fn in ZERO]
    table = [_line(name, *rules[name]) for name in sorted(rules) if name not in plain]
    without = ", ".join(f"`{name}`" for name in sorted(plain))
    return f"{_HEAD}{''.join(table)}{_WITHOUT_SLOPE}{without}.\n"


def _is_of_numpy(fn: Callable) -> bool:
    """Tell whether a function is what NumPy has under its name, and no wrapper of a user's."""
    root, *path = name_of(fn).split(".")
    found: Any = np
    for part in path:
        found = getattr(found, part, None)
    return root == "np" and found is fn


def _line(name: str, fn: Callable, rule: Rule) -> str:
    rows = [row.name for row in ROWS if row.covers is fn]
    lacking = [row for row in rows if row in NOT_IN_CUPY]
    cupy = "no" if rows and len(lacking) == len(rows) else "some" if lacking else "yes"
    keywords = sorted(rule.keywords or ()) if rule.keywords is not None else ["any"]
    shown = [k for k in keywords if k not in ("t", "out") and not k.startswith("_")]
    positions = "any" if math.isinf(rule.positional) else str(int(rule.positional))
    kinks = [convention for convention in CONVENTIONS if convention.covers is fn]
    least = min((kink.order for kink in kinks), default=2)
    order = "all" if least > 1 else f"all, {least}"
    cells = (positions, ", ".join(shown), order, "; ".join(map(str, kinks)), str(len(rows)), cupy)
    return f"| `{name}` | {' | '.join(cells)} |\n"


if __name__ == "__main__":
    if sys.stdout.isatty():
        make_readable()
    else:  # a page, which is UTF-8 on every system
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    sys.stdout.write(listing())
