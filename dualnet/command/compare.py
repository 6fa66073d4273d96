"""`dualnet compare`: a table of runs, and a picture of their curves."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dualnet.console import answer
from dualnet.naming import about, as_flags
from dualnet.training.comparison import compare_runs
from dualnet.training.parser import Parser
from dualnet.training.pictures.comparison import draw_comparison


def make_parser(program: str) -> Parser:
    """Return the parser of `dualnet compare`."""
    parser = Parser(
        prog=program,
        description="Compare runs by the files in their folders: a table, and curves with bands.",
        epilog="Runs that are not finished, or diverged, are compared by the epochs they have.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or of its seeds")
    parser.add_argument(
        "--picture",
        metavar="FILE",
        help="also draw loss and accuracy against the epoch into this file, such as compared.png; "
        "bands are mean ± sample deviation over seeds",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


@as_flags()
def main(argv: Sequence[str], program: str = "dualnet compare") -> None:
    """Print the comparison that the arguments ask for, and draw it if they do; errors are raised.

    Args:
        argv: what stands behind the name of the command.
        program: how the help calls the command.
    """
    args = make_parser(program).parse_every(argv)
    comparison = compare_runs(args.runs)
    if args.picture is not None:
        with about("picture"):
            draw_comparison(comparison, args.picture)
    if args.json:
        answer(json.dumps(comparison.as_json(), allow_nan=False))
        return
    drawn = "" if args.picture is None else f"\npicture: {args.picture}"
    answer(comparison.table() + drawn)
