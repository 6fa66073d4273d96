"""Sliding windows over images: where they lie, and the copies `unfold` and `fold`.

Images are `(M, H, W, C)`, channels last.  A window is a rectangle of pixels that starts outside
the image by the padding and moves by the stride; pixels outside count as zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet.core.dispatch import primitive
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
            both = (value, value) if isinstance(value, (int, np.integer)) else tuple(value)
            if len(both) != 2 or any(not isinstance(n, (int, np.integer)) for n in both):
                raise UsageError(f"{name}: {what} must be an int or two, got {value!r}")
            if min(both) < least:
                raise UsageError(f"{name}: {what} must be at least {least}, got {value!r}")
            return both

        sides = padding if isinstance(padding, (tuple, list)) else (padding, padding)
        padded = tuple(pair("padding", side, 0) for side in sides)
        if len(padded) != 2 or groups < 1:
            raise UsageError(
                f"{name}: expected padding as an int, (h, w) or ((top, bottom), (left, right)) and "
                f"groups >= 1, got {padding!r} and {groups!r}"
            )
        return cls(pair("window", window, 1), pair("stride", stride, 1), padded, groups)

    @property
    def is_pointwise(self) -> bool:
        """Each window is one pixel and every pixel has one: nothing to copy."""
        return (*self.window, *self.stride, *self.padding) == (1, 1, 1, 1, (0, 0), (0, 0))

    def places(self, image: Pair) -> Pair:
        """How many windows fit into an image of height and width `image`.

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
                f"a window of {self.window[0]}x{self.window[1]} does not fit into an image of "
                f"{image[0]}x{image[1]} with padding {self.padding}; pad more or use a smaller one"
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


def view(padded: Any, geometry: Geometry) -> Any:
    """The windows of padded images as a read-only view `(M, rows, columns, C, kh, kw)`."""
    windows = np.lib.stride_tricks.sliding_window_view(padded, geometry.window, axis=(1, 2))
    return windows[:, :: geometry.stride[0], :: geometry.stride[1]]


@primitive
def unfold(x: Any, geometry: Geometry) -> Any:
    """Every window of x as a row: `(M, H, W, C)` to `(M, rows, columns, kh·kw, C)`."""
    m, h, w, c = x.shape
    kh, kw = geometry.window
    out = np.empty_like(x, shape=(m, *geometry.places((h, w)), kh, kw, c))
    out[...] = np.moveaxis(view(pad(x, geometry), geometry), 3, -1)
    return np.reshape(out, (*out.shape[:3], kh * kw, c))


@primitive
def fold(y: Any, geometry: Geometry, image: Pair) -> Any:
    """Add every row back at its window's place: the transpose of `unfold`.

    One sum of shifted images for each pixel of the window, so nothing is added to one place by
    two hands at once.

    Args:
        y: `(M, rows, columns, kh·kw, C)`.
        image: H and W.
    """
    m, rows, columns, _, c = y.shape
    (kh, kw), (down, right) = geometry.window, geometry.stride
    (top, bottom), (left, after) = geometry.padding
    h, w = image
    padded = np.zeros_like(y, shape=(m, top + h + bottom, left + w + after, c))
    for i in range(kh):
        for j in range(kw):
            lower, upper = slice(i, i + down * rows, down), slice(j, j + right * columns, right)
            padded[:, lower, upper] += y[:, :, :, i * kw + j]
    return padded[:, top : top + h, left : left + w]
