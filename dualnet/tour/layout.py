"""Numbers and sentences on lines of a given width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dualnet.types import Array

_SHOWN = 12
"""An array of more entries is shown in short."""
_PARTS = 60
"""How many parts, such as hops, are written before they are left out in the middle."""
_LABEL = 9
"""The width of the labels in front of numbers."""
_WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
"""Words, which may be names and numbers, are not broken."""


def number(x: float) -> str:
    """Write a number with four digits."""
    return f"{float(x) + 0.0:.4g}"


def numbers(x: Array, width: int = 10_000) -> str:
    """Write an array with about three digits for each entry, in short if it is large."""
    x = np.asarray(x)
    if x.ndim == 0:
        return number(x) if x.dtype.kind in "iuf" else str(x)
    written: Any = None
    if x.dtype.kind == "f":
        digits = _format_of(x[np.isfinite(x)])
        cell = max((len(format(entry + 0.0, digits)) for entry in x.flat[: 10 * _SHOWN]), default=0)
        written = {"float_kind": lambda entry: f"{entry + 0.0:>{cell}{digits}}"}
    return np.array2string(
        x, max_line_width=width, threshold=_SHOWN, edgeitems=2, formatter=written
    )


def _format_of(x: Array) -> str:
    """Choose one format for all entries: whole numbers, fixed digits, or an exponent if needed."""
    sizes = np.abs(x[x != 0])
    if not sizes.size or (np.all(sizes == np.floor(sizes)) and sizes.max() < 1e6):
        return ".0f"
    if sizes.min() < 1e-3 or sizes.max() >= 1e4:
        return ".3g"
    return f".{3 - int(np.log10(max(sizes.max(), 1.0)))}f"


def labeled(label: str, x: Array, width: int) -> list[str]:
    """Write an array behind a label."""
    indent = 2 + _LABEL if label else 4
    first, *others = numbers(x, width - indent).splitlines()
    head = f"  {label:{_LABEL}}" if label else f"{'':{indent}}"
    return [f"{head}{first}", *(f"{'':{indent}}{line}" for line in others)]


def formula(text: str, width: int, label: str = "", indent: int = 2) -> list[str]:
    """Write a formula, which may go on in further lines, behind a label if it has one."""
    head = f"{'':{indent}}{label:{_LABEL}}" if label else " " * indent
    return textwrap.wrap(
        text, width, initial_indent=head, subsequent_indent=" " * (len(head) + 2), **_WHOLE
    )


def ends(left: str, right: str, width: int) -> list[str]:
    """Write a text at the left end of a line and another at its right end, if it has the room."""
    if len(left) + 2 + len(right) <= width:
        return [f"{left}{right:>{width - len(left)}}"]
    return [*formula(left, width, indent=0), f"{right:>{width}}"]


def paragraph(text: str, width: int) -> list[str]:
    """Write sentences."""
    return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def title(text: str, width: int) -> list[str]:
    """Write the title of a part."""
    return ["", *paragraph(text, width), "-" * min(len(text), width)]


def joined(parts: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of all parts."""
    return [line for part in parts for line in part]


def in_short(parts: Sequence[list[str]], what: str) -> list[str]:
    """Return the lines of all parts; of very many, those of the first and of the last."""
    if len(parts) <= _PARTS:
        return joined(parts)
    half = _PARTS // 2
    left_out = f"... {len(parts) - 2 * half:,} {what} more ..."
    return [*joined(parts[:half]), "", left_out, "", *joined(parts[-half:])]
