"""A vision transformer: ViT(), 3,183,114 parameters on MNIST, 3,195,146 on CIFAR-10.

Sources: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1; the sizes are those
of Flügel et al. 2024, "Beyond Backpropagation: Optimization with Multi-Tangent Forward Gradients".
"""

from __future__ import annotations

from dataclasses import dataclass

from dualnet.errors import UsageError
from dualnet.nn import (
    ClassToken,
    Layer,
    LayerNorm,
    Linear,
    Patches,
    Positions,
    SelectToken,
    Sequential,
    transformer_block,
)
from dualnet.options import Options, require_count, require_depth
from dualnet.types import Shape


@dataclass(frozen=True, kw_only=True)
class ViT(Options):
    """Patches as tokens, a class token, `depth` blocks of attention and MLP, a linear output.

    Args:
        width: C, the number of channels of a token.
        depth: the number of blocks.
        heads: the number of heads of each attention; it divides C.
        mlp_width: the number of hidden units of each block's MLP.
        patch: height and width of a patch in pixels.  None takes 4 for images of less than 64
            pixels, and 16 for larger ones.

    The network maps images `(N, H, W, C)` to outputs `(N, classes)`.

    Raises:
        UsageError: an option is out of its range; `init` of the network gets images that do not
            divide into patches.

    Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1.

    Examples:
        >>> from dualnet.models import ViT
        >>> network = ViT(width=32, depth=1, heads=2, mlp_width=64).network((28, 28, 1), 10)
        >>> params, _, _ = network.init(dn.Key(0), (28, 28, 1))
        >>> params["embed"]["positions"]["positions"].shape  # 49 patches and the class token
        (50, 32)
    """

    width: int = 256
    depth: int = 6
    heads: int = 4
    mlp_width: int = 512
    patch: int | None = None

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "mlp_width"):
            require_count("vit", name, getattr(self, name))
        require_depth("vit", "depth", self.depth)
        if self.width % self.heads:
            raise UsageError(f"vit: heads must divide width, got {self.heads} and {self.width}")

    def network(self, in_shape: Shape, classes: int) -> Sequential:
        """Build the layers for examples of shape `in_shape` and `classes` outputs."""
        embed = Sequential(
            (
                ("patches", Patches(patch_size(self.patch, in_shape))),
                ("linear", Linear(self.width)),
                ("class", ClassToken()),
                ("positions", Positions()),
            )
        )
        block = transformer_block(width=self.width, heads=self.heads, mlp_width=self.mlp_width)
        blocks: list[tuple[str, Layer]] = [(f"block{i}", block) for i in range(1, self.depth + 1)]
        return Sequential(
            (
                ("embed", embed),
                *blocks,
                ("norm", LayerNorm()),
                ("select", SelectToken(0)),
                ("output", Linear(classes, weights="zeros")),
            )
        )


def patch_size(chosen: int | None, in_shape: Shape) -> int:
    """Return height and width of patches: those chosen, or what fits images of this shape."""
    if chosen is not None:
        return chosen
    return 4 if in_shape[0] < 64 else 16
