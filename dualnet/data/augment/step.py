"""What an augmentation is, and how several make one.

An augmentation is a function of a key, a batch of images and a backend; it gives new images and
changes nothing it was given.  All its randomness comes from the key: image i of the batch gets
numbers that depend on the key and on `start + i` alone, so that a shard of a batch, told where it
begins, is changed as it would be within the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dualnet.backends import Backend
from dualnet.errors import UsageError
from dualnet.random import Key


class Augmentation(Protocol):
    """A change of images."""

    def __call__(self, key: Key, images: Any, backend: Backend, start: int = 0) -> Any:
        """The images changed.

        Args:
            key: all randomness of this call.
            images: `(N, H, W, C)`, floating-point, from 0 (black) to 1 (full intensity).
            backend: draws the numbers; the images are its arrays.
            start: index in the batch of the first image, where these are a shard of it.

        Returns:
            Images of the same range and dtype; possibly a view of those given.

        Raises:
            UsageError: if `images` are of another kind or shape.
        """
        ...


@dataclass(frozen=True)
class Compose:
    """One augmentation after the other, each with randomness of its own.

    Args:
        steps: the augmentations, first to last.
    """

    steps: tuple[Augmentation, ...]

    def __call__(self, key: Key, images: Any, backend: Backend, start: int = 0) -> Any:
        for i, step in enumerate(self.steps):
            images = step(key.fold_in(i), images, backend, start)
        return images


@dataclass(frozen=True)
class Sometimes:
    """An augmentation of every image with some probability, independently.

    Args:
        probability: from 0 to 1.
        step: the augmentation; it keeps the size of images.
    """

    probability: float
    step: Augmentation

    def __post_init__(self) -> None:
        check_range("Sometimes", "probability", (self.probability, self.probability), 0.0, 1.0)

    def __call__(self, key: Key, images: Any, backend: Backend, start: int = 0) -> Any:
        chosen = draw(key.fold_in("choice"), images, 1, backend, start) < self.probability
        # Of all images: to change those chosen alone would tie their draws to who else was.
        changed = self.step(key.fold_in("step"), images, backend, start)
        return np.where(chosen[:, :, None, None], changed, images)


def draw(key: Key, images: Any, count: int, backend: Backend, start: int) -> Any:
    """Numbers for each image, uniform in [0, 1): `(N, count)`, of the dtype of the images."""
    if getattr(images, "ndim", None) != 4 or images.dtype.kind != "f":
        kind = f"{images.dtype}{images.shape}" if hasattr(images, "dtype") else type(images)
        raise UsageError(
            f"augment: images: expected floating-point numbers (N, H, W, C), got {kind}; convert "
            "them first, full intensity to 1"
        )
    return backend.uniform(key, (len(images), count), images.dtype, start * count)


def check_range(
    where: str, name: str, bounds: tuple[float, float], least: float, most: float
) -> None:
    """Raise a UsageError unless `least <= bounds[0] <= bounds[1] <= most`."""
    if not (len(bounds) == 2 and least <= bounds[0] <= bounds[1] <= most):
        raise UsageError(
            f"{where}: {name}: expected numbers from {least:g} to {most:g}, smaller first, got "
            f"{bounds}"
        )
