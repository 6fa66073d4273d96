"""To which derivatives the parts of each parameter answer, where weights are perturbed.

Under a greedy rule a parameter answers to the loss of the next local head.  That loss may have a
replica for every group of channels.  Then the weights of channels that reach their own group of the
head's features alone answer to the replicas of that group, and are not disturbed by the directions
of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from dualnet import tree
from dualnet.learning.independence import Independence
from dualnet.nn.convolution import Conv2d
from dualnet.nn.heads import LocalHead
from dualnet.nn.layers import GroupedLinear, Linear
from dualnet.nn.network import Layer, walk
from dualnet.nn.normalization import BatchNorm, GroupNorm, LayerNorm
from dualnet.nn.tokens import ClassToken, Positions
from dualnet.tree import Tree
from dualnet.types import Array

_CHANNELS_LAST = (Linear, Conv2d, GroupNorm, BatchNorm, Positions, ClassToken)
"""Layers whose parameters have the channels of the output as their last axis."""


class Answer(NamedTuple):
    """To what a parameter answers.

    Attributes:
        loss: the number of the loss.
        axis: the axis of the parameter that falls into as many runs of neighbors as the loss has
            groups, each of which answers to the replicas of its group; None where the whole
            parameter answers to the whole loss.
    """

    loss: int
    axis: int | None


@dataclass(frozen=True)
class Answers:
    """To what all parameters answer.

    The derivatives of a pass stand in a row: those of the first loss, one for each of its groups,
    then those of the second, and so on.

    Attributes:
        groups: of each loss.
        of: the answer of each parameter, by its path; None where all answer to a single loss.
    """

    groups: tuple[int, ...] = (1,)
    of: Mapping[str, Answer] | None = None

    def at(self, path: str) -> Answer:
        """Return the answer of the parameter at a path."""
        return self.of[path] if self.of is not None else Answer(0, None)

    def by_loss(self, d: Array) -> list[Array]:
        """Cut derivatives `(k, derivatives, ...)` into those of each loss, `(k, groups, ...)`."""
        return [d[:, a:b] for a, b in pairwise(accumulate(self.groups, initial=0))]


def answers_of_each(
    network: Layer,
    params: Tree,
    segments: Mapping[str, int],
    heads: Mapping[str, LocalHead],
    independence: Mapping[str, Independence] | None,
) -> Answers:
    """Return the answers of all parameters under a greedy rule.

    Args:
        network: all layers.
        params: its parameters; only their shapes count.
        segments: the number of the loss of each parameter, by its path.
        heads: the local heads in order, by their paths.
        independence: of each layer's output, by the layer's path; None for one loss at every head.
    """
    groups = [1 if independence is None else head.groups for head in heads.values()]
    layers = dict(walk(network, containers=True))

    def axis(path: str, parameter: Array) -> int | None:
        above, _, name = path.rpartition("/")
        if independence is None or above not in independence:
            return None
        here = independence[above]
        if here.groups == 1 or here.swapped:
            return None
        return _axis_of_channels(layers[above], name, parameter, here.groups)

    of = {
        path: Answer(segments[path], axis(path, parameter))
        for path, parameter in tree.items(params)
    }
    return Answers((*groups, 1), of)


def _axis_of_channels(layer: Layer, name: str, parameter: Array, groups: int) -> int | None:
    """Return the axis of a parameter along which its parts for groups of output channels lie.

    Return None for layers unknown here, and for maps whose own groups are not cut by these.
    """
    if type(layer) is GroupedLinear and name == "w":
        axis = -1 if layer.groups == 1 else 0 if layer.groups % groups == 0 else None
    elif type(layer) in (GroupedLinear, *_CHANNELS_LAST):
        axis = -1
    else:
        axis = -1 if type(layer) is LayerNorm and -1 in layer.axes else None
    return axis if axis is not None and parameter.shape[axis] % groups == 0 else None
