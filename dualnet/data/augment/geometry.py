"""Augmentations that move and mix pixels: flip, crops, blur.

A resized crop and a blur are linear maps of an image, and both are one matrix along the rows and
one along the columns; so each image gets two small matrices of its own, and a batch is two stacks
of matrix products, with no loop over images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet.backends import Backend
from dualnet.backends.overridable import exact_product
from dualnet.core.arrays import arange_like
from dualnet.data.augment.step import check_range, draw
from dualnet.errors import UsageError
from dualnet.random import Key

_TRIES = 10
"""Crops that are drawn for an image, of which the first that fits is taken."""


@dataclass(frozen=True)
class Flip:
    """The image in a mirror: left and right change places."""

    def __call__(self, key: Key, images: Any, backend: Backend, start: int = 0) -> Any:
        return images[:, :, ::-1]


@dataclass(frozen=True)
class PaddedCrop:
    """The image moved by up to `padding` pixels along each axis, black where it was not.

    The same as a random crop of the padded image to its old size.

    Args:
        padding: the most pixels; 0 leaves images as they are.

    Source: He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition",
    section 4.2.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.padding, int) or self.padding < 0:
            raise UsageError(
                f"PaddedCrop: padding: expected a whole number from 0 up, got {self.padding!r}"
            )

    def __call__(self, key: Key, images: Any, backend: Backend, start: int = 0) -> Any:
        numbers = draw(key, images, 2, backend, start)
        n, height, width, _ = images.shape
        p = self.padding
        offsets = np.floor(numbers * (2 * p + 1)).astype(np.int64)
        rows = offsets[:, :1] + arange_like(height, images)
        columns = offsets[:, 1:] + arange_like(width, images)
        padded = np.pad(images, ((0, 0), (p, p), (p, p), (0, 0)))
        image = arange_like(n, images)[:, None, None]
        return padded[image, rows[:, :, None], columns[:, None, :]]


@dataclass(frozen=True)
class ResizedCrop:
    """A random rectangle of the image, scaled to one size by bilinear interpolation.

    Share of the area uniform in `area`, logarithm of the aspect ratio uniform in that of `ratio`,
    sides rounded to whole pixels, place uniform.  If none of ten such rectangles fits into the
    image, the largest of an allowed ratio is taken.  Interpolation does not average pixels, so
    that a `size` below that of the crop skips some.

    Args:
        area: smallest and largest share of the image's area, above 0 and at most 1.
        ratio: smallest and largest width / height.
        size: height and width of the result; None for those of the image.

    Source: Szegedy et al. 2015, "Going deeper with convolutions", section 6.
    """

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    size: int | None = None

    def __post_init__(self) -> None:
        check_range("ResizedCrop", "area", self.area, 1e-6, 1.0)
        check_range("ResizedCrop", "ratio", self.ratio, 1e-3, 1e3)
        if self.size is not None and self.size < 1:
            raise UsageError(
                f"ResizedCrop: size: expected a whole number from 1 up, got {self.size!r}"
            )

    def __call__(self, key: Key, images: Any, backend: Backend, start: int = 0) -> Any:
        numbers = draw(key, images, 2 * _TRIES + 2, backend, start)
        whole = images.shape[1:3]
        sizes = self._sizes(numbers[:, 2:], whole)
        firsts = [np.floor(numbers[:, i] * (whole[i] - sizes[i] + 1)) for i in (0, 1)]
        rows, columns = (
            _interpolation(firsts[i], sizes[i], self.size or whole[i], whole[i]) for i in (0, 1)
        )
        return _along_rows_and_columns(rows, columns, images)

    def _sizes(self, numbers: Any, whole: tuple[int, int]) -> list[Any]:
        """Heights and widths of the images' crops, each `(N,)`, from numbers `(N, 2 * _TRIES)`."""
        height, width = whole
        area = (height * width) * _between(self.area, numbers[:, :_TRIES])
        log_ratio = _between(tuple(map(math.log, self.ratio)), numbers[:, _TRIES:])
        root = np.exp(log_ratio / 2.0)
        tried = [np.maximum(np.rint(x), 1.0) for x in (np.sqrt(area) / root, np.sqrt(area) * root)]
        fits = (tried[0] <= height) & (tried[1] <= width)  # (N, _TRIES)
        first_that_fits = np.argmax(fits, axis=1)[:, None]
        low, high = self.ratio
        sides = min(height, round(width / low)), min(width, round(height * high))
        return [
            np.where(
                fits.any(axis=1),
                np.take_along_axis(lengths, first_that_fits, axis=1)[:, 0],
                max(1, largest),
            )
            for lengths, largest in zip(tried, sides, strict=True)
        ]


@dataclass(frozen=True)
class GaussianBlur:
    """Every pixel a mean of its surroundings, with weights exp(-distance² / (2 sigma²)).

    The kernel is not cut off; at the border, the weights of what lies inside sum up to 1.

    Args:
        sigma: smallest and largest standard deviation in pixels, above 0; uniform between.

    Source: Chen, Kornblith, Norouzi & Hinton 2020, "A simple framework for contrastive learning
    of visual representations", appendix A, whose kernel is a tenth of the image wide.
    """

    sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        check_range("GaussianBlur", "sigma", self.sigma, 1e-3, 1e3)

    def __call__(self, key: Key, images: Any, backend: Backend, start: int = 0) -> Any:
        sigma = _between(self.sigma, draw(key, images, 1, backend, start))[:, :, None]

        def smoothing(length: int) -> Any:
            pixels = arange_like(length, images).astype(images.dtype)
            weights = np.exp(-np.square((pixels[:, None] - pixels) / sigma) / 2.0)
            return weights / weights.sum(axis=-1, keepdims=True)

        return _along_rows_and_columns(
            smoothing(images.shape[1]), smoothing(images.shape[2]), images
        )


def _between(bounds: tuple[float, ...], numbers: Any) -> Any:
    low, high = bounds
    return low + (high - low) * numbers


def _interpolation(first: Any, length: Any, size: int, whole: int) -> Any:
    """Matrices `(N, size, whole)` that stretch the pixels [first, first + length) over `size`."""
    first, last = first[:, None], (first + length - 1.0)[:, None]
    steps = (arange_like(size, length).astype(length.dtype) + 0.5) / size
    centers = np.clip(first + steps * length[:, None] - 0.5, first, last)
    # The weight of a pixel falls from 1 at its center to 0 at the centers of its neighbors.
    distances = np.abs(centers[:, :, None] - arange_like(whole, length).astype(length.dtype))
    return np.maximum(1.0 - distances, 0.0)


def _along_rows_and_columns(rows: Any, columns: Any, images: Any) -> Any:
    """Apply matrices `(N, S, H)` and `(N, T, W)` to images `(N, H, W, C)`: `(N, S, T, C)`."""
    n, height, width, channels = images.shape
    x = exact_product(rows, images.reshape(n, height, width * channels))
    x = x.reshape(n, -1, width, channels).transpose(0, 2, 1, 3)
    x = exact_product(columns, x.reshape(n, width, -1))
    return x.reshape(n, columns.shape[1], -1, channels).transpose(0, 2, 1, 3)
