"""Sliding windows over images: where they lie, copies of them, and sums over them.

Images are `(M, H, W, C)`: M images with channels last.  A window is a rectangle of kh by kw pixels.
The first window starts outside the image, by the padding above and on the left, and each further
one lies one stride further on.  Pixels outside the image count as zeros.  An image has one window
for each row and column of the output, so `rows` and `columns` are the output's height and width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet.backends.overridable import bytes_at_a_time, overridable
from dualnet.core.dual import primitive
from dualnet.errors import UsageError
from dualnet.options import is_int, require_count
from dualnet.types import Array, Shape

Pair = tuple[int, int]
"""A number for the vertical axis and one for the horizontal axis."""


@dataclass(frozen=True)
class Geometry:
    """The size of a window, and where the windows of an image lie.

    Attributes:
        window: height and width of a window in pixels, (kh, kw).
        stride: how many pixels a window lies below, and to the right of, the one before it.
        padding: how many pixels of zeros surround the image, ((above, below), (left, right)).
        groups: into how many parts a convolution divides the channels; the outputs are divided
            into as many, and each part of them sees its own part of the channels alone.
    """

    window: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    groups: int = 1

    @classmethod
    def of(
        cls,
        name: str,
        window: Any,
        stride: Any,
        padding: Any,
        groups: int = 1,
        called: str = "window",
    ) -> Geometry:
        """Check the arguments and make a geometry of them.

        Args:
            name: of the layer or function that asks, for the error message.
            window, stride: an int for both axes, or a pair (vertical, horizontal).
            padding: likewise, or ((above, below), (left, right)).
            groups: an int.
            called: what the window is called there, for the error message.

        Raises:
            UsageError: an argument is of another form, or too small.
        """

        def pair(what: str, value: Any, least: int) -> Pair:
            both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
            if len(both) != 2 or any(not is_int(n) for n in both):
                raise UsageError(f"{name}: {what}: expected an int or two, got {value!r}")
            if min(both) < least:
                raise UsageError(f"{name}: {what}: expected at least {least}, got {value!r}")
            return both

        sides = padding if isinstance(padding, (tuple, list)) else (padding, padding)
        padded = tuple(pair("padding", side, 0) for side in sides)
        if len(padded) != 2:
            raise UsageError(
                f"{name}: expected padding as an int, (h, w) or ((top, bottom), (left, right)), "
                f"got {padding!r}"
            )
        require_count(name, "groups", groups)
        return cls(pair(called, window, 1), pair("stride", stride, 1), padded, groups)

    @property
    def is_pointwise(self) -> bool:
        """Whether the windows are the pixels, so that unfolding changes nothing."""
        return (*self.window, *self.stride, *self.padding) == (1, 1, 1, 1, (0, 0), (0, 0))

    def output_size(self, image: Pair, name: str = "unfold") -> Pair:
        """Return how many windows fit below each other and beside each other.

        Args:
            image: height and width of an image.
            name: of the function or layer that asks, for the error message.

        Returns:
            `(rows, columns)`, the height and width of the output of a convolution.

        Raises:
            UsageError: the padded image is smaller than one window.
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


def pad(x: Array, geometry: Geometry) -> Array:
    """Surround images `(M, H, W, C)` with zeros; without padding return x itself."""
    (top, bottom), (left, right) = geometry.padding
    if not top + bottom + left + right:
        return x
    m, h, w, c = x.shape
    padded = np.zeros_like(x, shape=(m, top + h + bottom, left + w + right, c))
    padded[:, top : top + h, left : left + w] = x
    return padded


@np.errstate(over="ignore", invalid="ignore")
def if_finite(y: Array) -> Array | None:
    """Return y, or None where an entry is infinite or NaN, or where their sum overflows."""
    return y if np.isfinite(np.sum(y)) else None


