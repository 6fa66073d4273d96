"""The protocol of an augmentation, and augmentations that are made of others.

An augmentation is a function of a key, a batch of images and a backend.  It returns new images and
changes none of its arguments.  All randomness comes from the key: the random numbers of image i
depend on the key and on `start + i` alone.  So a shard of a batch is changed as it would be within
the whole batch, if it is told at which image it starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dualnet.backends import Backend
from dualnet.errors import UsageError
from dualnet.random import Key
from dualnet.types import Array


class Augmentation(Protocol):
    """A function that changes images at random."""

    def __call__(self, key: Key, images: Array, backend: Backend, start: int = 0) -> Array:
        """Return changed images.

        Args:
            key: names all random numbers of this call.
            images: `(N, H, W, C)`, floating-point, from 0 (black) to 1 (full intensity).
            backend: draws the numbers; the images are its arrays.
            start: the index of the first image in its batch, for a shard of a batch.

        Returns:
            Images `(N, H', W', C)` of the same range and dtype; they may be a view of `images`.

        Raises:
            UsageError: `images` are of another kind or shape.
        """
        ...


@dataclass(frozen=True)
class Compose:
    """Apply augmentations one after the other, each with random numbers of its own.

    Args:
        steps: the augmentations, first to last.
    """

    steps: tuple[Augmentation, ...]

    def __call__(self, key: Key, images: Array, backend: Backend, start: int = 0) -> Array:
        for i, step in enumerate(self.steps):
            images = step(key.fold_in(i), images, backend, start)
        return images


@dataclass(frozen=True)
class Sometimes:
    """Apply an augmentation to each image with some probability, independently.

    Args:
        probability: from 0 to 1.
        step: the augmentation; it must keep the size of images.
    """

    probability: float
    step: Augmentation

    def __post_init__(self) -> None:
        check_range("Sometimes", "probability", (self.probability, self.probability), 0.0, 1.0)

    def __call__(self, key: Key, images: Array, backend: Backend, start: int = 0) -> Array:
        chosen = draw(key.fold_in("choice"), images, 1, backend, start) < self.probability
        # All images are changed, and then some are chosen.  If only the chosen ones were changed,
        # their random numbers would depend on which other images were chosen.
        changed = self.step(key.fold_in("step"), images, backend, start)
        return np.where(chosen[:, :, None, None], changed, images)


def draw(key: Key, images: Array, count: int, backend: Backend, start: int) -> Array:
    """Draw `count` numbers for each image, uniform in [0, 1), `(N, count)` of the images' dtype.

    Raises:
        UsageError: `images` are no floating-point array `(N, H, W, C)`.
    """
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
