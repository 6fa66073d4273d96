"""What the history of a run says: its last epoch, its best one, its last comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.training.run_folder import COLUMNS
from dualnet.tree import Tree

FIGURES = ("test_accuracy", "test_loss", "train_accuracy", "train_loss")
"""The figures of the last epoch that a summary has, under the names of their columns."""

_ACCURACIES = ("train_accuracy", "test_accuracy")
_RANGES = {
    **dict.fromkeys(_ACCURACIES, (0.0, 1.0)),
    **dict.fromkeys(("lr", "seconds"), (0.0, np.inf)),
}
"""Column → its least and its largest number, where there are such."""

Row = dict[str, float]
"""An epoch's figures by the names in `COLUMNS`."""


def rows(history: np.ndarray) -> list[Row]:
    """Return a dict for each epoch of a history `(epochs, columns)`."""
    return [dict(zip(COLUMNS, map(float, row), strict=True)) for row in history]


def outcome(history: np.ndarray) -> dict[str, Any]:
    """Return the last epoch's figures under the names that they have in a summary."""
    last = dict(zip(COLUMNS, history[-1], strict=True))
    return {**{name: float(last[name]) for name in FIGURES}, "epochs": len(history)}


def best(history: np.ndarray) -> dict[str, Any]:
    """Return the epoch of the lowest test loss, as a summary names it."""
    epoch = best_epoch(history)
    row = dict(zip(COLUMNS, history[epoch - 1], strict=True))
    figures = {f"best_{name}": float(row[name]) for name in ("test_loss", "test_accuracy")}
    return {"best_epoch": epoch, **figures}


def best_epoch(history: np.ndarray) -> int:
    """Return the number, from 1, of the first epoch with the lowest test loss.

    Args:
        history: a row for each epoch, at least one, in the order of `COLUMNS`.
    """
    return int(np.argmin(history[:, COLUMNS.index("test_loss")])) + 1


def last_cosine(comparisons: Tree) -> dict[str, float | None]:
    """Return the total cosine of the last comparison by its name in a summary.

    Nothing is returned if no gradients are compared; the cosine is None where it is undefined.
    """
    if not len(comparisons):
        return {}
    cosine = float(comparisons[-1, -1, 0])
    return {"gradient_cosine": cosine if np.isfinite(cosine) else None}


def fault_of(history: np.ndarray, classifies: bool, finite: bool = True) -> str | None:
    """Say what no run can have written in a history; None if it may be one.

    Args:
        history: `(epochs, columns)`, float64.
        classifies: whether targets are classes; else there are no accuracies, which are NaN.
        finite: whether a loss that is infinite ends a run, so that none is in its history.
    """
    for name, column in zip(COLUMNS, history.T, strict=True):
        least, most = _RANGES.get(name, (-np.inf, np.inf))
        wrong = ~((least <= column) & (column <= most))  # also of NaN
        if finite or not name.endswith("loss"):
            wrong |= ~np.isfinite(column)
        if name == "epoch":
            wrong = column != np.arange(1, len(history) + 1)
        elif name in _ACCURACIES and not classifies:
            wrong &= ~np.isnan(column)
        if wrong.any():
            i = int(np.argmax(wrong))
            return f"row {i + 1} has the {name} {column[i]:g}"
    return None