@overridable
def window_view(padded: Array, geometry: Geometry) -> Array:
    """Return the windows of padded images as a read-only view `(M, rows, columns, C, kh, kw)`."""
    windows = np.lib.stride_tricks.sliding_window_view(padded, geometry.window, axis=(1, 2))
    return windows[:, :: geometry.stride[0], :: geometry.stride[1]]


@primitive
@overridable
def unfold(x: Array, geometry: Geometry) -> Array:
    """Copy the windows of images `(M, H, W, C)` into rows, `(M, rows, columns, kh·kw, C)`."""
    m, h, w, c = x.shape
    kh, kw = geometry.window
    out = np.empty_like(x, shape=(m, *geometry.output_size((h, w)), kh, kw, c))
    out[...] = np.moveaxis(window_view(pad(x, geometry), geometry), 3, -1)
    return np.reshape(out, (*out.shape[:3], kh * kw, c))


@primitive
@overridable
def fold(y: Array, geometry: Geometry, image: Pair) -> Array:
    """Add every row to the pixels of its window: the transpose of `unfold`.

    The loop runs over the pixels of the window.  Each turn adds one number at most to a pixel of
    the image, because two windows never have the same pixel at the same position.  With few
    channels, it runs over rows of the window and columns of windows instead, and adds whole rows
    of windows, so that longer runs of memory are added.

    Args:
        y: `(M, rows, columns, kh·kw, C)`.
        geometry: where the windows lie.
        image: H and W.

    Returns:
        `(M, H, W, C)`.
    """
    m, c = len(y), y.shape[-1]
    padded, inside = _padded_zeros(y, (m,), c, geometry, image)
    (kh, kw), (down, across), (rows, columns) = geometry.window, geometry.stride, y.shape[1:3]
    if c < _FEW_CHANNELS and columns <= _FEW_COLUMNS:
        height, width = padded.shape[1:3]
        lines = np.reshape(padded, (m, height, width * c))
        windows = np.reshape(y, (m, rows, columns, kh, kw * c))
        for i in range(kh):
            for j in range(columns):
                start = j * across * c
                lines[:, i : i + down * rows : down, start : start + kw * c] += windows[:, :, j, i]
        return padded[inside]
    for n, (lower, upper) in enumerate(shifts(geometry, (rows, columns))):
        padded[:, lower, upper] += y[:, :, :, n]
    return padded[inside]


_FEW_CHANNELS, _FEW_COLUMNS = 32, 32
"""Below so many channels, and up to so many windows beside one another, `fold` adds rows of windows
up.  Measured with 6 to 16 channels and 4 to 28 columns: 1.3 to 2.5 times as fast."""


@primitive
@overridable
def weighted_window_sum(x: Array, weights: Array, geometry: Geometry) -> Array:
    """Return the weighted sum of each window, for a stack of k batches.

    Args:
        x: `(k, M, H, W, C)`.
        weights: `(kh·kw, M, rows, columns, C)`, one for each pixel of each window.

    Returns:
        `(k, M, rows, columns, C)`.
    """
    k, m, *_, c = x.shape
    size = weights.shape[2:4]
    out = np.empty_like(x, shape=(k, m, *size, c))
    spread = k >= _SHARED and _apart(geometry)
    of_pixels = _weights_of_pixels(weights, x, geometry) if spread else None
    for here in _image_blocks(x):
        block = x[:, here]
        padded = pad(np.reshape(block, (-1, *block.shape[2:])), geometry)
        padded = np.reshape(padded, (*block.shape[:2], *padded.shape[1:]))
        if of_pixels is not None:
            _sum_windows(padded * of_pixels[here], geometry, out[:, here])
            continue
        for n, (lower, upper) in enumerate(shifts(geometry, size)):
            part = padded[:, :, lower, upper]
            if n == 0:
                np.multiply(part, weights[n, here], out=out[:, here])
            else:
                out[:, here] += part * weights[n, here]
    return out


_SHARED = 4
"""When so many directions share weights, it pays to put these on the pixels.  Measured with 128
images of 24x24x15: 16 directions 1.7 times as fast, 2 directions slower."""


