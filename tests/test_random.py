"""Keys, and the numbers that a backend draws from them."""

import math

import numpy as np
import pytest

from dualnet.backends import NumpyBackend, get, normal_numbers
from dualnet.errors import UsageError
from dualnet.random import Key

BLOCK = 65_536
BLOCKS = {"normal": 1 << 17, "uniform": BLOCK, "signs": 1 << 20}
"""Entries per generator of `NumpyBackend`: the places where a draw could come apart.

Normal numbers of float64 have blocks of 1 << 16, and those of float32 runs in the first block.
"""
RUNS = [normal_numbers.FEW << i for i in range(5)]  # the last one begins the second block

MOMENTS = {
    "normal": (0, 1, {1: (0, 1), 2: (1, 2**0.5), 3: (0, 15**0.5), 4: (3, 96**0.5)}),
    "uniform": (1 / 2, 1 / 12, {1: (1 / 2, 12**-0.5), 2: (1 / 3, (4 / 45) ** 0.5)}),
    "signs": (0, 1, {1: (0, 1)}),
}
"""Of each kind of draw: mean, variance, and by its power the mean and the deviation of a moment."""

DRAWS = tuple(MOMENTS)


# --- keys --------------------------------------------------------------------------------------


def test_keys_are_the_same_on_every_machine():
    # Literals: a change of the hash would change the numbers of every published run.
    assert Key(0).bits == 0xEF5845327721AD67F5289D45ACC56ED2
    assert Key(0).fold_in("w").fold_in(3).bits == 0xCD2E806977128A15BFAC534D313089F8


def test_equal_paths_give_equal_keys_and_different_ones_do_not():
    assert Key(7).fold_in("a") == Key(7).fold_in("a")
    distinct = {
        Key(1),
        Key(-1),
        Key(1).fold_in(0),
        Key(1).fold_in(1),
        Key(1).fold_in("1"),  # a name is not an index
        Key(1).fold_in(1).fold_in("a"),
        Key(1).fold_in("a").fold_in(1),  # the order counts
        Key(1).fold_in("a 1"),
    }
    assert len(distinct) == 8


def test_any_integer_is_a_seed():
    assert Key(np.int64(5)) == Key(5)
    assert Key(2**80) != Key(2**80 + 1)


@pytest.mark.parametrize("seed", [1.0, "1", None, True, [1]])
def test_what_is_no_integer_is_refused(seed):
    with pytest.raises(UsageError, match="expected an integer seed, got"):
        Key(seed)


def test_split_gives_the_children_numbered_from_zero():
    keys = Key(3).split(4)
    assert len(set(keys)) == 4
    assert keys == tuple(Key(3).fold_in(i) for i in range(4))


def test_a_key_cannot_be_changed():
    with pytest.raises(AttributeError):
        Key(0).bits = 1


# --- draws -------------------------------------------------------------------------------------


