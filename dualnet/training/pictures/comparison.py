"""Curves of several runs over epochs, with bands over seeds."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from dualnet.training.comparison import ComparedRun, Comparison
from dualnet.training.differences import in_words
from dualnet.training.pictures.drawing import (
    epochs_along,
    marked,
    required_figure,
    save_figure,
    styles,
)

_WIDTH = 10.0
_NAME, _TITLE = 60, 120
"""Characters of a line of a name in the legend, and of the title."""


def draw_comparison(comparison: Comparison, path: str | Path) -> None:
    """Draw test loss and test accuracy of all runs against the epoch.

    A line is the mean over seeds, and the band around it the sample deviation, in the epochs that
    all seeds have; one seed has no band.  A run of which all seeds have diverged ends in a cross.

    Args:
        comparison: what `compare_runs` returned.
        path: the file to write; its ending says the format, such as `.png`.

    Raises:
        UsageError: matplotlib is not installed, or the file cannot be written.
    """
    names = [textwrap.fill(one.name, _NAME) for one in comparison.runs]
    in_a_row = 1 if max(map(len, names)) > _NAME // 2 else min(3, len(names))
    rows = -(-len(names) // in_a_row) + sum(name.count("\n") for name in names)
    figure = required_figure("draw_comparison", _WIDTH, 4.2 + 0.2 * rows)
    loss_axes, *others = (
        figure.subplots(1, 2).flat
        if any(one.of_classes for one in comparison.runs)
        else [figure.subplots()]
    )
    lines = []
    count = len(comparison.runs)
    for i, (run, name, style) in enumerate(zip(comparison.runs, names, styles(count), strict=True)):
        style["markevery"] = marked(i, count, len(run.curve("test_loss")[0]))
        if not run.counted:
            name += " (diverged)" if run.diverged else " (no epoch yet)"
        lines.append(_draw(loss_axes, run, "test_loss", {**style, "label": name}))
        for axes in others:
            _draw(axes, run, "test_accuracy", style)
    units = {"nats" if one.of_classes else "squared error" for one in comparison.runs}
    labels = [f"{comparison.tested_on} loss ({' or '.join(sorted(units))})"]
    labels += [f"{comparison.tested_on} accuracy" for _ in others]
    for axes, label in zip([loss_axes, *others], labels, strict=True):
        axes.set_ylabel(label)
        epochs_along(axes, max(len(one.curve("test_loss")[0]) for one in comparison.runs) or 1)
    if _spans_decades(comparison):
        loss_axes.set_yscale("log")
        loss_axes.yaxis.set_major_formatter("{x:g}")
    figure.legend(handles=lines, loc="outside lower center", ncols=in_a_row, fontsize=9)
    figure.suptitle(textwrap.fill(in_words(comparison.shared), _TITLE), fontsize=10)
    save_figure(figure, "draw_comparison", path)


def _draw(axes: Any, run: ComparedRun, column: str, style: dict[str, Any]) -> Any:
    """Draw the mean of a column over seeds and its band, and return the line."""
    mean, std = run.curve(column)
    epochs = np.arange(1, len(mean) + 1)
    (line,) = axes.plot(epochs, mean, **style)
    if std is not None and run.counted:
        axes.fill_between(epochs, mean - std, mean + std, color=line.get_color(), alpha=0.2, lw=0)
    if not run.counted and len(mean):
        axes.plot(epochs[-1], mean[-1], "x", color="black", markersize=9, markeredgewidth=2)
    return line


def _spans_decades(comparison: Comparison) -> bool:
    """Whether losses differ so much that small ones would look like none."""
    losses = np.concatenate([one.curve("test_loss")[0] for one in comparison.runs])
    losses = losses[np.isfinite(losses)]
    return len(losses) > 0 and losses.min() > 0 and losses.max() > 20 * losses.min()
