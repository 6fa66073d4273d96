"""Sliding windows and convolution: the linear operations they add, and their rules.

A bilinear function's derivatives are the function itself with a tangent in one place, so the
six linear maps here close among themselves: each one's transpose is another.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dualnet.core import linear
from dualnet.core.convolution import (
    convolve,
    convolve_own_rank_one,
    convolve_rank_one,
    convolve_transpose,
    correlate,
)
from dualnet.core.engine import rule
from dualnet.core.joining import concatenated
from dualnet.core.linear import LinearMap, Shape, Tangent
from dualnet.core.per_example import PerExample, product
from dualnet.core.spaces import RankOne, shortcut
from dualnet.core.windows import Geometry, Pair, fold, spread, unfold, weigh

# --- windows ---


@LinearMap
def unfolded(t: Tangent, geometry: Geometry) -> Tangent:
    """`unfold`, for t `(k, M, H, W, C)`."""
    out = unfold(_merge(t, 0), geometry)
    return np.reshape(out, (*t.shape[:2], *out.shape[1:]))


@unfolded.transposed
def _(ct: Tangent, shape: Shape, geometry: Geometry) -> Tangent:
    return folded(ct, geometry, shape[1:3])


@LinearMap
def folded(t: Tangent, geometry: Geometry, image: Pair) -> Tangent:
    """`fold`, for t `(k, M, rows, columns, kh·kw, C)`."""
    out = fold(_merge(t, 0), geometry, image)
    return np.reshape(out, (*t.shape[:2], *out.shape[1:]))


@folded.transposed
def _(ct: Tangent, _shape: Shape, geometry: Geometry, _image: Pair) -> Tangent:
    return unfolded(ct, geometry)


rule(unfold, lambda t, out, x, geometry: unfolded(t, geometry))
rule(fold, lambda t, out, y, geometry, image: folded(t, geometry, image))

# --- weighted sums of windows; the weights say which entry is largest, and have no tangents ---


@LinearMap
def weighed(t: Tangent, weights: Any, geometry: Geometry) -> Tangent:
    """`weigh`, for t `(k, ..., M, H, W, C)`."""
    lead = t.shape[:-4]
    out = weigh(np.reshape(t, (math.prod(lead), *t.shape[-4:])), weights, geometry)
    return np.reshape(out, (*lead, *out.shape[1:]))


@weighed.transposed
def _(ct: Tangent, shape: Shape, weights: Any, geometry: Geometry) -> Tangent:
    return spread_out(ct, weights, geometry, shape[-3:-1])


@LinearMap
def spread_out(t: Tangent, weights: Any, geometry: Geometry, image: Pair) -> Tangent:
    """`spread`, for t `(k, ..., M, rows, columns, C)`."""
    lead = t.shape[:-4]
    out = spread(np.reshape(t, (math.prod(lead), *t.shape[-4:])), weights, geometry, image)
    return np.reshape(out, (*lead, *out.shape[1:]))


@spread_out.transposed
def _(ct: Tangent, _shape: Shape, weights: Any, geometry: Geometry, _image: Pair) -> Tangent:
    return weighed(ct, weights, geometry)


rule(weigh, lambda t, out, x, weights, geometry: weighed(t, weights, geometry))
rule(spread, lambda t, out, y, weights, geometry, image: spread_out(t, weights, geometry, image))

# --- convolve, by the image and by the kernel ---


@LinearMap
def convolved(t: Tangent, w: Any, geometry: Geometry) -> Tangent:
    """`convolve(t, w)` for images t `(k, M, H, W, C)`."""
    k, m = t.shape[:2]
    return _split(convolve(_merge(t, 0), w, geometry), 1, k, m)


@convolved.transposed
def _(ct: Tangent, shape: Shape, w: Any, geometry: Geometry) -> Tangent:
    return sent_back(ct, w, geometry, shape[1:3])


@LinearMap
def convolved_by(t: Tangent, x: Any, geometry: Geometry) -> Tangent:
    """`convolve(x, t)` for kernels t `(k, K, kh, kw, C/g, Q)`: one unfolding for all of them."""
    out = convolve(x, _merge(t, 0), geometry)
    return np.reshape(out, (*t.shape[:2], *out.shape[1:]))


@shortcut(convolved_by)
def _(t: RankOne, x: Any, geometry: Geometry) -> Tangent | None:
    if t.shape[0] != 1:
        return None
    return np.expand_dims(convolve_rank_one(x, t.left[:, 0], t.right[:, 0], geometry), 1)


@product(convolved_by)
def _(t: PerExample, x: Any, geometry: Geometry) -> Any:
    if t.rows(len(x)) != 1:
        raise t.error(f"a batch of {len(x)} images")
    if isinstance(t.each, RankOne) and t.shape[0] == 1:
        shape = (t.k, t.examples)
        left, right = (np.reshape(f, (*shape, *f.shape[2:])) for f in (t.each.left, t.each.right))
        return np.expand_dims(convolve_own_rank_one(x, left, right, geometry), 1)
    of_each = [convolved_by(t.of_example(j), x[j : j + 1], geometry) for j in range(len(x))]
    return concatenated(of_each, axis=2)  # (k, 1, M, rows, columns, Q)


@convolved_by.transposed
def _(ct: Tangent, _shape: Shape, x: Any, geometry: Geometry) -> Tangent:
    return correlated_to(ct, x, geometry)


rule(
    convolve,
    lambda t, out, x, w, geometry: convolved(t, w, geometry),
    lambda t, out, x, w, geometry: convolved_by(t, x, geometry),
)


def _outer(t: Tangent, other: Any, of_left: bool) -> Tangent:
    """Kernels from tangents of one factor and the other factor."""
    shape = linear.shape_of(t)
    t = linear.reshape(t, (*shape, 1) if of_left else (*shape[:-1], 1, shape[-1]))
    return linear.scale(t, np.expand_dims(other, -2 if of_left else -1))


rule(
    convolve_rank_one,
    lambda t, out, x, left, right, geometry: convolved(
        t, np.expand_dims(left, -1) * np.expand_dims(right, -2), geometry
    ),
    lambda t, out, x, left, right, geometry: convolved_by(_outer(t, right, True), x, geometry),
    lambda t, out, x, left, right, geometry: convolved_by(_outer(t, left, False), x, geometry),
)

# --- convolve_transpose, by the output and by the kernel ---


@LinearMap
def sent_back(t: Tangent, w: Any, geometry: Geometry, image: Pair) -> Tangent:
    """`convolve_transpose(t, w)` for outputs t `(k, K, M, rows, columns, Q)`."""
    k, _, m = t.shape[:3]
    out = convolve_transpose(_merge(np.moveaxis(t, 0, 1), 1), w, geometry, image)
    return np.reshape(out, (k, m, *out.shape[1:]))


@sent_back.transposed
def _(ct: Tangent, _shape: Shape, w: Any, geometry: Geometry, _image: Pair) -> Tangent:
    return convolved(ct, w, geometry)


@LinearMap
def sent_back_by(t: Tangent, y: Any, geometry: Geometry, image: Pair) -> Tangent:
    """`convolve_transpose(y, t)` for kernels t `(k, K, kh, kw, C/g, Q)`.

    The directions stand side by side as channels of one kernel.
    """
    k, channels = t.shape[0], t.shape[4]
    out = convolve_transpose(y, _merge(np.moveaxis(t, 0, 3), 3), geometry, image)
    out = np.reshape(out, (*out.shape[:3], geometry.groups, k, channels))
    out = np.moveaxis(out, -2, 0)
    return np.reshape(out, (*out.shape[:4], geometry.groups * channels))


@sent_back_by.transposed
def _(ct: Tangent, _shape: Shape, y: Any, geometry: Geometry, _image: Pair) -> Tangent:
    return correlated(ct, y, geometry)


rule(
    convolve_transpose,
    lambda t, out, y, w, geometry, image: sent_back(t, w, geometry, image),
    lambda t, out, y, w, geometry, image: sent_back_by(t, y, geometry, image),
)

# --- correlate, by the image and by the output ---


@LinearMap
def correlated(t: Tangent, y: Any, geometry: Geometry) -> Tangent:
    """`correlate(t, y)` for images t `(k, M, H, W, C)`: directions side by side as channels."""
    groups, k = geometry.groups, t.shape[0]
    channels = t.shape[-1] // groups
    images = np.reshape(t, (*t.shape[:-1], groups, channels))
    images = np.moveaxis(images, 0, -2)
    images = np.reshape(images, (*images.shape[:3], groups * k * channels))
    out = correlate(images, y, geometry)
    out = np.reshape(out, (*out.shape[:3], k, channels, out.shape[-1]))
    return np.moveaxis(out, 3, 0)


@correlated.transposed
def _(ct: Tangent, shape: Shape, y: Any, geometry: Geometry) -> Tangent:
    return sent_back_by(ct, y, geometry, shape[1:3])


@LinearMap
def correlated_to(t: Tangent, x: Any, geometry: Geometry) -> Tangent:
    """`correlate(x, t)` for outputs t `(k, K, M, rows, columns, Q)`: one unfolding for all."""
    return _split(correlate(x, _merge(t, 0), geometry), 0, *t.shape[:2])


@correlated_to.transposed
def _(ct: Tangent, _shape: Shape, x: Any, geometry: Geometry) -> Tangent:
    return convolved_by(ct, x, geometry)


rule(
    correlate,
    lambda t, out, x, y, geometry: correlated(t, y, geometry),
    lambda t, out, x, y, geometry: correlated_to(t, x, geometry),
)

# --- where k goes ---


def _merge(t: Any, axis: int) -> Any:
    """Two neighboring axes as one."""
    shape = t.shape
    return np.reshape(t, (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :]))


def _split(y: Any, axis: int, first: int, second: int) -> Any:
    """One axis as two; the first of them moves to the front."""
    out = np.reshape(y, (*y.shape[:axis], first, second, *y.shape[axis + 1 :]))
    return np.moveaxis(out, axis, 0)
