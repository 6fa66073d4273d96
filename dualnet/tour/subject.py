"""What a tour is of: a function of arrays where it is looked at, and how a rule can learn on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.errors import UsageError
from dualnet.learning import Batch, Task
from dualnet.tree import Tree
from dualnet.types import Array


@dataclass(frozen=True)
class Subject:
    """A function of trees of arrays with one number as its value.

    Attributes:
        introduction: sentences about it.
        program: its text, line by line; () where it is the reader's own.
        function: of the arguments, by position.
        arguments: by their names; leaves that are float64 arrays move, the others are constants.
        constants: other arrays that the function uses, by their names.
    """

    introduction: str
    program: tuple[str, ...]
    function: Callable[..., Any]
    arguments: Mapping[str, Tree]
    constants: Mapping[str, Array]

    def named(self) -> dict[str, Array]:
        """Return the arrays that move, by name: `w`, or `w/first` within a tree."""
        return {name: leaf for name, leaf in tree.items(dict(self.arguments)) if moves(leaf)}

    def value(self, arrays: Mapping[str, Any]) -> Any:
        """Evaluate the function where the named arrays have other values, or are duals.

        It gets copies of plain arrays, as it may write into its arguments.

        Raises:
            UsageError: its value is not one number.
        """
        arguments = tree.map_with_path(
            lambda name, leaf: _copied(arrays.get(name, leaf)), dict(self.arguments)
        )
        value = self.function(*arguments.values())
        shape = getattr(value, "shape", None if not isinstance(value, (int, float)) else ())
        if shape != ():
            got = type(value).__name__ if shape is None else f"an array of shape {shape}"
            raise UsageError(
                f"expected one number as its value, as a loss is, got {got}; return for instance "
                "the .sum() of an array"
            )
        return value


@dataclass(frozen=True)
class Learning:
    """What a learning rule is shown on.

    Attributes:
        task: a network and its loss.
        params, state: the network's trees.
        batch: one example.
        labels: path of a parameter or of a site → how the tour names it.
    """

    task: Task
    params: Tree
    state: Tree
    batch: Batch
    labels: Mapping[str, str]

    def label(self, path: str) -> str:
        """Return how the tour names what is at a path."""
        return self.labels.get(path, path)


def _copied(x: Any) -> Any:
    return x.copy() if isinstance(x, np.ndarray) else x


def moves(leaf: Any) -> bool:
    """Tell whether a leaf of the arguments moves."""
    return getattr(leaf, "dtype", None) == np.float64
