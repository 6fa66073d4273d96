"""Augmentations that move and mix pixels: flip, crops, blur.

A resized crop and a blur are linear maps of an image: each is one matrix along the rows and one
along the columns.  So each image gets two small matrices, and a batch takes two stacks of matrix
products, without a loop over images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dualnet.backends import Backend
from dualnet.backends.overridable import exact_matmul
from dualnet.data.augment.step import check_range, draw
from dualnet.errors import UsageError
from dualnet.random import Key
from dualnet.types import Array

_TRIES = 10
"""How many crops are drawn for an image; the first one that fits is taken."""


@dataclass(frozen=True)
class Flip:
    """Mirror every image: left and right are exchanged."""

    def __call__(self, key: Key, images: Array, backend: Backend, start: int = 0) -> Array:
        return images[:, :, ::-1]


@dataclass(frozen=True)
class PaddedCrop:
    """Move every image by up to `padding` pixels along each axis; what comes in is black.

    This is the same as padding the image and cropping it at random to its old size.

    Args:
        padding: how many pixels at most; 0 leaves images as they are.

    Source: He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition",
    section 4.2.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.padding, int) or self.padding < 0:
            raise UsageError(
                f"PaddedCrop: padding: expected a whole number from 0 up, got {self.padding!r}"
            )

    def __call__(self, key: Key, images: Array, backend: Backend, start: int = 0) -> Array:
        numbers = draw(key, images, 2, backend, start)
        n, height, width, _ = images.shape
        p = self.padding
        offsets = np.floor(numbers * (2 * p + 1)).astype(np.int64)
        rows = offsets[:, :1] + np.arange(height, like=images)
        columns = offsets[:, 1:] + np.arange(width, like=images)
        padded = np.pad(images, ((0, 0), (p, p), (p, p), (0, 0)))
        image = np.arange(n, like=images)[:, None, None]
        return padded[image, rows[:, :, None], columns[:, None, :]]


@dataclass(frozen=True)
class ResizedCrop:
    """Crop a random rectangle of every image, and scale it to one size by bilinear interpolation.

    The rectangle's share of the area is uniform in `area`, the logarithm of its aspect ratio is
    uniform between the logarithms of `ratio`, and its position is uniform.  Its sides are rounded
    to whole pixels.  If none of ten such rectangles fits into the image, the largest rectangle of
    an allowed ratio is taken.  Interpolation does not average pixels, so pixels are skipped where
    `size` is smaller than the crop.

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

    def __call__(self, key: Key, images: Array, backend: Backend, start: int = 0) -> Array:
        numbers = draw(key, images, 2 * _TRIES + 2, backend, start)
        whole = images.shape[1:3]
        sizes = self._sizes(numbers[:, 2:], whole)
        firsts = [np.floor(numbers[:, i] * (whole[i] - sizes[i] + 1)) for i in (0, 1)]
        rows, columns = (
            _interpolation(firsts[i], sizes[i], self.size or whole[i], whole[i]) for i in (0, 1)
        )
        return _along_rows_and_columns(rows, columns, images)

    def _sizes(self, numbers: Array, whole: tuple[int, int]) -> list[Array]:
        """Return the heights and the widths of the crops, two arrays `(N,)`.

        Args:
            numbers: uniform in [0, 1), `(N, 2 * _TRIES)`.
            whole: height and width of the images.
        """
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
    """Replace every pixel by a weighted mean of all, with weights exp(-distance² / (2 sigma²)).

    The kernel is not cut off.  At the border, the weights of the pixels inside sum up to 1.

    Args:
        sigma: smallest and largest standard deviation in pixels, above 0.  It is uniform between
            the two.

    Source: Chen, Kornblith, Norouzi & Hinton 2020, "A simple framework for contrastive learning
    of visual representations", appendix A, whose kernel is a tenth of the image wide.
    """

    sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        check_range("GaussianBlur", "sigma", self.sigma, 1e-3, 1e3)

    def __call__(self, key: Key, images: Array, backend: Backend, start: int = 0) -> Array:
        sigma = _between(self.sigma, draw(key, images, 1, backend, start))[:, :, None]

        def smoothing(length: int) -> Array:
            """Return the matrices `(N, length, length)` that blur along an axis."""
            pixels = np.arange(length, like=images).astype(images.dtype)
            weights = np.exp(-np.square((pixels[:, None] - pixels) / sigma) / 2.0)
            return weights / weights.sum(axis=-1, keepdims=True)

        return _along_rows_and_columns(
            smoothing(images.shape[1]), smoothing(images.shape[2]), images
        )


def _between(bounds: tuple[float, ...], numbers: Array) -> Array:
    """Map numbers from [0, 1) to the interval between the two bounds."""
    low, high = bounds
    return low + (high - low) * numbers


def _interpolation(first: Array, length: Array, size: int, whole: int) -> Array:
    """Return the matrices that stretch the pixels [first, first + length) over `size` pixels.

    Args:
        first, length: where each crop starts along an axis, and how long it is, `(N,)`.
        size: how many pixels the result has along this axis.
        whole: how many pixels the image has along it.

    Returns:
        `(N, size, whole)`.
    """
    first, last = first[:, None], (first + length - 1.0)[:, None]
    steps = (np.arange(size, like=length).astype(length.dtype) + 0.5) / size
    centers = np.clip(first + steps * length[:, None] - 0.5, first, last)
    # The weight of a pixel falls from 1 at its center to 0 at the centers of its neighbors.
    distances = np.abs(centers[:, :, None] - np.arange(whole, like=length).astype(length.dtype))
    return np.maximum(1.0 - distances, 0.0)


def _along_rows_and_columns(rows: Array, columns: Array, images: Array) -> Array:
    """Apply matrices to the rows and columns of images.

    Args:
        rows: `(N, S, H)`.
        columns: `(N, T, W)`.
        images: `(N, H, W, C)`.

    Returns:
        `(N, S, T, C)`.
    """
    n, height, width, channels = images.shape
    x = exact_matmul(rows, images.reshape(n, height, width * channels))
    x = x.reshape(n, -1, width, channels).transpose(0, 2, 1, 3)
    x = exact_matmul(columns, x.reshape(n, width, -1))
    return x.reshape(n, columns.shape[1], -1, channels).transpose(0, 2, 1, 3)
