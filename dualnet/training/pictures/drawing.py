"""What all pictures have in common: they are drawn without a display, and readable in grayscale.

Drawing needs matplotlib, the extra `plot`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dualnet.console import in_one_line, say
from dualnet.errors import UsageError
from dualnet.files import write_file

LINE_STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure, in inches; None if matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        return None
    layout = ConstrainedLayoutEngine(w_pad=0.1, wspace=0.03)
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def required_figure(function: str, width: float, height: float) -> Any:
    """Return an empty figure, in inches.

    Args:
        function: what a user has called, for the message.
        width, height: of the figure.

    Raises:
        UsageError: matplotlib is not installed.
    """
    figure = new_figure(width, height)
    if figure is None:
        raise UsageError(
            f'{function}: matplotlib is not installed; pip install "dualnet[plot]" brings it'
        )
    return figure


@contextmanager
def costing_no_run(folder: Path) -> Iterator[None]:
    """Say it if a picture of a finished run cannot be drawn, whatever the reason is.

    Args:
        folder: of the run, which holds all that the picture would show.
    """
    try:
        yield
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        say(in_one_line(f"{folder}: no picture could be drawn: {why}"), aside=True)


def write_picture(figure: Any, path: Path) -> None:
    """Write a figure to a PNG file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_file(path, picture.getvalue(), durable=False)


def save_figure(figure: Any, function: str, path: str | Path) -> None:
    """Write a figure to a file, whose ending says the format.

    Args:
        figure: the figure.
        function: what a user has called, for messages.
        path: the file.

    Raises:
        UsageError: there is no such format, or the file cannot be written.
    """
    formats = sorted(figure.canvas.get_supported_filetypes())
    ending = Path(path).suffix.removeprefix(".").lower()
    if ending not in formats:
        raise UsageError(
            f"{function}: {path}: expected a file that ends in .png or another of "
            f"{', '.join(formats)}"
        )
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise UsageError(f"{function}: {path}: {error.strerror or error}") from error


def styles(count: int) -> list[dict[str, Any]]:
    """Return so many styles of lines, which differ in hue, in lightness, in dashes and in marks.

    Dark ones take turns with lighter ones, so that curves of neighbors are told apart.
    """
    from matplotlib import colormaps

    # The lightest colors of the map are left out, as they vanish on white.
    shades = colormaps["viridis"]([0.8 * i / max(count - 1, 1) for i in range(count)])
    half = (count + 1) // 2
    return [
        {
            "color": tuple(shades[i // 2 + half * (i % 2)]),
            "linestyle": LINE_STYLES[i % len(LINE_STYLES)],
            "marker": MARKERS[i % len(MARKERS)],
            "markersize": 4,
            "linewidth": 1.5,
        }
        for i in range(count)
    ]


def marked(line: int, lines: int, points: int) -> tuple[int, int]:
    """Return which points of a line are marked, as matplotlib's `markevery` takes it.

    The marks of each line are at other points, so that those of equal lines can all be seen.

    Args:
        line: the number of the line, from 0.
        lines: how many there are.
        points: of the line.
    """
    every = max(1, points // 8)
    return line * every // lines, every


def epochs_along(axes: Any, epochs: int) -> None:
    """Let the horizontal axis of a part of a picture count epochs from 1."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.set_xlim(1 - 0.04 * epochs, epochs * 1.04)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
