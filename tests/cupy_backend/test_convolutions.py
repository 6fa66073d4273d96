"""Convolution by the CuPy backend: the tiled kernels and the unfolded way, against NumPy's form."""

import importlib
from functools import partial

import numpy as np
import pytest
from cupy_comparisons import ALLOWED, BOTH, assert_as_on_host, assert_same, moved

import dualnet as dn
from dualnet.backends import overridable
from dualnet.check.operations.convolution import GEOMETRIES
from dualnet.images.convolution import (
    convolve,
    convolve_own_rank_one,
    convolve_rank_one,
    convolve_transpose,
    kernel_gradient,
)
from dualnet.images.windows import Geometry
from dualnet.nn import conv2d

IMAGE = (5, 6)
SAME = ((1, 1), (1, 1))


@pytest.fixture
def convolutions(cupy_backend):
    return importlib.import_module("dualnet.backends.convolutions")


@pytest.fixture
def launched(convolutions, monkeypatch):
    """The names of the kernels of both sources, in the order in which they were launched."""
    names = []

    def watched(launch, kernel, *arguments):
        names.append(kernel)
        launch(kernel, *arguments)

    for module in (*convolutions._TILED.values(), convolutions.WINDOWS):
        monkeypatch.setattr(module, "launch", partial(watched, module.launch))
    return names


