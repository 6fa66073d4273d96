"""Pooling: one number for each window of an image and each channel."""

from __future__ import annotations

import functools
from dataclasses import KW_ONLY, dataclass

import numpy as np

from dualnet.backends.overridable import matmul, stack
from dualnet.core.dual import primal_of, primitive
from dualnet.core.engine import linearizer
from dualnet.errors import UsageError
from dualnet.images.rules import weighted_sum_of_tangent
from dualnet.images.windows import Geometry, shifts, unfold
from dualnet.nn.context import Context
from dualnet.nn.convolution import Padding, Sizes
from dualnet.nn.network import Layer
from dualnet.options import make_tuples
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array, Linearized, Shape


def max_pool(
    x: Array, window: Sizes, *, stride: Sizes | None = None, padding: Padding = 0
) -> Array:
    """Return the largest entry of each window; entries that tie for it share the tangent equally.

    Args:
        x: `(N, H, W, C)`.
        window: an int or (h, w).
        stride: steps down and to the right; the window's size if not given.
        padding: pixels around, which are never the largest: an int, (h, w), or ((top, bottom),
            (left, right)), each less than the window, so that no window lies outside alone.

    Returns:
        `(N, rows, columns, C)` with rows = (H + top + bottom - h) // stride + 1.

    Raises:
        UsageError: x is no batch of images, the window does not fit it, or the padding is as large
            as the window.

    Examples:
        >>> x = np.array([[1.0, 3.0, 0.0, 2.0], [2.0, 3.0, 0.0, 0.0]]).reshape(1, 2, 4, 1)
        >>> dn.nn.max_pool(x, 2).ravel().tolist()
        [3.0, 2.0]
        >>> dn.grad(lambda x: dn.nn.max_pool(x, 2).sum())(x)[0, :, :, 0].tolist()  # two 3s tie
        [[0.0, 0.5, 0.0, 1.0], [0.0, 0.5, 0.0, 0.0]]
    """
    geometry = _geometry("max_pool", x, window, stride, padding)
    _require_less_padding("max_pool", geometry)
    return _largest(x, geometry)


def _require_less_padding(name: str, geometry: Geometry) -> None:
    """Raise a UsageError where a window may hold nothing but padding."""
    if any(max(pair) >= n for pair, n in zip(geometry.padding, geometry.window, strict=True)):
        raise UsageError(
            f"{name}: padding must be less than the window {geometry.window}, got "
            f"{geometry.padding}; a window of padding alone has no largest entry"
        )


@primitive
def _largest(x: Array, geometry: Geometry) -> Array:
    # Rows first: whole rows lie together in memory, and columns are then the fewer.
    padded, (rows, columns) = _pad_by_nothing(x, geometry), geometry.output_size(x.shape[1:3])
    (height, width), (down, across) = geometry.window, geometry.stride
    lines = functools.reduce(
        np.maximum, (padded[:, i : i + down * rows : down] for i in range(height))
    )
    return functools.reduce(
        np.maximum, (lines[:, :, j : j + across * columns : across] for j in range(width))
    )


@linearizer(_largest)
def _(x: Array, geometry: Geometry) -> Linearized:
    """The tangent of the largest entry is a weighted sum of the window's tangents, of weight 1
    for the largest, or 1/n for each of n that tie."""
    out = _largest(x, geometry)
    winner, padded = primal_of(out), _pad_by_nothing(primal_of(x), geometry)
    hits = [np.equal(padded[:, a, b], winner) for a, b in shifts(geometry, winner.shape[1:3])]
    weights = stack(hits).astype(winner.dtype)
    weights /= np.sum(weights, axis=0)
    return out, lambda t: weighted_sum_of_tangent(t, weights, geometry)


def _pad_by_nothing(x: Array, geometry: Geometry) -> Array:
    """Return x with pixels around it that are never the largest."""
    sides = ((0, 0), *geometry.padding, (0, 0))
    return np.pad(x, sides, constant_values=-np.inf) if np.any(sides) else x


def average_pool(
    x: Array, window: Sizes, *, stride: Sizes | None = None, padding: Padding = 0
) -> Array:
    """Return the mean of each window, zeros of the padding counted.

    Args:
        x: `(N, H, W, C)`.
        window, stride, padding: as in `max_pool`; the padding may be as large as the window.

    Returns:
        `(N, rows, columns, C)` with rows = (H + top + bottom - h) // stride + 1.

    Raises:
        UsageError: x is no batch of images, or the window does not fit it.

    Examples:
        >>> x = np.arange(8.0).reshape(1, 2, 4, 1)  # rows 0 1 2 3, 4 5 6 7
        >>> dn.nn.average_pool(x, 2).ravel().tolist()
        [2.5, 4.5]
        >>> dn.nn.average_pool(x, (2, 1), stride=1).ravel().tolist()
        [2.0, 3.0, 4.0, 5.0]
    """
    return np.mean(unfold(x, _geometry("average_pool", x, window, stride, padding)), axis=-2)


def adaptive_average_pool(x: Array, size: Sizes) -> Array:
    """Return the means of a grid of `size` cells of nearly equal height and width.

    Cell i of n covers the rows from floor(i·H/n) to ceil((i + 1)·H/n) - 1, so neighbors overlap
    by a row where n does not divide H, and columns likewise.

    Args:
        x: `(N, H, W, C)`.
        size: rows and columns of the result, an int for both.

    Returns:
        `(N, *size, C)`.

    Raises:
        UsageError: x is no batch of images, or `size` is no count.

    Examples:
        >>> x = np.arange(3.0).reshape(1, 1, 3, 1)
        >>> dn.nn.adaptive_average_pool(x, (1, 2)).ravel().tolist()  # the means of 0 1, and of 1 2
        [0.5, 1.5]
    """
    rows, columns = _cells("adaptive_average_pool", size)
    if x.ndim != 4:
        raise UsageError(f"adaptive_average_pool: expected images (N, H, W, C), got {x.shape}")
    n, h, w, c = x.shape
    by_rows = matmul(_cell_means(rows, h, x), np.reshape(x, (n, h, w * c)))
    return matmul(_cell_means(columns, w, x), np.reshape(by_rows, (n, rows, w, c)))


