"""Convolution of few channels: several outputs beside one another from one wider window.

A window of few numbers makes slow copies and thin matrix products.  The outputs of n windows beside
one another are those of one window, wide enough for all, and of n kernels side by side in it, with
zeros around each.  That multiplies zeros and copies less, which is faster for short windows.
Zero times what is not finite is NaN, so that the plain way is taken where a result is not finite.

Names of axes are those of `convolution`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dualnet.images.windows import Geometry
from dualnet.types import Array

_SHORT = 16
"""Windows are short whose rows have up to so many numbers."""
_OUTPUTS = 64
"""Up to so many numbers are computed from one short window."""
_FEW_CHANNELS = 32
"""With fewer channels, two outputs beside one another are computed together."""


def outputs_together(x: Array, columns: int, channels: int, q: int, geometry: Geometry) -> int:
    """Return how many outputs beside one another are to be computed from one window.

    Measured with windows of 5x5x1 and 3x3x1 and 6 to 64 outputs: 1.2 to 3 times as fast as one by
    one; with windows of 5x5x6, 5x5x15 and 3x3x16, two at a time: as fast up to 1.5 times.

    Args:
        x: the images or the outputs; those of a device are left as they are.
        columns: of the outputs.
        channels, q: C and Q.
        geometry: where the windows lie.
    """
    width = geometry.window[1]
    if type(x) is not np.ndarray or geometry.groups > 1 or geometry.stride[1] > 1:
        return 1
    if channels >= _FEW_CHANNELS:
        return 1
    most = max(2, _OUTPUTS // max(1, q)) if width * channels <= _SHORT else 2
    return next(n for n in range(min(most, 2 * width - 1), 0, -1) if columns % n == 0)


def widened_windows(geometry: Geometry, n: int) -> Geometry:
    """Return the windows that each see n windows beside one another."""
    height, width = geometry.window
    return replace(geometry, window=(height, width + n - 1), stride=(geometry.stride[0], n))


def widened(w: Array, n: int) -> Array:
    """Return kernels of the widened windows, `(K, kh, kw + n - 1, C, n·Q)`, for kernels w."""
    kernels, height, width, channels, q = w.shape
    out = np.zeros_like(w, shape=(kernels, height, width + n - 1, channels, n, q))
    for i in range(n):
        out[:, :, i : i + width, :, i] = w
    return np.reshape(out, (kernels, height, width + n - 1, channels, n * q))


def narrowed(w: Array, n: int) -> Array:
    """Map kernels of the widened windows back to `(K, kh, kw, C, Q)`: `widened`, transposed."""
    kernels, height, wide, channels, outputs = w.shape
    width = wide - n + 1
    apart = np.reshape(w, (kernels, height, wide, channels, n, outputs // n))
    total = np.zeros_like(w, shape=(kernels, height, width, channels, outputs // n))
    for i in range(n):
        total += apart[:, :, i : i + width, :, i]
    return total


def together(y: Array, n: int) -> Array:
    """View outputs `(K, M, rows, columns, Q)` as those of the widened windows."""
    kernels, m, rows, columns, q = y.shape
    return np.reshape(y, (kernels, m, rows, columns // n, n * q))
