"""Augmentations: against loops over images and pixels, and against Pillow and colorsys."""

import colorsys
import itertools
import math
from dataclasses import replace

import fake_cuda
import numpy as np
import pytest
import test_training
from cupy_comparisons import SameDraws, assert_same
from data_files import resized_by_a_loop
from peers import peer

from dualnet import Key, backends, data
from dualnet.data.augment import (
    AUGMENTATIONS,
    ColorJitter,
    Compose,
    Flip,
    GaussianBlur,
    Grayscale,
    PaddedCrop,
    ResizedCrop,
    Solarize,
    Sometimes,
    contrastive,
    flip_resized_crop,
)
from dualnet.errors import UsageError
from dualnet.learning import Task
from dualnet.models import MLP
from dualnet.nn import softmax_cross_entropy
from dualnet.training.assemble import make_trainer

BACKEND = backends.get("numpy")
EVERY = {
    "flip": Flip(),
    "sometimes": Sometimes(0.5, Flip()),
    "padded crop": PaddedCrop(3),
    "resized crop": ResizedCrop(),
    "jitter": ColorJitter(0.8, 0.8, 0.8, 0.5),
    "grayscale": Grayscale(),
    "blur": GaussianBlur(),
    "solarize": Solarize(),
    **{name: make() for name, make in AUGMENTATIONS.items() if name != "none"},
}
every = pytest.mark.parametrize("augment", EVERY.values(), ids=EVERY)


@pytest.fixture
def images(rng):
    """Five images that are no squares, with pixels of which some are gray, black and white."""
    x = rng.random((5, 9, 7, 3))
    x[:, 0] = rng.random((5, 7, 1))
    x[:, 1], x[:, 2] = 0.0, 1.0
    x[:, 3, :, 1] = x[:, 3, :, 0]  # two channels that are equal
    return x


def numbers(key, count, each, start=0, dtype=np.float64):
    """What an augmentation draws: `each` numbers for each of `count` images."""
    return BACKEND.uniform(key, (count, each), dtype, start * each)


def within(count, n, p):
    """Whether a count of n trials is as near to n p as six standard deviations."""
    return abs(count - n * p) <= 6 * math.sqrt(n * p * (1 - p))


# --- what holds for each of them -----------------------------------------------------------------


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_range_and_size_stay_and_nothing_is_written(augment, dtype, images, key):
    images = images.astype(dtype)
    before = images.copy()
    images.setflags(write=False)
    out = augment(key, images, BACKEND)
    assert out.dtype == dtype and out.shape == images.shape
    assert 0.0 <= out.min() and out.max() <= 1.0 + 1e-6
    np.testing.assert_array_equal(images, before)


