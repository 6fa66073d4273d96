"""Optimizers: how gradients change parameters.

Every optimizer is a frozen dataclass of hyperparameters with two pure functions, `init` and
`update`.  Each family writes its rule out in full for one array (`update_leaf`); the base class
`Optimizer` lifts that rule to a tree.  What an optimizer remembers between updates is a dict that
the caller holds: for every entry of `state_names` a tree like the parameters, and beside them the
count of updates, `step`.  The dict holds nothing but arrays.

In the formulas p is a parameter, g its gradient, lr the learning rate, wd the weight decay
and t the number of the update, from 1.  The learning rate is an argument of `update` and no
hyperparameter, because a schedule (`dualnet.schedules`) changes it between updates.
"""

from __future__ import annotations

from dualnet.optim.adam import Adam, AdamW
from dualnet.optim.clipping import clip_to_norm
from dualnet.optim.descent import SGD, Momentum, Nesterov
from dualnet.optim.lars import LARS
from dualnet.optim.optimizer import Optimizer

__all__ = [
    "LARS",
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "AdamW",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "clip_to_norm",
]

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adam": Adam,
    "adamw": AdamW,
    "lars": LARS,
}
"""The families by the name that the command line gives them; all can be made by default."""
