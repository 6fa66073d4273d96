"""Learning rates of their own for local heads and for the last layer of a network."""

from __future__ import annotations

from dualnet import tree
from dualnet.errors import UsageError
from dualnet.nn import Layer, LocalHead, Sequential, walk
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
        output_lr: factor for the last layer, which makes the outputs.

    Returns:
        A tree of numbers like the parameters; None if all factors are 1.

    Raises:
        UsageError: the network has no last layer with parameters, and `output_lr` is not 1.
    """
    if head_lr == output_lr == 1.0:
        return None
    layers = walk(network, containers=True)
    heads = tuple(f"{path}/" for path, layer in layers if isinstance(layer, LocalHead))
    outputs = f"{_last_layer(network, params)}/" if output_lr != 1.0 else None

    def factor(path: str) -> float:
        if path.startswith(heads):
            return head_lr
        return output_lr if outputs is not None and path.startswith(outputs) else 1.0

    return tree.unflatten(params, [factor(path) for path, _ in tree.items(params)])


def _last_layer(network: Layer, params: Tree) -> str:
    """Return the path of the layer that makes the outputs."""
    if isinstance(network, Sequential):
        name, layer = network.layers[-1]
        if tree.leaves(params[name]) and not layer.layers:
            return name
    raise UsageError(
        "--output-lr: the network must be a Sequential that ends in a layer with parameters"
    )
