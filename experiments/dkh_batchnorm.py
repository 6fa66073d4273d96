"""Batch norm under gradients and forward gradients, by gradient descent and by Adam."""

from __future__ import annotations

from experiments.dkh_curves import Line, curves

SAYS = {
    ("sgd", ""): "",
    ("sgd", "-norm"): "better than without for backpropagation; worse for the forward gradient, "
    "whose loss varies much more",
    ("adam", ""): "",
    ("adam", "-norm"): "better than without for backpropagation; worse for the forward gradient, "
    "whose loss Adam smooths",
}

EXPERIMENT = curves(
    name="dkh-batchnorm",
    shows="training loss of an MLP with and without batch norm by gradients and forward gradients",
    where="Figure 4",
    lines=[
        Line(
            f"{optimizer}, {'batch norm' if norm else 'none'}",
            {rule: f"dkh-mlp512{norm}-{optimizer}-2e-4-{rule}" for rule in ("bp", "fg-w")},
            says,
        )
        for (optimizer, norm), says in SAYS.items()
    ],
    quick=("dkh-mlp512-norm-sgd-2e-4-bp", "dkh-mlp512-norm-sgd-2e-4-fg-w"),
    epochs=5,
)