def normal(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


def cases(rng, dtype, geometry, image, channels, outputs, images=3, kernels=2):
    """The three functions, each with arrays and with what else it takes."""
    size = geometry.output_size(image)
    x = normal(rng, dtype, images, *image, channels)
    w = normal(rng, dtype, kernels, *geometry.window, channels // geometry.groups, outputs)
    y = normal(rng, dtype, kernels, images, *size, outputs)
    return (
        (convolve, (x, w), (geometry,)),
        (convolve_transpose, (y, w), (geometry, image)),
        (kernel_gradient, (x, y), (geometry,)),
    )


@BOTH
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_every_geometry(geometry, dtype, cupy_backend, rng):
    for channels in (4, 16 * geometry.groups):
        for function, arrays, more in cases(rng, dtype, geometry, IMAGE, channels, 2 * channels):
            assert_as_on_host(function, arrays, cupy_backend, 10 * ALLOWED[dtype], *more)
    k, g = 3, geometry.groups
    x = normal(rng, dtype, 2, *IMAGE, 4 * g)
    left = normal(rng, dtype, k, 2, *geometry.window, 4)
    right = normal(rng, dtype, k, 2, *geometry.window, 8 * g)
    own, shared = (x, left, right), (x, left[:, 0], right[:, 0])
    for function, arrays in ((convolve_own_rank_one, own), (convolve_rank_one, shared)):
        assert_as_on_host(function, arrays, cupy_backend, 10 * ALLOWED[dtype], geometry)


TILED = {
    "3x3": (Geometry((3, 3), (1, 1), SAME), (6, 5), 16, 40),
    "tall tiles, several of them": (Geometry((3, 3), (1, 1), SAME), (9, 9), 24, 136),
    "stride": (Geometry((3, 3), (2, 2), SAME), (7, 8), 16, 16),
    "pixels apart": (Geometry((1, 1), (2, 2)), (5, 6), 8, 8),
    "5x5, uneven": (Geometry((5, 4), (1, 3), ((0, 4), (2, 1))), (8, 9), 8, 64),
    "7x7": (Geometry((7, 7), (2, 2), ((3, 3), (3, 3))), (9, 9), 8, 8),
    "stride beyond the window": (Geometry((2, 1), (3, 2)), (8, 7), 8, 8),
    "groups": (Geometry((3, 3), (1, 2), SAME, 3), (5, 5), 24, 48),
    "one pixel of output": (Geometry((3, 3)), (3, 3), 8, 8),
}


@pytest.mark.parametrize("threads", (64, 128))
@pytest.mark.parametrize("splits", (1, 3))
@pytest.mark.parametrize(("geometry", "image", "c", "q"), TILED.values(), ids=TILED.keys())
def test_tiles(
    geometry, image, c, q, splits, threads, cupy_backend, convolutions, launched, rng, monkeypatch
):
    monkeypatch.setattr(convolutions, "_division", lambda *_: (threads, splits))
    monkeypatch.setattr(convolutions, "_UNFOLDED_FROM", {"convolve": 999, "kernel_gradient": 999})
    for kernels in (1, 2):
        for function, arrays, more in cases(
            rng, np.float32, geometry, image, c, q, kernels=kernels
        ):
            launched.clear()
            assert_as_on_host(function, arrays, cupy_backend, 1e-5, *more)
            names = {"convolve_transpose": "convolve_back"}
            expected = [names.get(function.__name__, function.__name__)]
            expected += ["sum_parts"] if splits > 1 else []
            assert launched == expected


def test_many_outputs_are_unfolded(cupy_backend, launched, rng):
    geometry = Geometry((3, 3), (1, 1), SAME)
    for (function, arrays, more), name in zip(
        cases(rng, np.float32, geometry, (4, 4), 8, 256),
        ("unfold_fours", "convolve_back", "unfold_fours"),
        strict=True,
    ):
        launched.clear()
        assert_as_on_host(function, arrays, cupy_backend, 1e-5, *more)
        assert launched[0] == name


def rounded(x):
    """float32 numbers rounded to 11 significant bits, ties away from zero, as tensor cores get
    them."""
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.fixture(params=("tf32", "bf16"))
def precision(request, cupy_backend, convolutions):
    """A precision that rounds, which holds during the test."""
    cupy = importlib.import_module("cupy")
    overridable.put_kernels(cupy.ndarray, convolutions.convolution_kernels(request.param))
    yield request.param
    overridable.put_kernels(cupy.ndarray, convolutions.convolution_kernels("full"))


@pytest.mark.parametrize("threads", (64, 128))
@pytest.mark.parametrize("splits", (1, 2))
@pytest.mark.parametrize("geometry", (Geometry((3, 3), (1, 1), SAME), Geometry((3, 2), (2, 1))))
def test_tensor_cores(
    geometry, splits, threads, precision, cupy_backend, convolutions, launched, rng, monkeypatch
):
    monkeypatch.setattr(convolutions, "_division", lambda *_: (threads, splits))
    for function, arrays, more in cases(rng, np.float32, geometry, (6, 7), 16, 80):
        got = function(*moved(arrays, cupy_backend), *more)
        assert_same(got, function(*map(rounded, arrays), *more), cupy_backend, 1e-4)
    assert not {"unfold", "unfold_fours", "fold", "fold_fours"} & set(launched)


def test_what_tiles_do_not_serve_is_unfolded(cupy_backend, launched, rng):
    geometry = Geometry((3, 3), (1, 1), SAME)
    for dtype, channels, kernels in (
        (np.float64, 16, {"unfold_fours", "fold_fours"}),
        (np.float32, 6, {"unfold", "fold"}),
        (np.float32, 4, {"unfold_fours", "fold_fours", "kernel_gradient"}),
    ):
        launched.clear()
        for function, arrays, more in cases(
            rng, dtype, geometry, IMAGE, channels, channels, kernels=1
        ):
            assert_as_on_host(function, arrays, cupy_backend, 10 * ALLOWED[dtype], *more)
        assert set(launched) - {"sum_parts"} == kernels


@pytest.mark.parametrize("images", (1, 2))
def test_windows_are_unfolded_in_blocks(images, cupy_backend, convolutions, rng, monkeypatch):
    monkeypatch.setattr(convolutions, "_images_at_a_time", lambda _bytes: images)
    for geometry in (GEOMETRIES["stride"], GEOMETRIES["groups"]):
        for function, arrays, more in cases(rng, np.float64, geometry, IMAGE, 4, 8):
            assert_as_on_host(function, arrays, cupy_backend, 1e-11, *more)
        x, left = normal(rng, float, 3, *IMAGE, 4), normal(rng, float, 2, *geometry.window, 4)
        left, right = left[..., : 4 // geometry.groups], normal(rng, float, 2, *geometry.window, 8)
        assert_as_on_host(convolve_rank_one, (x, left, right), cupy_backend, 1e-11, geometry)


@pytest.mark.parametrize("geometry", (Geometry((3, 3), (1, 1), SAME), Geometry((1, 1))), ids=str)
def test_no_images(geometry, cupy_backend, rng):
    for function, arrays, more in cases(rng, np.float32, geometry, IMAGE, 8, 8, images=0):
        assert_as_on_host(function, arrays, cupy_backend, 1e-5, *more)


@BOTH
def test_arrays_that_lie_anywhere(dtype, cupy_backend, rng):
    """One number behind a place where 128-bit loads may read, or not contiguous."""
    for geometry in (Geometry((3, 3), (1, 1), SAME), Geometry((1, 1))):
        for function, arrays, more in cases(rng, dtype, geometry, IMAGE, 8, 8):
            moved_on, turned = [], []
            for a in arrays:
                buffer = cupy_backend.asarray(np.concatenate([[0], a.ravel()]).astype(dtype))
                moved_on.append(np.reshape(buffer[1:], a.shape))
                turned.append(np.swapaxes(cupy_backend.asarray(np.swapaxes(a, 0, -1)), 0, -1))
            expected = function(*arrays, *more)
            assert_same(function(*moved_on, *more), expected, cupy_backend, 1e-5)
            assert_same(function(*turned, *more), expected, cupy_backend, 1e-5)


@pytest.mark.parametrize(("geometry", "image", "c", "q"), TILED.values(), ids=TILED.keys())
def test_transposes(geometry, image, c, q, cupy_backend, rng):
    """The three products with the third argument are the same number."""
    (_, (x, w), _), (_, (y, _), _), _ = cases(rng, np.float32, geometry, image, c, q)
    there = moved((x, w, y), cupy_backend)
    products = (
        (convolve(there[0], there[1], geometry), y),
        (convolve_transpose(there[2], there[1], geometry, image), x),
        (kernel_gradient(there[0], there[2], geometry), w),
    )
    first, *others = (np.vdot(cupy_backend.to_host(a).astype(float), b) for a, b in products)
    size = np.linalg.norm(y) * np.linalg.norm(cupy_backend.to_host(products[0][0]))
    for other in others:
        assert abs(other - first) <= 1e-5 * size


def test_derivatives_of_a_layer(cupy_backend, rng):
    x, w = normal(rng, np.float32, 2, 5, 5, 8), normal(rng, np.float32, 3, 3, 8, 16)
    tx, tw = normal(rng, np.float32, 3, *x.shape), normal(rng, np.float32, 3, *w.shape)

    def layer(x, w):
        return conv2d(x, w, stride=2, padding=1)

    def jvp(x, w, tx, tw):
        return dn.jvp(layer, (x, w), (tx, tw))

    def vjp(x, w):
        y, pull = dn.vjp(layer, x, w)
        return pull(y)

    assert_as_on_host(jvp, (x, w, tx, tw), cupy_backend, 1e-5)
    assert_as_on_host(vjp, (x, w), cupy_backend, 1e-5)


def test_sums_are_divided_where_tiles_are_few(convolutions):
    """The forward pass of ResNet18's first and last layers, and a gradient of the first."""
    first = convolutions._division(128 * 32 * 32, 64, (576,), 1, 4 * 128 * 32 * 32 * 64)
    last = convolutions._division(128 * 4 * 4, 512, (4608,), 1, 4 * 128 * 4 * 4 * 512)
    gradient = convolutions._division(576, 64, (128 * 32 * 32,), 1, 4 * 576 * 64)
    assert first == (64, 1)
    for (threads, splits), rows, columns in ((last, 2048, 512), (gradient, 576, 64)):
        tiles = -(-rows // 128) * -(-columns // threads)
        assert tiles < 132 and splits > 1 and 100 <= tiles * splits <= 132 * 16