def _apart(geometry: Geometry) -> bool:
    """Tell whether no pixel belongs to two windows."""
    return all(n <= step for n, step in zip(geometry.window, geometry.stride, strict=True))


def _weights_of_pixels(weights: Array, x: Array, geometry: Geometry) -> Array:
    """Put the weights `(kh·kw, M, rows, columns, C)` of windows that lie apart on their pixels.

    Whole images are then multiplied and whole rows are added.

    Returns:
        `(M, H', W', C)`, as padded images x `(k, M, H, W, C)` lie.
    """
    _, m, h, w, c = x.shape
    spread, _ = _padded_zeros(weights, (m,), c, geometry, (h, w))
    for n, (lower, upper) in enumerate(shifts(geometry, weights.shape[2:4])):
        spread[:, lower, upper] = weights[n]
    return spread


def _sum_windows(padded: Array, geometry: Geometry, out: Array) -> None:
    """Write the sums of windows of padded images `(k, M, H', W', C)` to `out`."""
    (height, width), (down, across), (rows, columns) = (
        geometry.window,
        geometry.stride,
        out.shape[2:4],
    )
    lines = padded[:, :, : down * rows : down]
    for i in range(1, height):
        lines = lines + padded[:, :, i : i + down * rows : down]
    out[...] = lines[:, :, :, : across * columns : across]
    for j in range(1, width):
        out += lines[:, :, :, j : j + across * columns : across]


@primitive
@overridable
def weighted_window_sum_transpose(
    y: Array, weights: Array, geometry: Geometry, image: Pair
) -> Array:
    """Add each number times its window's weights to the window: `weighted_window_sum`, transposed.

    Args:
        y: `(k, M, rows, columns, C)`, one number for each window.
        weights: `(kh·kw, M, rows, columns, C)`, one for each pixel of each window.
        geometry: where the windows lie.
        image: H and W.

    Returns:
        `(k, M, H, W, C)`.
    """
    k, m, *_, c = y.shape
    padded, inside = _padded_zeros(y, (k, m), c, geometry, image)
    for here in _image_blocks(y):
        for n, (lower, upper) in enumerate(shifts(geometry, y.shape[2:4])):
            target = padded[:, here, lower, upper]
            if _apart(geometry):
                np.multiply(y[:, here], weights[n, here], out=target)
            else:
                target += y[:, here] * weights[n, here]
    return padded[inside]


def shifts(geometry: Geometry, output_size: Pair) -> Iterator[tuple[slice, slice]]:
    """Yield, for each of the kh·kw pixels of a window, where all windows have this pixel.

    A shift is a slice of the rows and a slice of the columns of padded images.  It picks one pixel
    from each window: `padded[:, lower, upper]` is `(M, rows, columns, C)`.
    """
    (down, across), (rows, columns) = geometry.stride, output_size
    for i in range(geometry.window[0]):
        for j in range(geometry.window[1]):
            yield slice(i, i + down * rows, down), slice(j, j + across * columns, across)


_BLOCK_BYTES = 1 << 19
"""Bytes of images in one block.  So many stay in the cache while all shifts read them."""


def _image_blocks(stack: Array) -> Iterator[slice]:
    """Yield slices of the axis M of a stack `(k, M, ...)`, each of a few images."""
    m = stack.shape[1]
    most = bytes_at_a_time(stack, _BLOCK_BYTES)
    step = max(1, most * m // max(1, stack.size * stack.itemsize))
    return (slice(start, start + step) for start in range(0, m, step))


def _padded_zeros(
    like: Array, lead: Shape, channels: int, geometry: Geometry, image: Pair
) -> tuple[Array, tuple]:
    """Return padded images of zeros `(*lead, H', W', C)`, and the index of the images in them."""
    (top, bottom), (left, right) = geometry.padding
    h, w = image
    zeros = np.zeros_like(like, shape=(*lead, top + h + bottom, left + w + right, channels))
    return zeros, (..., slice(top, top + h), slice(left, left + w), slice(None))
