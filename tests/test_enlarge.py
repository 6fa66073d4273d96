"""Images that are enlarged on their way into a network."""

import json
from dataclasses import replace

import numpy as np
import pytest
from data_files import resized_by_a_loop

from dualnet import data
from dualnet.data.enlarge import enlarged


@pytest.mark.parametrize("side", [5, 7, 10, 13])
def test_enlarged_by_a_loop_over_pixels(side, rng):
    images = rng.standard_normal((2, 5, 4 if side > 5 else 5, 3))  # or they stay as they are
    expected = [resized_by_a_loop(image, side, side) for image in images]
    np.testing.assert_allclose(enlarged(images, side), expected, atol=1e-12)
    single = enlarged(images.astype(np.float32), side)
    assert single.dtype == np.float32 and single.shape == (2, side, side, 3)


@pytest.mark.parametrize("scale", data.PIXEL_SCALES)
def test_pixels_of_an_enlarged_set(scale):
    small = data.load("digits", limit_train=50)
    large = data.load("digits", limit_train=50, image_size=20)
    assert (small.in_shape, large.in_shape) == ((8, 8, 1), (20, 20, 1))
    images = small.test_images[:9]
    got = large.pixels(images, np.float32, scale)
    # Both are affine in the pixels, so their order does not matter.
    np.testing.assert_allclose(
        got, enlarged(small.pixels(images, np.float64, scale), 20), atol=1e-5
    )
    seen = []
    large.pixels(images, np.float32, scale, lambda x: seen.append(x.shape) or x)
    assert seen == [(9, 20, 20, 1)]  # changed at random when they are large already
    assert replace(large, image_size=None).pixels(images, np.float32, scale).shape == (9, 8, 8, 1)


def test_the_command_line_enlarges(elsewhere, ask):
    flags = "--image-size 12 --width 4 --epochs 1 --limit-train 64 --limit-test 20 --quiet --json"
    for augment in ("none", "flip-resized-crop"):
        code, out, err = ask(*flags.split(), "--run-dir", augment, "--augment", augment)
        assert code == 0, err
        assert json.loads(out)["parameters"] == (144 + 1) * 4 + (4 + 1) * 4 + (4 + 1) * 10
