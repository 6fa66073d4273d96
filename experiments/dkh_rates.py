"""Gradients and forward gradients at three learning rates: an MLP on MNIST."""

from __future__ import annotations

from experiments.dkh_curves import Line, curves

SAYS = {
    "2e-3": "backpropagation is best at this rate; the forward gradient collapses",
    "2e-4": "forward gradients come to similar results",
    "2e-5": "forward gradients come to similar results",
}

EXPERIMENT = curves(
    name="dkh-rates",
    shows="training loss of an MLP by gradients and forward gradients at three learning rates",
    where="Figure 2",
    lines=[
        Line(
            f"rate {rate}",
            {rule: f"dkh-mlp512-sgd-{rate}-{rule}" for rule in ("bp", "fg-w")},
            says,
        )
        for rate, says in SAYS.items()
    ],
    quick=("dkh-mlp512-sgd-2e-3-bp", "dkh-mlp512-sgd-2e-3-fg-w"),
    epochs=10,
)
