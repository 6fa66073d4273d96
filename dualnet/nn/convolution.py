"""Convolution over images."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np

from dualnet.core.dual import astype
from dualnet.errors import UsageError
from dualnet.images.convolution import convolve
from dualnet.images.windows import Geometry
from dualnet.nn.affine import add_bias
from dualnet.nn.context import Context
from dualnet.nn.initial import initial, initial_bias, require_initializer
from dualnet.nn.network import Layer
from dualnet.options import make_tuples, require_count
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Shape

Sizes = int | tuple[int, int]
Padding = Sizes | tuple[tuple[int, int], tuple[int, int]]


def conv2d(
    x: Array, w: Array, *, stride: Sizes = 1, padding: Padding = 0, groups: int = 1
) -> Array:
    """Cross-correlate images with a kernel, which networks call a convolution.

        y[n, i, j, q] = Σ_{a, b, c} x[n, i·stride + a, j·stride + b, c] · w[a, b, c, q]

    Args:
        x: `(N, H, W, C)`.
        w: `(kh, kw, C / groups, Q)`; output channels of the g-th part of Q see the g-th part of C.
        stride: steps down and to the right.
        padding: pixels of zeros around: an int, (h, w), or ((top, bottom), (left, right)).
        groups: divides C and Q.

    Returns:
        `(N, rows, columns, Q)` with rows = (H + top + bottom - kh) // stride + 1.

    Raises:
        UsageError: shapes that do not fit, or a kernel larger than the padded image.

    Source: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition",
    section II.

    Examples:
        >>> image = np.arange(9.0).reshape(1, 3, 3, 1)  # rows 0 1 2, 3 4 5, 6 7 8
        >>> kernel = np.array([1.0, -1.0]).reshape(1, 2, 1, 1)  # each pixel less its right neighbor
        >>> dn.nn.conv2d(image, kernel)[0, :, :, 0].tolist()
        [[-1.0, -1.0], [-1.0, -1.0], [-1.0, -1.0]]
        >>> dn.nn.conv2d(image, kernel, stride=2, padding=(1, 0)).shape
        (1, 3, 1, 1)
    """
    if x.ndim != 4 or w.ndim != 4:
        raise UsageError(
            f"conv2d: expected images (N, H, W, C) and a kernel (kh, kw, C / groups, Q), got "
            f"{x.shape} and {w.shape}"
        )
    geometry = Geometry.of("conv2d", w.shape[:2], stride, padding, groups)
    if x.shape[3] != w.shape[2] * groups or w.shape[3] % groups:
        raise UsageError(
            f"conv2d: a kernel {w.shape} with groups={groups} expects images with "
            f"{w.shape[2] * groups} channels and outputs that divide by groups, got {x.shape}"
        )
    geometry.output_size(x.shape[1:3], "conv2d")
    dtype = np.result_type(x.dtype, w.dtype)  # the dtype of x @ w
    x, w = (a if a.dtype == dtype else astype(a, dtype) for a in (x, w))
    y = convolve(x, np.expand_dims(w, 0), geometry)
    return np.reshape(y, y.shape[1:])  # unlike y[0], this copies nothing in reverse mode


@dataclass(frozen=True)
class Conv2d(Layer):
    """Maps x to conv2d(x, w) + b.

    Args:
        features: Q, channels of the result.
        kernel, stride: an int or (h, w).
        padding: an int, (h, w), or ((top, bottom), (left, right)); zeros.
        groups: divides the channels of both sides.
        bias: whether there is a b.
        weights: a name in `initial.INITIALIZERS`.

    Params: `w` `(kh, kw, C / groups, Q)`, `b` `(Q,)`.  Maps `(N, H, W, C)` to
    `(N, rows, columns, Q)`.

    Raises:
        UsageError: options make no windows; `groups` does not divide the channels of both sides,
            the kernel is larger than the padded image, or inputs are no such images.

    Examples:
        >>> layer = dn.nn.Conv2d(6, 5, padding=2)
        >>> params, _, out_shape = layer.init(dn.Key(0), (28, 28, 3))
        >>> dn.tree.map(np.shape, params), out_shape
        ({'w': (5, 5, 3, 6), 'b': (6,)}, (28, 28, 6))
        >>> layer.apply(params, {}, np.zeros((2, 28, 28, 3)), dn.nn.Context())[0].shape
        (2, 28, 28, 6)
    """

    features: int
    kernel: Sizes
    _: KW_ONLY
    stride: Sizes = 1
    padding: Padding = 0
    groups: int = 1
    bias: bool = True
    weights: str = "kaiming"

    def __post_init__(self) -> None:
        require_count("Conv2d", "features", self.features)
        require_initializer("Conv2d", self.weights)
        make_tuples(self, "kernel", "stride", "padding")
        self._geometry()

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        geometry = self._geometry()
        if len(in_shape) != 3:
            raise UsageError(f"Conv2d: needs images (H, W, C), got examples of shape {in_shape}")
        height, width, channels = in_shape
        if channels % self.groups or self.features % self.groups:
            raise UsageError(
                f"Conv2d: groups={self.groups} must divide the {channels} channels that come in "
                f"and the {self.features} that go out"
            )
        shape = (*geometry.window, channels // self.groups, self.features)
        fan_in = geometry.window[0] * geometry.window[1] * shape[2]
        params = {"w": initial(self.weights, key.fold_in("w"), shape, fan_in)}
        if self.bias:
            params["b"] = initial_bias(self.weights, key.fold_in("b"), self.features, fan_in)
        return params, {}, (*geometry.output_size((height, width), "Conv2d"), self.features)

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        y = conv2d(x, params["w"], stride=self.stride, padding=self.padding, groups=self.groups)
        return (add_bias(y, params["b"]) if self.bias else y), state

    def _geometry(self) -> Geometry:
        """Return the windows; raise a UsageError for options that make none."""
        return Geometry.of(
            "Conv2d", self.kernel, self.stride, self.padding, self.groups, called="kernel"
        )
