"""Whether what a data set holds fits together: a plugin, or whoever replaced a part, made it."""

from __future__ import annotations

import numpy as np

from dualnet.data.dataset import Dataset
from dualnet.options import is_int
from dualnet.tree import describe


def fault_of(dataset: Dataset) -> str | None:
    """Return what does not fit together in a data set; None if all does."""
    white, classes = dataset.white, dataset.classes
    if white is not None and not (is_int(white) and 1 <= white <= 255):
        return f"white: expected a whole number from 1 to 255, got {white!r}"
    if not isinstance(classes, tuple) or not all(isinstance(one, str) for one in classes):
        return f"classes: expected a tuple of names, got {classes!r}"
    if len(set(classes)) < len(classes):
        twice = next(one for one in classes if classes.count(one) > 1)
        return f"classes: expected a name of its own for each, got {twice!r} twice"
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        if not hasattr(part := getattr(dataset, name), "dtype") or not part.shape:
            return f"{name}: expected an array, got {describe(part)}"
    return (
        _fault_of_images(dataset, "train_images")
        or _fault_of_images(dataset, "test_images")
        or _fault_of_labels(dataset, "train_labels", len(dataset.train_images))
        or _fault_of_labels(dataset, "test_labels", len(dataset.test_images))
    )


def _fault_of_images(dataset: Dataset, name: str) -> str | None:
    """Return what is wrong with the images, or other examples, of a name."""
    images, white = getattr(dataset, name), dataset.white
    shape, got = ("N", *dataset.train_images.shape[1:]), describe(images)
    pixels = white is not None
    if images.dtype != np.uint8 if pixels else images.dtype.kind != "f":
        return f"{name}: expected {'uint8' if pixels else 'floats'}{shape}, got {got}"
    if len(shape) != 4 if pixels else len(shape) < 2:
        wanted = "(N, height, width, channels)" if pixels else "(N, ..., channels)"
        return f"{name}: expected {wanted}, got {got}"
    if images.shape[1:] != shape[1:] or not len(images):
        return f"{name}: expected one or more {shape}, got {got}"
    # Only where there can be brighter ones are they looked for: images may be in a file.
    if white is not None and white < 255 and (brightest := int(images[:].max())) > white:
        return f"{name}: expected pixels from 0 to {white}, which is white, got {brightest}"
    return None


def _fault_of_labels(dataset: Dataset, name: str, examples: int) -> str | None:
    """Return what is wrong with the labels, or real targets, of a name."""
    labels, classes = getattr(dataset, name), len(dataset.classes)
    shape = (examples,) if classes else (examples, *dataset.train_labels.shape[1:])
    kind = "int" if classes else "float"
    if labels.dtype.kind not in ("iu" if classes else "f") or labels.shape != shape:
        return f"{name}: expected {kind}{shape}, one for each example, got {describe(labels)}"
    if not classes:
        return None if len(shape) == 2 else f"{name}: expected (N, outputs), got {shape}"
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        return f"{name}: expected 0 to {classes - 1}, a number of a class, got {low} to {high}"
    return None
