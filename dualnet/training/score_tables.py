"""The scores of classes in 80 columns: a table, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dualnet.console import WIDTH
from dualnet.naming import printable, shortened

_MOST_CLASSES = 20
"""Of more classes only the worst are shown."""
_SHOWN = 10
_LONGEST = 38
"""The longest name of a class that is printed whole."""


def class_table(by_class: Sequence[dict[str, Any]]) -> str:
    """Return a line for each class, or for the worst of many.

    Args:
        by_class: as `Scores.by_class`.
    """
    rows, lines = list(by_class), []
    if len(rows) > _MOST_CLASSES:
        there = [row for row in rows if row["f1"] is not None]
        rows = sorted(there, key=lambda row: row["f1"])[:_SHOWN]
        lines.append(
            f"the {len(rows)} of {len(by_class)} classes with the lowest f1 (by_class has all)"
        )
    names = [shortened(printable(str(row["class"])), _LONGEST) for row in rows]
    width = max(len("class"), *map(len, names))
    lines.append(f"{'class':{width}}  examples  precision  recall     f1")
    for name, row in zip(names, rows, strict=True):
        precision, recall, f1 = (
            "-" if row[figure] is None else f"{row[figure]:.3f}"
            for figure in ("precision", "recall", "f1")
        )
        lines.append(f"{name:{width}}  {row['examples']:8}  {precision:>9}  {recall:>6}  {f1:>5}")
    return "\n".join(lines)


def mistakes_table(classes: Sequence[str], confusion: np.ndarray) -> str:
    """Return the confusion matrix if it fits, else the most frequent mistakes.

    Args:
        classes, confusion: as `Scores` has them.
    """
    return _matrix(classes, confusion) or _most_frequent(classes, confusion)


def _matrix(classes: Sequence[str], confusion: np.ndarray) -> str:
    """Return the confusion matrix; nothing if it does not fit."""
    numbers = [str(i) for i in range(len(classes))]
    digits = len(str(confusion.max()))
    heads = [printable(name) for name in classes]
    labels = [shortened(name, _LONGEST) for name in heads]
    if max(map(len, heads)) > max(digits, 3):
        heads = numbers
        labels = [
            f"{i:>{len(numbers[-1])}} {label}" for i, label in zip(heads, labels, strict=True)
        ]
    label, cell = max(map(len, labels)), max(digits, *map(len, heads)) + 2
    if label + cell * len(heads) > WIDTH:
        return ""
    lines = [
        "rows: classes; columns: what they were taken for",
        " " * label + "".join(f"{head:>{cell}}" for head in heads),
    ]
    for name, counts in zip(labels, confusion.tolist(), strict=True):
        lines.append(f"{name:{label}}" + "".join(f"{n or '.':>{cell}}" for n in counts))
    return "\n".join(lines)


def _most_frequent(classes: Sequence[str], confusion: np.ndarray) -> str:
    """Return the classes that are most often taken for others."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_SHOWN]
    pairs = [divmod(int(i), len(classes)) for i in order]
    pairs = [(i, j) for i, j in pairs if wrong[i, j]]
    if not pairs:
        return "no example was taken for another class"
    named = [
        [shortened(printable(classes[k]), 25) for k in pair] for pair in pairs
    ]  # two in one line
    width = max(len(first) for first, _ in named)
    lines = ["the most frequent mistakes (confusion has all)"]
    for (i, j), (first, second) in zip(pairs, named, strict=True):
        of = f"{wrong[i, j]} of {confusion[i].sum()}"
        lines.append(f"{of:>14}  {first:{width}}  taken for  {second}")
    return "\n".join(lines)
