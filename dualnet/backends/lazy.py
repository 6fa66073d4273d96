"""Where a step's arrays are computed: at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cupy

from dualnet.tree import Tree
from dualnet.types import Array


def run(function: Callable, *args: Any) -> Any:
    """Return what the function returns."""
    return function(*args)


def force(results: Tree) -> Tree:
    """Return a tree of plain CuPy arrays."""
    return results


def store(values: Sequence[Array], targets: Sequence[Array]) -> None:
    """Write values to CuPy arrays of the same shapes and dtypes."""
    for value, target in zip(values, targets, strict=True):
        cupy.copyto(target, value)