@every
def test_equal_keys_give_equal_images_and_a_shard_its_part(augment, rng, key):
    images = rng.random((11, 8, 8, 3), dtype=np.float32)
    whole = augment(key, images, BACKEND)
    np.testing.assert_array_equal(augment(key, images, BACKEND), whole)
    parts = [augment(key, images[a:b], BACKEND, a) for a, b in ((0, 1), (1, 6), (6, 11))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


RANDOM = {name: f for name, f in EVERY.items() if name not in ("flip", "grayscale", "solarize")}


@pytest.mark.parametrize("augment", RANDOM.values(), ids=RANDOM)
def test_every_image_and_every_key_has_draws_of_its_own(augment, rng, key):
    images = np.broadcast_to(rng.random((8, 8, 3)), (40, 8, 8, 3))
    one, other = (augment(key.fold_in(i), images, BACKEND) for i in (0, 1))
    assert len(np.unique(one.reshape(40, -1), axis=0)) > 1
    assert (one != other).any()


IDENTITIES = {
    "nothing": Compose(()),
    "never": Sometimes(0.0, Solarize(0.0)),
    "no padding": PaddedCrop(0),
    "whole image": ResizedCrop(area=(1.0, 1.0), ratio=(1.0, 1.0)),
    "no jitter": ColorJitter(0.0, 0.0, 0.0, 0.0),
    "narrow blur": GaussianBlur((0.01, 0.01)),
    "no pixel as bright": Sometimes(1.0, Solarize(1.0)),
}


@pytest.mark.parametrize("augment", IDENTITIES.values(), ids=IDENTITIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_settings_that_change_nothing(augment, dtype, rng, key):
    images = 0.999 * rng.random((4, 8, 8, 3), dtype=dtype)
    np.testing.assert_array_equal(augment(key, images, BACKEND), images)


@every
def test_arrays_of_a_device_stay_there(augment, images, key, cupy_backend):
    """The stand-in refuses host arrays among its own, and counts what is moved."""
    there = cupy_backend.asarray(images)
    got = augment(key, there, SameDraws(cupy_backend), start=2)
    assert_same(got, augment(key, images, BACKEND, start=2), cupy_backend, 1e-12)
    with fake_cuda.counted() as happened:
        augment(key, there, cupy_backend)
    assert not happened


# --- probability ---------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_so_many_images_are_changed(probability, key):
    n = 4000
    images = np.tile(np.float32([0.25, 0.75]).reshape(1, 1, 2, 1), (n, 1, 1, 1))
    out = Sometimes(probability, Flip())(key, images, BACKEND)
    flipped = out[:, 0, 0, 0] == 0.75
    np.testing.assert_array_equal(out, np.where(flipped[:, None, None, None], 1 - images, images))
    assert within(flipped.sum(), n, probability)


def test_the_steps_of_a_composition_draw_apart(key):
    n = 4000
    images = np.tile(np.float32([0.25, 0.75]).reshape(1, 1, 2, 1), (n, 1, 1, 1))
    out = Compose((Sometimes(0.5, Flip()),) * 2)(key, images, BACKEND)
    assert within((out[:, 0, 0, 0] == 0.75).sum(), n, 0.5)  # with equal draws there would be none


def test_who_is_chosen_says_nothing_about_the_change(key):
    def replaced(key, images, backend, start=0):
        drawn = backend.uniform(key, (len(images), 1), images.dtype, start)
        return images + drawn[:, :, None, None]

    out = Sometimes(0.5, replaced)(key, np.zeros((4000, 1, 1, 1)), BACKEND).reshape(-1)
    changed = out[out > 0.0]
    # 2000 uniform numbers have a mean that deviates by 0.0065.
    assert within(len(changed), 4000, 0.5) and abs(changed.mean() - 0.5) < 0.035


# --- geometry ------------------------------------------------------------------------------------


def test_flip(images, key):
    out = Flip()(key, images, BACKEND)
    for image, flipped in zip(images, out, strict=True):
        np.testing.assert_array_equal(flipped, np.fliplr(image))


def test_padded_crop_by_a_loop_over_pixels(images, key):
    padding = 3
    out = PaddedCrop(padding)(key, images, BACKEND, start=2)
    offsets = np.floor(numbers(key, 5, 2, start=2) * (2 * padding + 1)).astype(int) - padding
    _, height, width, _ = images.shape
    for image, moved, (down, right) in zip(images, out, offsets, strict=True):
        for y in range(height):
            for x in range(width):
                i, j = y + down, x + right
                there = 0 <= i < height and 0 <= j < width
                np.testing.assert_array_equal(moved[y, x], image[i, j] if there else 0.0)


def crop_by_a_loop(draws, height, width, area, ratio):
    """Top, left, height and width of the first rectangle that fits."""
    places, shares, ratios = draws[:2], draws[2:12], draws[12:]
    for share, log in zip(shares, ratios, strict=True):
        pixels = (area[0] + (area[1] - area[0]) * share) * height * width
        low, high = map(math.log, ratio)
        aspect = math.exp(low + (high - low) * log)
        h, w = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
        h, w = max(1, h), max(1, w)
        if h <= height and w <= width:
            break
    else:
        raise AssertionError("none fits")
    return math.floor(places[0] * (height - h + 1)), math.floor(places[1] * (width - w + 1)), h, w


@pytest.mark.parametrize("size", [None, 6, 20])
def test_resized_crop_by_a_loop_over_pixels(size, images, key):
    augment = ResizedCrop(area=(0.1, 0.8), size=size)
    out = augment(key, images, BACKEND)
    shape = (size, size) if size else images.shape[1:3]
    assert out.shape == (5, *shape, 3)
    for image, draws, changed in zip(images, numbers(key, 5, 22), out, strict=True):
        top, left, h, w = crop_by_a_loop(draws, *image.shape[:2], augment.area, augment.ratio)
        expected = resized_by_a_loop(image[top : top + h, left : left + w], *shape)
        np.testing.assert_allclose(changed, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("ratio", "whole", "largest"),
    [
        ((1.0, 1.0), (4, 40), (4, 4)),
        ((2.0, 2.0), (40, 4), (2, 4)),
        ((1.0, 2.0), (40, 4), (4, 4)),
        ((0.5, 1.0), (4, 40), (4, 4)),
    ],
)
def test_where_no_crop_fits_the_largest_is_taken(ratio, whole, largest, rng, key):
    image = rng.random((*whole, 1))
    (out,) = ResizedCrop(area=(1.0, 1.0), ratio=ratio)(key, image[None], BACKEND)
    places = itertools.product(*(range(n - m + 1) for n, m in zip(whole, largest, strict=True)))
    crops = [image[y : y + largest[0], x : x + largest[1]] for y, x in places]
    gaps = [np.abs(out - resized_by_a_loop(crop, *whole)).max() for crop in crops]
    assert min(gaps) < 1e-12


def test_blur_by_a_loop_over_pixels(images, key):
    augment = GaussianBlur((0.5, 3.0))
    out = augment(key, images, BACKEND)
    _, height, width, _ = images.shape
    for image, draw, blurred in zip(images, numbers(key, 5, 1)[:, 0], out, strict=True):
        sigma = 0.5 + 2.5 * draw
        for y in range(height):
            for x in range(width):
                distance = np.hypot(*np.mgrid[-y : height - y, -x : width - x])
                weights = np.exp(-(distance**2) / (2 * sigma**2))[:, :, None]
                expected = (weights * image).sum(axis=(0, 1)) / weights.sum()
                np.testing.assert_allclose(blurred[y, x], expected, rtol=1e-10)


# --- color ---------------------------------------------------------------------------------------


def pillow(*modules):
    return [peer(f"PIL.{name}", "images") for name in modules]


def brightness(pixel):
    return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]


def test_jitter_by_a_loop_over_pixels(images, key):
    augment = ColorJitter(0.5, 0.75, 1.5, 0.4)
    out = augment(key, images, BACKEND)
    for image, draws, changed in zip(images, numbers(key, 5, 4), out, strict=True):
        pixels = image.reshape(-1, 3)
        f = 0.5 + 1.0 * draws[0], 0.25 + 1.5 * draws[1], 0.0 + 2.5 * draws[2]
        pixels = [np.clip(f[0] * p, 0, 1) for p in pixels]
        mean = np.mean([brightness(p) for p in pixels])
        pixels = [np.clip(f[1] * p + (1 - f[1]) * mean, 0, 1) for p in pixels]
        pixels = [np.clip(f[2] * p + (1 - f[2]) * brightness(p), 0, 1) for p in pixels]
        for pixel, got in zip(pixels, changed.reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
            turned = (hue + 0.4 * (2 * draws[3] - 1)) % 1.0
            expected = colorsys.hsv_to_rgb(turned, saturation, value)
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_jitter_of_images_without_color_has_no_color(rng, key):
    one = rng.random((6, 5, 5, 1))
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.3)
    three = jitter(key, np.repeat(one, 3, axis=-1), BACKEND)
    out = jitter(key, one, BACKEND)
    assert (out != one).any()
    np.testing.assert_allclose(three, np.repeat(out, 3, axis=-1), rtol=0, atol=1e-12)


def test_grayscale_and_solarize_agree_with_pillow(rng, key):
    image, operations = pillow("Image", "ImageOps")
    pixels = rng.integers(0, 256, (1, 30, 30, 3), np.uint8)
    there = image.fromarray(pixels[0])
    for augment, expected, allowed in (
        (Grayscale(), there.convert("L").convert("RGB"), 0.51),  # theirs is rounded
        (Solarize(128 / 255), operations.solarize(there, 128), 1e-9),
    ):
        out = augment(key, pixels / 255.0, BACKEND)[0]
        np.testing.assert_allclose(255 * out, np.asarray(expected), rtol=0, atol=allowed)


# --- pipelines -----------------------------------------------------------------------------------


def test_the_papers_pipelines():
    assert AUGMENTATIONS["none"]() is None
    assert AUGMENTATIONS["flip"]() == Sometimes(0.5, Flip())
    assert AUGMENTATIONS["flip-crop"]() == Compose((Sometimes(0.5, Flip()), PaddedCrop(4)))
    assert AUGMENTATIONS["flip-resized-crop"]() == flip_resized_crop()
    assert AUGMENTATIONS["contrastive"]().steps[0] == ResizedCrop(area=(0.08, 1.0))
    assert AUGMENTATIONS["contrastive-large"]() == contrastive(0.3)
    chances = [s.probability for s in contrastive(blur=0.1, solarize=0.2).steps[1:]]
    assert chances == [0.5, 0.8, 0.2, 0.1, 0.2]


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sometimes(1.1, Flip()), r"Sometimes: probability: expected .* from 0 to 1, "),
        (lambda: Sometimes(math.nan, Flip()), "Sometimes: probability"),
        (lambda: PaddedCrop(-1), "PaddedCrop: padding: expected a whole number from 0 up, got -1"),
        (lambda: PaddedCrop(1.5), "PaddedCrop: padding: .* got 1.5"),
        (lambda: ResizedCrop(area=(0.5, 0.3)), r"ResizedCrop: area: .* got \(0.5, 0.3\)"),
        (lambda: ResizedCrop(area=(0.0, 1.0)), "ResizedCrop: area"),
        (lambda: ResizedCrop(area=(0.5, 1.1)), "ResizedCrop: area"),
        (lambda: ResizedCrop(ratio=(0.0, 1.0)), "ResizedCrop: ratio"),
        (lambda: ResizedCrop(size=0), "ResizedCrop: size: expected a whole number from 1 up"),
        (lambda: GaussianBlur((0.0, 1.0)), "GaussianBlur: sigma"),
        (lambda: ColorJitter(contrast=-0.1), "ColorJitter: contrast"),
        (lambda: ColorJitter(hue=0.6), r"ColorJitter: hue: expected .* from 0 to 0.5"),
        (lambda: Solarize(1.5), "Solarize: threshold"),
        (lambda: Grayscale()(Key(0), np.zeros((2, 3, 3, 4)), BACKEND), "1 or 3 channels, got 4"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize("augment", RANDOM.values(), ids=RANDOM)
def test_images_must_be_floats_of_four_axes(augment, key):
    for wrong, got in (
        (np.zeros((2, 3, 3, 3), np.uint8), r"uint8\(2, 3, 3, 3\)"),
        (np.zeros((3, 3, 3)), r"float64\(3, 3, 3\)"),
    ):
        with pytest.raises(UsageError, match=rf"augment: images: expected .*, got {got}; convert"):
            augment(key, wrong, BACKEND)


# --- training ------------------------------------------------------------------------------------

SETTINGS = replace(test_training.SETTINGS, epochs=2, batch_size=16, augment="flip-crop")
NETWORK = MLP(**SETTINGS.model_options).network((8, 8, 1), 10)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", limit_train=40, limit_test=20)


def test_pixels_are_changed_on_a_scale_from_black_to_white(digits):
    seen = []

    def negative(x):
        seen.append(x)
        return 1.0 - x

    images = digits.test_images
    for scale in ("standard", "symmetric"):
        plain = digits.pixels(images, np.float32, scale)
        same = digits.pixels(images, np.float32, scale, lambda x: x)
        np.testing.assert_allclose(same, plain, rtol=0, atol=1e-5)
        expected = digits.pixels((digits.white - images).astype(np.uint8), np.float32, scale)
        changed = digits.pixels(images, np.float32, scale, negative)
        np.testing.assert_allclose(changed, expected, rtol=0, atol=1e-5)
        assert changed.dtype == np.float32
    assert all((x.min(), x.max()) == (0.0, 1.0) for x in seen)


def test_training_batches_are_changed_and_nothing_else(digits):
    seen = []

    def record(key, images, backend, start=0):
        seen.append((key, images))
        return images

    trainer = make_trainer(SETTINGS, NETWORK, digits)
    assert trainer.augment == AUGMENTATIONS["flip-crop"]()
    assert trainer.task == Task(NETWORK, softmax_cross_entropy)
    images = digits.train_images[:3]
    plain = make_trainer(replace(SETTINGS, augment="none"), NETWORK, digits)
    unchanged = plain.prepare(images, Key(0))
    np.testing.assert_array_equal(unchanged, digits.pixels(images, np.float32))
    trainer = replace(trainer, augment=record)
    now = trainer.start()
    trainer.evaluate(now)
    assert not seen
    trainer.train(now, lambda _: None, lambda _: None, quiet=True)
    assert [len(images) for _, images in seen] == [16, 16, 8] * 2
    assert len({key for key, _ in seen}) == 6
    assert all(images.dtype == np.float32 for _, images in seen)
