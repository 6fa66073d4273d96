"""`rates.png`: loss and accuracy after the first steps, against the learning rate.

Drawing needs matplotlib, the extra `plot`.
"""

from __future__ import annotations

from pathlib import Path

from dualnet.training.pictures.drawing import new_figure, write_picture
from dualnet.training.rates_finder import FoundRates

PICTURE = "rates.png"


def draw_rates(found: FoundRates, title: str, path: Path) -> bool:
    """Draw loss and accuracy against the rate.

    Args:
        found: what `find_rates` returned.
        title: text above the picture.
        path: the PNG file to write.

    Returns:
        Whether the picture was drawn; False if matplotlib is not installed.
    """
    figure = new_figure(9, 3.6)
    if figure is None:
        return False
    good = [one for one in found.runs if one.diverged is None]
    lost = [one.lr for one in found.runs if one.diverged is not None]
    lines = {
        "loss (nats)": {
            "training": ("train_loss", "s--", "0.55"),
            found.tested_on: ("test_loss", "o-", "0.0"),
        },
        "accuracy": {found.tested_on: ("test_accuracy", "o-", "0.0")},
    }
    for position, (label, curves) in enumerate(lines.items(), start=1):
        axes = figure.add_subplot(1, 2, position)
        for name, (figure_name, style, gray) in curves.items():
            numbers = [getattr(one, figure_name) for one in good]
            axes.plot([one.lr for one in good], numbers, style, color=gray, label=name)
        if label != "accuracy":
            axes.axhline(found.start_loss, color="0.7", linewidth=1, label="before the first step")
            axes.set_yscale("log")  # a rate that is too high has losses of thousands
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
        if lost:
            # At the top of the picture, whatever the numbers are.
            at_top = axes.get_xaxis_transform()
            axes.plot(lost, [0.96] * len(lost), "kx", transform=at_top, label="diverged")
        if found.lr is not None:
            axes.axvline(found.lr, color="0.3", linestyle=":", label=f"lr = {found.lr:g}")
        axes.set_xscale("log")
        axes.set_xlabel(f"learning rate of {found.steps} steps")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    write_picture(figure, path)
    return True
