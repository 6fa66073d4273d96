"""Chains of convolutions, pools and linear layers, written as the papers write them.

    [FDFA]  CNN("15C5-P2-40C5-P2-128"), the paper's; 98,768 parameters on MNIST
            CNN("15C5-40C5-P2-128", batch_norm=True, weights="torch"), that of the published code;
            529,214 parameters
    [BAY]   CNN4(); 1,171,274 parameters

[DKH] has the last network too.  Neither paper says where its two pools are, and whether images are
padded.  Here a pool follows every second convolution and nothing is padded: then, on MNIST, the
linear layer of 1024 units has as many inputs as outputs.

Sources: [FDFA] Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
Momentum"; [BAY] Baydin et al. 2022, "Gradients without Backpropagation"; [DKH] "Forward Gradients
Are Not All You Need", section 4.4.
"""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass

from dualnet.errors import UsageError
from dualnet.naming import shortened
from dualnet.nn import (
    INITIALIZERS,
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
from dualnet.options import Options, require_choice, require_depth
from dualnet.types import Shape

_NUMBER = r"[1-9]\d{0,17}"
_ITEM = re.compile(rf"(?P<filters>{_NUMBER})C(?P<kernel>{_NUMBER})|P(?P<pool>{_NUMBER})|{_NUMBER}")


@dataclass(frozen=True)
class CNN(Options):
    """Convolutions with ReLU, max pools, hidden linear layers with ReLU, and a linear output.

    Args:
        plan: the layers, joined by `-`.  `15C5` is a convolution with 15 filters of 5 by 5 pixels
            and no padding, `P2` is a max pool over 2 by 2 pixels, and `128` is a hidden linear
            layer of 128 units.  Linear layers come last.  The output layer is not written.
        batch_norm: whether there is a batch norm between each hidden layer and its ReLU.
        weights: how weights start, a name in `dualnet.nn.INITIALIZERS`: `kaiming`, as [FDFA] say,
            or `torch`, as PyTorch starts them, and with it their code.

    The network maps images `(N, H, W, C)` to outputs `(N, classes)`.

    Raises:
        UsageError: `plan` is not written so; `weights` is no such name; `init` of the network gets
            images that are too small.

    Source: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
    Momentum".

    Examples:
        >>> from dualnet.models import CNN
        >>> network = CNN("15C5-P2-40C5-P2-128").network((28, 28, 1), 10)
        >>> params, _, _ = network.init(dn.Key(0), (28, 28, 1))
        >>> f"{dn.tree.size(params):,}"
        '98,768'
    """

    plan: str = "15C5-P2-40C5-P2-128"
    _: KW_ONLY
    batch_norm: bool = False
    weights: str = "kaiming"

    def __post_init__(self) -> None:
        items = self.plan.split("-") if self.plan else []
        on_images = [bool(re.search("[CP]", item)) for item in items]
        if not all(map(_ITEM.fullmatch, items)) or sorted(on_images, reverse=True) != on_images:
            raise UsageError(
                "cnn: plan must be convolutions and pools, then linear layers, such as "
                f"15C5-P2-40C5-P2-128, got {shortened(repr(self.plan), 60)}"
            )
        require_depth("cnn", "number of layers in plan", len(items))
        require_choice("cnn", "weights", self.weights, INITIALIZERS)

    def network(self, in_shape: Shape, classes: int) -> Sequential:
        """Build the layers for examples of shape `in_shape` and `classes` outputs."""
        images: list[tuple[str, Layer]] = []
        features: list[tuple[str, Layer]] = [("flatten", Flatten())]
        for i, item in enumerate(self.plan.split("-") if self.plan else [], start=1):
            match = _ITEM.fullmatch(item)
            assert match is not None
            if match["pool"]:
                images.append((f"pool{i}", MaxPool(int(match["pool"]))))
            elif match["filters"]:
                filters, kernel = int(match["filters"]), int(match["kernel"])
                images.append((f"conv{i}", Conv2d(filters, kernel, weights=self.weights)))
                images += self._norm_and_relu(i)
            else:
                features.append((f"hidden{i}", Linear(int(item), weights=self.weights)))
                features += self._norm_and_relu(i)
        return Sequential((*images, *features, ("output", Linear(classes, weights=self.weights))))

    def _norm_and_relu(self, i: int) -> list[tuple[str, Layer]]:
        """Return the layers that follow hidden layer i."""
        norm: list[tuple[str, Layer]] = [(f"norm{i}", BatchNorm())] if self.batch_norm else []
        return [*norm, (f"relu{i}", Activation(relu))]


@dataclass(frozen=True)
class CNN4(CNN):
    """Four convolutions of 64 filters, two pools, and a hidden linear layer of 1024.

    Source: Baydin et al. 2022, "Gradients without Backpropagation", which does not say where its
    pools are.

    Examples:
        >>> from dualnet.models import CNN4
        >>> network = CNN4().network((28, 28, 1), 10)
        >>> [name for name, _ in network.layers if "relu" not in name]
        ['conv1', 'conv2', 'pool3', 'conv4', 'conv5', 'pool6', 'flatten', 'hidden7', 'output']
    """

    plan: str = "64C3-64C3-P2-64C3-64C3-P2-1024"
