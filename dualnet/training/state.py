"""The state of a run: all that changes while it trains.

Shuffles and random directions are functions of (seed, epoch) and (seed, step), so a state is all
that is needed to go on: a run that was stopped at any moment and resumed gives the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dualnet.tree import Tree
from dualnet.types import Array


class Carried(NamedTuple):
    """What a step of training makes anew; each a tree of arrays.

    Attributes:
        params, model_state: the network's parameters and its state.
        rule_state: what the learning rule learns.
        opt_state: what the optimizer remembers of each parameter.
        readout: what the objective learns beside the network.
    """

    params: Tree
    model_state: Tree
    rule_state: Tree
    opt_state: Tree
    readout: Tree


class Unread(NamedTuple):
    """What a step leaves on the device until the losses are collected.

    Attributes:
        number: of the step, from 0.
        loss: the mean loss of its batch.
        correct: how many inputs it classified correctly.
        examples: how many images its batch had.
    """

    number: int
    loss: Array
    correct: Array
    examples: int


class Start(NamedTuple):
    """From where steps can be made again.

    Attributes:
        number: of the first such step, from 0.
        carried: what it starts from.
    """

    number: int
    carried: Carried


@dataclass(frozen=True)
class TrainState:
    """See the head of this file.

    Attributes:
        carried: what a step makes anew.
        position: `(epoch, batch)`, the next batch to train on.
        sums: `(loss, correct, examples, seconds)` of the present epoch so far.
        history: a row for each finished epoch, in the order of `COLUMNS`.
        comparisons: `(m, leaves + 1, 3)`, the cosine, angle and norm ratio of every leaf's
            gradient and of all of them to the exact ones, at each of the m steps so far that
            were compared; {} where no step ever is.
        skipped: `()`, int64, how many steps so far were left out because a number was not finite;
            {} where such a number ends the run.
        unread: the steps whose losses were not collected yet.  It is no part of a checkpoint,
            because `Trainer.collect_losses` empties it.
        starts: from where the last steps can be made again, to see where a number is not finite;
            no part of a checkpoint.
    """

    carried: Carried
    position: np.ndarray
    sums: np.ndarray
    history: np.ndarray
    comparisons: Tree
    skipped: Tree
    unread: tuple[Unread, ...] = ()
    starts: tuple[Start, ...] = ()

    def as_trees(self) -> dict[str, Tree]:
        """Return the trees of a checkpoint by name; the losses must have been collected."""
        assert not self.unread
        return {
            **self.carried._asdict(),
            "position": self.position,
            "sums": self.sums,
            "history": self.history,
            "comparisons": self.comparisons,
            "skipped": self.skipped,
        }

    @classmethod
    def from_trees(cls, trees: dict[str, Tree]) -> TrainState:
        """Return the state that `as_trees` took apart."""
        carried = Carried(*(trees[name] for name in Carried._fields))
        return cls(carried, **{k: v for k, v in trees.items() if k not in Carried._fields})
