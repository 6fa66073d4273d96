"""The arrays of a convolution as the matrices that are multiplied, on every kind of array.

Names of axes and sizes are those of `dualnet.images.convolution`.
"""

from __future__ import annotations

import numpy as np

from dualnet.types import Array


def kernel_matrices(w: Array, groups: int) -> Array:
    """View kernels `(K, kh, kw, C/g, Q)` as matrices, `(K, groups, kh·kw·C/g, Q/g)`."""
    kernels, kh, kw, channels, q = w.shape
    parts = np.reshape(w, (kernels, kh * kw * channels, groups, q // groups))
    return np.swapaxes(parts, 1, 2)


def output_rows(y: Array, groups: int) -> Array:
    """View outputs `(K, M, rows, columns, Q)` as matrices, one row for each window.

    Returns:
        `(K, groups, M·rows·columns, Q/g)`.
    """
    kernels, m, rows, columns, q = y.shape
    return np.swapaxes(np.reshape(y, (kernels, m * rows * columns, groups, q // groups)), 1, 2)
