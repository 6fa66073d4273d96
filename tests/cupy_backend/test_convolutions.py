"""Convolution by the CuPy backend: the tiled kernels and the unfolded way, against NumPy's form."""

import importlib
from functools import partial

import numpy as np
import pytest
from cupy_comparisons import ALLOWED, BOTH, assert_as_on_host

from dualnet.check.operations.convolution import GEOMETRIES
from dualnet.images.convolution import (
    convolve,
    convolve_own_rank_one,
    convolve_rank_one,
    convolve_transpose,
    kernel_gradient,
)
from dualnet.images.windows import Geometry

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
