"""Images that are enlarged on their way into a network."""

import json
from dataclasses import replace

import numpy as np
import pytest

import dualnet.training.run as run_module
import train
from dualnet import data
from dualnet.data.enlarge import enlarged


def by_pixel(image, side):
    """Bilinear interpolation of (height, width) at the centers of the new pixels."""
    height, width = image.shape
    out = np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            y = min(max((i + 0.5) * height / side - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / side - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = image[top, left] * (1 - x + left) + image[top, right] * (x - left)
            lower = image[below, left] * (1 - x + left) + image[below, right] * (x - left)
            out[i, j] = upper * (1 - y + top) + lower * (y - top)
    return out


@pytest.mark.parametrize("side", [5, 7, 10, 13])
def test_enlarged_by_a_loop_over_pixels(side, rng):
    images = rng.standard_normal((2, 5, 4, 3))
    expected = [[by_pixel(image[..., c], side) for c in range(3)] for image in images]
    np.testing.assert_allclose(enlarged(images, side), np.moveaxis(expected, 1, -1), atol=1e-12)
    single = enlarged(images.astype(np.float32), side)
    assert single.dtype == np.float32 and single.shape == (2, side, side, 3)


def test_images_of_their_own_size_stay_as_they_are(rng):
    images = rng.standard_normal((2, 6, 6, 1))
    np.testing.assert_array_equal(enlarged(images, 6), images)


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


def test_the_command_line_enlarges(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_module, "draw_curve", lambda *_: False)
    flags = "--image-size 12 --width 4 --epochs 1 --limit-train 64 --limit-test 20 --quiet --json"
    for augment in ("none", "flip-resized-crop"):
        folder = ["--run-dir", str(tmp_path / augment), "--augment", augment]
        code = train.exit_code([*flags.split(), *folder])
        out, err = capsys.readouterr()
        assert code == 0, err
        assert json.loads(out)["parameters"] == (144 + 1) * 4 + (4 + 1) * 4 + (4 + 1) * 10
