"""`Shown`: a tangent that holds its numbers, and also records how they came about.

The engine never asks what a tangent is made of.  So the tour needs no engine of its own: it puts a
tangent of this kind into `jvp`, and looks at what came of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.core.linear import LinearMap, add
from dualnet.core.symbolic import Symbolic
from dualnet.types import Array, Cotangent, Shape, Stack


class Seen(LinearMap):
    """A linear map that keeps what its transpose was given, and what that returned.

    Attributes:
        itself: the map.
        arrived, sent: cotangents `(1, *R)` and `(1, *S)`; None before the record is transposed.
    """

    def __init__(self, linear_map: LinearMap):
        super().__init__(linear_map.forward)
        self.itself = linear_map
        self.arrived: Cotangent = None
        self.sent: Cotangent = None

    def transpose(self, ct: Cotangent, shape: Shape, *params: Any) -> Cotangent:
        """Do what the transpose of the map does."""
        self.arrived = ct
        self.sent = self.itself.transpose(ct, shape, *params)
        return self.sent


@LinearMap
def same(t: Stack) -> Stack:
    """Return t."""
    return t


same.transposed(lambda ct, _shape: ct)


class Shown(Symbolic):
    """One direction, and the record of the maps that it went through.

    A `Symbolic` runs each map on a stack of no directions, to learn the shape of the result.  This
    one runs it on one direction, so its `probe` is the tangent itself.
    """

    k = 1
    parents: tuple[Shown, ...]
    linear_map: Seen | None

    @classmethod
    def along(cls, direction: Array) -> Shown:
        """Make the tangent of an input that moves in this direction."""
        return cls(np.asarray(direction)[None])

    def apply_map(self, linear_map: LinearMap, params: tuple) -> Shown:
        return Shown(linear_map.forward(self.probe, *params), (self,), Seen(linear_map), params)

    def add(self, other: Symbolic) -> Shown:
        total = Shown(add(self.probe, other.probe), (self, other))
        return total.apply_map(same, ())  # whose transpose sees what arrives at the sum

    def dense(self) -> Stack:
        """Return the tangent, `(1, *S)`."""
        return self.probe
