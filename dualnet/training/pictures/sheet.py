"""A sheet of images with what a network takes them for."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualnet.errors import UsageError
from dualnet.naming import shortened
from dualnet.training.pictures.drawing import required_figure, save_figure

_ACROSS = 8
"""Images in a row."""
_IMAGE = 1.45
"""How wide an image is with the gap beside it, in inches."""
_NAME = 13
"""How many characters of a class's name are shown."""
_NAMED = "draw_predictions"


def draw_predictions(
    images: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    truth: np.ndarray | None,
    classes: Sequence[str],
    path: str | Path,
    *,
    white: float = 255,
    most: int = 40,
) -> None:
    """Draw images, each with the class that it was taken for, and the probability of that.

    Where the truth is known, the images that were taken for the wrong class come first, those that
    the network was most sure of before the others, and have a thick frame and the right class.
    Other images keep their order.

    Args:
        images: `(n, height, width)` or `(n, height, width, channels)` of 1 or 3 channels, from 0 to
            `white`.
        predicted: `(n,)`, the number of the class that each was taken for.
        probabilities: `(n,)`, the probability of that class.
        truth: `(n,)`, the number of the class that each is of; None if that is not known.
        classes: the name of each class.
        path: the file to write; its ending says the format, such as `.png`.
        white: the value of full intensity.
        most: how many images are drawn at most.

    Raises:
        UsageError: the arrays are not of these shapes, matplotlib is not installed, or the file
            cannot be written.
    """
    images = _images(images)
    n = len(images)
    given = {"predicted": predicted, "probabilities": probabilities}
    given |= {} if truth is None else {"truth": truth}
    for name, array in given.items():
        if np.shape(array) != (n,):
            raise UsageError(f"{_NAMED}: {name}: expected ({n},), got {np.shape(array)}")
    if most < 1:
        raise UsageError(f"{_NAMED}: most: expected 1 image or more, got {most}")
    wrong = np.zeros(n, bool) if truth is None else np.asarray(predicted) != truth
    # A stable order, in which images that are right stay as they are.
    order = np.argsort(np.where(wrong, -np.asarray(probabilities), 1.0), kind="stable")[:most]
    across = min(_ACROSS, len(order))
    down = -(-len(order) // across)
    names = [shortened(str(name), _NAME) for name in classes]
    width = max(_IMAGE * across, 4.0)
    title = _title(n, len(order), None if truth is None else int(wrong.sum()))
    title = textwrap.fill(title, int(13 * width))
    figure = required_figure(_NAMED, width, 2.0 * down + 0.4 + 0.2 * title.count("\n"))
    parts = figure.subplots(down, across, squeeze=False).flat
    for axes in parts:
        axes.set_axis_off()
    # To enlarge a small image smoothly would hide what the network was given.
    for axes, i in zip(figure.axes, order, strict=False):
        axes.imshow(images[i] / white, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        told = f"{names[predicted[i]]}\n{_percent(probabilities[i])}"
        if truth is not None:
            told += f"\n✗ is {names[truth[i]]}" if wrong[i] else "\n✓ right"
        text = axes.set_xlabel(told, fontsize=8, fontweight="bold" if wrong[i] else "normal")
        too_wide = text.get_window_extent().width / (0.9 * _IMAGE * figure.dpi)
        text.set_fontsize(8 / max(too_wide, 1))
        for side in axes.spines.values():
            side.set(color="#D55E00" if wrong[i] else "0.6", linewidth=4 if wrong[i] else 1)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, _NAMED, path)


def _images(images: Any) -> np.ndarray:
    """Return images, `(n, height, width)` or `(n, height, width, 3)`."""
    images = np.asarray(images)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)) or not images.size:
        raise UsageError(
            f"{_NAMED}: images: expected (n, height, width) or (n, height, width, channels) of 1 "
            f"or 3 channels, got {images.shape}"
        )
    return images


def _title(n: int, shown: int, wrong: int | None) -> str:
    """Say which images are shown, and what stands below them."""
    images = "image" if n == 1 else "images"
    of = f"{n:,} {images}" if shown == n else f"{shown} of {n:,} {images}"
    known = "" if wrong is None else f", {wrong:,} of {n:,} wrong"
    first = " and shown first" if wrong and shown > 1 else ""
    return f"{of}{known}{first}; below each: what it was taken for, and with which probability"


def _percent(probability: float) -> str:
    """Return a probability in percent; one that is no certainty is not rounded to 100."""
    percent = 100 * float(probability)
    return "> 99 %" if 99 < percent < 100 else f"{percent:.0f} %"
