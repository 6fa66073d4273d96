"""Gradient descent: plain, with momentum, with Nesterov's momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dualnet.optim.optimizer import Optimizer, add_decay, descended
from dualnet.types import Array


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent: p <- p - lr (g + wd p).

    Args:
        weight_decay: wd, weight of the L2 penalty wd/2 |p|^2 that is added to the objective.

    It has no state but the count of updates.

    Raises:
        UsageError: an option is out of its range.

    Source: Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating
    errors", equation 8.

    Examples:
        >>> optimizer, p = dn.optim.SGD(), np.array([1.0, 2.0])
        >>> p, _ = optimizer.update(np.array([0.5, -0.5]), optimizer.init(p), p, lr=0.1)
        >>> p.tolist()
        [0.95, 2.05]
    """

    weight_decay: float = 0.0

    def update_leaf(
        self, g: Array, s: dict[str, Array], p: Array, lr: float, step: int
    ) -> tuple[Array, dict[str, Array]]:
        return descended(p, lr, add_decay(g, self.weight_decay, p)), {}


@dataclass(frozen=True, kw_only=True)
class Momentum(Optimizer):
    """Gradient descent with momentum: v <- momentum v + g + wd p; p <- p - lr v.

    The learning rate scales the velocity v when v is applied, not when it is accumulated, so a
    change of rate takes full effect at once (as in PyTorch; the source accumulates lr g).

    Args:
        momentum: share of the velocity that is kept, at least 0 and below 1.
        weight_decay: wd, weight of the L2 penalty wd/2 |p|^2 that is added to the objective.

    State: `velocity`, v, of the shape and dtype of its parameter.

    Raises:
        UsageError: an option is out of its range.

    Source: Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating
    errors", equation 9.

    Examples:
        >>> optimizer, p, g = dn.optim.Momentum(momentum=0.9), np.array([0.0]), np.array([1.0])
        >>> state = optimizer.init(p)
        >>> for _ in range(3):  # the velocity grows: 1, 1.9, 2.71
        ...     p, state = optimizer.update(g, state, p, lr=0.1)
        ...     print(p.round(3).tolist(), state["velocity"].round(3).tolist())
        [-0.1] [1.0]
        [-0.29] [1.9]
        [-0.561] [2.71]
    """

    momentum: float = 0.9
    weight_decay: float = 0.0

    state_names: ClassVar[tuple[str, ...]] = ("velocity",)

    def update_leaf(
        self, g: Array, s: dict[str, Array], p: Array, lr: float, step: int
    ) -> tuple[Array, dict[str, Array]]:
        g = add_decay(g, self.weight_decay, p)
        velocity = self.momentum * s["velocity"] + g
        return descended(p, lr, velocity), {"velocity": velocity}


@dataclass(frozen=True, kw_only=True)
class Nesterov(Optimizer):
    """Nesterov momentum: v <- momentum v + g'; p <- p - lr (g' + momentum v); g' = g + wd p.

    The parameters held here are the looked-ahead ones, at which the source takes its gradient.
    So the gradient is taken at the parameters, as for every other optimizer.

    Args:
        momentum: share of the velocity that is kept, at least 0 and below 1.
        weight_decay: wd, weight of the L2 penalty wd/2 |p|^2 that is added to the objective.

    State: `velocity`, v, of the shape and dtype of its parameter.

    Raises:
        UsageError: an option is out of its range.

    Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep
    learning", equations 3 and 4, in the variables of Bengio et al. 2013, "Advances in
    optimizing recurrent networks", section 3.5.

    Examples:
        >>> optimizer, p = dn.optim.Nesterov(momentum=0.9), np.array([0.0])
        >>> p, state = optimizer.update(np.array([1.0]), optimizer.init(p), p, lr=0.1)
        >>> p.round(3).tolist(), state["velocity"].tolist()  # p moves by 0.1 (1 + 0.9 · 1)
        ([-0.19], [1.0])
    """

    momentum: float = 0.9
    weight_decay: float = 0.0

    state_names: ClassVar[tuple[str, ...]] = ("velocity",)

    def update_leaf(
        self, g: Array, s: dict[str, Array], p: Array, lr: float, step: int
    ) -> tuple[Array, dict[str, Array]]:
        g = add_decay(g, self.weight_decay, p)
        velocity = self.momentum * s["velocity"] + g
        return descended(p, lr, self.momentum * velocity + g), {"velocity": velocity}
