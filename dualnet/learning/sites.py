"""The places of a network that local rules look at: after which layers activities are read,
perturbed, or cut from what came before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dualnet import tree
from dualnet.errors import UsageError
from dualnet.nn.activations import Activation
from dualnet.nn.blocks import Residual
from dualnet.nn.heads import LocalHead
from dualnet.nn.network import Layer, Sequential
from dualnet.tree import Tree


@dataclass(frozen=True)
class Unit:
    """A layer with parameters, and the norms and the activation that follow it at once.

    Attributes:
        weights: path of the layer.
        before: path of the last norm, or of the layer: its output is the pre-activation.
        after: path of the activation, if there is one: its output is the activity.
        activation: what lies between, or None.
    """

    weights: str
    before: str
    after: str
    activation: Activation | None


def hidden_units(network: Layer, params: Tree) -> list[Unit]:
    """All units but the last, which makes the outputs and gets their true error.

    What belongs to local heads is no unit: a head's readout gets its own true error.
    """
    return list(_units(network, params))[:-1]


def _units(network: Layer, params: Tree) -> Iterator[Unit]:
    for chain in _chains(network, ""):
        i = 0
        while i < len(chain):
            weights = chain[i][0]
            i += 1
            if not tree.leaves(tree.subtree(params, weights)):
                continue
            while i < len(chain) and getattr(chain[i][1], "normalizes", False):
                i += 1
            before, after, activation = chain[i - 1][0], chain[i - 1][0], None
            if i < len(chain) and isinstance(following := chain[i][1], Activation):
                after, activation = chain[i][0], following
                i += 1
            yield Unit(weights, before, after, activation)


def _chains(layer: Layer, path: str) -> Iterator[list[tuple[str, Layer]]]:
    """Runs of layers that are no containers, each fed by its neighbor and nothing else."""
    children = getattr(layer, "layers", None)
    if isinstance(layer, LocalHead):
        return
    if children is None:
        yield [(path, layer)]
        return
    run: list[tuple[str, Layer]] = []
    for name, child in children:
        below = f"{path}/{name}" if path else name
        if isinstance(layer, Sequential) and not hasattr(child, "layers"):
            run.append((below, child))
        else:
            yield run
            run = []
            yield from _chains(child, below)
    yield run


def local_heads(layer: Layer, path: str = "") -> Iterator[tuple[str, LocalHead]]:
    """All local heads with their paths, in order."""
    if isinstance(layer, LocalHead):
        yield path, layer
        return
    for name, child in getattr(layer, "layers", ()):
        yield from local_heads(child, f"{path}/{name}" if path else name)


def cutting_heads(network: Layer) -> dict[str, LocalHead]:
    """All local heads by their paths, for a rule under which they cut the network.

    Raises:
        UsageError: one is on one of several ways through a `Residual`: what comes before would
            also move the losses that come after, on the other way.
    """
    heads = dict(local_heads(network))
    for path, layer in _containers(network, ""):
        if isinstance(layer, Residual):
            for head in heads:
                if head.startswith(f"{path}/" if path else ""):
                    raise UsageError(
                        f"greedy rules: local head {head} is on one of two ways through the "
                        f"Residual {path}; put it where a block ends"
                    )
    return heads


def _containers(layer: Layer, path: str) -> Iterator[tuple[str, Layer]]:
    for name, child in getattr(layer, "layers", ()):
        yield from _containers(child, f"{path}/{name}" if path else name)
    yield path, layer


def segment_of_each(network: Layer) -> dict[str, int]:
    """For the path of every layer, the local head it answers to: the next in order after its end,
    counted from 0; after the last head comes the output's own loss."""
    segments: dict[str, int] = {}
    heads = 0

    def visit(layer: Layer, path: str) -> None:
        nonlocal heads
        for name, child in getattr(layer, "layers", ()):
            visit(child, f"{path}/{name}" if path else name)
        segments[path] = heads
        if isinstance(layer, LocalHead):
            heads += 1

    visit(network, "")
    return segments
