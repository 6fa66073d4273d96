"""How texts write names and values: a setting as its user writes it, what a wrong name may have
meant, counted things, long names.

The same setting is `--limit-test` on the command line and `limit_test` in Python.  A message names
it by `named`, and the command line calls all that it does within `as_flags`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dualnet.errors import UsageError

# A plain variable and no ContextVar, because the threads that a command starts must see it, too.
_flags_are_written = False


@contextmanager
def as_flags() -> Iterator[None]:
    """Let messages name settings by their flags, because the command line is what calls."""
    global _flags_are_written
    before, _flags_are_written = _flags_are_written, True
    try:
        yield
    finally:
        _flags_are_written = before


def command_line_calls() -> bool:
    """Whether settings are named by their flags; see `as_flags`."""
    return _flags_are_written


def flag(name: str) -> str:
    """Return the flag of a setting, as `--batch-norm` of `batch_norm`."""
    return "--" + name.replace("_", "-")


def named(name: str, function: str = "") -> str:
    """Return a setting's name as its user writes it: `--batch-size`, or `batch_size` in Python.

    Args:
        name: of the setting, in Python.
        function: whose argument it is in Python; it comes before the name there, as in
            `load: limit_test`.
    """
    if _flags_are_written:
        return flag(name)
    return f"{function}: {name}" if function else name


@contextmanager
def about(name: str) -> Iterator[None]:
    """Let the message of a UsageError begin with the setting that it is about."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{named(name)}: {error}") from error


def assigned(name: str, value: Any) -> str:
    """Return a setting with a value as its user writes it: `--epochs 2` or `epochs=2`."""
    if not _flags_are_written:
        return f"{name}={str(value)!r}" if isinstance(value, Path) else f"{name}={value!r}"
    if isinstance(value, bool):
        return flag(name if value else f"no_{name}")
    return f"{flag(name)} {value}"


def resumed(folder: Path) -> str:
    """Return how its user writes that a run goes on: `--resume DIR`, or two arguments in Python."""
    if _flags_are_written:
        return assigned("resume", folder)
    return f"{assigned('run_dir', folder)}, resume=True"


def shown(value: Any) -> str:
    """Return a value as a user would write it: `none`, `yes`, `0.001`, `0.9 0.99`."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, (tuple, list)):
        return " ".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def counted(n: int, what: str) -> str:
    """Return a number of things, as `1 epoch` or `1,200 steps`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def shortened(text: str, most: int) -> str:
    """Return a text with dots in the place of its middle if it has more than so many characters."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}…{text[len(text) - (most - 1) // 2 :]}"


def printable(text: str, but: str = "") -> str:
    """Return a text with escapes, such as `\\x1b`, in the place of what would not be seen or would
    steer the terminal.

    Args:
        text: of any origin.
        but: characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in but else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    """Return a character as an escape of Python's; a byte that was no text as that byte."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def nearest(name: object, known: Iterable[str]) -> list[str]:
    """Return up to three known names that are like a name; case, `_` and `-` make no difference."""
    folded = {_folded(one): one for one in known}
    wanted = _folded(str(name))
    close = difflib.get_close_matches(wanted, folded, n=3, cutoff=0.5)
    close = [wanted] if wanted in folded else close
    return [folded[one] for one in close]


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return the end of a message on an unknown name, such as `; did you mean fg-w?`.

    It is empty if no known name is like it.
    """
    close = nearest(name, known)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _folded(name: str) -> str:
    """Return a name without what users mix up."""
    return name.lower().replace("_", "-")
