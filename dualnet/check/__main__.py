"""Verify every derivative: `python -m dualnet.check`.

One line for each operation, layer, loss, optimizer step and model: the worst errors, and its time.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import textwrap
import time
from functools import partial

from dualnet import backends
from dualnet.check import LIMITS, NOT_IN_CUPY, ROWS, Result, Row, verify, worst
from dualnet.check.own import own_rows
from dualnet.console import WIDTH, answer, exit_code, say
from dualnet.errors import UsageError
from dualnet.naming import as_flags
from dualnet.progress import progress_bar
from dualnet.random import Key
from dualnet.training.assemble import OPEN_TABLES
from dualnet.training.parser import Parser, whole
from dualnet.training.plugins import load_plugins

_LONGEST, _OF_TIME = 16, 7
"""The widths of the columns of names and of times; with those of errors they make 80."""


def make_parser(program: str) -> Parser:
    """Return what reads the command line."""
    p = Parser(
        prog=program,
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit codes: 0 all rows pass; 1 a row fails; 2 a wrong argument; 5 no such backend.",
    )
    p.add_argument("--only", metavar="PATTERN", help="rows or families: a part of the name, or *")
    p.add_argument(
        "--plugin",
        metavar="FILE",
        action="append",
        help="verify the models, layers and optimizers in this Python file, and these alone",
    )
    p.add_argument("--seed", type=whole, default=0, metavar="N", help="of points and directions")
    p.add_argument("--backend", metavar="NAME", default="numpy", help=", ".join(backends.NAMES))
    p.add_argument(
        "--json", action="store_true", help="a document on the last line; the table on stderr"
    )
    return p


def select(rows: list[Row], pattern: str | None) -> list[Row]:
    """The rows whose name or family matches.

    Raises:
        UsageError: there is none.
    """
    if pattern is None:
        return rows

    def matches(text: str) -> bool:
        wanted, text = pattern.lower(), text.lower()
        return wanted in text or fnmatch.fnmatchcase(text, wanted)

    chosen = [row for row in rows if matches(row.name) or matches(row.family)]
    if not chosen:
        families = ", ".join(dict.fromkeys(row.family for row in rows))
        raise UsageError(
            f"--only: no row or family matches {pattern!r}; families are {families}, and rows have "
            "names such as np.exp, Linear and model mlp"
        )
    return chosen


def heading(width: int) -> str:
    """The two lines above the printed table."""
    halves = [kind.rpartition(" ") for kind in LIMITS]
    above = "".join(f"{half[0]:>{_cell(half[2])}}" for half in halves)
    below = "".join(f"{half[2]:>{_cell(half[2])}}" for half in halves)
    return f"{'':{width}}{above.rstrip()}\n{'':{width}}{below}{'ms':>{_OF_TIME}}"


def line(result: Result, width: int) -> str:
    """A row of the printed table; an error that was not reached or does not apply is a dash.

    A name of more than `width` characters has a line of its own.
    """
    name, errors = result.row.name, ""
    for kind in LIMITS:
        error = f"{result.errors[kind]:.1e}" if kind in result.errors else "-"
        errors += f"{error:>{_cell(kind.rpartition(' ')[2])}}"
    last = " FAILED" if result.failure else f"{1e3 * result.seconds:.1f}"
    own_line = f"{name}\n" if len(name) > width else ""
    return f"{own_line}{'' if own_line else name:{width}}{errors}{last:>{_OF_TIME}}"


def _cell(title: str) -> int:
    """The width of a column; an error takes seven characters, such as 1.0e-10."""
    return max(len(title), 7) + 1


def summary(results: list[Result], seconds: float) -> list[str]:
    """The last lines of the table: the worst of each kind, what failed, and how many there are."""
    lines = [
        f"worst {kind}: {error:.1e} ({name}); allowed {LIMITS[kind]:.0e}"
        for kind, (error, name) in worst(results).items()
    ]
    failures = [result.failure for result in results if result.failure]
    lines += [f"FAILED {failure}" for failure in failures]
    return [*lines, f"{len(results)} rows, {len(failures)} failed, {seconds:.1f} s"]


def document(results: list[Result], args: argparse.Namespace, seconds: float) -> dict:
    """What `--json` prints."""
    return {
        "backend": args.backend,
        "seed": args.seed,
        "limits": LIMITS,
        "rows": [
            {
                "name": result.row.name,
                "family": result.row.family,
                "errors": result.errors,
                "seconds": result.seconds,
                "failure": result.failure,
            }
            for result in results
        ],
        "worst": {
            kind: {"error": error, "row": name} for kind, (error, name) in worst(results).items()
        },
        "failed": [result.row.name for result in results if result.failure],
        "seconds": seconds,
    }


def own(paths: list[str]) -> tuple[list[Row], list[str]]:
    """Run files of a user's own; return the rows of what is in them, and what has no row and why.

    Raises:
        UsageError: a file cannot be run, or nothing in it can be verified.
    """
    load_plugins(paths, OPEN_TABLES, layers_suffice=True)
    rows, left_out = own_rows()
    if not rows:
        why = "; ".join(left_out) or "there is no model, no layer and no optimizer in it"
        raise UsageError(f"--plugin {' '.join(paths)}: nothing can be verified: {why}")
    return rows, left_out


@as_flags()
def main(argv: list[str], program: str = "dualnet.check") -> int:
    """Verify what the command line says, and return the exit code; errors are raised."""
    args = make_parser(program).parse_every(argv)
    backend = backends.get(args.backend)
    every, left_out = own(args.plugin) if args.plugin else (ROWS, [])
    rows = select(every, args.only)
    if backend.name == "cupy":
        absent = [row.name for row in rows if row.name in NOT_IN_CUPY]
        rows = [row for row in rows if row.name not in NOT_IN_CUPY]
        if absent:
            say(f"not in CuPy: {', '.join(absent)}", aside=True)
    # With --json the table is shown on the way, and without it is what is asked for.
    show = partial(say, aside=True) if args.json else answer
    width = min(max(len(row.name) for row in rows), _LONGEST)
    show(heading(width))

    began, results = time.perf_counter(), []
    for row in (bar := progress_bar(rows, unit="row", leave=False)):
        results.append(verify(row, Key(args.seed), backend))
        bar.clear()
        show(line(results[-1], width))
        bar.refresh()
    seconds = time.perf_counter() - began

    show("\n".join(summary(results, seconds)))
    for why in left_out:
        show(textwrap.fill(f"not verified: {why}", WIDTH, break_on_hyphens=False))
    if args.json:
        answer(json.dumps(document(results, args, seconds)))
    return int(any(result.failure for result in results))


if __name__ == "__main__":
    sys.exit(exit_code("dualnet.check", main, sys.argv[1:]))
