"""Random directions along which the checks differentiate."""

from __future__ import annotations

import numpy as np

from dualnet import tree
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Stack

_LARGE = 1e3
"""Beside larger entries, rounding leaves a step fewer digits than the checks need."""


def random_directions(key: Key, like: Tree, k: int) -> Tree:
    """Draw k normal directions for every float leaf of a tree.

    Args:
        key: names the random numbers.
        like: the tree.
        k: how many directions.

    Returns:
        A tree like `like`: a stack `(k, *S)` of the leaf's dtype for every float leaf, None for
        every other leaf.
    """

    def draw(path: str, x: Array) -> Stack | None:
        if not np.issubdtype(np.result_type(x), np.floating):
            return None
        generator = np.random.default_rng(key.fold_in(path).bits)
        drawn = generator.standard_normal((k, *np.shape(x))).astype(np.result_type(x))
        return np.asarray(drawn, like=as_array(x))

    return tree.map_with_path(draw, like)


def long_enough(directions: Tree, primals: Tree) -> Tree:
    """Lengthen directions where primals are large, and rounding would swallow a step."""

    def lengthened(d: Array | None, x: Array) -> Array | None:
        return None if d is None else d * np.maximum(1.0, np.abs(x) / _LARGE)

    return tree.map(lengthened, directions, primals)


def one_of(stacks: Tree, i: int) -> Tree:
    """Return direction i of every stack; None where there is no stack."""
    return tree.map(lambda t: None if t is None else t[i], stacks)


def as_array(x: Array | float) -> Array:
    """Convert numbers and lists to NumPy arrays; leave arrays of any library as they are."""
    return x if hasattr(x, "__array_function__") else np.asarray(x)
