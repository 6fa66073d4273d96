"""LeNet5 in the form of [FROG]: with ReLU, max pools, and batch norm after the convolutions.

It has 44,470 parameters on MNIST.

Sources: [FROG] Flügel et al. 2024, "Beyond Backpropagation: Optimization with Multi-Tangent Forward
Gradients", after LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition".
"""

from __future__ import annotations

from dataclasses import dataclass

from dualnet.errors import UsageError
from dualnet.naming import assigned
from dualnet.nn import (
    Activation,
    BatchNorm,
    Conv2d,
    Flatten,
    Linear,
    MaxPool,
    Sequential,
    relu,
)
from dualnet.options import Options
from dualnet.types import Shape

SMALLEST = 16
"""The smallest height and width of images; of smaller ones the second pool would leave no pixel."""


@dataclass(frozen=True, kw_only=True)
class LeNet5(Options):
    """Two 5×5 convolutions with batch norm and max pools, then three linear layers.

    The network maps images `(N, H, W, C)` to outputs `(N, classes)`.

    Raises:
        UsageError: `network` gets examples that do not fit.

    Source: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", in the
    form of Flügel et al. 2024, "Beyond Backpropagation".

    Examples:
        >>> from dualnet.models import LeNet5
        >>> network = LeNet5().network((28, 28, 1), 10)
        >>> params, state, _ = network.init(dn.Key(0), (28, 28, 1))
        >>> dn.tree.size(params), dn.tree.map(np.shape, state["norm1"])
        (44470, {'mean': (6,), 'variance': (6,)})
    """

    def network(self, in_shape: Shape, classes: int) -> Sequential:
        """Build the layers for examples of shape `in_shape` and `classes` outputs.

        Raises:
            UsageError: the examples do not fit.
        """
        if len(in_shape) != 3 or min(in_shape[:2]) < SMALLEST:
            raise UsageError(
                f"lenet5: expected images (H, W, C) of at least {SMALLEST} by {SMALLEST} pixels, "
                f"got {in_shape}; try {assigned('model', 'cnn')}"
            )
        activation = Activation(relu)
        return Sequential(
            (
                ("conv1", Conv2d(6, 5)),
                ("norm1", BatchNorm()),
                ("relu1", activation),
                ("pool1", MaxPool(2)),
                ("conv2", Conv2d(16, 5)),
                ("norm2", BatchNorm()),
                ("relu2", activation),
                ("pool2", MaxPool(2)),
                ("flatten", Flatten()),
                ("hidden3", Linear(120)),
                ("relu3", activation),
                ("hidden4", Linear(84)),
                ("relu4", activation),
                ("output", Linear(classes)),
            )
        )
