"""What the norms of a LocalMixer do.

Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 4 and the ablation of
normalization: every linear layer of a block stands between two layer norms, and those of groups are
over one group.  Here some of them are left out or made otherwise, in a small mixer that sees 5,000
images of CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dualnet.nn import Activation, BatchNorm, Layer, LayerNorm, Residual, Sequential, TokenMixing
from experiments import ren_sites
from experiments.experiment import Experiment, Form, Settings
from experiments.ren_groups import RULES
from experiments.steps import Images

Change = Callable[[str, Layer], Layer | None]
"""`change(place, norm)`: what stands for a norm `before` or `after` a linear layer; None for
nothing."""


def left_out(place: str) -> Change:
    """Return the change that leaves out all norms at a place."""
    return lambda where, norm: None if where == place else norm


VARIANTS: dict[str, Change] = {
    "before and after": lambda where, norm: norm,
    "before alone": left_out("after"),
    "after alone": left_out("before"),
    "none": lambda where, norm: None,
    "over all channels, not groups": lambda where, norm: (
        replace(norm, groups=1) if isinstance(norm, LayerNorm) else norm
    ),
    "batch norm": lambda where, norm: BatchNorm(),
}


def with_norms(layer: Layer, change: Change) -> Layer:
    """Return a network in which the norms within its blocks are changed."""
    if isinstance(layer, (Residual, TokenMixing)):
        children = [(name, with_norms(child, change)) for name, child in layer.layers]
        return replace(layer, layers=tuple(children))
    if not isinstance(layer, Sequential):
        return layer
    layers: list[tuple[str, Layer]] = []
    for i, (name, child) in enumerate(layer.layers):
        if not child.normalizes:
            layers.append((name, with_norms(child, change)))
            continue
        # A norm that begins a chain or follows an activation stands before the next linear layer.
        before = i == 0 or isinstance(layer.layers[i - 1][1], Activation)
        changed = change("before" if before else "after", child)
        if changed is not None:
            layers.append((name, changed))
    return Sequential(tuple(layers))


def changed_blocks(network: Layer, change: Change) -> Sequential:
    """Return a LocalMixer with the norms of its blocks changed; those before its output stay."""
    assert isinstance(network, Sequential)
    layers = [
        (name, with_norms(layer, change) if name.startswith("block") else layer)
        for name, layer in network.layers
    ]
    return Sequential(tuple(layers))


def settings(form: Form) -> list[Settings]:
    """Return the rows: a rule, and which norms there are."""
    norms = ("before and after", "batch norm") if form.quick else tuple(VARIANTS)
    return [
        {"rule": rule, "norms": norm, "groups": 4, **ren_sites.sizes(form)}
        for rule in RULES
        for norm in norms
    ]


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Return what a row's rule learns, and the variance that it adds."""
    (seed,) = form.seeds
    images, rule = Images(row["dataset"], form, row["images"]), RULES[row["rule"]]
    network = changed_blocks(ren_sites.mixer(row, images, rule), VARIANTS[row["norms"]])
    return ren_sites.learned(images, rule, network, row, seed)


def table(rows: list[dict]) -> str:
    """Return variance, loss and accuracy by rule and norms."""
    return "\n".join(ren_sites.lines_of(rows, {"rule": "rule", "norms": "norms in blocks"}))


def picture(rows: list[dict]) -> Any:
    """Draw accuracies by norms and rule."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.subplots()
    norms = list(dict.fromkeys(row["settings"]["norms"] for row in rows))
    for i, rule in enumerate(RULES):
        found = {r["settings"]["norms"]: r for r in rows if r["settings"]["rule"] == rule}
        percents = [100 * found[n]["results"]["test_accuracy"] if n in found else 0 for n in norms]
        axes.barh([y + 0.4 * i for y in range(len(norms))], percents, 0.4, label=rule)
    axes.set_yticks([y + 0.2 for y in range(len(norms))], norms)
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy, %")
    axes.legend()
    return figure


EXPERIMENT = Experiment(
    name="ren-norms",
    shows="variance, loss and accuracy of LocalMixers by the norms in their blocks",
    source="Ren et al. 2023, ablation of normalization",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
)
