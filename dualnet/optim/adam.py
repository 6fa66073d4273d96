"""Adam and AdamW: each entry of an array has a rate of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

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

    Source: Kingma & Ba 2015, "Adam: a method for stochastic optimization", algorithm 1.
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
        m = self.beta1 * s["first_moment"] + (1.0 - self.beta1) * g
        v = self.beta2 * s["second_moment"] + (1.0 - self.beta2) * (g * g)
        # m' / (sqrt(v') + epsilon) is multiplied through by c = sqrt(1 - beta2^t), so that both
        # corrections are plain numbers and cost no pass over the arrays.
        c = square_root(1.0 - self.beta2**step)
        rate = lr * c / (1.0 - self.beta1**step)
        new_p = p - rate * (m / (np.sqrt(v) + c * self.epsilon))
        return new_p, {"first_moment": m, "second_moment": v}


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

    Source: Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01

    state_names: ClassVar[tuple[str, ...]] = ("first_moment", "second_moment")

    def update_leaf(
        self, g: Array, s: dict[str, Array], p: Array, lr: float, step: int
    ) -> tuple[Array, dict[str, Array]]:
        m = self.beta1 * s["first_moment"] + (1.0 - self.beta1) * g
        v = self.beta2 * s["second_moment"] + (1.0 - self.beta2) * (g * g)
        # The corrections of m and v are plain numbers here, as in `Adam`.
        c = square_root(1.0 - self.beta2**step)
        rate = lr * c / (1.0 - self.beta1**step)
        kept = (1.0 - lr * self.weight_decay) * p
        new_p = kept - rate * (m / (np.sqrt(v) + c * self.epsilon))
        return new_p, {"first_moment": m, "second_moment": v}
