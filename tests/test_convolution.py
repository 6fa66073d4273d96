"""Windows, convolution, pooling: answers by hand, the composition they are fused from, errors."""

import math

import numpy as np
import pytest

import dualnet as dn
from dualnet.check import references
from dualnet.check.operations.convolution import GEOMETRIES
from dualnet.errors import UsageError
from dualnet.images import convolution, minimal, wide
from dualnet.images.convolution import (
    convolve,
    convolve_rank_one,
    convolve_transpose,
    kernel_gradient,
)
from dualnet.images.windows import (
    Geometry,
    fold,
    unfold,
    weighted_window_sum,
)
from dualnet.nn import (
    AdaptiveAveragePool,
    Conv2d,
    MaxPool,
    adaptive_average_pool,
    average_pool,
    conv2d,
    max_pool,
)

every_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
IMAGE = (5, 6)


def images_and_kernels(rng, geometry, kernels=2):
    x = rng.standard_normal((3, *IMAGE, 4))
    return x, rng.standard_normal((kernels, *geometry.window, 4 // geometry.groups, 8))


# --- answers by hand -----------------------------------------------------------------------------


def test_a_difference_filter():
    x = np.array([[0.0, 1.0, 4.0, 9.0]]).reshape(1, 1, 4, 1)
    w = np.array([-1.0, 1.0]).reshape(1, 2, 1, 1)
    assert conv2d(x, w).ravel().tolist() == [1, 3, 5]
    assert conv2d(x, w, stride=(1, 2)).ravel().tolist() == [1, 5]
    assert conv2d(x, w, padding=((0, 0), (1, 0))).ravel().tolist() == [0, 1, 3, 5]
    _, t = dn.jvp(conv2d, (x, w), (x, np.ones_like(w)))
    assert t.ravel().tolist() == [1 + 1, 3 + 5, 5 + 13]
    of_x, of_w = dn.vjp(conv2d, x, w)[1](np.array([1.0, 10.0, 100.0]).reshape(1, 1, 3, 1))
    assert of_x.ravel().tolist() == [-1, -9, -90, 100]
    assert of_w.ravel().tolist() == [0 + 10 + 400, 1 + 40 + 900]


def test_unfold_and_fold():
    x = np.arange(6.0).reshape(1, 2, 3, 1)
    geometry = Geometry((2, 2))
    assert unfold(x, geometry).reshape(2, 4).tolist() == [[0, 1, 3, 4], [1, 2, 4, 5]]
    ones = np.ones((1, 1, 2, 4, 1))
    assert fold(ones, geometry, (2, 3)).reshape(2, 3).tolist() == [[1, 2, 1], [1, 2, 1]]


def test_pools():
    x = np.array([[1.0, 5.0, 2.0], [3.0, 4.0, 9.0]]).reshape(1, 2, 3, 1)
    assert max_pool(x, 2, stride=1).ravel().tolist() == [5, 9]
    assert max_pool(-x, 2, padding=1).ravel().tolist() == [-1, -2, -3, -4]
    assert average_pool(x, (2, 1)).ravel().tolist() == [2, 4.5, 5.5]
    assert average_pool(x, 2, padding=((0, 0), (1, 0))).ravel().tolist() == [1, 5]
    assert adaptive_average_pool(x, (1, 2)).ravel().tolist() == [13 / 4, 20 / 4]
    assert adaptive_average_pool(x, (4, 1))[0, :, 0, 0].tolist() == [8 / 3, 8 / 3, 16 / 3, 16 / 3]


# --- the definition and the composition ----------------------------------------------------------


@every_geometry
def test_convolve_is_what_it_is_defined_to_be(geometry, rng):
    x, w = images_and_kernels(rng, geometry)
    g = geometry
    expected = [references.conv2d(np, x, one, g.stride, g.padding, g.groups) for one in w]
    np.testing.assert_allclose(convolve(x, w, geometry), np.stack(expected), atol=1e-13)


@every_geometry
def test_results_do_not_depend_on_how_many_images_are_unfolded_at_once(geometry, rng, monkeypatch):
    """Weighted sums of windows are besides what they are defined to be."""
    x, w = images_and_kernels(rng, geometry)
    y = convolve(x, w, geometry)
    ct = rng.standard_normal(y.shape)
    left, right = rng.standard_normal((2, 5, *geometry.window, 8))
    left = left[..., : 4 // geometry.groups]
    windows = unfold(x, geometry)
    weights = rng.standard_normal((windows.shape[-2], *windows.shape[:3], 4))
    expected = np.sum(windows * np.moveaxis(weights, 0, -2), axis=-2)

    def all_of_them():
        return (
            convolve(x, w, geometry),
            convolve_transpose(ct, w, geometry, IMAGE),
            kernel_gradient(x, ct, geometry),
            convolve_rank_one(x, left, right, geometry),
            weighted_window_sum(x[None], weights, geometry)[0],
        )

    whole = all_of_them()
    np.testing.assert_allclose(whole[-1], expected, atol=1e-13)
    monkeypatch.setattr("dualnet.images.windows._BLOCK_BYTES", 1)  # one image at a time
    for images in (1, 2):
        monkeypatch.setattr(convolution, "_images_at_a_time", lambda *_, n=images: n)
        for a, b in zip(whole, all_of_them(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-13)


# 3x3 kernels of 32 channels and more are convolved by tiles, in single precision.
TILED = {
    "padding": ((16, 17), ((1, 1), (1, 1)), 2, 1),
    "no padding, odd sizes": ((15, 18), ((0, 0), (0, 0)), 3, 2),
    "uneven padding": ((9, 12), ((0, 2), (3, 1)), 7, 3),
    "few rows": ((3, 200), ((0, 0), (0, 0)), 2, 1),
    "blocks of images": ((16, 16), ((1, 1), (1, 1)), 11, 9),
}


def tiled(rng, image, padding, images, kernels):
    """Return images, kernels, outputs of small integers, with which no operation rounds."""
    geometry = Geometry((3, 3), padding=padding)
    x = rng.integers(-4, 5, (images, *image, 32)).astype(np.float32)
    w = 4 * rng.integers(-4, 5, (kernels, 3, 3, 32, 33)).astype(np.float32)
    y = 4 * rng.integers(-4, 5, (kernels, images, *geometry.output_size(image), 33))
    assert minimal.serves(x, w, geometry)
    return geometry, x, w, y.astype(np.float32)


@pytest.mark.parametrize("case", TILED.values(), ids=TILED.keys())
def test_convolution_by_tiles_is_convolution(case, rng):
    geometry, x, w, y = tiled(rng, *case)
    wide_x, wide_w, wide_y = (a.astype(np.float64) for a in (x, w, y))
    assert not minimal.serves(wide_x, wide_w, geometry)
    np.testing.assert_array_equal(convolve(x, w, geometry), convolve(wide_x, wide_w, geometry))
    np.testing.assert_array_equal(
        kernel_gradient(x, y, geometry), kernel_gradient(wide_x, wide_y, geometry)
    )
    np.testing.assert_array_equal(
        convolve_transpose(y, w, geometry, case[0]),
        convolve_transpose(wide_y, wide_w, geometry, case[0]),
    )


def test_tiles_round_no_more_than_windows(rng):
    geometry, image = Geometry((3, 3), padding=((1, 1), (1, 1))), (16, 16)
    x = rng.standard_normal((3, *image, 64), np.float32)
    w = rng.standard_normal((1, 3, 3, 64, 32), np.float32)
    y = rng.standard_normal((1, 3, *image, 32), np.float32)
    for f, a, b in ((convolve, x, w), (kernel_gradient, x, y)):
        expected = f(a.astype(np.float64), b.astype(np.float64), geometry)
        size = f(np.abs(a), np.abs(b), geometry)  # of the products that are added up
        assert np.abs(f(a, b, geometry) - expected).max() < 1e-6 * size.max()


def test_infinite_pixels_spoil_their_own_windows_alone(rng):
    geometry, x, w, y = tiled(rng, *TILED["padding"])
    x[0, 4, 4, 0], x[1, 8, 8, 3] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        got = convolve(x, w, geometry), kernel_gradient(x, y, geometry)
        x, w, y = (a.astype(np.float64) for a in (x, w, y))
        expected = convolve(x, w, geometry), kernel_gradient(x, y, geometry)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def places(y):
    """The rows and columns of images where an entry is not finite."""
    return np.argwhere(~np.isfinite(y[0, ..., 0])).tolist()


def test_infinite_numbers_spoil_their_own_windows_alone_where_channels_are_few():
    x, w = np.zeros((1, 6, 12, 1)), np.ones((3, 3, 1, 6))
    assert wide.outputs_together(x, 10, 1, 6, Geometry((3, 3))) > 1
    spoiled = x.copy()
    spoiled[0, 2, 0] = np.inf
    y, pull = dn.vjp(conv2d, x, w)
    ct = np.zeros_like(y)
    ct[0, 1, 9] = np.inf
    with np.errstate(invalid="ignore"):  # BLAS may multiply by zeros of its own
        assert places(conv2d(spoiled, w)) == [[0, 0], [1, 0], [2, 0]]
        assert places(pull(ct)[0]) == [[i, j] for i in (1, 2, 3) for j in (9, 10, 11)]
        of_w = kernel_gradient(spoiled, np.ones((1, 1, 4, 10, 6)), Geometry((3, 3)))[0]
    assert np.argwhere(~np.isfinite(of_w[..., 0, 0])).tolist() == [[0, 0], [1, 0], [2, 0]]


def test_no_kernels_have_no_outputs_and_send_zeros_back():
    y, w = np.ones((0, 2, 4, 4, 4)), np.ones((0, 3, 3, 3, 4))
    for geometry in (Geometry((3, 3)), Geometry((3, 3), (1, 1), ((2, 2), (2, 2)))):
        assert not np.any(convolve_transpose(y, w, geometry, (6, 6)))
    assert convolve(np.ones((2, 6, 6, 3)), w, Geometry((3, 3))).shape == (0, 2, 4, 4, 4)
    x, w = np.ones((2, 6, 6, 3)), np.ones((3, 3, 3, 4))
    none = np.zeros((0, *w.shape))
    y, pull = dn.vjp(lambda x: dn.jvp(lambda w: conv2d(x, w), (w,), (none,))[1], x)
    np.testing.assert_array_equal(pull(np.zeros(y.shape))[0], np.zeros_like(x))


def test_large_numbers_do_not_overflow_in_tiles():
    x = np.full((3, 16, 16, 32), 3e38, np.float32)
    w = np.zeros((1, 3, 3, 32, 32), np.float32)
    w[0, 0, 0] = np.eye(32) / 2
    assert minimal.serves(x, w, Geometry((3, 3)))
    y = convolve(x, w, Geometry((3, 3)))
    np.testing.assert_array_equal(y, np.full_like(y, 1.5e38))


@every_geometry
def test_rank_one_kernels(geometry, rng):
    x, w = images_and_kernels(rng, geometry, kernels=1)
    left = rng.standard_normal((5, *w.shape[1:4]))
    right = rng.standard_normal((5, *geometry.window, 8))
    directions = dn.RankOne(left, right)
    stride, padding, groups = geometry.stride, geometry.padding, geometry.groups

    def f(w):
        return conv2d(x, w, stride=stride, padding=padding, groups=groups)

    _, thin = dn.jvp(f, (w[0],), (directions,))
    _, dense = dn.jvp(f, (w[0],), (directions.dense(),))
    np.testing.assert_allclose(thin, dense, atol=1e-12)
    f_jvp = dn.linearize(f, w[0])[1]
    np.testing.assert_allclose(f_jvp(directions), dense, atol=1e-12)


# --- layers --------------------------------------------------------------------------------------


def test_the_same_kernel_as_a_linear_layer_has_the_same_start(key):
    """A window as large as the image: fan-in is all of it."""
    params, _, out_shape = Conv2d(5, (4, 3)).init(key, (4, 3, 2))
    assert out_shape == (1, 1, 5)
    assert np.max(np.abs(params["w"])) <= math.sqrt(6 / 24)
    assert np.max(np.abs(params["w"])) > 0.9 * math.sqrt(6 / 24)


@pytest.mark.parametrize(("of_x", "of_w"), [("f4", "f8"), ("f8", "f4"), ("u1", "f4"), ("i8", "f8")])
def test_the_dtype_of_a_convolution_is_that_of_the_product(of_x, of_w, rng):
    x, w = rng.integers(0, 9, (2, 5, 5, 4)).astype(of_x), rng.standard_normal((3, 3, 4, 2))
    w = w.astype(of_w)
    y = conv2d(x, w)
    assert y.dtype == np.result_type(x.dtype, w.dtype)
    np.testing.assert_allclose(y, conv2d(x.astype(float), w.astype(float)), rtol=1e-5, atol=1e-5)
    dn.check_jvp(lambda w: conv2d(x, w), (w.astype(float),), linear=True, tolerance=1e-12)


def test_adaptive_means_of_integers():
    x = np.full((1, 4, 4, 1), 200, np.uint8)
    assert adaptive_average_pool(x, 2).ravel().tolist() == [200] * 4


# --- errors --------------------------------------------------------------------------------------

X = np.zeros((2, 7, 6, 4))
W = np.zeros((3, 3, 4, 8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conv2d(X[0], W), r"images \(N, H, W, C\) and a kernel .* got \(7, 6, 4\)"),
        (lambda: conv2d(X, W[:, :, :3]), "expects images with 3 channels"),
        (lambda: conv2d(X, W[:, :, :2], groups=3), "with groups=3 expects images with 6 channels"),
        (lambda: conv2d(X, W[..., :7][:, :, :2], groups=2), "outputs that divide by groups"),
        (lambda: conv2d(X, W, stride=0), "stride: expected at least 1, got 0"),
        (lambda: conv2d(X, W, stride="2"), "stride: expected an int or two, got '2'"),
        (lambda: conv2d(X, W, stride=1.5), "conv2d: stride: expected an int or two, got 1.5"),
        (lambda: conv2d(X, W, stride=None), "conv2d: stride: expected an int or two, got None"),
        (lambda: max_pool(X, 2.5), "max_pool: window: expected an int or two, got 2.5"),
        (lambda: conv2d(X, W, groups=0), "conv2d: groups: expected an int of at least 1, got 0$"),
        (
            lambda: conv2d(X, W, groups=2.0),
            "conv2d: groups: expected an int of at least 1, got 2.0",
        ),
        (lambda: conv2d(X, W, padding=None), "conv2d: padding: expected an int or two, got None"),
        (lambda: unfold(X, Geometry((8, 3))), "unfold: a window of 8x3 does not fit into .* 7x6"),
        (
            lambda: Geometry((9, 9)).output_size((7, 6), "MaxPool"),
            "MaxPool: a window of 9x9 does not",
        ),
        (lambda: conv2d(X, W, padding=-1), "padding: expected at least 0, got -1"),
        (lambda: conv2d(X, W, padding=(1, 2, 3)), r"expected padding .* got \(1, 2, 3\)$"),
        (lambda: conv2d(X, np.zeros((8, 3, 4, 8))), "window of 8x3 does not fit into .* 7x6"),
        (
            lambda: max_pool(X, 2, padding=2),
            r"less than the window \(2, 2\), got \(\(2, 2\), ",
        ),
        (lambda: average_pool(X[0], 2), r"average_pool: expected images"),
        (
            lambda: adaptive_average_pool(X, 0),
            "average_pool: size: expected at least 1, got 0",
        ),
        (lambda: Conv2d(8, 3).init(dn.Key(0), (7,)), r"needs images \(H, W, C\)"),
        (lambda: Conv2d(8, 3, groups=3).init(dn.Key(0), (7, 6, 4)), "groups=3 must divide the 4"),
        (lambda: MaxPool(2).init(dn.Key(0), (7,)), r"MaxPool: needs images \(H, W, C\)"),
        (lambda: MaxPool(9).init(dn.Key(0), (7, 6, 4)), "window of 9x9 does not fit"),
        (lambda: AdaptiveAveragePool(1).init(dn.Key(0), (7,)), "AdaptiveAveragePool: needs images"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(UsageError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
