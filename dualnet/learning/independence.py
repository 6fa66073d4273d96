"""How far the parts of an activity stay independent, on their way to the next loss.

A forward gradient multiplies every direction by a scalar.  The fewer directions share a scalar,
the less noise: a part of an activity that can reach only some examples, tokens or groups of
channels of the features under a loss may answer to these parts' derivatives alone.  The network
itself says which: layers declare what they keep independent, and a walk from each loss backward
through the containers collects it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from dualnet.backends.overridable import overridable
from dualnet.backends.processes import ALONE, Processes
from dualnet.learning.task import Task
from dualnet.nn.blocks import Residual, TokenMixing
from dualnet.nn.heads import LocalHead
from dualnet.nn.network import Layer, Sequential, couples_examples
from dualnet.types import Array, Stack


@dataclass(frozen=True)
class Independence:
    """Which parts of an activity stay independent up to the next loss.

    Attributes:
        examples: an example moves no other's loss.
        tokens: a token reaches its own position of the features alone.
        groups: how many runs of channels reach their own part of the features alone.
        swapped: the activity is `(n, C, P)`, inside a `TokenMixing`.
    """

    examples: bool = True
    tokens: bool = False
    groups: int = 1
    swapped: bool = False

    def on_both_ways(self, other: Independence) -> Independence:
        """Return what stays independent on two ways at once."""
        return replace(
            self,
            examples=self.examples and other.examples,
            tokens=self.tokens and other.tokens,
            groups=self.groups if self.groups == other.groups else 1,
        )


def independence_of_each(
    task: Task, greedy: bool, through_norms: bool = False, groups_through_norms: bool = False
) -> Mapping[str, Independence]:
    """Return for the path of every layer the independence of its output's parts.

    It holds up to the next local head under a greedy rule, else up to the network's outputs.

    Args:
        task: the network and its loss.
        greedy: whether local heads close segments.
        through_norms: whether layers that couple examples, as batch norm does, are taken for layers
            that keep them independent.
        groups_through_norms: whether norms that couple groups of channels are taken for norms that
            keep them independent.
    """
    found: dict[str, Independence] = {}
    at_loss = Independence(examples=not task.declared_loss.couples_examples)

    def before(layer: Layer, path: str, after: Independence) -> Independence:
        """Note what is inside a layer, from its end to its start; return that of its input."""
        found[path] = after
        children = [(f"{path}/{name}" if path else name, child) for name, child in layer.layers]
        if isinstance(layer, LocalHead):
            averages = layer.reads == "average"  # every token has a replica of the loss
            at_head = replace(at_loss, tokens=averages, groups=layer.groups)
            # inside a TokenMixing, the head's features have the axes of what it gets there
            return at_head if greedy else after
        if isinstance(layer, Sequential):
            for below, child in reversed(children):
                after = before(child, below, after)
            return after
        if isinstance(layer, Residual):
            ways = [before(child, below, after) for below, child in children]
            return ways[0].on_both_ways(ways[1] if len(ways) == 2 else after)
        if isinstance(layer, TokenMixing):
            ((below, child),) = children
            inner = before(child, below, replace(after, swapped=not after.swapped))
            return replace(inner, swapped=not inner.swapped)
        passed = _before_one_layer(layer, after, through_norms)
        if groups_through_norms and layer.normalizes:
            passed = replace(passed, groups=after.groups)
        for below, child in children:  # of a container unknown here: nothing is sure
            before(child, below, replace(passed, tokens=False, groups=1))
        return passed

    before(task.network, "", at_loss)
    return found


def _before_one_layer(layer: Layer, after: Independence, through_norms: bool) -> Independence:
    """Return the independence before a layer that has no children, or unknown ones."""
    examples = after.examples and (through_norms or not couples_examples(layer))
    row_groups = layer.row_groups
    if row_groups is None:
        return replace(after, examples=examples, tokens=False, groups=1)
    if after.swapped:  # the last axis is that of tokens
        return replace(after, examples=examples, tokens=after.tokens and row_groups == 0)
    groups = after.groups if row_groups % after.groups == 0 else 1
    return replace(after, examples=examples, groups=groups)


def weighted_sum(
    d: Array, u: Stack, independence: Independence, processes: Processes = ALONE
) -> Array:
    """Return Σ_i d_i u_i, every part of u times the derivative of what it can reach.

    Args:
        d: derivatives of all replicas of the loss, `(k, n, P, G)`; P and G are 1 where one loss is
            taken for all.
        u: directions of an activity, `(k, n, *S)`.
        independence: of the activity's parts.
        processes: that have the other examples, if these examples move their losses, too.

    Returns:
        `(n, *S)`.
    """
    if not independence.examples:
        d = np.broadcast_to(processes.add(np.sum(d, axis=1, keepdims=True)), d.shape)
    if independence.groups == 1:
        d = np.sum(d, axis=3, keepdims=True)
    if not independence.tokens:
        d = np.sum(d, axis=2, keepdims=True)
    shape, groups = u.shape[1:], independence.groups
    in_parts = d.shape[2:] != (1, 1)  # else one number serves all of an example
    swapped = in_parts and independence.swapped and (independence.tokens or groups > 1)
    if not in_parts:
        parts = np.reshape(u, (len(u), shape[0], 1, 1, prod(shape[1:])))
    elif swapped:
        n, channels, tokens = shape
        parts = np.reshape(u, (len(u), n, groups, channels // groups, tokens))
    else:
        n, *rows, channels = shape
        parts = np.reshape(u, (len(u), n, prod(rows), groups, channels // groups))
    return np.reshape(summed_by_part(d, parts, swapped), shape)


@overridable
def summed_by_part(d: Array, parts: Stack, swapped: bool) -> Array:
    """Return Σ_i d_i u_i for directions u that are cut into parts.

    Args:
        d: `(k, n, P or 1, G)`.
        parts: u, `(k, n, P, G, c)`, or `(k, n, G, c, P)` if swapped.

    Returns:
        As u without k.
    """
    if len(d) == 1:  # a product, in one pass over memory
        d = np.swapaxes(d[0], 1, 2)[:, :, None] if swapped else d[0][..., None]
        return d * parts[0]
    p, d = ("", d[:, :, 0]) if d.shape[2] == 1 else ("p", d)
    if swapped:
        return np.einsum(f"kn{p}g,kngcp->ngcp", d, parts)
    return np.einsum(f"kn{p}g,knpgc->npgc", d, parts)
