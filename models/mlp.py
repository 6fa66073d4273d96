"""Multilayer perceptrons.

    [DKH]   784-512-512-10:  MLP(width=512, depth=2), 669,706 parameters; also widths 1024 and 2048,
                             and batch_norm=True, which has 671,754 parameters
    [FDFA]  "2 layers":      MLP(width=800, depth=1), 636,010 (1000 for CIFAR-10: 3,083,010)
            "3 layers":      MLP(width=800, depth=2), 1,276,810 (4,084,010)
            "4 layers":      MLP(width=800, depth=3), 1,917,610 (5,085,010)
    [FROG]  FC:              MLP(width=256, 1024 or 4096, depth=2, weights="torch")

Sources: [DKH] "Forward Gradients Are Not All You Need"; [FDFA] Bacho and Chu, "Low-Variance
Forward Gradients using Direct Feedback Alignment and Momentum"; [FROG] Flügel et al. 2024,
"Beyond Backpropagation: Optimization with Multi-Tangent Forward Gradients".
"""

from __future__ import annotations

from dataclasses import dataclass

from dualnet.errors import UsageError
from dualnet.nn import (
    ACTIVATIONS,
    INITIALIZERS,
    Activation,
    BatchNorm,
    Flatten,
    Layer,
    Linear,
    Sequential,
)
from dualnet.options import Options, require_choice, require_depth
from dualnet.types import Shape


@dataclass(frozen=True, kw_only=True)
class MLP(Options):
    """Flatten, `depth` hidden layers of `width` units, and a linear output.

    Args:
        width: the number of units in each hidden layer.
        depth: the number of hidden layers; 0 makes a linear classifier.
        activation: a name in `dualnet.nn.ACTIVATIONS`.
        batch_norm: whether there is a batch norm between each hidden layer and its activation.
        weights: how weights start, a name in `dualnet.nn.INITIALIZERS`: `kaiming`, as [FDFA] say,
            or `torch`, as PyTorch starts them, for which [FROG] tuned their rates.

    The network maps examples `(N, ...)` to outputs `(N, classes)`.

    Raises:
        UsageError: an option is out of its range, or names nothing.

    Sources: [DKH] "Forward Gradients Are Not All You Need"; [FDFA] Bacho and Chu, "Low-Variance
    Forward Gradients using Direct Feedback Alignment and Momentum", appendices A and B; [FROG]
    Flügel et al. 2024, "Beyond Backpropagation".

    Examples:
        >>> from dualnet.models import MLP
        >>> print(dn.nn.table(MLP(width=512, depth=2).network((28, 28, 1), 10), (28, 28, 1)))
        flatten  Flatten()               0
        hidden1  Linear(512)       401,920  w 784×512, b 512
        relu1    Activation(relu)        0
        hidden2  Linear(512)       262,656  w 512×512, b 512
        relu2    Activation(relu)        0
        output   Linear(10)          5,130  w 512×10, b 10
        total                      669,706
    """

    width: int = 512
    depth: int = 2
    activation: str = "relu"
    batch_norm: bool = False
    weights: str = "kaiming"

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 0:
            raise UsageError(
                f"mlp: expected width >= 1 and depth >= 0, got {self.width} and {self.depth}"
            )
        require_depth("mlp", "depth", self.depth)
        require_choice("mlp", "activation", self.activation, ACTIVATIONS)
        require_choice("mlp", "weights", self.weights, INITIALIZERS)

    def network(self, in_shape: Shape, classes: int) -> Sequential:
        """Build the layers for examples of shape `in_shape` and `classes` outputs."""
        layers: list[tuple[str, Layer]] = [("flatten", Flatten())]
        for i in range(1, self.depth + 1):
            layers.append((f"hidden{i}", Linear(self.width, weights=self.weights)))
            if self.batch_norm:
                layers.append((f"norm{i}", BatchNorm()))
            layers.append((f"{self.activation}{i}", Activation(ACTIVATIONS[self.activation])))
        return Sequential((*layers, ("output", Linear(classes, weights=self.weights))))
