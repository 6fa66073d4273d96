"""Enlarging images on the way into a network that wants more pixels than a data set has."""

from __future__ import annotations

from typing import Any

import numpy as np


def enlarged(images: Any, side: int) -> Any:
    """Images scaled by bilinear interpolation, one matrix along the rows, one along the columns.

    Args:
        images: floating-point, (N, height, width, channels), on any backend.
        side: height and width of the result; no less than those of the images, since pixels are
            not averaged.

    Returns:
        A new array, (N, side, side, channels), of the same dtype.
    """
    n, height, width, channels = images.shape
    rows, columns = (
        np.asarray(_interpolation(length, side), images.dtype, like=images)
        for length in (height, width)
    )
    x = np.matmul(rows, images.reshape(n, height, width * channels))
    return np.matmul(columns, x.reshape(n, side, width, channels))


def _interpolation(length: int, side: int) -> np.ndarray:
    """`(side, length)`: the weight of each pixel at the center of each new one; beyond the
    outermost centers the outermost pixel."""
    centers = np.clip((np.arange(side) + 0.5) * (length / side) - 0.5, 0, length - 1)
    return np.maximum(1.0 - np.abs(centers[:, None] - np.arange(length)), 0.0)
