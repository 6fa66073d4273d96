"""What the host computes in another way than NumPy would, because it is faster there."""

import numpy as np
import pytest

import dualnet as dn
from dualnet.backends.sums import sum_over
from dualnet.core.spaces import RankOne
from dualnet.nn import normalization_kernels as kernels
from dualnet.nn.activations import softmax, tangent_of_softmax
from dualnet.nn.affine import affine
from dualnet.nn.scaling import scaled


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        *[((2, 40, 60, c), (-3, -2)) for c in (1, 3, 6, 16, 17)],
        *[((4099, 3), (-2,)), ((3, 0, 50, 8), (-3, -2)), ((50, 40, 8), (-3, -1)), ((9, 9), ())],
        *[((64, 40, 8), (-3, -2, -1)), ((2, 50, 40, 8), (-2, -1)), ((2, 3, 2000, 8), (-3,))],
    ],
)
def test_sums_over_rows_are_those_of_numpy(shape, axes, dtype, rng):
    x = rng.standard_normal(shape).astype(dtype)
    for a in (x, np.asfortranarray(x), x[::-1]):
        whole, size = (v.astype(np.float64).sum(axes) for v in (a, np.abs(a)))
        for keepdims in (False, True):
            got = sum_over(a, axes, keepdims)
            assert got.dtype == dtype and got.shape == a.sum(axes, keepdims=keepdims).shape
            off = np.abs(np.reshape(got, whole.shape) - whole)
            assert (off <= 200 * np.finfo(dtype).eps * size).all()


def test_sums_over_rows_keep_infinities_to_their_columns():
    x = np.ones((4096, 6), np.float32)
    x[7, 1], x[9, 2], x[[3, 4], 3] = np.inf, np.nan, [np.inf, -np.inf]
    with np.errstate(invalid="ignore"):
        total = sum_over(x, (-2,))
    np.testing.assert_array_equal(total, [4096, np.inf, np.nan, np.nan, 4096, 4096])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rank_one", [False, True])
@pytest.mark.parametrize(
    ("lead", "p", "q", "k"),
    [((7,), 3, 4, 2), ((300, 7), 5, 6, 3), ((2080,), 8, 256, 2), ((0,), 3, 2, 2), ((3,), 0, 2, 2)],
)
def test_a_linear_map_sums_up_its_tangents(lead, p, q, k, rank_one, dtype, rng):
    """The sum is made block by block; it is that of the tangents by each argument alone."""
    shapes = {"x": (*lead, p), "w": (p, q), "b": (q,)}
    primals = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    t = {n: rng.standard_normal((k, *shape)).astype(dtype) for n, shape in shapes.items()}
    if rank_one:
        t["w"] = RankOne(*(rng.standard_normal((k, n)).astype(dtype) for n in (p, q)))

    def tangent(*names):
        def f(*moving):
            return affine(*(primals | dict(zip(names, moving, strict=True))).values())

        return dn.jvp(f, tuple(primals[n] for n in names), tuple(t[n] for n in names))[1]

    w = t["w"].dense() if rank_one else t["w"]
    x, by_x = primals["x"], t["x"] @ primals["w"]
    by_w = np.stack([x @ direction for direction in w])
    by_b = np.broadcast_to(np.reshape(t["b"], (k, *(1 for _ in lead), q)), by_w.shape)
    close = {"rtol": 0, "atol": 1e3 * np.finfo(dtype).eps}
    np.testing.assert_allclose(tangent("w"), by_w, **close)
    np.testing.assert_allclose(tangent("w", "b"), by_w + by_b, **close)
    np.testing.assert_allclose(tangent("x", "w"), by_x + by_w, **close)
    np.testing.assert_allclose(tangent("x", "w", "b"), by_x + by_w + by_b, **close)
    np.testing.assert_allclose(tangent("x", "b"), by_x + by_b, **close)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((2080, 65), (-1,)), ((50, 40, 30, 6), (-4, -3, -2)), ((5, 64, 100), (-2,))],
)
def test_norms_of_many_rows_are_those_of_the_formula(shape, axes, dtype, rng):
    x, t = (rng.standard_normal(s).astype(dtype) for s in (shape, (2, *shape)))
    y, s = kernels.normalized(x, axes, 1e-5)
    wide = x.astype(np.float64)
    mean, variance = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
    close = {"rtol": 0, "atol": 1e3 * np.finfo(dtype).eps}
    np.testing.assert_allclose(y, (wide - mean) / np.sqrt(variance + 1e-5), **close)
    for got, expected in zip(kernels.moments(x, axes), (mean, variance), strict=True):
        np.testing.assert_allclose(got, np.squeeze(expected, axes), **close)
    slope = (y * t).mean(axes, keepdims=True)
    formula = (t - t.mean(axes, keepdims=True) - y * slope) * s
    np.testing.assert_allclose(kernels.tangent(t, y, s, axes), formula, **close)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(4, 3, 300, 65), (5,), (2, 0, 3), (2, 3, 0)])
def test_softmax_by_rows_is_its_formula(shape, dtype, rng):
    p = softmax(rng.standard_normal(shape).astype(dtype)) if shape[-1] else np.ones(shape, dtype)
    t = rng.standard_normal((2, *shape)).astype(dtype)
    formula = p * t - p * np.sum(p * t, axis=-1, keepdims=True)
    got = tangent_of_softmax(t, p, -1)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, formula, rtol=0, atol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("gain_shape", [(64,), (70, 1)])
def test_a_gain_and_a_bias_sum_up_their_tangents_by_blocks(gain_shape, rng):
    y, gain, bias = (rng.standard_normal(s) for s in ((40, 70, 64), gain_shape, gain_shape))
    t, by_gain, by_bias = (rng.standard_normal((3, *x.shape)) for x in (y, gain, bias))
    out, moved = dn.jvp(scaled, (y, gain, bias), (t, by_gain, by_bias))
    np.testing.assert_allclose(out, y * gain + bias, rtol=0, atol=1e-12)
    behind_k = (3, 1, *(1,) * (2 - len(gain_shape)), *gain_shape)
    by_gain, by_bias = np.reshape(by_gain, behind_k), np.reshape(by_bias, behind_k)
    np.testing.assert_allclose(moved, t * gain + y * by_gain + by_bias, rtol=0, atol=1e-12)
