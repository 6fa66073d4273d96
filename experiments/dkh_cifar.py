"""Gradients and forward gradients of an MLP on CIFAR-10, by gradient descent and by Adam."""

from __future__ import annotations

from experiments.dkh_curves import Line, curves

SAYS = {
    "sgd": "gradients explode under the forward gradient",
    "adam": "stable under the forward gradient, with a higher loss than backpropagation's",
}

EXPERIMENT = curves(
    name="dkh-cifar",
    shows="training loss of an MLP on CIFAR-10 by gradients and forward gradients, SGD and Adam",
    where="section 4.3",
    lines=[
        Line(
            optimizer,
            {rule: f"dkh-mlp1024-cifar10-{optimizer}-2e-4-{rule}" for rule in ("bp", "fg-w")},
            says,
        )
        for optimizer, says in SAYS.items()
    ],
    quick=("dkh-mlp1024-cifar10-adam-2e-4-bp",),
    epochs=6,
    images=20_000,
)
