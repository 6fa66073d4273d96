"""Convolution with 3x3 kernels by fewer multiplications: Winograd's minimal filtering, F(2, 3).

Two neighboring outputs of a filter g of three taps, of four pixels d, take four products, not six:

    m0 = (d0 - d2) g0                  y0 = m0 + m1 + m2
    m1 = (d1 + d2) (g0 + g1 + g2) / 2  y1 = m1 - m2 - m3
    m2 = (d2 - d1) (g0 - g1 + g2) / 2
    m3 = (d1 - d3) g2

Done down and across, a tile of 2x2 outputs, which sees 4x4 pixels, takes 16 products instead of 36.
With channels, each of the 16 is a product of matrices: all tiles' pixels times the kernel.  An
output only depends on the pixels of its own window here, too, and its rounding error is that of the
plain way, measured by the largest products in the window.

Names of axes are those of `convolution`; T is the number of tiles, of which an image has
`down` rows of `across`.

Source: Lavin and Gray 2016, "Fast algorithms for convolutional neural networks", section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dualnet.backends.host import are_of_host
from dualnet.images.windows import Geometry, Pair, if_finite
from dualnet.types import Array

_BLOCK_BYTES = 1 << 20
"""Bytes of the 16 matrices of one block of images.  Measured with 16 to 256 channels: 0.5 and 1 MiB
take the same time, 2 MiB a third more, and 4 MiB twice as long."""

_CHANNELS = 32
"""From so many channels on both sides on, the products are dear enough that fewer of them pay.
Measured at 32 channels: 1.25 times as fast, at 64 1.5 times, at 128 1.8 times; at 16 as fast."""

_TILES = 128
"""From so many tiles on it pays to transform the kernels first."""


def serves(x: Array, other: Array, geometry: Geometry) -> bool:
    """Tell whether a convolution of images x on the host is faster by tiles.

    Double precision is left to the plain way, by which single precision can be judged.

    Args:
        x: images `(M, H, W, C)`.
        other: the other operand, kernels or outputs.
        geometry: where the windows lie.
    """
    plain = (geometry.window, geometry.stride, geometry.groups) == ((3, 3), (1, 1), 1)
    if not plain or min(x.shape[-1], other.shape[-1]) < _CHANNELS:
        return False
    down, across = _tiles(geometry.output_size(x.shape[1:3]))
    single = are_of_host(x, other) and x.dtype == np.float32
    return single and len(x) * down * across >= _TILES


@np.errstate(over="ignore", invalid="ignore")
def convolve_by_tiles(x: Array, w: Array, geometry: Geometry) -> Array | None:
    """Compute `convolve`.

    Returns:
        None for arguments that this file does not serve, and where an output is not finite: in the
        plain way it may be another one, or finite.
    """
    if not serves(x, w, geometry):
        return None
    (kernels, _, _, channels, q), size = w.shape, geometry.output_size(x.shape[1:3])
    factors = _kernel_matrices(w)
    together = max(1, min(kernels, 256 // q))
    out = np.empty((kernels, len(x), *size, q), x.dtype)
    tiles = _PixelTiles(x, geometry)
    for here, pixels in tiles.blocks(max(channels, together * q)):
        n = here.stop - here.start
        for first in range(0, kernels, together):
            some = slice(first, min(kernels, first + together))
            columns = np.reshape(factors[:, :, some], (16, channels, -1))
            products = np.matmul(pixels, columns)
            shape = (4, 4, n, *tiles.tiles, some.stop - first, q)
            _put_together(np.reshape(products, shape), out[some, here])
    return if_finite(out)


@np.errstate(over="ignore", invalid="ignore")
def kernel_gradient_by_tiles(x: Array, y: Array, geometry: Geometry) -> Array | None:
    """Compute `kernel_gradient`.

    Each of the three steps of `convolve_by_tiles` is linear in the kernels, and transposed here.

    Returns:
        None for arguments that this file does not serve, and where a number is not finite.
    """
    if not serves(x, y, geometry):
        return None
    kernels, q, channels = len(y), y.shape[-1], x.shape[-1]
    tiles = _PixelTiles(x, geometry)
    sums = np.zeros((kernels, 16, channels, q), x.dtype)
    for here, pixels in tiles.blocks(max(channels, q)):
        turned = np.swapaxes(pixels, 1, 2)
        for kernel in range(kernels):
            sums[kernel] += np.matmul(turned, _output_matrices(y[kernel, here], tiles.tiles))
    return if_finite(_from_kernel_matrices(np.reshape(sums, (kernels, 4, 4, channels, q))))


# --- the three transformations --------------------------------------------------------------------


def _tiles(size: Pair) -> Pair:
    """Return how many tiles of 2x2 cover an image's outputs below and beside one another."""
    return -(-size[0] // 2), -(-size[1] // 2)


class _PixelTiles:
    """Images `(M, H, W, C)`, whose tiles of pixels are made ready for the products, block by block.

    Neighboring tiles share pixels.  Pixels of even and of odd rows and columns are first put into
    four images, so that everything after that runs along contiguous rows of many tiles.
    """

    def __init__(self, x: Array, geometry: Geometry):
        self.x = x
        self.tiles = _tiles(geometry.output_size(x.shape[1:3]))
        self.before = geometry.padding[0][0], geometry.padding[1][0]

    def blocks(self, columns: int) -> Iterator[tuple[slice, Array]]:
        """Yield a slice of the images and their matrices `(16, T, C)`, which the next overwrites.

        Args:
            columns: of the widest matrix that is made of a block.
        """
        m, channels = len(self.x), self.x.shape[-1]
        down, across = self.tiles
        step = max(1, _BLOCK_BYTES // (16 * down * across * columns * self.x.itemsize))
        have = 0
        for a in range(0, m, step):
            here = slice(a, min(m, a + step))
            n = here.stop - a
            if n != have:  # the first and perhaps the last one
                have = n
                apart = np.zeros((2, 2, n, down + 1, across + 1, channels), self.x.dtype)
                half = np.empty((4, 2, n, down, across + 1, channels), self.x.dtype)
                whole = np.empty((4, 4, n, down, across, channels), self.x.dtype)
            _put_apart(self.x[here], self.before, apart)
            above, below = apart[:, :, :, :-1], apart[:, :, :, 1:]
            _combine_pixels(above[0], above[1], below[0], below[1], half)
            left, right = half[..., :-1, :], half[..., 1:, :]
            _combine_pixels(
                left[:, 0], left[:, 1], right[:, 0], right[:, 1], np.swapaxes(whole, 0, 1)
            )
            yield here, np.reshape(whole, (16, n * down * across, channels))


def _put_apart(x: Array, before: Pair, out: Array) -> None:
    """Write pixels of even and odd rows and columns to `out` `(2, 2, n, h, w, C)`, zeros around.

    Args:
        x: images `(n, H, W, C)`.
        before: how many rows of padding lie above them and how many columns on their left.
        out: what lies outside of the images is zero there, and stays so.
    """
    for i in (0, 1):
        for j in (0, 1):
            row, column = (i - before[0]) % 2, (j - before[1]) % 2
            some = x[:, row::2, column::2]
            top, left = (row + before[0] - i) // 2, (column + before[1] - j) // 2
            inside = out[i, j, :, top:, left:]
            some = some[:, : inside.shape[1], : inside.shape[2]]
            inside[:, : some.shape[1], : some.shape[2]] = some


def _combine_pixels(d0: Array, d1: Array, d2: Array, d3: Array, out: Array) -> None:
    """Write the left factors of m0 … m3 to `out[0]` … `out[3]`."""
    np.subtract(d0, d2, out=out[0])
    np.add(d1, d2, out=out[1])
    np.subtract(d2, d1, out=out[2])
    np.subtract(d1, d3, out=out[3])


def _kernel_matrices(w: Array) -> Array:
    """Return the right factors `(16, C, K, Q)` of the products, for kernels `(K, 3, 3, C, Q)`."""
    kernels, _, _, channels, q = w.shape
    taps = np.transpose(w, (1, 2, 3, 0, 4))
    out = np.empty((4, 4, channels, kernels, q), w.dtype)
    for some in _channels_at_a_time(channels, kernels * q):
        down = _combine_taps(taps[:, :, some])
        out[:, :, some] = np.swapaxes(_combine_taps(np.swapaxes(down, 0, 1)), 0, 1)
    return np.reshape(out, (16, channels, kernels, q))


def _combine_taps(g: Array) -> Array:
    """Return the right factors `(4, ...)` of m0 … m3 for taps g `(3, ...)`."""
    out = np.empty_like(g, shape=(4, *g.shape[1:]))
    outer, inner = 0.5 * (g[0] + g[2]), 0.5 * g[1]
    out[0], out[3] = g[0], g[2]
    np.add(outer, inner, out=out[1])
    np.subtract(outer, inner, out=out[2])
    return out


def _from_kernel_matrices(sums: Array) -> Array:
    """Map `(K, 4, 4, C, Q)` back to kernels `(K, 3, 3, C, Q)`: `_kernel_matrices`, transposed."""
    kernels, _, _, channels, q = sums.shape
    out = np.empty((kernels, 3, 3, channels, q), sums.dtype)
    turned = np.transpose(out, (1, 2, 3, 0, 4))
    factors = np.transpose(sums, (1, 2, 3, 0, 4))
    for some in _channels_at_a_time(channels, kernels * q):
        down = _combine_factors(factors[:, :, some])
        turned[:, :, some] = np.swapaxes(_combine_factors(np.swapaxes(down, 0, 1)), 0, 1)
    return out


def _combine_factors(m: Array) -> Array:
    """Map `(4, ...)` to taps `(3, ...)`: `_combine_taps`, transposed."""
    out = np.empty_like(m, shape=(3, *m.shape[1:]))
    both = 0.5 * (m[1] + m[2])
    np.add(m[0], both, out=out[0])
    np.multiply(m[1] - m[2], 0.5, out=out[1])
    np.add(m[3], both, out=out[2])
    return out


def _channels_at_a_time(channels: int, numbers: int) -> Iterator[slice]:
    """Yield slices of the channels, of each of which there are so many numbers in 16 matrices."""
    step = max(1, _BLOCK_BYTES // (64 * numbers))
    return (slice(a, a + step) for a in range(0, channels, step))


def _put_together(products: Array, out: Array) -> None:
    """Write outputs `out` `(K, n, H, W, Q)`, from products `(4, 4, n, down, across, K, Q)`."""
    left, right = products[:, 1] + products[:, 2], products[:, 1] - products[:, 2]
    left += products[:, 0]
    right -= products[:, 3]
    for j, column in enumerate((left, right)):
        upper, lower = column[1] + column[2], column[1] - column[2]
        for i, outer, inner in ((0, upper, column[0]), (1, lower, column[3])):
            target = np.transpose(out[:, :, i::2, j::2], (1, 2, 3, 0, 4))
            rows, columns = target.shape[1:3]
            combine = (np.add, np.subtract)[i]
            combine(outer[:, :rows, :columns], inner[:, :rows, :columns], out=target)


def _output_matrices(y: Array, tiles: Pair) -> Array:
    """Return matrices `(16, T, Q)` of outputs y `(n, H, W, Q)`: `_put_together`, transposed."""
    n, q, (down, across) = len(y), y.shape[-1], tiles
    apart = np.zeros((2, 2, n, down, across, q), y.dtype)
    _put_apart(y, (0, 0), apart)
    whole = np.empty((4, 4, n, down, across, q), y.dtype)
    half = _combine_outputs(apart, np.empty((4, 2, n, down, across, q), y.dtype))
    _combine_outputs(np.swapaxes(half, 0, 1), np.swapaxes(whole, 0, 1))
    return np.reshape(whole, (16, n * down * across, q))


def _combine_outputs(y: Array, out: Array) -> Array:
    """Write to `out` what y0 and y1, `(2, ...)`, give m0 … m3 in the transpose, `(4, ...)`."""
    out[0] = y[0]
    np.add(y[0], y[1], out=out[1])
    np.subtract(y[0], y[1], out=out[2])
    np.negative(y[1], out=out[3])
    return out
