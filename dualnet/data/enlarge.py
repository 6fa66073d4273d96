"""Enlarge images for a network that needs more pixels than a data set has."""

from __future__ import annotations

import numpy as np

from dualnet.backends.overridable import exact_matmul
from dualnet.types import Array


def enlarged(images: Array, side: int) -> Array:
    """Enlarge images by bilinear interpolation.

    Interpolation is one matrix product along the rows and one along the columns.

    Args:
        images: floating-point, (N, height, width, channels), on any backend.
        side: height and width of the result.  It must not be less than those of the images,
            because pixels are not averaged.

    Returns:
        A new array, (N, side, side, channels), of the same dtype.
    """
    n, height, width, channels = images.shape
    rows, columns = (
        _interpolation(length, side, images).astype(images.dtype) for length in (height, width)
    )
    x = exact_matmul(rows, images.reshape(n, height, width * channels))
    return exact_matmul(columns, x.reshape(n, side, width, channels))


def _interpolation(length: int, side: int, images: Array) -> Array:
    """Return the weight of each old pixel at the center of each new pixel, `(side, length)`.

    New pixels outside the outermost old centers take the value of the outermost old pixel.
    """
    centers = np.clip((np.arange(side, like=images) + 0.5) * (length / side) - 0.5, 0, length - 1)
    return np.maximum(1.0 - np.abs(centers[:, None] - np.arange(length, like=images)), 0.0)
