"""What local heads read, how they start, and whether a norm comes before them.

Sources: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", and its published code:
heads read averages over tokens behind a layer norm, and only the output starts at 0.  Bacho and
Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and Momentum", appendix A:
local outputs are linear maps of a whole layer.  Here heads are made in these ways and others, in a
small LocalMixer on images of CIFAR-10, and on MNIST in the network of convolutions of the second
paper's code.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dualnet as dn
from dualnet import tree
from dualnet.learning import GreedyActivityPerturbation
from dualnet.models.cnn import CNN
from dualnet.nn import Layer, LocalHead, Sequential, with_local_heads
from experiments import ren_sites
from experiments.experiment import Experiment, Form, Settings
from experiments.steps import Images

OF_MIXER: dict[str, dict[str, bool]] = {
    "as published": {},
    "heads start at 0": {},
    "no norm before heads": {"head_norm": False},
    "no norm before heads and output": {"head_norm": False, "output_norm": False},
}
"""Heads of the LocalMixer → its options."""

OF_CNN: dict[str, tuple[str, str]] = {
    "all of a layer": ("all", "replicated"),
    "the average over pixels, a loss for each": ("average", "replicated"),
    "the average over pixels, one loss": ("average", "one"),
}
"""Heads of the network of convolutions → what they read, and the losses of `lg-fg-a`."""


def settings(form: Form) -> list[Settings]:
    """Return the rows: a network, and its heads."""
    few = form.quick
    images = 64 if few else 5000
    plan = "4C3-4C3-8" if few else "15C5-40C5-P2-128"
    sizes = ren_sites.QUICK if few else ren_sites.FULL
    cnn = {"dataset": "digits" if few else "mnist", "images": images, "plan": plan, **sizes}
    return [
        *(
            {"network": "LocalMixer", "heads": heads, "groups": 4, **ren_sites.sizes(form)}
            for heads in OF_MIXER
        ),
        *({"network": "CNN", "heads": heads, **cnn} for heads in OF_CNN),
    ]


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Return what a row's network learns, the variance that its rule adds, and its parameters."""
    (seed,) = form.seeds
    images = Images(row["dataset"], form, row["images"])
    if row["network"] == "LocalMixer":
        rule = GreedyActivityPerturbation(sampler="normal")
        network = ren_sites.mixer(row, images, rule, **OF_MIXER[row["heads"]])
        if row["heads"] == "heads start at 0":
            network = from_zero(network)
    else:
        reads, losses = OF_CNN[row["heads"]]
        rule = GreedyActivityPerturbation(
            sampler="normal", perturb="after", batch_loss="own", losses=losses
        )
        network = with_heads(row, images, reads)
    params, _, _ = network.init(dn.Key(0), images.in_shape)
    found = ren_sites.learned(images, rule, network, row, seed)
    return {"parameters": tree.size(params), **found}


def from_zero(network: Sequential) -> Sequential:
    """Return a LocalMixer whose heads start at 0."""
    layers = [
        (name, replace(layer, weights="zeros") if isinstance(layer, LocalHead) else layer)
        for name, layer in network.layers
    ]
    return Sequential(tuple(layers))


def with_heads(row: Settings, images: Images, reads: str) -> Layer:
    """Return the network of convolutions of a row, with local heads that read so."""
    network = CNN(row["plan"], batch_norm=True).network(images.in_shape, 10)
    params, _, _ = network.init(dn.Key(0), images.in_shape)
    return with_local_heads(network, params, 10, reads=reads)


def table(rows: list[dict]) -> str:
    """Return parameters, variance, loss and accuracy by network and heads."""
    counted = [
        {**row, "settings": {**row["settings"], "parameters": f"{row['results']['parameters']:,}"}}
        for row in rows
    ]
    names = {"network": "network", "heads": "heads", "parameters": "parameters"}
    return "\n".join(ren_sites.lines_of(counted, names))


def picture(rows: list[dict]) -> Any:
    """Draw the variance of each network's rule by its heads."""
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(row["settings"]["network"] for row in rows))
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, network in zip(figure.subplots(1, len(networks)), networks, strict=True):
        of_network = [row for row in rows if row["settings"]["network"] == network]
        names = [row["settings"]["heads"].replace(", ", ",\n") for row in of_network]
        axes.barh(names, [row["results"]["added"] for row in of_network])
        axes.invert_yaxis()
        axes.set(title=network, xlabel="added variance / mean |gradient|²")
    return figure


EXPERIMENT = Experiment(
    name="heads",
    shows="variance and accuracy by what local heads read, how they start and their norms",
    source="Ren et al. 2023, published code; Bacho and Chu, appendix A",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
)
