"""Adam and AdamW: each entry of an array has a rate of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dualnet.backends.host import are_of_host
from dualnet.optim.optimizer import Optimizer, add_decay, square_root
from dualnet.types import Array


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam: p <- p - lr m' / (sqrt(v') + epsilon), with running means m of g and v of g^2.

    m <- beta1 m + (1 - beta1) g and v <- beta2 v + (1 - beta2) g^2.  Both are corrected for their
    start at zero by m' = m / (1 - beta1^t) and v' = v / (1 - beta2^t).  g includes wd p.

    Args:
        beta1: share of the first moment m that is kept, at least 0 and below 1.
        beta2: share of the second moment v that is kept, at least 0 and below 1.
        epsilon: bounds the step where gradients vanish, in the unit of the gradient; it must
            be representable in the dtype of the parameters (1e-8 is 0 in half precision).
        weight_decay: wd, weight of the L2 penalty wd/2 |p|^2 that is added to the objective.

    State: `first_moment`, m, and `second_moment`, v, each of the shape and dtype of its parameter.

    Raises:
        UsageError: an option is out of its range.

    Source: Kingma & Ba 2015, "Adam: a method for stochastic optimization", algorithm 1.

    Examples:
        >>> optimizer, p = dn.optim.Adam(), np.zeros(3)
        >>> g = np.array([1e-3, -1.0, 1e3])  # the first step is as long for every scale of gradient
        >>> p, state = optimizer.update(g, optimizer.init(p), p, lr=0.01)
        >>> p.round(6).tolist(), sorted(state)
        ([-0.01, 0.01, -0.01], ['first_moment', 'second_moment', 'step'])
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    state_names: ClassVar[tuple[str, ...]] = ("first_moment", "second_moment")

    def update_leaf(
        self, g: Array, s: dict[str, Array], p: Array, lr: float, step: int
    ) -> tuple[Array, dict[str, Array]]:
        g = add_decay(g, self.weight_decay, p)
        return update_by_moments(self, g, s, p, lr, step)


@dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled decay: p <- (1 - lr wd) p - lr m' / (sqrt(v') + epsilon).

    The running means m and v, and m' and v', are those of `Adam`, of g without any decay.

    Args:
        beta1: share of the first moment m that is kept, at least 0 and below 1.
        beta2: share of the second moment v that is kept, at least 0 and below 1.
        epsilon: bounds the step where gradients vanish, in the unit of the gradient; it must
            be representable in the dtype of the parameters (1e-8 is 0 in half precision).
        weight_decay: wd, the share of a parameter that is removed in one update of rate 1.
            It is scaled by the whole learning rate, as in PyTorch; the source scales it by
            the schedule's factor alone, so its weight decay is lr wd here.

    State: `first_moment`, m, and `second_moment`, v, each of the shape and dtype of its parameter.

    Raises:
        UsageError: an option is out of its range.

    Source: Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2.

    Examples:
        >>> optimizer, p = dn.optim.AdamW(weight_decay=0.5), np.array([2.0])
        >>> p, _ = optimizer.update(np.array([0.0]), optimizer.init(p), p, lr=0.1)
        >>> p.round(6).tolist()  # without a gradient the decay is left: 2 (1 - 0.1 · 0.5)
        [1.9]
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01

    state_names: ClassVar[tuple[str, ...]] = ("first_moment", "second_moment")

    def update_leaf(
        self, g: Array, s: dict[str, Array], p: Array, lr: float, step: int
    ) -> tuple[Array, dict[str, Array]]:
        return update_by_moments(self, g, s, (1.0 - lr * self.weight_decay) * p, lr, step)


def update_by_moments(
    how: Adam | AdamW, g: Array, s: dict[str, Array], p: Array, lr: float, step: int
) -> tuple[Array, dict[str, Array]]:
    """Return p - lr m' / (sqrt(v') + epsilon), and the state with the new m and v.

    Args:
        how: has beta1, beta2 and epsilon.
        g, s, p, lr, step: as in `Optimizer.update_leaf`; g and p are taken as they are.
    """
    m, v = s["first_moment"], s["second_moment"]
    # m' / (sqrt(v') + epsilon) is multiplied through by c = sqrt(1 - beta2^t), so that both
    # corrections are plain numbers and cost no pass over the arrays.
    c = square_root(1.0 - how.beta2**step)
    rate, epsilon = lr * c / (1.0 - how.beta1**step), c * how.epsilon
    if are_of_host(g, m, v, p) and p.ndim:
        new_p, m, v = _in_three_arrays(how, g, m, v, p, rate, epsilon)
    else:
        m = how.beta1 * m + (1.0 - how.beta1) * g
        v = how.beta2 * v + (1.0 - how.beta2) * (g * g)
        new_p = p - rate * (m / (np.sqrt(v) + epsilon))
    return new_p, {"first_moment": m, "second_moment": v}


def _in_three_arrays(
    how: Adam | AdamW, g: Array, m: Array, v: Array, p: Array, rate: float, epsilon: float
) -> tuple[Array, Array, Array]:
    """Return the new p, m and v, bit for bit those of the formulas, for NumPy arrays of one dtype.

    No other memory is new: its pages can take longer than the arithmetic.
    """
    new_p = np.multiply(g, 1.0 - how.beta1, out=np.empty_like(p))  # laid out as p
    m = how.beta1 * m
    m += new_p
    np.multiply(g, g, out=new_p)
    new_p *= 1.0 - how.beta2
    v = how.beta2 * v
    v += new_p
    np.sqrt(v, out=new_p)
    new_p += epsilon
    np.divide(m, new_p, out=new_p)
    new_p *= rate
    np.subtract(p, new_p, out=new_p)
    return new_p, m, v
