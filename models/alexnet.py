"""AlexNet with batch norm.

    [FDFA]  AlexNet(), the paper's; 57,415,844 parameters with 3 channels and 100 classes
            AlexNet(linear_norm=True), that of the published code; 57,432,228 parameters

Source: [FDFA] Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
Momentum", after Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural
Networks".  There is no dropout.
"""

from __future__ import annotations

from dataclasses import dataclass

from dualnet.errors import UsageError
from dualnet.nn import (
    Activation,
    AdaptiveAveragePool,
    BatchNorm,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool,
    Sequential,
    relu,
)
from dualnet.options import Options, require_count
from dualnet.types import Shape

SMALLEST = 63
"""The smallest height and width of images; of smaller ones the pools would leave no pixel."""


@dataclass(frozen=True, kw_only=True)
class AlexNet(Options):
    """Five convolutions with batch norm and ReLU, three max pools, then three linear layers.

    Args:
        channels: how many channels the first convolution has; the others have 3, 6, 4 and 4 times
            as many.
        width: how many units each hidden linear layer has.
        linear_norm: whether batch norm also follows each hidden linear layer.

    The network maps images `(N, H, W, C)` to outputs `(N, classes)`.

    Raises:
        UsageError: an option is out of its range; `network` gets examples that do not fit.

    Sources: Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural
    Networks"; batch norm: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback
    Alignment and Momentum", appendix A.

    Examples:
        >>> from dualnet.models import AlexNet
        >>> network = AlexNet(channels=4, width=16).network((224, 224, 3), 100)
        >>> params, _, _ = network.init(dn.Key(0), (224, 224, 3))
        >>> [params[f"conv{i}"]["w"].shape for i in range(1, 6)]
        [(11, 11, 3, 4), (5, 5, 4, 12), (3, 3, 12, 24), (3, 3, 24, 16), (3, 3, 16, 16)]
    """

    channels: int = 64
    width: int = 4096
    linear_norm: bool = False

    def __post_init__(self) -> None:
        require_count("alexnet", "channels", self.channels)
        require_count("alexnet", "width", self.width)

    def network(self, in_shape: Shape, classes: int) -> Sequential:
        """Build the layers for examples of shape `in_shape` and `classes` outputs.

        Raises:
            UsageError: the examples do not fit.
        """
        if len(in_shape) != 3 or min(in_shape[:2]) < SMALLEST:
            raise UsageError(
                f"alexnet: expected images (H, W, C) of at least {SMALLEST} by {SMALLEST} pixels, "
                f"got {in_shape}; enlarge them, the papers' are 224 by 224"
            )
        first, pool, activation = self.channels, MaxPool(3, stride=2), Activation(relu)
        convolutions = (
            (Conv2d(first, 11, stride=4, padding=2), True),
            (Conv2d(3 * first, 5, padding=2), True),
            (Conv2d(6 * first, 3, padding=1), False),
            (Conv2d(4 * first, 3, padding=1), False),
            (Conv2d(4 * first, 3, padding=1), True),
        )
        layers: list[tuple[str, Layer]] = []
        for i, (convolution, pooled) in enumerate(convolutions, start=1):
            layers += [(f"conv{i}", convolution), (f"norm{i}", BatchNorm())]
            layers.append((f"relu{i}", activation))
            if pooled:
                layers.append((f"pool{i}", pool))
        layers += [("average", AdaptiveAveragePool(6)), ("flatten", Flatten())]
        for i in (6, 7):
            layers.append((f"hidden{i}", Linear(self.width)))
            if self.linear_norm:
                layers.append((f"norm{i}", BatchNorm()))
            layers.append((f"relu{i}", activation))
        return Sequential((*layers, ("output", Linear(classes))))
