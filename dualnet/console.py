"""What every command does at the console: readable text, an error as one line, an exit code.

Python ends a command by an error where it prints a character that the console's encoding lacks, as
code page 1252 on Windows lacks `→`, and ASCII in the C locale all of them.  Here `±` is written
`+-` there.
"""

from __future__ import annotations

import codecs
import os
import signal
import sys
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress

from dualnet.errors import DualnetError, Interrupted

Main = Callable[[list[str], str], int | None]
"""A command: it takes the words behind its name, and the program's name for messages.  It raises
errors, and returns an exit code, or None for 0."""

WIDTH = 80
"""How many characters a line of tables and headers has at most."""

ASCII = {
    **{"±": "+-", "×": "x", "·": "*", "√": "sqrt", "∂": "d", "∇": "grad ", "⊗": "(x)", "∘": "o"},
    **{"≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∞": "inf", "‖": "||", "⟨": "<", "⟩": ">"},
    **{"→": "->", "←": "<-", "…": "...", "–": "-", "—": "-", "−": "-", "µ": "u", "½": "1/2"},
    **{"°": " degrees", "§": "section ", "ø": "o", "Ø": "O", "ß": "ss"},
    **{"†": "+", "✓": "+", "✗": "x"},
    **{"‘": "'", "’": "'", "“": '"', "”": '"', "█": "#", "\N{COMBINING DOT ABOVE}": "'"},
}
"""Character → what is written in its place.  Greek letters are spelled by their names, letters with
accents lose them, and superscripts follow a `^`."""


def exit_code(program: str, main: Main, argv: Sequence[str]) -> int:
    """Run a command, print an error as one line, and return the exit code.

    Args:
        program: the name of the command, with which the line begins.
        main: the command.
        argv: the words behind its name.
    """
    make_readable()
    # SIGTERM ends a command as Ctrl-C does, so that a checkpoint is written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = main(list(argv), program)
        sys.stdout.flush()  # here and not at exit, so that a reader that has gone is noticed below
        return code or 0
    except DualnetError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return Interrupted.exit_code
    except BrokenPipeError:  # the reader of the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def say(text: str) -> None:
    """Write a line to standard error; that it is closed or full does not matter."""
    with suppress(OSError, ValueError):
        print(" ".join(text.split()), file=sys.stderr, flush=True)


def make_readable() -> None:
    """Let standard output and standard error write other characters for those that they lack.

    `exit_code` calls this first.  A program that imports dualnet keeps its streams as they are.
    """
    codecs.register_error("dualnet.console", _replacement)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's has not, nor has None
            stream.reconfigure(errors="dualnet.console")


def _replacement(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what is written in the place of what cannot be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    first = error.object[error.start]
    if "\udc80" <= first <= "\udcff":  # a byte of a file's name that was no text
        return bytes((ord(first) - 0xDC00,)), error.start + 1
    before = error.object[error.start - 1 : error.start] if error.start else ""
    return in_ascii(first, before), error.start + 1


def in_ascii(character: str, before: str = "") -> str:
    """Return the character in ASCII.

    Args:
        character: the character.
        before: the one that it follows.
    """
    if unicodedata.decomposition(character).startswith("<super>"):
        raised = "" if unicodedata.decomposition(before or " ").startswith("<super>") else "^"
        return raised + "".join(map(in_ascii, unicodedata.normalize("NFKD", character)))
    if character.isascii():
        return character
    if character in ASCII:
        return ASCII[character]
    words = unicodedata.name(character, "").split()
    if words[:1] == ["GREEK"] and "LETTER" in words:
        name = words[words.index("LETTER") + 1].lower().replace("lamda", "lambda")
        return name.capitalize() if "CAPITAL" in words else name
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or character.encode("ascii", "backslashreplace").decode()
