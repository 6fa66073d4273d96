"""Enlarging images on the way into a network that wants more pixels than a data set has."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.backends.overridable import exact_product
from dualnet.core.arrays import arange_like


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
        _interpolation(length, side, images).astype(images.dtype) for length in (height, width)
    )
    x = exact_product(rows, images.reshape(n, height, width * channels))
    return exact_product(columns, x.reshape(n, side, width, channels))


def _interpolation(length: int, side: int, images: Any) -> Any:
    """`(side, length)`: the weight of each pixel at the center of each new one; beyond the
    outermost centers the outermost pixel."""
    centers = np.clip((arange_like(side, images) + 0.5) * (length / side) - 0.5, 0, length - 1)
    return np.maximum(1.0 - np.abs(centers[:, None] - arange_like(length, images)), 0.0)
