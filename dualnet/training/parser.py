"""The parser of every command line: its mistakes are errors of ours, in our words."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from dualnet.console import answer
from dualnet.errors import UsageError
from dualnet.naming import did_you_mean, shortened
from dualnet.options import is_text, of_kind

_OURS = (
    (r"argument ([^\s:]+): ", r"\1: "),
    (r"expected one argument", "expected a value, got none"),
    (r"expected at least one argument", "expected one or more values, got none"),
    (r"ignored explicit argument '(.*)'", r"expected no value, got '\1'"),
    (r"the following arguments are required: (.*)", r"expected \1, got nothing"),
)
"""What argparse says, as a pattern → how messages of ours say it."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises a mistake as a UsageError of one line."""

    def error(self, message: str) -> NoReturn:
        for theirs, ours in _OURS:
            message = re.sub(theirs, ours, message, count=1, flags=re.DOTALL)
        raise UsageError(message)

    def print_help(self, file: Any = None) -> None:
        answer(self.format_help().rstrip())

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for word in args:
            if re.fullmatch(r"--[^=]*=--", word):  # argparse drops such a value
                raise UsageError(f"{word.partition('=')[0]}: expected a value, got '--'")
        found, unknown = super().parse_known_args(args, namespace)
        for action in self._actions:
            values = getattr(found, action.dest, None)
            for value in values if isinstance(values, list) else [values]:
                empty = value == "" and action.metavar in ("FILE", "DIR", "RUN")
                if empty or (isinstance(value, str) and not is_text(value)):
                    name = action.option_strings[-1] if action.option_strings else action.metavar
                    raise UsageError(f"{name}: expected a name, got {value!r}")
        return found, unknown

    def parse_every(self, argv: Sequence[str]) -> argparse.Namespace:
        """Return the flags in argv, of which all must be known."""
        args, unknown = self.parse_known_args(argv)
        if unknown:
            if not unknown[0].startswith("--"):
                got = shortened(repr(unknown[0]), 60)
                raise UsageError(f"expected a flag, got {got}; --help shows the flags")
            name = shortened(unknown[0].partition("=")[0], 60)
            flags = [one for action in self._actions for one in action.option_strings]
            raise UsageError(
                f"there is no flag {name}, --help shows all of them{did_you_mean(name, flags)}"
            )
        return args


def whole(text: str) -> int:
    """Return the int that a value of a flag is."""
    return _read(int, "int", text)


def whole_or_auto(text: str) -> int | str:
    """Return the int that a value of a flag is, or `auto`."""
    return text if text == "auto" else whole(text)


def number(text: str) -> float:
    """Return the number that a value of a flag is."""
    return _read(float, "float", text)


def _read(read: Callable[[str], Any], kind: str, text: str) -> Any:
    try:
        return of_kind("", "", read(text), kind)
    except UsageError as error:  # an int that is too large
        raise argparse.ArgumentTypeError(str(error)) from None
    except ValueError:
        expected = {"int": "an int", "float": "a number"}[kind]
        got = shortened(repr(text), 60)
        raise argparse.ArgumentTypeError(f"expected {expected}, got {got}") from None
