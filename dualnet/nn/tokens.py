"""From images to tokens, and what transformers and mixers do with tokens besides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualnet.errors import UsageError
from dualnet.nn.context import Context
from dualnet.nn.initial import TOKEN_DEVIATION, normal
from dualnet.nn.network import Layer
from dualnet.nn.refusals import require_inputs
from dualnet.options import is_int, make_tuples
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Shape


@dataclass(frozen=True)
class Patches(Layer):
    """Cuts images into patches, each a token of its pixels: `(N, H, W, C)` to `(N, P, h·w·C)`.

    Patches are numbered row by row, as are the pixels in them.

    Args:
        size: of a patch, an int or `(h, w)`; divides the image's.

    Raises:
        UsageError: `size` is no int of at least 1 or two, or images do not divide into patches.

    Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1.

    Examples:
        >>> image = np.arange(16).reshape(1, 4, 4, 1)  # rows 0 1 2 3, 4 5 6 7, ...
        >>> dn.nn.Patches(2).apply({}, {}, image, dn.nn.Context())[0][0].tolist()
        [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    """

    size: int | tuple[int, int]

    def __post_init__(self) -> None:
        make_tuples(self, "size")
        both = self._height_and_width()
        if len(both) != 2 or any(not is_int(n) or n < 1 for n in both):
            raise UsageError(
                f"Patches: size: expected an int of at least 1, or two (h, w), got {self.size!r}"
            )

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        h, w = self._height_and_width()
        if len(in_shape) != 3 or in_shape[0] % h or in_shape[1] % w:
            raise UsageError(
                f"Patches: expected images (H, W, C) that divide into patches of {h} by {w}, got "
                f"examples of shape {in_shape}"
            )
        height, width, channels = in_shape
        return {}, {}, ((height // h) * (width // w), h * w * channels)

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        require_inputs("Patches", x, "N", "H", "W", "C")
        n, height, width, channels = x.shape
        h, w = self._height_and_width()
        if height % h or width % w:
            raise UsageError(
                f"Patches: expected images (N, H, W, C) that divide into "
                f"patches of {h} by {w}, got {x.shape}; pad or crop them"
            )
        rows, columns = height // h, width // w
        cut = np.reshape(x, (n, rows, h, columns, w, channels))
        tokens = np.swapaxes(cut, 2, 3)  # (N, rows, columns, h, w, C)
        return np.reshape(tokens, (n, rows * columns, h * w * channels)), state

    def _height_and_width(self) -> tuple[int, int]:
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)


@dataclass(frozen=True)
class ClassToken(Layer):
    """Puts a learned token before the others: `(N, T, C)` to `(N, 1 + T, C)`.

    Params: `token` `(C,)`.

    Raises:
        UsageError: examples are no tokens of C channels.

    Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words",
    Eq. 1.

    Examples:
        >>> layer, params = dn.nn.ClassToken(), {"token": np.array([7.0, 7.0])}
        >>> layer.apply(params, {}, np.zeros((1, 2, 2)), dn.nn.Context())[0].tolist()
        [[[7.0, 7.0], [0.0, 0.0], [0.0, 0.0]]]
    """

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        tokens, channels = _tokens_and_channels("ClassToken", in_shape)
        token = normal(key.fold_in("token"), (channels,), TOKEN_DEVIATION)
        return {"token": token}, {}, (tokens + 1, channels)

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        require_inputs("ClassToken", x, "N", "T", *params["token"].shape)
        first = np.broadcast_to(params["token"], (x.shape[0], 1, x.shape[2]))
        return np.concatenate([first, x], axis=1), state


@dataclass(frozen=True)
class Positions(Layer):
    """Adds a learned embedding of its position to each token.

    Params: `positions` `(T, C)`.

    Raises:
        UsageError: examples are no T tokens of C channels.

    Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16
    Words", Eq. 1.

    Examples:
        >>> params, _, _ = dn.nn.Positions().init(dn.Key(0), (4, 8))
        >>> params["positions"].shape
        (4, 8)
        >>> y, _ = dn.nn.Positions().apply(params, {}, np.zeros((2, 4, 8)), dn.nn.Context())
        >>> bool((y[0] == params["positions"]).all() and (y[0] == y[1]).all())
        True
    """

    row_groups = 0

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        shape = _tokens_and_channels("Positions", in_shape)
        return {"positions": normal(key.fold_in("positions"), shape, TOKEN_DEVIATION)}, {}, shape

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        require_inputs("Positions", x, "N", *params["positions"].shape)
        return x + params["positions"], state


@dataclass(frozen=True)
class SelectToken(Layer):
    """Picks one token of each example: `(N, T, C)` to `(N, C)`.

    Args:
        index: which token; the class token is 0.

    Raises:
        UsageError: examples are no tokens of channels, or have no token of that index.

    Examples:
        >>> tokens = np.arange(6.0).reshape(1, 3, 2)
        >>> dn.nn.SelectToken(0).apply({}, {}, tokens, dn.nn.Context())[0].tolist()
        [[0.0, 1.0]]
        >>> dn.nn.SelectToken(-1).apply({}, {}, tokens, dn.nn.Context())[0].tolist()
        [[4.0, 5.0]]
    """

    index: int = 0

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        tokens, channels = _tokens_and_channels("SelectToken", in_shape)
        if not -tokens <= self.index < tokens:
            raise UsageError(f"SelectToken: no token {self.index} among {tokens}")
        return {}, {}, (channels,)

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        require_inputs("SelectToken", x, "N", "T", "C")
        if not -x.shape[1] <= self.index < x.shape[1]:
            raise UsageError(f"SelectToken: no token {self.index} in inputs {x.shape}")
        return x[:, self.index], state


@dataclass(frozen=True)
class AverageTokens(Layer):
    """Takes the mean of an example's tokens: `(N, T, C)` to `(N, C)`.

    Raises:
        UsageError: examples are no tokens of channels.

    Examples:
        >>> tokens = np.array([[[0.0, 10.0], [4.0, 30.0]]])
        >>> dn.nn.AverageTokens().apply({}, {}, tokens, dn.nn.Context())[0].tolist()
        [[2.0, 20.0]]
    """

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        return {}, {}, _tokens_and_channels("AverageTokens", in_shape)[1:]

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        require_inputs("AverageTokens", x, "N", "T", "C")
        return np.mean(x, axis=1), state


def _tokens_and_channels(layer: str, in_shape: Shape) -> tuple[int, int]:
    """Return T and C of examples of tokens; raise a UsageError for others."""
    if len(in_shape) != 2:
        raise UsageError(f"{layer}: expected examples (tokens, channels), got shape {in_shape}")
    tokens, channels = in_shape
    return tokens, channels