def assert_parts_are_of_the_whole(backend, draw, dtype, key, shape, parts):
    """Any part of a draw, from one entry to another, equals that part of the whole."""
    draw = getattr(backend, draw)
    whole = backend.to_host(draw(key, shape, dtype)).ravel()
    for a, b in parts:
        part = backend.to_host(draw(key, (b - a,), dtype, start=int(a)))
        assert part.dtype == dtype
        assert np.array_equal(part, whole[a:b]), f"entries {a} to {b}"


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parts_of_a_draw(draw, dtype, key, rng):
    block = BLOCKS[draw]
    n = 2 * block + 1000
    inner = [edge + i for edge in (*RUNS, *(3 * run // 2 for run in RUNS)) for i in (-1, 0, 1)]
    edges = [0, 1, 63, 64, 65, BLOCK, block - 1, block, block + 1, 2 * block - 1, 2 * block, n]
    edges += [edge for edge in inner if draw == "normal"]
    parts = [(a, b) for a in edges for b in edges if a <= b]
    parts += [sorted(rng.integers(0, n + 1, 2)) for _ in range(20)]
    assert_parts_are_of_the_whole(NumpyBackend(), draw, dtype, key, (n,), parts)


def assert_moments(backend, key, dtype, n, lags):
    """Ranges; moments, and products of numbers some lags apart, within 6 standard errors."""
    x, u, s = (backend.to_host(getattr(backend, draw)(key, (n,), dtype)) for draw in MOMENTS)
    assert np.array_equal(np.unique(s), [-1, 1]) and 0 <= u.min() and u.max() < 1
    for numbers, (mean, variance, moments) in zip((x, u, s), MOMENTS.values(), strict=True):
        numbers = numbers.astype(np.float64)
        found = [(numbers**power, *of_power) for power, of_power in moments.items()]
        z = numbers - mean
        found += [(z[lag:] * z[:-lag], 0, variance) for lag in lags]
        for sample, expected, deviation in found:
            assert abs(sample.mean() - expected) < 6 * deviation / np.sqrt(len(sample))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments_of_draws(dtype, key):
    lags = (1, 7, 8, 64, BLOCK, 1 << 17)  # bits of a byte, a word, partners in a run, blocks
    assert_moments(NumpyBackend(), key, dtype, 1_000_000, lags)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_numbers_are_spread_as_the_normal_distribution_is(dtype, key):
    """By equally likely bins, by the tails, and by how the squares of neighbors go together.

    Where two numbers are made of the same bits, these would say what their products hide.
    """
    x = NumpyBackend().normal(key, (1 << 20,), dtype).astype(np.float64)
    bins = 256
    share = np.array([0.5 * math.erfc(-value / 2**0.5) for value in x[:: 1 << 4]])  # of numbers < x
    counts, _ = np.histogram(share, bins, (0.0, 1.0))
    expected = len(share) / bins
    chi_square = np.sum(np.square(counts - expected)) / expected
    assert abs(chi_square - (bins - 1)) < 6 * (2 * (bins - 1)) ** 0.5
    for bound in (2, 3, 4):
        p = math.erfc(bound / 2**0.5)
        assert abs(np.sum(np.abs(x) > bound) - p * len(x)) < 6 * (p * len(x)) ** 0.5
    first = normal_numbers.FEW
    runs = [x[first : 2 * first], x[2 * first : 4 * first], x[1 << 17 : 1 << 18]]
    for run in runs:
        cosines, sines = np.split(run, 2)
        for part in (cosines, sines):
            assert abs(part.mean()) < 6 / len(part) ** 0.5
        assert abs((cosines * sines).mean()) < 6 / len(sines) ** 0.5
        # E x⁴ = 3, so the product of two squares varies by 9 - 1.
        squares = np.square(cosines) * np.square(sines)
        assert abs(squares.mean() - 1) < 8 * (8 / len(squares)) ** 0.5
    # Neighbors go together: by 3 - 1, on either side.
    squares = np.square(x[1:]) * np.square(x[:-1])
    assert abs(squares.mean() - 1) < 6 * (12 / len(squares)) ** 0.5


@pytest.mark.parametrize("bits", [0, 1, 2**31, 2**32 - 1])
def test_no_bits_give_a_number_that_is_not_finite(bits):
    class Bits:
        """A generator whose bits are all known."""

        def standard_normal(self, *size, out=None, dtype=None):
            if out is not None:
                out[:] = 0

        def random_raw(self, size):
            return np.full(2 * size, bits, np.uint32).view(np.uint64)

        bit_generator = property(lambda self: self)

    out = np.empty(2 * normal_numbers.FEW, np.float32)
    normal_numbers.normal_block(Bits(), 0, 0, out)
    made = out[normal_numbers.FEW :].astype(np.float64)
    cosines, sines = np.split(made, 2)
    assert np.isfinite(made).all() and np.abs(made).max() < 6.8
    radius = math.sqrt(-2 * math.log((bits + 0.5) / 2**32))
    assert np.allclose(np.hypot(cosines, sines), radius, rtol=1e-5, atol=3e-3)


@pytest.mark.parametrize("draw", DRAWS)
def test_the_shape_only_folds_the_sequence(draw, key):
    backend = NumpyBackend()
    flat = getattr(backend, draw)(key, (24,), np.float64)
    assert np.array_equal(getattr(backend, draw)(key, (2, 3, 4), np.float64), flat.reshape(2, 3, 4))
    assert getattr(backend, draw)(key, (), np.float64).shape == ()
    assert getattr(backend, draw)(key, (0, 3), np.float64, start=5).shape == (0, 3)


@pytest.mark.parametrize("draw", DRAWS)
def test_draws_do_not_depend_on_threads(draw, key):
    one, four = NumpyBackend(1), NumpyBackend(4)
    n = 3 * BLOCKS[draw] + 17
    expected = getattr(one, draw)(key, (n,), np.float32)
    # Several draws at once, each of several blocks, as the shards of a step make them.
    for got in four.map(lambda _: getattr(four, draw)(key, (n,), np.float32), range(4)):
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("draw", DRAWS)
def test_different_keys_give_uncorrelated_draws(draw, key):
    backend, n = NumpyBackend(), 200_000
    a, b = (getattr(backend, draw)(key.fold_in(name), (n,), np.float64) for name in ("a/w", "b/w"))
    assert abs(np.corrcoef(a, b)[0, 1]) < 6 / np.sqrt(n)


# --- backends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_map_keeps_the_order(threads):
    assert get("numpy", threads).map(lambda x: x * x, range(20)) == [x * x for x in range(20)]


def test_map_passes_errors_on():
    with pytest.raises(ZeroDivisionError):
        get("numpy", 2).map(lambda x: 1 // x, [1, 0, 1])


def test_an_unknown_backend_names_the_known_ones():
    with pytest.raises(UsageError, match=r"expected one of numpy, cupy, auto, got 'torch'"):
        get("torch")


def test_arrays_go_to_the_backend_and_back():
    backend = get("numpy")
    x = backend.asarray([1, 2], np.float32)
    assert x.dtype == np.float32
    assert np.array_equal(backend.to_host(x), [1, 2])
