"""`gradients.png`: how well the gradients of a rule are aligned with the exact ones, and how long.

Drawing needs matplotlib, the extra `plot`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualnet.naming import shortened
from dualnet.training.pictures.drawing import marked, new_figure, styles, write_picture

_AS_LINES = 6
"""Up to so many layers have a line each; more of them are rows of a map."""
_POINTS = 120
"""How many points a line has at most; of more comparisons, means are drawn."""
_ROWS, _ROW = 100, 0.14
"""How many rows of a map have names at most, and how high each of these is, in inches."""
_NAME = 34
"""How many characters of a layer's name are shown."""


def draw_gradients(
    layers: Sequence[str], every: int, comparisons: np.ndarray, title: str, path: Path
) -> bool:
    """Draw cosine and norm ratio of the rule's and the exact gradient against the step.

    Args:
        layers: the names of what is compared: the paths of the leaves, and the total, last.
        every: steps from one comparison to the next.
        comparisons: `(comparisons, layers, 3)`: cosine, angle in degrees, norm ratio.
        title: text above the picture.
        path: the PNG file to write.

    Returns:
        Whether the picture was drawn; False if matplotlib is not installed, or nothing compared.
    """
    *leaves, _ = layers
    as_lines = len(leaves) <= _AS_LINES
    map_height = 0.5 + _ROW * min(len(leaves), _ROWS)
    figure = new_figure(11, 4.6 if as_lines else 3.4 + map_height) if len(comparisons) else None
    if figure is None:
        return False
    from matplotlib.ticker import MaxNLocator

    cosines, ratios = comparisons[..., 0], comparisons[..., 2]
    # A length of 0 has no place on a logarithmic axis.
    ratios = np.where(ratios > 0, ratios, np.nan)
    together = -(-len(comparisons) // _POINTS)
    steps = np.arange(0, len(comparisons), together) * every
    curves = {
        "cosine": _means(cosines, together),
        "norm ratio": np.exp(_means(np.log(ratios), together)),
    }
    of_what = "rule's gradient with the exact one", "rule's gradient to the exact one"
    how_high = [1.0] if as_lines else [2.4, map_height]
    parts = figure.subplots(len(how_high), 2, squeeze=False, sharex=True, height_ratios=how_high)
    of_means = "" if together == 1 else f" (means of {together} comparisons)"
    for column, (what, numbers) in enumerate(curves.items()):
        logarithmic = column == 1
        top = parts[0, column]
        top.plot(steps, numbers[:, -1], "k-", lw=2, label="all together", **_dots(steps))
        if as_lines:
            # The first style is that of all together.
            for i, (name, style) in enumerate(
                zip(leaves, styles(len(leaves) + 1)[1:], strict=True)
            ):
                marks = marked(i, len(leaves), len(steps))
                label = shortened(name, _NAME)
                top.plot(steps, numbers[:, i], label=label, markevery=marks, **style)
        else:
            _draw_map(figure, parts[1, column], steps, numbers[:, :-1], logarithmic, map_height)
            named = range(0, len(leaves), -(-len(leaves) // _ROWS))
            names = [shortened(leaves[i], _NAME) if column == 0 else "" for i in named]
            parts[1, column].set_yticks(named, names, fontsize=7)
            holes = "" if np.isfinite(numbers[:, :-1]).all() else " (hatched: undefined)"
            parts[1, column].set_title(f"{what}, layer by layer{holes}", fontsize=10)
        top.set_ylabel(what)
        top.set_title(f"{what} of the {of_what[column]}", fontsize=10)
        top.grid(alpha=0.3)
        if logarithmic:
            top.set_yscale("log")
            _few_ticks(top.yaxis, numbers if as_lines else numbers[:, -1])
            top.axhline(1.0, color="0.5", lw=1, ls=":")
        parts[-1, column].set_xlabel(f"step{of_means}")
        parts[-1, column].xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    if as_lines:
        handles, labels = parts[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
    figure.suptitle(title)
    write_picture(figure, path)
    return True


def _dots(steps: np.ndarray) -> dict[str, Any]:
    """Return how few points are marked, which would be no line."""
    return {"marker": "o", "markersize": 4} if len(steps) < 12 else {}


def _means(numbers: np.ndarray, together: int) -> np.ndarray:
    """Return means over so many comparisons at a time, `(means, layers)`, without those undefined.

    Args:
        numbers: `(comparisons, layers)`; NaN where they are undefined.
        together: of how many comparisons a mean is.
    """
    starts = np.arange(0, len(numbers), together)
    defined = np.isfinite(numbers)
    sums = np.add.reduceat(np.where(defined, numbers, 0.0), starts)
    with np.errstate(invalid="ignore"):
        return sums / np.add.reduceat(defined, starts, dtype=np.int64)


def _draw_map(
    figure: Any,
    axes: Any,
    steps: np.ndarray,
    numbers: np.ndarray,
    logarithmic: bool,
    height: float,
) -> None:
    """Draw a row for each layer: dark is low, light is high, hatched is undefined.

    Args:
        figure, axes: where to draw, `height` inches high.
        steps: `(points,)`.
        numbers: `(points, layers)`.
        logarithmic: whether colors go by the logarithm.
    """
    from matplotlib.colors import LogNorm, Normalize

    defined = numbers[np.isfinite(numbers)]
    low, high = (defined.min(), defined.max()) if len(defined) else (0.1, 1.0)
    if not logarithmic:
        low = min(low, 0.0)  # so that no alignment at all is seen as such
    elif low == high:
        low, high = low / 2, high * 2
    half = (steps[-1] - steps[0]) / max(len(steps) - 1, 1) / 2 or 0.5
    axes.set_facecolor("white")
    axes.patch.set(hatch="////", edgecolor="0.6")
    image = axes.imshow(
        np.ma.masked_invalid(numbers.T),
        aspect="auto",
        interpolation="nearest",
        cmap="cividis",
        norm=LogNorm(low, high) if logarithmic else Normalize(low, max(high, low + 1e-9)),
        extent=(steps[0] - half, steps[-1] + half, numbers.shape[1] - 0.5, -0.5),
    )
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=height / 0.1)
    if logarithmic:
        _few_ticks(bar.ax.yaxis, numbers)


def _few_ticks(axis: Any, numbers: np.ndarray) -> None:
    """Let a logarithmic axis name some numbers of its range, in plain figures."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    defined = numbers[np.isfinite(numbers)]
    times = defined.max() / defined.min() if len(defined) else 10.0
    if times < 5:
        axis.set_major_locator(MaxNLocator(4))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if times < 100 else (1,), numticks=6))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
