"""`dualnet`, which is also `python -m dualnet`: the first word chooses what it does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from dualnet.console import Main, answer, exit_code
from dualnet.errors import UsageError
from dualnet.naming import did_you_mean


class Command(NamedTuple):
    """One of the commands.

    Attributes:
        module: has `main(argv, program)`; it is imported when the command is called.
        does: what the help says of it.
    """

    module: str
    does: str


COMMANDS = {
    "train": Command("dualnet.command.train", "train a network, or one for each of several seeds"),
    "rates": Command("dualnet.command.rates", "try learning rates for a short time, and choose"),
    "evaluate": Command("dualnet.command.evaluate", "print the scores of a trained network"),
    "predict": Command("dualnet.command.predict", "name the classes of images, or of arrays"),
    "compare": Command("dualnet.command.compare", "set runs beside one another, with curves"),
    "list": Command("dualnet.command.listing", "list models, rules, data sets, recipes, …"),
    "check": Command("dualnet.check.__main__", "verify every derivative"),
    "tour": Command("dualnet.tour.__main__", "see a derivative happen, hop by hop"),
}
"""Name → command."""


def help_text() -> str:
    """Return what `dualnet --help` prints."""
    lines = [f"  {name:10}{command.does}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: dualnet COMMAND …",
            "",
            "Train networks by forward gradients, or by any other learning rule.",
            "",
            *lines,
            "",
            "dualnet COMMAND --help shows the flags of a command; dualnet --version.",
            "Exit codes: 0 done, 1 a check failed, 2 wrong argument, 3 data missing or",
            "damaged, 4 diverged, 5 backend not usable, 130 interrupted.",
        ]
    )


def imported_when_called(module: str) -> Main:
    """Return the `main` of a module, which is imported within `exit_code`: that takes a while, and
    Ctrl-C then ends it as it ends a command."""
    return lambda argv, program: import_module(module).main(argv, program)


def run_command(argv: Sequence[str]) -> int:
    """Do what the first word asks for with the words behind it, and return the exit code."""
    if argv and argv[0] in COMMANDS:
        name, *rest = argv
        return exit_code(f"dualnet {name}", imported_when_called(COMMANDS[name].module), rest)
    return exit_code("dualnet", main, argv)


def main(argv: list[str], program: str) -> None:
    """Print help or the version.

    Raises:
        UsageError: the first word is no command.
    """
    if not argv or argv[0] in ("--help", "-h"):
        answer(help_text())
    elif argv[0] == "--version":
        answer(f"{program} {import_module('dualnet.version').version()}")
    else:
        raise UsageError(
            f"expected a command, one of {', '.join(COMMANDS)}, got {argv[0]!r}"
            f"{did_you_mean(argv[0], COMMANDS)}"
        )


def script() -> None:
    """Do what the command line of this process asks for, and end the process."""
    sys.exit(run_command(sys.argv[1:]))
