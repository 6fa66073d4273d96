"""Forward gradients in a plain convolutional network and in a residual one."""

from __future__ import annotations

from experiments.dkh_curves import Line, curves

COLLAPSES = "collapses above a rate of roughly 2e-5"
STABLE = "stable at this rate, the highest of any network"

EXPERIMENT = curves(
    name="dkh-conv",
    shows="training loss of a plain and a residual network of convolutions by forward gradients",
    where="Figure 5 and section 4.4",
    lines=[
        *(
            Line(f"plain, sgd, rate {rate}", {"fg-w": f"dkh-cnn4-sgd-{rate}-fg-w"}, says)
            for rate, says in (("2e-3", COLLAPSES), ("2e-4", COLLAPSES), ("2e-5", "stable"))
        ),
        Line("residual, sgd, rate 2e-3", {"fg-w": "dkh-resnet-sgd-2e-3-fg-w"}, STABLE),
        Line(
            "residual, adam, rate 2e-3",
            {rule: f"dkh-resnet-adam-2e-3-{rule}" for rule in ("bp", "fg-w")},
            f"{STABLE}; backpropagation is shown for reference",
        ),
    ],
    quick=("dkh-resnet-sgd-2e-3-fg-w",),
    epochs=4,
    images=9_600,
    test_images=2_000,
)
