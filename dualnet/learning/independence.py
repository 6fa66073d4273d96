"""How far the parts of an activity go alone, on their way to the next loss.

A forward gradient multiplies every direction by a scalar.  The fewer directions share a scalar,
the less noise: a part of an activity that can reach only some examples, tokens or groups of
channels of the features under a loss may answer to these parts' derivatives alone.  Which can
be read off the network: layers say what they keep apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from dualnet.backends.overridable import overridable
from dualnet.learning.task import Task
from dualnet.nn.blocks import Residual, TokenMixing
from dualnet.nn.heads import LocalHead
from dualnet.nn.network import Layer, Sequential, couples_examples


@dataclass(frozen=True)
class Separation:
    """What an activity's parts keep to, up to the next loss.

    Attributes:
        examples: an example moves no other's loss.
        tokens: a token reaches its own place of the features alone.
        groups: so many runs of channels reach their own part of the features alone.
        swapped: the activity is `(n, C, P)`, inside a `TokenMixing`.
    """

    examples: bool = True
    tokens: bool = False
    groups: int = 1
    swapped: bool = False

    def both(self, other: Separation) -> Separation:
        """What is kept on two ways at once."""
        return replace(
            self,
            examples=self.examples and other.examples,
            tokens=self.tokens and other.tokens,
            groups=self.groups if self.groups == other.groups else 1,
        )


def separations(task: Task, greedy: bool) -> Mapping[str, Separation]:
    """For the path of every layer, what its output keeps to: up to the next local head under a
    greedy rule, else up to the network's outputs."""
    found: dict[str, Separation] = {}
    at_loss = Separation(examples=not getattr(task.loss, "couples_examples", False))

    def before(layer: Layer, path: str, after: Separation) -> Separation:
        """Note what is inside a layer, from its end to its start; what its input keeps to."""
        found[path] = after
        below = {name: f"{path}/{name}" if path else name for name, _ in _children(layer)}
        if isinstance(layer, LocalHead):
            at_head = replace(at_loss, tokens=True, groups=layer.groups)
            # inside a TokenMixing, the head's features have the axes of what it gets there
            return at_head if greedy else after
        if isinstance(layer, Sequential):
            for name, child in reversed(layer.layers):
                after = before(child, below[name], after)
            return after
        if isinstance(layer, Residual):
            ways = [before(child, below[name], after) for name, child in layer.layers]
            return ways[0].both(ways[1] if len(ways) == 2 else after)
        if isinstance(layer, TokenMixing):
            ((name, child),) = layer.layers
            inner = before(child, below[name], replace(after, swapped=not after.swapped))
            return replace(inner, swapped=not inner.swapped)
        passed = _through(layer, after)
        for name, child in _children(layer):  # of a container unknown here: nothing is sure
            before(child, below[name], replace(passed, tokens=False, groups=1))
        return passed

    before(task.network, "", at_loss)
    return found


def _children(layer: Layer) -> tuple[tuple[str, Layer], ...]:
    return getattr(layer, "layers", ())


def _through(layer: Layer, after: Separation) -> Separation:
    """What is kept before a layer that has no children, or unknown ones."""
    examples = after.examples and not couples_examples(layer)
    apart = getattr(layer, "apart", None)
    if apart is None:
        return replace(after, examples=examples, tokens=False, groups=1)
    if after.swapped:  # the last axis is that of tokens
        return replace(after, examples=examples, tokens=after.tokens and apart.groups == 0)
    groups = after.groups if apart.groups % after.groups == 0 else 1
    return replace(after, examples=examples, groups=groups)


def weighted_sum(d: Any, u: Any, kept: Separation) -> Any:
    """Σ_i d_i u_i, every part of u times the derivative of what it can reach.

    Args:
        d: derivatives of all replicas of the loss, `(k, n, P, G)`; P and G are 1 where one loss is
            taken for all.
        u: directions of an activity, `(k, n, *S)`.
        kept: by the activity.

    Returns:
        `(n, *S)`.
    """
    if not kept.examples:
        d = np.broadcast_to(np.sum(d, axis=1, keepdims=True), d.shape)
    if kept.groups == 1:
        d = np.sum(d, axis=3, keepdims=True)
    if not kept.tokens:
        d = np.sum(d, axis=2, keepdims=True)
    shape, groups = u.shape[1:], kept.groups
    swapped = kept.swapped and (kept.tokens or groups > 1)
    if swapped:
        n, channels, tokens = shape
        parts = np.reshape(u, (len(u), n, groups, channels // groups, tokens))
    else:
        n, *rows, channels = shape
        parts = np.reshape(u, (len(u), n, prod(rows), groups, channels // groups))
    return np.reshape(summed_by_part(d, parts, swapped), shape)


@overridable
def summed_by_part(d: Any, parts: Any, swapped: bool) -> Any:
    """Σ_i d_i u_i.

    Args:
        d: `(k, n, P or 1, G)`.
        parts: u, `(k, n, P, G, c)`, or `(k, n, G, c, P)` if swapped.

    Returns:
        As u without k.
    """
    p, d = ("", d[:, :, 0]) if d.shape[2] == 1 else ("p", d)
    if swapped:
        return np.einsum(f"kn{p}g,kngcp->ngcp", d, parts)
    return np.einsum(f"kn{p}g,knpgc->npgc", d, parts)
