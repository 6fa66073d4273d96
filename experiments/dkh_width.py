"""Gradients and forward gradients in wider networks, by gradient descent and by Adam."""

from __future__ import annotations

from experiments.dkh_curves import Line, curves

SAYS = {
    "sgd": "backpropagation gains by width, the forward gradient does not",
    "adam": "as with SGD; Adam makes training much stabler as the size grows",
}

EXPERIMENT = curves(
    name="dkh-width",
    shows="training loss of MLPs of three widths by gradients and forward gradients, SGD and Adam",
    where="Figure 3",
    lines=[
        Line(
            f"{optimizer}, width {width}",
            {rule: f"dkh-mlp{width}-{optimizer}-2e-4-{rule}" for rule in ("bp", "fg-w")},
            says,
        )
        for optimizer, says in SAYS.items()
        for width in (512, 1024, 2048)
    ],
    quick=("dkh-mlp512-sgd-2e-4-bp", "dkh-mlp512-adam-2e-4-fg-w"),
    epochs=6,
    images=20_000,
)
