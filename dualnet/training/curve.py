"""`curve.png`: loss and accuracy against epochs.

Drawing needs matplotlib, the extra `plot`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dualnet.training.run_folder import COLUMNS


def draw_curve(history: np.ndarray, title: str, path: Path) -> bool:
    """Draw the metrics of a run.

    Args:
        history: `(epochs, columns)`, rows in the order of `COLUMNS`.
        title: text above the picture.
        path: the PNG file to write.

    Returns:
        Whether the curve was drawn; False if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        return False
    column = {name: history[:, i] for i, name in enumerate(COLUMNS)}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for position, metric, label in ((1, "loss", "loss (nats)"), (2, "accuracy", "accuracy")):
        axes = figure.add_subplot(1, 2, position)
        axes.plot(column["epoch"], column[f"train_{metric}"], "o-", label="training", markersize=3)
        axes.plot(column["epoch"], column[f"test_{metric}"], "o-", label="test", markersize=3)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    return True
