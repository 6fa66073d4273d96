"""Batch norm over the examples of several processes.

It needs a sum over processes, which is differentiated as any other function.

Every process gets the sum of what all of them have.  That is a linear map, and its own transpose:
each process's part moves the sum of each, so the cotangent of the part is the sum of the cotangents
of all.  Forward and reverse mode may pass through it, if all processes do so in the same order.
"""

from __future__ import annotations

import numpy as np

from dualnet.backends.processes import Processes
from dualnet.core.dual import primal_of, primitive
from dualnet.core.engine import linearizer
from dualnet.core.linear import LinearMap
from dualnet.types import Array, Linearized, Shape, Tangent


@primitive
def sum_over_processes(x: Array, processes: Processes) -> Array:
    """Return the sum of the arrays of all processes, which all of them call.

    Args:
        x: this process's array, of the same shape in all of them.
        processes: all of them, of which this is one.

    Examples:
        >>> from dualnet.backends.processes import ALONE
        >>> from dualnet.nn.over_processes import sum_over_processes
        >>> sum_over_processes(np.array([1.0, 2.0]), ALONE).tolist()
        [1.0, 2.0]
    """
    # Reverse mode calls a map once without any direction, to learn the shape of what it returns.
    return processes.add(x) if x.size else x


@LinearMap
def sum_of_tangent(t: Tangent, processes: Processes) -> Tangent:
    """Return the sum over processes of tangents `(k, *S)`."""
    return sum_over_processes(t, processes)


@sum_of_tangent.transposed
def _(ct: Tangent, _shape: Shape, processes: Processes) -> Tangent:
    return sum_of_tangent(ct, processes)


@linearizer(sum_over_processes)
def _(x: Array, processes: Processes) -> Linearized:
    return sum_over_processes(x, processes), lambda t: sum_of_tangent(t, processes)


def normalize_over_processes(
    x: Array, rows: int, epsilon: float, processes: Processes
) -> tuple[Array, Array, Array]:
    """Return x normalized by mean and variance of the examples of all processes, and both of these.

    Args:
        x: `(n, ..., C)`, the examples of this process.
        rows: how many values all processes together have for each channel.
        epsilon: ε of `normalize`.
        processes: all of them, of which this is one.

    Returns:
        An array like x, and mean and (biased) variance `(C,)`, plain values without tangents.
    """
    axes = tuple(range(x.ndim - 1))
    mean = sum_over_processes(np.sum(x, axis=axes), processes) / rows
    centered = x - mean
    squares = np.sum(np.square(centered), axis=axes)
    variance = sum_over_processes(squares, processes) / rows
    return centered / np.sqrt(variance + epsilon), primal_of(mean), primal_of(variance)
