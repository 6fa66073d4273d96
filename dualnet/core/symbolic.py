"""`Symbolic`: a tangent that records what is done to it; evaluated or transposed afterwards.

Reverse mode is this file: give the inputs of a function symbolic tangents, run the rules of
forward mode, and transpose the linear expression that they left behind.
Source: Radul et al. 2022, "You Only Linearize Once: Tangents Transpose to Gradients".
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from dualnet.core import refusals
from dualnet.core.dual import primal_of
from dualnet.core.linear import LinearMap, StructuredTangent, add, shape_of
from dualnet.types import Cotangent, Tangent


class Symbolic(StructuredTangent):
    """A linear expression in the inputs of a transform, recorded and not yet evaluated.

    A node is one of three things: an input (no map, no parents), the image of one parent under
    `linear_map(·, *params)`, or the sum of two parents (no map).  `probe` is a stack of *zero*
    directions, an array `(0, *S)`: to run a map on it costs nothing and tells the shape and dtype
    of the result, so that no map needs a separate rule for shapes.
    """

    _serial = itertools.count()

    def __init__(
        self,
        probe: Any,
        parents: tuple[Symbolic, ...] = (),
        linear_map: LinearMap | None = None,
        params: tuple = (),
    ):
        self.probe = probe
        self.parents = parents
        self.linear_map = linear_map
        self.params = params
        self.shape = probe.shape[1:]
        self.dtype = probe.dtype
        self.serial = next(Symbolic._serial)

    @classmethod
    def input(cls, primal: Any) -> Symbolic:
        """Make a fresh unknown with the shape and dtype of `primal`."""
        return cls(np.empty_like(primal_of(primal), shape=(0, *primal.shape)))

    def apply_map(self, linear_map: LinearMap, params: tuple) -> Symbolic:
        return Symbolic(linear_map.forward(self.probe, *params), (self,), linear_map, params)

    def add(self, other: Symbolic) -> Symbolic:
        if other.shape != self.shape:
            raise refusals.unequal_sum(self.shape, other.shape)
        return Symbolic(add(self.probe, other.probe), (self, other))


def push_all(
    outputs: Sequence[Symbolic | None], inputs: Sequence[Symbolic], tangents: Sequence[Tangent]
) -> list[Tangent | None]:
    """Push tangents of `inputs` forward through recorded expressions; None stands for zero.

    Returns:
        A stack for each output, None where no given tangent reaches it.
    """
    values = {n.serial: t for n, t in zip(inputs, tangents, strict=True) if t is not None}
    for node in _reachable(outputs):
        known = [values[p.serial] for p in node.parents if p.serial in values]
        if known and node.linear_map is not None:
            values[node.serial] = node.linear_map(known[0], *node.params)
        elif known:
            values[node.serial] = known[0] if len(known) == 1 else add(*known)
    return [node and values.get(node.serial) for node in outputs]


def transpose_all(
    outputs: Sequence[Symbolic | None], cotangents: Sequence[Cotangent], inputs: Sequence[Symbolic]
) -> list[Cotangent | None]:
    """Send cotangents `(k, *R)` of recorded expressions back to `inputs`: reverse mode.

    None stands for zero.

    Returns:
        One cotangent `(k, *S)` for each input, None where the outputs do not depend on it.
    """
    sums: dict[int, Cotangent] = {}
    for node, ct in zip(outputs, cotangents, strict=True):
        if node is not None and ct is not None:
            sums[node.serial] = add(sums[node.serial], ct) if node.serial in sums else ct
    for node in reversed(_reachable(outputs)):
        ct = sums.pop(node.serial, None) if node.parents else None
        if ct is None:
            continue
        if node.linear_map is not None:
            (parent,) = node.parents
            ct = node.linear_map.transpose(ct, parent.shape, *node.params)
            if shape_of(ct) != parent.shape:
                raise refusals.wrong_transpose(repr(node.linear_map), shape_of(ct), parent.shape)
        for parent in node.parents:
            sums[parent.serial] = add(sums[parent.serial], ct) if parent.serial in sums else ct
    return [sums.get(node.serial) for node in inputs]


def _reachable(outputs: Sequence[Symbolic | None]) -> list[Symbolic]:
    """List every node that the outputs depend on, parents first: serial numbers grow with time."""
    found: dict[int, Symbolic] = {}
    waiting = list(filter(None, outputs))
    while waiting:
        node = waiting.pop()
        if node.serial not in found:
            found[node.serial] = node
            waiting.extend(node.parents)
    return sorted(found.values(), key=attrgetter("serial"))
