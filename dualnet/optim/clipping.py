"""Gradients of a bounded norm."""

from __future__ import annotations

from functools import reduce

import numpy as np

from dualnet import tree
from dualnet.tree import Tree
from dualnet.types import Array


def clip_to_norm(gradients: Tree, most: float) -> Tree:
    """Scale gradients down to a norm where theirs is larger: g <- g min(1, most / |g|).

    |g| is the Euclidean norm of all gradients together as one vector.  Gradients of a smaller norm
    stay as they are, bit for bit.  If an entry is NaN or infinite, all entries become NaN, so that
    the mistake is not hidden.  Nothing is read by the host.

    Args:
        gradients: tree of floating-point arrays.
        most: the largest norm that is left, from 1e-30 to 1e30, in the unit of the gradients.

    Returns:
        A tree of arrays of the same shapes and dtypes.

    Source: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural
    networks", algorithm 1.

    Examples:
        >>> gradients = {"w": np.array([[3.0]]), "b": np.array([4.0])}  # a norm of 5
        >>> dn.tree.map(lambda g: g.round(6).tolist(), dn.optim.clip_to_norm(gradients, 1.0))
        {'w': [[0.6]], 'b': [0.8]}
        >>> dn.optim.clip_to_norm(gradients, 10.0)["w"].tolist()
        [[3.0]]
    """
    largest = largest_entry(gradients)
    if largest is None:
        return gradients
    # Squares are of entries in this unit: those of large entries would be infinite in float32, and
    # a factor 0 would stand for a norm that is finite.
    unit = np.maximum(largest, most)
    squares = [np.sum(np.square(_single(g) / unit)) for g in tree.leaves(gradients)]
    norm = np.sqrt(reduce(np.add, squares))
    factor = (most / unit) / np.maximum(norm, most / unit)
    return tree.map(lambda g: (g * factor).astype(g.dtype, copy=False), gradients)


def largest_entry(arrays: Tree) -> Array | None:
    """Return the largest absolute value in a tree of arrays, NaN if one entry is NaN.

    It is an array of no axes, in float32 or float64; None if no array has an entry.
    """
    largest = [np.max(np.abs(_single(x))) for x in tree.leaves(arrays) if x.size]
    return reduce(np.maximum, largest) if largest else None


def _single(x: Array) -> Array:
    """Return an array in float32 at least, in which sums of squares of half floats are finite."""
    return x.astype(np.result_type(x.dtype, np.float32), copy=False)