def _cells(name: str, size: Sizes) -> tuple[int, int]:
    """Return a size as rows and columns; raise a UsageError for one that is none."""
    return Geometry.of(name, size, 1, 0, called="size").window


def _cell_means(cells: int, length: int, x: Array) -> Array:
    """Return the matrix `(cells, length)` that takes the means, an array of x's kind."""
    i, pixel = np.arange(cells, like=x)[:, None], np.arange(length, like=x)
    inside = (pixel >= i * length // cells) & (pixel < -(-(i + 1) * length // cells))
    dtype = np.result_type(x.dtype, np.float32) if x.dtype.kind in "iub" else x.dtype
    return (inside / inside.sum(axis=1, keepdims=True)).astype(dtype)


def _geometry(
    name: str, x: Array, window: Sizes, stride: Sizes | None, padding: Padding
) -> Geometry:
    if x.ndim != 4:
        raise UsageError(f"{name}: expected images (N, H, W, C), got {x.shape}")
    geometry = _windows(name, window, stride, padding)
    geometry.output_size(x.shape[1:3], name)
    return geometry


def _windows(name: str, window: Sizes, stride: Sizes | None, padding: Padding) -> Geometry:
    return Geometry.of(name, window, window if stride is None else stride, padding)


@dataclass(frozen=True)
class MaxPool(Layer):
    """Applies `max_pool`, and has no parameters.

    Args:
        window, stride, padding: as in `max_pool`.

    Maps `(N, H, W, C)` to `(N, rows, columns, C)`.

    Raises:
        UsageError: the options make no windows, or examples are no images that they fit.

    Examples:
        >>> layer = dn.nn.MaxPool(3, stride=2, padding=1)
        >>> layer.init(dn.Key(0), (32, 32, 64))
        ({}, {}, (16, 16, 64))
    """

    window: Sizes
    _: KW_ONLY
    stride: Sizes | None = None
    padding: Padding = 0

    def __post_init__(self) -> None:
        make_tuples(self, "window", "stride", "padding")
        _require_less_padding("MaxPool", _windows_of(self))

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        return {}, {}, _out_shape(self, in_shape)

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        return max_pool(x, self.window, stride=self.stride, padding=self.padding), state


@dataclass(frozen=True)
class AveragePool(Layer):
    """Applies `average_pool`, and has no parameters.

    Args:
        window, stride, padding: as in `average_pool`.

    Maps `(N, H, W, C)` to `(N, rows, columns, C)`.

    Raises:
        UsageError: the options make no windows, or examples are no images that they fit.

    Examples:
        >>> layer = dn.nn.AveragePool(2)
        >>> layer.init(dn.Key(0), (4, 4, 8))[2]
        (2, 2, 8)
        >>> layer.apply({}, {}, np.eye(2).reshape(1, 2, 2, 1), dn.nn.Context())[0].tolist()
        [[[[0.5]]]]
    """

    window: Sizes
    _: KW_ONLY
    stride: Sizes | None = None
    padding: Padding = 0

    def __post_init__(self) -> None:
        make_tuples(self, "window", "stride", "padding")
        _windows_of(self)

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        return {}, {}, _out_shape(self, in_shape)

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        return average_pool(x, self.window, stride=self.stride, padding=self.padding), state


@dataclass(frozen=True)
class AdaptiveAveragePool(Layer):
    """Applies `adaptive_average_pool`, and has no parameters.

    Args:
        size: rows and columns of the result, an int for both.

    Maps `(N, H, W, C)` to `(N, rows, columns, C)`.

    Raises:
        UsageError: `size` is no count, or examples are no images.

    Examples:
        >>> layer = dn.nn.AdaptiveAveragePool(1)  # one mean for each channel, whatever the image
        >>> layer.init(dn.Key(0), (7, 5, 64))[2]
        (1, 1, 64)
        >>> layer.apply({}, {}, np.ones((2, 3, 3, 1)), dn.nn.Context())[0].shape
        (2, 1, 1, 1)
    """

    size: Sizes

    def __post_init__(self) -> None:
        make_tuples(self, "size")
        _cells("AdaptiveAveragePool", self.size)

    def init(self, key: Key, in_shape: Shape) -> tuple[Tree, Tree, Shape]:
        return {}, {}, (*_cells("AdaptiveAveragePool", self.size), _image(self, in_shape)[-1])

    def apply(self, params: Tree, state: Tree, x: Array, context: Context) -> tuple[Array, Tree]:
        return adaptive_average_pool(x, self.size), state


def _out_shape(layer: MaxPool | AveragePool, in_shape: Shape) -> Shape:
    height, width, channels = _image(layer, in_shape)
    return (*_windows_of(layer).output_size((height, width), type(layer).__name__), channels)


def _windows_of(layer: MaxPool | AveragePool) -> Geometry:
    """Return a layer's windows; raise a UsageError for options that make none."""
    return _windows(type(layer).__name__, layer.window, layer.stride, layer.padding)


def _image(layer: Layer, in_shape: Shape) -> Shape:
    if len(in_shape) != 3:
        name = type(layer).__name__
        raise UsageError(f"{name}: needs images (H, W, C), got examples of shape {in_shape}")
    return in_shape
