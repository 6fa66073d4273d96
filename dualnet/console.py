"""What every command does at the console: readable text, an error as one line, an exit code.

Python ends a command by an error where it prints a character that the console's encoding lacks, as
code page 1252 on Windows lacks `→`, and ASCII in the C locale all of them.  Here `±` is written
`+-` there.

What is shown on the way, by `say`, may be lost: a closed or full output, or a reader that has gone,
never stops the work.  What a command was called for is printed by `answer`, which says if it could
not.  Characters that would steer the terminal reach it from neither.
"""

from __future__ import annotations

import codecs
import errno
import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO

from dualnet.errors import BackendError, DualnetError, Interrupted
from dualnet.naming import printable, shortened

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
    **{"⊙": "*", "†": "+", "✓": "+", "✗": "x"},
    **{"‘": "'", "’": "'", "“": '"', "”": '"', "█": "#", "\N{COMBINING DOT ABOVE}": "'"},
}
"""Character → what is written in its place.  Greek letters are spelled by their names, letters with
accents lose them, and superscripts follow a `^`."""


LONGEST = 900
"""How many characters the line of an error has at most, behind the name of the command."""

SILENCE = 8.0
"""After how many seconds without a word a command says that it works."""

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals that end a command so that a checkpoint is written; Windows has not all of them."""


def exit_code(program: str, main: Main, argv: Sequence[str]) -> int:
    """Run a command, print an error as one line, and return the exit code.

    Args:
        program: the name of the command, with which the line begins.
        main: the command.
        argv: the words behind its name.
    """
    try:
        _occupy_closed()
        make_readable()
        with _ended_by_signals(), _heard_from_soon(program):
            code = main(list(argv), program) or 0
            _flush_answer()
    except DualnetError as error:
        code, why = code_of(error), str(error)
    except MemoryError as error:
        code, why = code_of(error), f"out of memory: {error}".rstrip(": ")
    except KeyboardInterrupt as error:
        code, why = code_of(error), "interrupted"
    except BrokenPipeError as error:  # the reader of the output has gone
        code, why = code_of(error), ""
    else:
        why = ""
    if why:
        say(f"{program}: {in_one_line(why)}", aside=True)
    for stream in (sys.stdout, sys.stderr):
        _give_up_unless_flushed(stream)
    return code


def code_of(error: BaseException) -> int:
    """Return the exit code of a command that an error ends."""
    if isinstance(error, DualnetError):
        return error.exit_code
    if isinstance(error, MemoryError):
        return BackendError.exit_code
    return Interrupted.exit_code if isinstance(error, KeyboardInterrupt) else 1


def in_one_line(text: str) -> str:
    """Return the text of an error as it is printed: one line, printable, of bounded length."""
    return shortened(printable(text), LONGEST)


def say(text: str, aside: bool = False) -> None:
    """Show a text on the way; where that is not possible, it is left out.

    Args:
        text: lines; characters that steer a terminal are escaped.
        aside: whether it goes to standard error, and not to standard output.
    """
    stay_silent()
    stream = sys.stderr if aside else sys.stdout
    with suppress(OSError, ValueError):  # full, or its reader has gone; closed
        if stream is not None:
            print(printable(text, but="\n"), file=stream, flush=True)


def answer(text: str, kept: str = "") -> None:
    """Print to standard output what a command was called for.

    Args:
        text: lines; characters that steer a terminal are escaped.
        kept: where the same is to be found, if it is kept in a file.

    Raises:
        DualnetError: standard output is closed or full.
        BrokenPipeError: its reader has gone, and nothing is kept.
    """
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "it is closed")
        print(printable(text, but="\n"), flush=True)
    except (OSError, ValueError) as error:
        if isinstance(error, BrokenPipeError) and not kept:
            raise
        _refuse_output(error, kept)


def _flush_answer() -> None:
    """Write what a command has printed here, not at exit, so that a failure is noticed."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        _refuse_output(error)


def _refuse_output(error: Exception, kept: str = "") -> NoReturn:
    what = getattr(error, "strerror", None) or error
    beside = f"; what it would have said is in {kept}" if kept else ""
    raise DualnetError(f"standard output cannot be written to: {what}{beside}") from error


class Patient:
    """A stream like another one, whose failures are of no account.

    Args:
        stream: the other one.
    """

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text if it can be written, and return its length."""
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream if that is possible."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_late: threading.Timer | None = None
"""What speaks for a command that says nothing."""


@contextmanager
def _heard_from_soon(program: str) -> Iterator[None]:
    """Say after some seconds that a command works, if it has said nothing until then."""
    global _late
    _late = threading.Timer(SILENCE, say, (f"{program}: at work, this takes a while", True))
    _late.daemon = True
    _late.start()
    try:
        yield
    finally:
        stay_silent()


def stay_silent() -> None:
    """Let a command work without a word, because it has spoken or is to be quiet."""
    if _late is not None:
        _late.cancel()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, so that a checkpoint is written.

    Signals that are ignored, as under nohup, stay so.
    """
    before: dict[int, Any] = {}

    def end(number: int, frame: Any) -> NoReturn:
        # A terminal that is closed sends SIGHUP twice, and the second would stop the checkpoint.
        for other in before:
            if other != signal.SIGINT:
                signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _occupy_closed() -> None:
    """Let /dev/null stand where standard input, output or error are closed.

    Otherwise the next file that is opened, perhaps a checkpoint, would get the number of standard
    error, and what a library writes there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free


def _give_up_unless_flushed(stream: TextIO | None) -> None:
    """Let what cannot be written go to /dev/null, before Python tries again at exit."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
