"""Chains of convolutions, pools and linear layers, written as the papers write them.

    [FDFA]  CNN("15C5-P2-40C5-P2-128"), the paper's; 98,768 parameters on MNIST
            CNN("15C5-40C5-P2-128", batch_norm=True), that of the published code; 529,214
    [BAY]   CNN4(); 1,171,274

The last is that of [DKH] too.  They say neither where its two pools are nor whether images are
padded: we pool after every second convolution and pad nothing, so that on MNIST as many features
come into the linear layer of 1024 as go out.

Sources: [FDFA] Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
Momentum"; [BAY] Baydin et al. 2022, "Gradients without Backpropagation"; [DKH] "Forward Gradients
Are Not All You Need", section 4.4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dualnet.errors import UsageError
from dualnet.nn import (
    Activation,
    BatchNorm,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool,
    Sequential,
    relu,
)

_ITEM = re.compile(r"(?P<filters>[1-9]\d*)C(?P<kernel>[1-9]\d*)|P(?P<pool>[1-9]\d*)|[1-9]\d*")


@dataclass(frozen=True)
class CNN:
    """Convolutions with ReLU, max pools, hidden linear layers with ReLU, and a linear output.

    Args:
        plan: joined by `-`: `15C5` is a convolution with 15 filters of 5 by 5 pixels and no
            padding, `P2` a max pool over 2 by 2, `128` a hidden linear layer; the linear ones
            come last.  The output follows by itself.
        batch_norm: between each hidden layer and its ReLU.
    """

    plan: str = "15C5-P2-40C5-P2-128"
    batch_norm: bool = False

    def __post_init__(self) -> None:
        items = self.plan.split("-") if self.plan else []
        of_images = [bool(re.search("[CP]", item)) for item in items]
        if not all(map(_ITEM.fullmatch, items)) or sorted(of_images, reverse=True) != of_images:
            raise UsageError(
                "cnn: plan must be convolutions and pools, then linear layers, such as "
                f"15C5-P2-40C5-P2-128, got {self.plan!r}"
            )

    def network(self, in_shape: tuple[int, ...], classes: int) -> Sequential:
        """The layers, for examples of shape `in_shape`."""
        images: list[tuple[str, Layer]] = []
        features: list[tuple[str, Layer]] = [("flatten", Flatten())]
        for i, item in enumerate(self.plan.split("-") if self.plan else [], start=1):
            match = _ITEM.fullmatch(item)
            assert match is not None
            if match["pool"]:
                images.append((f"pool{i}", MaxPool(int(match["pool"]))))
            elif match["filters"]:
                images.append((f"conv{i}", Conv2d(int(match["filters"]), int(match["kernel"]))))
                images += self._after(i)
            else:
                features.append((f"hidden{i}", Linear(int(item))))
                features += self._after(i)
        return Sequential((*images, *features, ("output", Linear(classes))))

    def _after(self, i: int) -> list[tuple[str, Layer]]:
        norm: list[tuple[str, Layer]] = [(f"norm{i}", BatchNorm())] if self.batch_norm else []
        return [*norm, (f"relu{i}", Activation(relu))]


@dataclass(frozen=True)
class CNN4(CNN):
    """Four convolutions of 64 filters, two pools, and a hidden linear layer of 1024."""

    plan: str = "64C3-64C3-P2-64C3-64C3-P2-1024"
