"""LARS: each array has a rate of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dualnet.optim.optimizer import Optimizer, add_decay, descended
from dualnet.types import Array


@dataclass(frozen=True, kw_only=True)
class LARS(Optimizer):
    """Momentum with a rate for each array: v <- momentum v + r (g + wd p); p <- p - lr v.

    r = trust |p| / (|g| + wd |p|), so that without momentum an update moves an array by at most
    the share lr trust of its length, whatever the scale of its gradient.  r is 1 where |p| or |g|
    is 0, because weights that start at zero could never leave it otherwise.  Arrays of fewer than
    two axes (biases, gains of norms) have r = 1 and no weight decay, as is usual.
    The learning rate scales the velocity when the velocity is applied, as in `Momentum`; the
    source accumulates lr r (g + wd p).

    Args:
        momentum: share of the velocity that is kept, at least 0 and below 1.
        trust: how far an array may move in one update of rate 1, as a share of its length.
        weight_decay: wd, weight of the L2 penalty wd/2 |p|^2 that is added to the objective.

    State: `velocity`, v, of the shape and dtype of its parameter.

    Raises:
        UsageError: an option is out of its range.

    Source: You, Gitman & Ginsburg 2017, "Large batch training of convolutional networks",
    algorithm 1, which has neither exception.

    Examples:
        >>> optimizer, p = dn.optim.LARS(trust=0.1), np.array([[3.0, 4.0]])
        >>> for scale in (1e-3, 1e3):  # |p| is 5, and p moves by 0.1 · 5, whatever the scale
        ...     moved, _ = optimizer.update(scale * p, optimizer.init(p), p, lr=1.0)
        ...     print(moved.round(6).tolist())
        [[2.7, 3.6]]
        [[2.7, 3.6]]
    """

    momentum: float = 0.9
    trust: float = 0.001
    weight_decay: float = 0.0

    state_names: ClassVar[tuple[str, ...]] = ("velocity",)

    def update_leaf(
        self, g: Array, s: dict[str, Array], p: Array, lr: float, step: int
    ) -> tuple[Array, dict[str, Array]]:
        if len(p.shape) >= 2:
            g = self.scale_gradient(g, p)
        velocity = self.momentum * s["velocity"] + g
        return descended(p, lr, velocity), {"velocity": velocity}

    def scale_gradient(self, g: Array, p: Array) -> Array:
        """Return r (g + wd p) for an array p of two or more axes and its gradient g."""
        p_length, g_length = np.linalg.norm(p), np.linalg.norm(g)
        known = (p_length > 0.0) & (g_length > 0.0)
        # Both sides of the fraction become 1 where r is 1, so that nothing is divided by 0.
        numerator = np.where(known, self.trust * p_length, 1.0)
        denominator = np.where(known, g_length + self.weight_decay * p_length, 1.0)
        return add_decay(g, self.weight_decay, p) * (numerator / denominator)
