"""See a derivative happen: `python -m dualnet.tour`.

One small network, one example, one random direction.  The tour prints every hop
of the tangent, forward; then every hop of the cotangent, back; then one step of
a learning rule.  Name a function of your own to see the same of it.  Pages 1 to
3 of docs/tutorial explain what is shown, and docs/tour.md has an example.
"""

from __future__ import annotations

import argparse
import shutil
import sys

from dualnet.console import answer, exit_code
from dualnet.errors import DualnetError, UsageError
from dualnet.learning import RULES
from dualnet.naming import as_flags, did_you_mean
from dualnet.random import Key
from dualnet.tour import example, own
from dualnet.tour.layout import formula, joined, numbers, paragraph
from dualnet.tour.passes import backward_part, central_difference, forward_part, push
from dualnet.tour.step import WITH_A_FUNCTION, drawn, step_part, take_step
from dualnet.tour.subject import Learning, Subject
from dualnet.training.parser import Parser, whole

NARROWEST, WIDEST = 40, 100
"""The range of the widths of lines."""


def make_parser(program: str) -> Parser:
    """Return what reads the command line."""
    p = Parser(
        prog=program,
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit codes: 0 done; 1 the answer could not be printed; 2 a wrong argument.",
    )
    p.add_argument(
        "function",
        metavar="FUNCTION",
        nargs="?",
        help="MODULE:function or FILE.py:function, of arrays, with one number as its value",
    )
    p.add_argument(
        "--at",
        metavar="NUMBERS",
        action="append",
        help='an argument of FUNCTION, such as "[0.5, 1.0]"; once for each; others: their defaults',
    )
    p.add_argument("--rule", metavar="NAME", default="fg-w", help=f"of part 3: {', '.join(RULES)}")
    p.add_argument("--seed", type=whole, default=0, metavar="N", help="of weights and directions")
    p.add_argument(
        "--width",
        type=whole,
        metavar="N",
        help=f"of lines, {NARROWEST} to {WIDEST}; that of the terminal if not given",
    )
    return p


def lines(subject: Subject, learning: Learning, rule: str, seed: int, width: int) -> list[str]:
    """Return the whole tour, line by line.

    Args:
        subject: a function, and where it is looked at.
        learning: the same for a learning rule of global losses.
        rule: a name in `RULES`.
        seed: of the direction, and of what the rule draws.
        width: of a line.
    """
    key = Key(seed)
    v = {learning.label(path): t for path, t in drawn(learning, key).items()}
    seen = push(subject, v)
    gradient = seen.gradient()
    shown = learning
    if subject.program:
        shown = example.learning(seed, RULES[rule].locality)
    program = [line for text in subject.program for line in formula(text, width)]
    constants = [f"{name} = {numbers(x)}" for name, x in subject.constants.items()]
    return [
        *paragraph(subject.introduction, width),
        *(["", *program] if program else []),
        *(["", *joined(formula(text, width) for text in constants)] if constants else []),
        *forward_part(subject, seen, central_difference(subject, v), width),
        *backward_part(subject, seen, gradient, v, width),
        *step_part(rule, shown, take_step(rule, shown, key), width),
    ]


def chosen_width(given: int | None) -> int:
    """Return the width of lines: what is given, else that of the terminal.

    Raises:
        UsageError: what is given is too narrow or too wide.
    """
    if given is None:
        return min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    if not NARROWEST <= given <= WIDEST:
        raise UsageError(f"--width: expected {NARROWEST} to {WIDEST}, got {given}")
    return given


def require_rule(name: str, for_a_function: bool) -> None:
    """Raise a UsageError unless there is such a rule, and it can learn on what is shown."""
    if name not in RULES:
        raise UsageError(
            f"--rule: expected one of {', '.join(RULES)}, got {name!r}{did_you_mean(name, RULES)}"
        )
    if for_a_function and name not in WITH_A_FUNCTION:
        raise UsageError(
            f"--rule: expected one of {', '.join(WITH_A_FUNCTION)} for a function, got {name!r}, "
            "which needs the layers of a network; leave out FUNCTION to see it on the network"
        )


@as_flags()
def main(argv: list[str], program: str = "dualnet.tour") -> None:
    """Print the tour that the command line asks for; errors are raised."""
    args = make_parser(program).parse_every(argv)
    width = chosen_width(args.width)
    require_rule(args.rule, for_a_function=args.function is not None)
    if args.function is None:
        if args.at:
            raise UsageError("--at: expected FUNCTION before it, got none; write FILE.py:function")
        subject, learning = example.subject(args.seed), example.learning(args.seed, "global")
        answer("\n".join(lines(subject, learning, args.rule, args.seed, width)))
        return
    subject = own.subject(args.function, args.at or [])
    try:
        text = lines(subject, own.learning(subject), args.rule, args.seed, width)
    except DualnetError as error:
        raise UsageError(f"FUNCTION {args.function}: {error}") from error
    answer("\n".join(text))


if __name__ == "__main__":
    sys.exit(exit_code("dualnet.tour", main, sys.argv[1:]))
