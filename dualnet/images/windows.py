"""Sliding windows over images: where they lie, copies of them, and sums over them.

Images are `(M, H, W, C)`, channels last.  A window is a rectangle of pixels that starts outside
the image by the padding and moves by the stride; pixels outside count as zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet.backends.overridable import bytes_at_a_time, overridable
from dualnet.core.dual import primitive
from dualnet.errors import UsageError

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Windows of one size at regular places.

    Attributes:
        window: height and width, kh and kw.
        stride: steps down and to the right.
        padding: pixels of zeros ((above, below), (left, right)).
        groups: how many parts the channels are cut into, each seen by its own outputs.
    """

    window: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    groups: int = 1

    @classmethod
    def of(cls, name: str, window: Any, stride: Any, padding: Any, groups: int = 1) -> Geometry:
        """From an int or pair for each of them; `name` is for the error message."""

        def pair(what: str, value: Any, least: int) -> Pair:
            both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
            if len(both) != 2 or any(not isinstance(n, (int, np.integer)) for n in both):
                raise UsageError(f"{name}: {what} must be an int or two, got {value!r}")
            if min(both) < least:
                raise UsageError(f"{name}: {what} must be at least {least}, got {value!r}")
            return both

        sides = padding if isinstance(padding, (tuple, list)) else (padding, padding)
        padded = tuple(pair("padding", side, 0) for side in sides)
        if len(padded) != 2:
            raise UsageError(
                f"{name}: expected padding as an int, (h, w) or ((top, bottom), (left, right)), "
                f"got {padding!r}"
            )
        if not isinstance(groups, (int, np.integer)) or groups < 1:
            raise UsageError(f"{name}: groups must be an int of at least 1, got {groups!r}")
        return cls(pair("window", window, 1), pair("stride", stride, 1), padded, groups)

    @property
    def is_pointwise(self) -> bool:
        """Each window is one pixel and every pixel has one: nothing to copy."""
        return (*self.window, *self.stride, *self.padding) == (1, 1, 1, 1, (0, 0), (0, 0))

    def output_size(self, image: Pair, name: str = "unfold") -> Pair:
        """How many windows fit into an image of height and width `image`.

        `name` is for the error message: the function or layer that asks.

        Raises:
            UsageError: not one.
        """
        rows, columns = (
            (n + before + after - size) // step + 1
            for n, (before, after), size, step in zip(
                image, self.padding, self.window, self.stride, strict=True
            )
        )
        if rows < 1 or columns < 1:
            raise UsageError(
                f"{name}: a window of {self.window[0]}x{self.window[1]} does not fit into an image "
                f"of {image[0]}x{image[1]} with padding {self.padding}; pad more or use a smaller "
                "one"
            )
        return rows, columns


def pad(x: Any, geometry: Geometry) -> Any:
    """The images with their padding of zeros, `(M, H', W', C)`; x itself where there is none."""
    (top, bottom), (left, right) = geometry.padding
    if not top + bottom + left + right:
        return x
    m, h, w, c = x.shape
    padded = np.zeros_like(x, shape=(m, top + h + bottom, left + w + right, c))
    padded[:, top : top + h, left : left + w] = x
    return padded


@overridable
def window_view(padded: Any, geometry: Geometry) -> Any:
    """The windows of padded images as a read-only view `(M, rows, columns, C, kh, kw)`."""
    windows = np.lib.stride_tricks.sliding_window_view(padded, geometry.window, axis=(1, 2))
    return windows[:, :: geometry.stride[0], :: geometry.stride[1]]


@primitive
@overridable
def unfold(x: Any, geometry: Geometry) -> Any:
    """Every window of x as a row: `(M, H, W, C)` to `(M, rows, columns, kh·kw, C)`."""
    m, h, w, c = x.shape
    kh, kw = geometry.window
    out = np.empty_like(x, shape=(m, *geometry.output_size((h, w)), kh, kw, c))
    out[...] = np.moveaxis(window_view(pad(x, geometry), geometry), 3, -1)
    return np.reshape(out, (*out.shape[:3], kh * kw, c))


@primitive
@overridable
def fold(y: Any, geometry: Geometry, image: Pair) -> Any:
    """Add every row back at its window's place: the transpose of `unfold`.

    One sum of shifted images for each pixel of the window, so nothing is added to one place by
    two hands at once.

    Args:
        y: `(M, rows, columns, kh·kw, C)`.
        image: H and W.
    """
    m, c = len(y), y.shape[-1]
    padded, inside = _zeros_around(y, (m,), c, geometry, image)
    for n, (lower, upper) in enumerate(shifts(geometry, y.shape[1:3])):
        padded[:, lower, upper] += y[:, :, :, n]
    return padded[inside]


@primitive
@overridable
def weighted_window_sum(x: Any, weights: Any, geometry: Geometry) -> Any:
    """The weighted sum of each window, for a stack of k batches.

    Args:
        x: `(k, M, H, W, C)`.
        weights: `(kh·kw, M, rows, columns, C)`, one for each pixel of each window.

    Returns:
        `(k, M, rows, columns, C)`.
    """
    k, m, *_, c = x.shape
    places = weights.shape[2:4]
    out = np.empty_like(x, shape=(k, m, *places, c))
    for here in _runs(x):
        block = x[:, here]
        padded = pad(np.reshape(block, (-1, *block.shape[2:])), geometry)
        padded = np.reshape(padded, (*block.shape[:2], *padded.shape[1:]))
        for n, (lower, upper) in enumerate(shifts(geometry, places)):
            part = padded[:, :, lower, upper]
            if n == 0:
                np.multiply(part, weights[n, here], out=out[:, here])
            else:
                out[:, here] += part * weights[n, here]
    return out


@primitive
@overridable
def weighted_window_sum_transpose(y: Any, weights: Any, geometry: Geometry, image: Pair) -> Any:
    """Spread y `(k, M, rows, columns, C)` over its windows: `weighted_window_sum`, transposed."""
    k, m, *_, c = y.shape
    padded, inside = _zeros_around(y, (k, m), c, geometry, image)
    for here in _runs(y):
        for n, (lower, upper) in enumerate(shifts(geometry, y.shape[2:4])):
            padded[:, here, lower, upper] += y[:, here] * weights[n, here]
    return padded[inside]


def shifts(geometry: Geometry, places: Pair) -> Iterator[tuple[slice, slice]]:
    """For each pixel of the window, where in padded images it lies in all windows."""
    (down, across), (rows, columns) = geometry.stride, places
    for i in range(geometry.window[0]):
        for j in range(geometry.window[1]):
            yield slice(i, i + down * rows, down), slice(j, j + across * columns, across)


_RUN_BYTES = 1 << 19
"""Bytes of images at a time, which all shifts then find in the cache."""


def _runs(stack: Any) -> Iterator[slice]:
    """A few images `(k, M, ...)` at a time."""
    m = stack.shape[1]
    most = bytes_at_a_time(stack, _RUN_BYTES)
    step = max(1, most * m // max(1, stack.size * stack.itemsize))
    return (slice(start, start + step) for start in range(0, m, step))


def _zeros_around(
    like: Any, lead: tuple[int, ...], channels: int, geometry: Geometry, image: Pair
) -> tuple[Any, tuple]:
    """Padded images of zeros `(*lead, H', W', C)`, and where in them the images are."""
    (top, bottom), (left, right) = geometry.padding
    h, w = image
    zeros = np.zeros_like(like, shape=(*lead, top + h + bottom, left + w + right, channels))
    return zeros, (..., slice(top, top + h), slice(left, left + w), slice(None))
