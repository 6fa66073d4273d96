"""The sites of a network: after which layers its activities are read, perturbed or cut, and
which loss each layer answers to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dualnet import tree
from dualnet.errors import UsageError
from dualnet.nn.activations import Activation
from dualnet.nn.blocks import Residual
from dualnet.nn.heads import LocalHead
from dualnet.nn.network import Layer, Sequential, walk
from dualnet.tree import Tree

Sites = Mapping[str, Activation | None]
"""Path of a site → the activation that follows it, whose slope a rule asks for; None if none."""
OUTPUT_LAYERS = ("exact", "perturbed")
"""How the layers that make outputs may get their gradient."""


@dataclass(frozen=True)
class Unit:
    """A layer with parameters, and the norms and the activation that directly follow it.

    Where the layer ends a way through a `Residual`, the activation may follow the sum.  Then the
    sum is the pre-activation, and the last layers of both ways belong to one.

    Attributes:
        weights: path of the layer.
        before: path of the layer, of the last norm, or of the `Residual`: its output is the
            pre-activation.
        after: path of the activation, if there is one: its output is the activity.
        activation: what lies between, or None.
    """

    weights: str
    before: str
    after: str
    activation: Activation | None


def hidden_units(network: Layer, params: Tree) -> list[Unit]:
    """List all units but the last, which makes the outputs and gets their true error.

    What belongs to local heads is no unit: a head's read-out gets its own true error.
    """
    return list(_units(network, params))[:-1]


def output_site(network: Layer, params: Tree) -> str | None:
    """Return the path of the site behind the last unit; None if no layer has parameters."""
    units = list(_units(network, params))
    return units[-1].after if units else None


def _units(network: Layer, params: Tree) -> Iterator[Unit]:
    every = dict(walk(network, containers=True))
    for chain in _chains(every):
        i = 0
        while i < len(chain):
            weights = chain[i][0]
            i += 1
            if not tree.leaves(tree.subtree(params, weights)):
                continue
            while i < len(chain) and chain[i][1].normalizes:
                i += 1
            before, after, activation = chain[i - 1][0], chain[i - 1][0], None
            if i < len(chain) and isinstance(following := chain[i][1], Activation):
                after, activation = chain[i][0], following
                i += 1
            elif i == len(chain):
                before, after, activation = _behind_a_sum(every, before)
            yield Unit(weights, before, after, activation)


def _behind_a_sum(every: Mapping[str, Layer], path: str) -> tuple[str, str, Activation | None]:
    """Return the paths of the residual sum that a layer's output enters, and of the activation that
    follows it, and that activation; where there is no such sum, the layer's own path and None.

    Args:
        every: all layers by their paths.
        path: of a layer that ends a chain.
    """
    alone = path, path, None
    summed, inner = "", path
    while inner:
        above, _, name = inner.rpartition("/")
        parent = every[above]
        if isinstance(parent, Residual):
            summed = above
        elif not isinstance(parent, Sequential):
            return alone
        elif name != parent.layers[-1][0]:
            place = [child for child, _ in parent.layers].index(name)
            following, activation = parent.layers[place + 1]
            if not summed or not isinstance(activation, Activation):
                return alone
            return summed, f"{above}/{following}" if above else following, activation
        inner = above
    return alone


def _chains(every: Mapping[str, Layer]) -> Iterator[list[tuple[str, Layer]]]:
    """Yield runs of layers without children, each fed by its neighbor and nothing else."""
    run: list[tuple[str, Layer]] = []
    for path, layer in every.items():
        above = path.rpartition("/")[0]
        parent = every[above]
        follows = isinstance(parent, Sequential) and run and run[-1][0].rpartition("/")[0] == above
        if layer.layers or not follows:
            yield run
            run = []
        if not layer.layers and not isinstance(parent, LocalHead):
            run.append((path, layer))
    yield run


def output_parameters(network: Layer, params: Tree) -> list[str]:
    """Return the paths of the parameters of the layers that make outputs: local heads and the
    read-out."""
    within = _inside_heads(network)
    of_heads = [path for path, _ in tree.items(params) if path.startswith(within)]
    return [*of_heads, *readout_parameters(network, params)]


def readout_parameters(network: Layer, params: Tree) -> list[str]:
    """Return the paths of the parameters of the read-out, which makes the network's outputs.

    It is the last layer with parameters outside local heads, and the norms that follow it.
    """
    within = _inside_heads(network)
    weighted = [
        (path, layer)
        for path, layer in walk(network)
        if not path.startswith(within) and tree.leaves(tree.subtree(params, path))
    ]
    last = max((i for i, (_, layer) in enumerate(weighted) if not layer.normalizes), default=-1)
    return [
        of_parameter
        for path, _ in weighted[last:]
        for of_parameter, _ in tree.items(tree.subtree(params, path), path)
    ]


def _inside_heads(network: Layer) -> tuple[str, ...]:
    """Return what the paths of the layers and parameters of local heads begin with."""
    return tuple(f"{head}/" if head else "" for head in local_heads(network))


def local_heads(network: Layer) -> dict[str, LocalHead]:
    """Return all local heads by their paths, in order."""
    layers = walk(network, containers=True)
    return {path: layer for path, layer in layers if isinstance(layer, LocalHead)}


def cutting_heads(network: Layer) -> dict[str, LocalHead]:
    """Return all local heads by their paths, for a rule under which they cut the network.

    Raises:
        UsageError: one is on one of several ways through a `Residual`: what comes before would
            also move the losses that come after, on the other way.
    """
    heads = local_heads(network)
    for path, layer in walk(network, containers=True):
        if isinstance(layer, Residual):
            for head in heads:
                if head.startswith(f"{path}/" if path else ""):
                    raise UsageError(
                        f"greedy rules: local head {head} is on one of two ways through the "
                        f"Residual {path}; put it where a block ends"
                    )
    return heads


def segment_of_each(network: Layer) -> dict[str, int]:
    """Return for the path of every layer the number of the loss that it answers to.

    That is the loss of the next local head after the layer's end, counted from 0; after the last
    head comes the output's own loss.
    """
    segments: dict[str, int] = {}
    heads = 0
    for path, layer in walk(network, containers=True):
        segments[path] = heads
        heads += isinstance(layer, LocalHead)
    return segments


def segment_of_each_parameter(network: Layer, params: Tree) -> dict[str, int]:
    """Return for the path of every parameter the number of the loss that it answers to."""
    of_layers = segment_of_each(network)

    def of_parameter(path: str) -> int:
        while path not in of_layers:
            path = path.rpartition("/")[0]
        return of_layers[path]

    return {path: of_parameter(path) for path, _ in tree.items(params)}
