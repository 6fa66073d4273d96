"""Where a run stands.

Shuffles and random directions are functions of (seed, epoch) and (seed, step), so a state is all
that is needed to go on: a run that was stopped at any moment and resumed gives the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet.tree import Tree

CARRIED = ("params", "state", "learned", "memories", "readout")
"""Of a `TrainState`, the trees that a step makes anew."""


@dataclass(frozen=True)
class TrainState:
    """See the head of this file.

    Attributes:
        params, state, learned, memories: the network's parameters and state, what the rule
            learns, what the optimizer remembers of each parameter; trees of arrays.
        readout: what the objective learns beside the network.
        position: `(epoch, batch)`, the next batch to train on.
        sums: `(loss, correct, examples, seconds)` of the present epoch so far.
        history: a row for each finished epoch, in the order of `COLUMNS`.
        unread: `(number, loss, correct, examples)` of each step since the last whose loss was
            looked at, still on the device; no part of a checkpoint, as `Trainer.read` empties it.
        comparisons: `(m, leaves + 1, 3)`, the cosine, angle and norm ratio of every leaf's
            gradient and of all of them to the exact ones, at each of the m steps so far that
            were looked at; {} where none ever is.
    """

    params: Tree
    state: Tree
    learned: Tree
    memories: Tree
    readout: Tree
    position: np.ndarray
    sums: np.ndarray
    history: np.ndarray
    comparisons: Tree
    unread: tuple[tuple[int, Any, Any, int], ...] = ()

    def as_trees(self) -> dict[str, Tree]:
        """For a checkpoint; of a state whose losses are read."""
        assert not self.unread
        return {name: value for name, value in vars(self).items() if name != "unread"}
