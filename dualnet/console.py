"""Text for consoles whose encoding lacks some of its characters: `±` is written `+-` there.

Python ends a command by an error where it prints a character that the console's encoding lacks, as
code page 1252 on Windows lacks `→`, and ASCII in the C locale all of them.
"""

from __future__ import annotations

import codecs
import sys
import unicodedata

ASCII = {
    **{"±": "+-", "×": "x", "·": "*", "√": "sqrt", "∂": "d", "∇": "grad ", "⊗": "(x)", "∘": "o"},
    **{"≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∞": "inf", "‖": "||", "⟨": "<", "⟩": ">"},
    **{"→": "->", "←": "<-", "…": "...", "–": "-", "—": "-", "−": "-", "µ": "u", "½": "1/2"},
    **{"°": " degrees", "§": "section ", "†": "+", "ø": "o", "Ø": "O", "ß": "ss"},
    **{"‘": "'", "’": "'", "“": '"', "”": '"', "█": "#", "\N{COMBINING DOT ABOVE}": "'"},
}
"""Character → what is written in its place.  Greek letters are spelled by their names, letters with
accents lose them, and superscripts follow a `^`."""


def make_readable() -> None:
    """Let standard output and standard error write other characters for those that they lack.

    Every command calls this first.  A program that imports dualnet keeps its streams as they are.
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
