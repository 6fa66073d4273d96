"""MLP-Mixer: MLPMixer(), 17,032,082 parameters on MNIST, 17,110,026 on CIFAR-10.

Sources: Tolstikhin et al. 2021, "MLP-Mixer: An all-MLP Architecture for Vision", section 2; the
sizes are those of Flügel et al. 2024, "Beyond Backpropagation: Optimization with Multi-Tangent
Forward Gradients", in their published code.
"""

from __future__ import annotations

from dataclasses import dataclass

from dualnet import Key
from dualnet.models.vit import patch_size
from dualnet.nn import (
    AverageTokens,
    Layer,
    LayerNorm,
    Linear,
    Patches,
    Sequential,
    mlp_mixer_block,
)
from dualnet.options import Options, require_count, require_depth
from dualnet.types import Shape


@dataclass(frozen=True, kw_only=True)
class MLPMixer(Options):
    """Patches as tokens, `depth` blocks of two MLPs, and a linear output of averaged tokens.

    Args:
        width: C, the number of channels of a token.
        depth: the number of blocks.
        token_width: the number of hidden units of the MLP over the tokens of a channel.
        mlp_width: the number of hidden units of the MLP over the channels of a token.
        patch: height and width of a patch in pixels.  None takes 4 for images of less than 64
            pixels, and 16 for larger ones.

    The network maps images `(N, H, W, C)` to outputs `(N, classes)`.

    Raises:
        UsageError: an option is out of its range; `network` gets images that do not divide into
            patches.

    Source: Tolstikhin et al. 2021, "MLP-Mixer: An all-MLP Architecture for Vision", section 2.

    Examples:
        >>> from dualnet.models import MLPMixer
        >>> model = MLPMixer(width=32, depth=1, token_width=8, mlp_width=64)
        >>> params, _, _ = model.network((28, 28, 1), 10).init(dn.Key(0), (28, 28, 1))
        >>> params["linear"]["w"].shape  # a patch of 4 by 4 pixels becomes a token of 32 channels
        (16, 32)
        >>> dn.tree.subtree(params, "block1/tokens/block/mlp/mix/in/w").shape  # from 49 tokens
        (49, 8)
    """

    width: int = 512
    depth: int = 8
    token_width: int = 256
    mlp_width: int = 2048
    patch: int | None = None

    def __post_init__(self) -> None:
        for name in ("width", "depth", "token_width", "mlp_width"):
            require_count("mlp-mixer", name, getattr(self, name))
        require_depth("mlp-mixer", "depth", self.depth)

    def network(self, in_shape: Shape, classes: int) -> Sequential:
        """Build the layers for examples of shape `in_shape` and `classes` outputs."""
        patches = Patches(patch_size(self.patch, in_shape))
        _, _, (tokens, _) = patches.init(Key(0), in_shape)
        block = mlp_mixer_block(
            tokens=tokens,
            channels=self.width,
            token_width=self.token_width,
            channel_width=self.mlp_width,
        )
        blocks: list[tuple[str, Layer]] = [(f"block{i}", block) for i in range(1, self.depth + 1)]
        return Sequential(
            (
                ("patches", patches),
                ("linear", Linear(self.width)),
                *blocks,
                ("norm", LayerNorm()),
                ("average", AverageTokens()),
                ("output", Linear(classes)),
            )
        )
