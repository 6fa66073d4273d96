"""`curve.png`: loss and accuracy against epochs.

Drawing needs matplotlib, the extra `plot`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dualnet.training.pictures.drawing import epochs_along, new_figure, write_picture
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
    figure = new_figure(9, 3.6)
    if figure is None:
        return False
    column = {name: history[:, i] for i, name in enumerate(COLUMNS)}
    # Real targets have no accuracy, and a loss in the square of their units.
    of_classes = bool(np.isfinite(column["test_accuracy"]).any())
    labels = {"loss": "loss (nats)" if of_classes else "loss (mean squared error)"}
    labels |= {"accuracy": "accuracy"} if of_classes else {}
    for axes, (metric, label) in zip(
        figure.subplots(1, len(labels), squeeze=False)[0], labels.items(), strict=True
    ):
        for part, style, gray in (("train", "s--", "0.55"), ("test", "o-", "0.0")):
            axes.plot(
                column["epoch"],
                column[f"{part}_{metric}"],
                style,
                color=gray,
                label="training" if part == "train" else part,
                markersize=4,
                markevery=max(1, len(history) // 20),
            )
        axes.set_ylabel(label)
        epochs_along(axes, len(history))
        axes.legend()
    figure.suptitle(title)
    write_picture(figure, path)
    return True
