"""Residual networks: the small one of [DKH], and ResNet18.

    [DKH]   ResNet(), 37,642 parameters on MNIST
    [HE]    ResNet18(), 11,689,512 parameters with 224 by 224 pixels, 3 channels and 1000 classes
    [FROG]  ResNet18(stem="large"), 11,175,370 parameters on MNIST

[DKH] says only that its network has 4 residual blocks of one layer each and 32 channels.  The
convolution before them and the average over all pixels after them are our choice.

Sources: [DKH] "Forward Gradients Are Not All You Need", section 4.4; [HE] He et al. 2016, "Deep
Residual Learning for Image Recognition", Table 1, and section 4.2 for small images; [FROG] Flügel
et al. 2024, "Beyond Backpropagation: Optimization with Multi-Tangent Forward Gradients", published
code.  ResNet18 is that of torchvision.
"""

from __future__ import annotations

from dataclasses import dataclass

from dualnet.nn import (
    Activation,
    AdaptiveAveragePool,
    BatchNorm,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool,
    Residual,
    Sequential,
    relu,
)
from dualnet.options import Options, require_choice, require_count, require_depth
from dualnet.types import Shape

SMALL = 64
"""Images of less height and width than this get a network that keeps their size longer."""
STEMS = ("auto", "large", "small")


@dataclass(frozen=True, kw_only=True)
class ResNet(Options):
    """A convolution, `depth` residual blocks of one convolution each, and a linear output.

    Args:
        width: the number of channels.
        depth: the number of residual blocks.
        batch_norm: whether a batch norm follows each convolution.

    The network maps images `(N, H, W, C)` to outputs `(N, classes)`.

    Raises:
        UsageError: an option is out of its range; `init` of the network gets no images.

    Source: "Forward Gradients Are Not All You Need", section 4.4.

    Examples:
        >>> from dualnet.models import ResNet
        >>> network = ResNet().network((28, 28, 1), 10)
        >>> params, _, _ = network.init(dn.Key(0), (28, 28, 1))
        >>> f"{dn.tree.size(params):,}"
        '37,642'
    """

    width: int = 32
    depth: int = 4
    batch_norm: bool = False

    def __post_init__(self) -> None:
        require_count("resnet", "width", self.width)
        require_count("resnet", "depth", self.depth)
        require_depth("resnet", "depth", self.depth)

    def network(self, in_shape: Shape, classes: int) -> Sequential:
        """Build the layers for examples of shape `in_shape` and `classes` outputs."""
        layers = [*self._convolution(), ("relu", Activation(relu))]
        for i in range(1, self.depth + 1):
            block = Residual((("block", Sequential(self._convolution())),))
            layers += [(f"block{i}", block), (f"relu{i}", Activation(relu))]
        return Sequential((*layers, *_readout(classes)))

    def _convolution(self) -> tuple[tuple[str, Layer], ...]:
        """Build a 3×3 convolution, with its batch norm if there are batch norms."""
        convolution = ("conv", Conv2d(self.width, 3, padding=1))
        return (convolution, ("norm", BatchNorm())) if self.batch_norm else (convolution,)


@dataclass(frozen=True, kw_only=True)
class ResNet18(Options):
    """Four stages of two residual blocks of two convolutions, with batch norm.

    The stem comes before the stages.  A large one is a 7×7 convolution of stride 2 and a max pool
    of stride 2, which leave a 16th of the pixels.  A small one is a 3×3 convolution of stride 1 and
    no pool, as is usual for CIFAR.

    Args:
        width: the number of channels of the first stage; each further stage has twice as many.
        stem: `large`; `small`; or `auto`, which is large for images of 64 pixels and more.

    The network maps images `(N, H, W, C)` to outputs `(N, classes)`.

    Raises:
        UsageError: an option is out of its range; `init` of the network gets no images.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", Table 1; the small stem:
    section 4.2.

    Examples:
        >>> from dualnet.models import ResNet18
        >>> network = ResNet18(width=8).network((32, 32, 3), 10)
        >>> _, _, shape = network.init(dn.Key(0), (32, 32, 3))
        >>> [name for name, _ in network.layers if name.endswith("block2")], shape
        (['stage1-block2', 'stage2-block2', 'stage3-block2', 'stage4-block2'], (10,))
    """

    width: int = 64
    stem: str = "auto"

    def __post_init__(self) -> None:
        require_count("resnet18", "width", self.width)
        require_choice("resnet18", "stem", self.stem, STEMS)

    def network(self, in_shape: Shape, classes: int) -> Sequential:
        """Build the layers for examples of shape `in_shape` and `classes` outputs."""
        activation = Activation(relu)
        large = self.stem == "large" or (self.stem == "auto" and in_shape[0] >= SMALL)
        if large:
            layers = _convolution("", self.width, 7, stride=2)
        else:
            layers = _convolution("", self.width, 3)
        layers.append(("relu", activation))
        if large:
            layers.append(("pool", MaxPool(3, stride=2, padding=1)))
        channels = self.width
        for stage in range(1, 5):
            for block in (1, 2):
                shrinks = stage > 1 and block == 1
                channels *= 2 if shrinks else 1
                name = f"stage{stage}-block{block}"
                layers += [(name, _basic_block(channels, shrinks)), (f"{name}-relu", activation)]
        return Sequential((*layers, *_readout(classes)))


def _basic_block(channels: int, shrinks: bool) -> Residual:
    """Build a residual block of two convolutions; if it shrinks, it halves height and width."""
    stride = 2 if shrinks else 1
    first, second = _convolution("1", channels, 3, stride), _convolution("2", channels, 3)
    block = ("block", Sequential((*first, ("relu", Activation(relu)), *second)))
    if not shrinks:
        return Residual((block,))
    return Residual((block, ("shortcut", Sequential(tuple(_convolution("", channels, 1, stride))))))


def _convolution(name: str, channels: int, kernel: int, stride: int = 1) -> list[tuple[str, Layer]]:
    """Build a convolution with batch norm, padded so that only its stride changes the size."""
    convolution = Conv2d(channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [(f"conv{name}", convolution), (f"norm{name}", BatchNorm())]


def _readout(classes: int) -> tuple[tuple[str, Layer], ...]:
    """Build the last layers: an average over all pixels and a linear output."""
    return (
        ("average", AdaptiveAveragePool(1)),
        ("flatten", Flatten()),
        ("output", Linear(classes)),
    )
