"""Sliding windows, and convolution of stacks of images with stacks of kernels."""

from __future__ import annotations

import numpy as np

from dualnet.check.table import Row, adder, constant
from dualnet.images.convolution import (
    convolve,
    convolve_rank_one,
    convolve_transpose,
    kernel_gradient,
)
from dualnet.images.windows import (
    Geometry,
    Pair,
    fold,
    unfold,
    weighted_window_sum,
    weighted_window_sum_transpose,
)

ROWS: list[Row] = []
row = adder(ROWS, "convolution")


def add_windows(note: str, g: Geometry, image: Pair, batch: int = 2, channels: int = 2) -> None:
    """Rows of all functions of windows over images of a height and width."""
    c = q = channels * g.groups
    (kh, kw), places, factor = g.window, g.output_size(image), c // g.groups
    images, outputs = (batch, *image, c), (3, batch, *places, q)
    kernels = (3, kh, kw, factor, q)
    row(convolve, note, lambda _xp, x, w: convolve(x, w, g), images, kernels, exact=True)
    row(
        convolve_transpose,
        note,
        lambda _xp, y, w: convolve_transpose(y, w, g, image),
        outputs,
        kernels,
        exact=True,
    )
    row(
        kernel_gradient,
        note,
        lambda _xp, x, y: kernel_gradient(x, y, g),
        images,
        outputs,
        exact=True,
    )
    row(
        convolve_rank_one,
        note,
        lambda _xp, x, left, right: convolve_rank_one(x, left, right, g),
        images,
        (2, kh, kw, factor),
        (2, kh, kw, q),
    )
    if g.groups > 1:
        return
    row(unfold, note, lambda _xp, x: unfold(x, g), images, exact=True)
    windows = (batch, *places, kh * kw, c)
    row(fold, note, lambda _xp, y: fold(y, g, image), windows, exact=True)
    weights = np.random.default_rng(0).uniform(-2, 2, (kh * kw, batch, *places, c))
    row(
        weighted_window_sum,
        note,
        lambda _xp, x: weighted_window_sum(x, constant(weights.astype(x.dtype), x), g),
        (2, *images),
        exact=True,
    )
    row(
        weighted_window_sum_transpose,
        note,
        lambda _xp, y: weighted_window_sum_transpose(
            y, constant(weights.astype(y.dtype), y), g, image
        ),
        (2, batch, *places, c),
        exact=True,
    )


GEOMETRIES = {
    "": Geometry((3, 2)),
    "one pixel": Geometry((1, 1)),
    "one pixel, stride": Geometry((1, 1), (2, 3)),
    "one pixel, groups": Geometry((1, 1), groups=2),
    "padding": Geometry((3, 2), padding=((1, 0), (1, 1))),
    "much padding": Geometry((3, 2), padding=((3, 3), (0, 2))),
    "stride": Geometry((2, 3), (2, 3), ((1, 1), (0, 2))),
    "stride beyond the window": Geometry((2, 1), (3, 2)),
    "groups": Geometry((3, 2), padding=((1, 1), (1, 0)), groups=2),
    "groups, stride": Geometry((2, 2), (2, 2), ((1, 0), (0, 0)), groups=2),
    "four groups": Geometry((3, 3), padding=((1, 1), (1, 1)), groups=4),
    "as large as the image": Geometry((5, 6)),
}
"""For images of 5 by 6 pixels."""

add_windows("small", Geometry((1, 2)), (1, 3), batch=1, channels=1)
for _note, _geometry in GEOMETRIES.items():
    add_windows(_note, _geometry, (5, 6))
