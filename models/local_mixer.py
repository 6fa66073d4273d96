"""LocalMixer: a mixer in which every block has local losses of its own.

The names of the published sizes are size / patches along a side / groups:

    S/1/1    MNIST     LocalMixer(width=256, patches=1, groups=1, depth=1), 271,892 parameters
    M/1/16   MNIST     LocalMixer(width=512, patches=1, groups=16, depth=1), 429,076
    M/8/16   CIFAR-10  LocalMixer(width=512, patches=8, groups=16, depth=4), 918,770: the default
    L/8/64   CIFAR-10  LocalMixer(width=2048, patches=8, groups=64, depth=4), 13,074,674
    L/32/64  ImageNet  LocalMixer(width=2048, patches=32, groups=64, depth=4),
                       26,556,296 with 1000 classes

Every block has a local head, and the network has one more at its end.  Each head has weights of its
own, and these counts contain them.  All weights start normal with standard deviation min(2 /
sqrt(fan-in), 0.1), and only those of the output at zero.

The paper says that a layer norm is before and after every linear layer.  Its published code can
leave out those before the heads and before the output, and the configuration for ImageNet has them;
for contrastive learning it has none before heads and projections.

Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 4, and their
published code.
"""

from __future__ import annotations

from dataclasses import dataclass

from dualnet.errors import UsageError
from dualnet.nn import (
    Activation,
    AverageTokens,
    GroupedLinear,
    Layer,
    LayerNorm,
    Linear,
    LocalHead,
    Patches,
    Sequential,
    StopGradient,
    mixer_block,
    relu,
)
from dualnet.options import Options, require_count, require_depth
from dualnet.types import Shape


@dataclass(frozen=True, kw_only=True)
class LocalMixer(Options):
    """Patches, `depth` blocks with a local head each, and a linear output of averaged tokens.

    The first block makes tokens of patches; the others are `mixer_block`.  Every linear layer of a
    block is between two layer norms without gain and bias.

    Args:
        width: C, the number of channels of a token.
        patches: how many patches lie along each side of the image; there are P = patches² tokens.
        groups: G, the number of groups in which the last linear layer of a block works; it
            divides C.
        depth: the number of blocks.
        readout: whether a stop-gradient comes before the output, so that the blocks learn from
            their local losses alone.  It is meant for rules with local losses; with other rules
            nothing but the output would learn.
        head_norm: whether local heads normalize each group of channels of each token before they
            average the tokens.
        output_norm: whether the averaged tokens are normalized before the output.

    The network maps images `(N, H, W, C)` to outputs `(N, classes)`.

    Raises:
        UsageError: an option is out of its range; `network` gets examples that do not fit.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 4, and their
    published code.

    Examples:
        >>> from dualnet.models import LocalMixer
        >>> network = LocalMixer(width=256, patches=1, groups=1, depth=1).network((28, 28, 1), 10)
        >>> [name for name, _ in network.layers]
        ['patches', 'block1', 'head1', 'average', 'norm', 'stop', 'output']
        >>> dn.tree.size(network.init(dn.Key(0), (28, 28, 1))[0])  # S/1/1
        271892
    """

    width: int = 512
    patches: int = 8
    groups: int = 16
    depth: int = 4
    readout: bool = True
    head_norm: bool = True
    output_norm: bool = True

    def __post_init__(self) -> None:
        for name in ("width", "patches", "groups", "depth"):
            require_count("local-mixer", name, getattr(self, name))
        require_depth("local-mixer", "depth", self.depth)
        if self.width % self.groups:
            raise UsageError(
                f"local-mixer: groups must divide width, got {self.groups} and {self.width}"
            )
        if self.width == self.groups:
            raise UsageError(
                f"local-mixer: the norm of a group of one channel is always 0, got {self.groups} "
                f"groups for width {self.width}; use fewer groups"
            )

    def network(self, in_shape: Shape, classes: int) -> Sequential:
        """Build the layers for examples of shape `in_shape` and `classes` outputs.

        Raises:
            UsageError: the examples do not fit.
        """
        if len(in_shape) != 3 or in_shape[0] % self.patches or in_shape[1] % self.patches:
            raise UsageError(
                f"local-mixer: expected images (H, W, C) that divide into {self.patches} by "
                f"{self.patches} patches, got {in_shape}; choose other patches"
            )
        height, width, _ = in_shape
        size = (height // self.patches, width // self.patches)
        layers: list[tuple[str, Layer]] = [("patches", Patches(size))]
        for i in range(1, self.depth + 1):
            layers.append((f"block{i}", self._block(first=i == 1)))
            head = LocalHead(
                classes, groups=self.groups, weights="scaled-normal", norm=self.head_norm
            )
            layers.append((f"head{i}", head))
        layers.append(("average", AverageTokens()))
        if self.output_norm:
            layers.append(("norm", LayerNorm(gain=False, bias=False)))
        if self.readout:
            layers.append(("stop", StopGradient()))
        return Sequential((*layers, ("output", Linear(classes, weights="zeros"))))

    def _block(self, first: bool) -> Sequential:
        """Build a block; the first one mixes no tokens."""
        if not first:
            return mixer_block(tokens=self.patches**2, channels=self.width, groups=self.groups)
        token_norm = LayerNorm(gain=False, bias=False)
        group_norm = LayerNorm(groups=self.groups, gain=False, bias=False)
        return Sequential(
            (
                ("norm1", token_norm),
                ("linear", Linear(self.width, weights="scaled-normal")),
                ("norm2", token_norm),
                ("relu1", Activation(relu)),
                ("norm3", group_norm),
                ("groups", GroupedLinear(self.width, groups=self.groups, weights="scaled-normal")),
                ("norm4", group_norm),
                ("relu2", Activation(relu)),
            )
        )
