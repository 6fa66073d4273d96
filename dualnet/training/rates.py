"""Learning rates of their own for local heads and for the read-out of a network."""

from __future__ import annotations

from dualnet import tree
from dualnet.errors import UsageError
from dualnet.learning.sites import output_parameters, readout_parameters
from dualnet.naming import named
from dualnet.nn import Layer
from dualnet.tree import Tree


def rate_factors(
    network: Layer, params: Tree, head_lr: float = 1.0, output_lr: float = 1.0
) -> Tree | None:
    """Return what the learning rate of each parameter is multiplied by.

    It is the rate that is scaled and not the gradient, so that it means the same to an optimizer
    that divides by the size of gradients, such as Adam or LARS.

    Args:
        network, params: whose parameters.
        head_lr: factor for what belongs to local heads.
        output_lr: factor for the read-out: the last layer with parameters, and norms behind it.

    Returns:
        A tree of numbers like the parameters; None if all factors are 1.

    Raises:
        UsageError: no layer has parameters, and `output_lr` is not 1.
    """
    if head_lr == output_lr == 1.0:
        return None
    readout = frozenset(readout_parameters(network, params))
    if not readout and output_lr != 1.0:
        raise UsageError(f"{named('output_lr')}: no layer of the network has parameters")
    heads = frozenset(output_parameters(network, params)) - readout

    def factor(path: str) -> float:
        return head_lr if path in heads else output_lr if path in readout else 1.0

    return tree.unflatten(params, [factor(path) for path, _ in tree.items(params)])
