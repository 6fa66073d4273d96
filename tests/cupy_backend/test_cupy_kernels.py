"""The CuPy backend's random numbers, and its kernels on larger arrays than the rows of the verifier
have."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
from cupy_comparisons import ALLOWED, BOTH, assert_as_on_host, assert_same, moved
from test_random import DRAWS, assert_moments, assert_parts_are_of_the_whole

import dualnet as dn
from dualnet.backends import overridable
from dualnet.backends.symmetric import eigen, inverse_factor
from dualnet.check import ROWS
from dualnet.checking.directions import random_directions
from dualnet.images.windows import (
    Geometry,
    fold,
    unfold,
    weighted_window_sum,
    weighted_window_sum_transpose,
)
from dualnet.learning.aggregate import least_norm
from dualnet.learning.independence import summed_by_part
from dualnet.nn import normalization_kernels as normalization
from dualnet.nn import softmax, softmax_cross_entropy
from dualnet.nn.activations import _tangent_of_softmax_along
from dualnet.nn.losses import _losses_and_errors
from dualnet.optim import OPTIMIZERS

# --- sums of directions --------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("swapped", (False, True))
@pytest.mark.parametrize("tokens, groups, of_tokens", [(1, 1, 1), (5, 1, 1), (5, 3, 5), (5, 3, 1)])
def test_sums_by_part(tokens, groups, of_tokens, swapped, dtype, cupy_backend, rng):
    k, n, channels = 4, 7, 6
    sizes = (groups, channels, tokens) if swapped else (tokens, groups, channels)
    d = rng.standard_normal((k, n, of_tokens, groups)).astype(dtype)
    u = rng.standard_normal((k, n, *sizes)).astype(dtype)
    assert_as_on_host(summed_by_part, (d, u), cupy_backend, ALLOWED[dtype], swapped)


# --- random numbers ------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("kind", DRAWS)
def test_parts_of_a_sequence(kind, dtype, cupy_backend, key):
    parts = ((0, 1), (1, 4), (3, 4), (127, 257), (500, 2000), (1999, 2000), (7, 7))
    assert_parts_are_of_the_whole(cupy_backend, kind, dtype, key, (40, 50), parts)
    one, other = (getattr(cupy_backend, kind)(key.fold_in(i), (2000,), dtype) for i in (0, 1))
    assert not np.array_equal(*map(cupy_backend.to_host, (one, other)))


@BOTH
def test_moments_of_draws(dtype, cupy_backend, key):
    assert_moments(cupy_backend, key, dtype, 1 << 16, (1, 2, 32))


def test_signs_are_the_bits_of_philox(cupy_backend):
    """Against the words that the authors of Philox publish for key and counter 0."""
    zero = SimpleNamespace(bits=0)
    drawn = cupy_backend.to_host(cupy_backend.signs(zero, (128,), np.float32)) > 0
    words = np.packbits(drawn, bitorder="little").view("<u4")
    assert [f"{w:08x}" for w in words] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


@pytest.mark.parametrize("bits", (0, 2**64 + 5, 2**127 - 3))
def test_draws_follow_from_words_as_said(bits, cupy_backend):
    key = SimpleNamespace(bits=bits)
    words = np.concatenate([philox(bits, block) for block in range(3)])
    signs = cupy_backend.to_host(cupy_backend.signs(key, (384,), np.float64)) > 0
    np.testing.assert_array_equal(np.packbits(signs, bitorder="little").view("<u4"), words)
    uniform = cupy_backend.to_host(cupy_backend.uniform(key, (12,), np.float32))
    np.testing.assert_array_equal(uniform, (words >> 8) / np.float32(2**24))
    above_zero, turns = (words[::2] + 0.5) / 2**32, (words[1::2] >> 8) / 2**24
    radius = np.sqrt(-2 * np.log(above_zero))
    pairs = np.stack([radius * np.cos(2 * np.pi * turns), radius * np.sin(2 * np.pi * turns)], 1)
    normal = cupy_backend.to_host(cupy_backend.normal(key, (12,), np.float32))
    np.testing.assert_allclose(normal, pairs.ravel(), rtol=1e-5, atol=1e-6)


@pytest.fixture
def draws(cupy_backend):
    """The module under test, which can be imported while a CuPy is there."""
    return importlib.import_module("dualnet.backends.draws")


@BOTH
@pytest.mark.parametrize("kind", DRAWS)
def test_any_part_into_any_place(kind, dtype, cupy_backend, draws, key):
    """Sizes from 0 to 9 and others, odd starts, and places that are not aligned to four numbers:
    always the numbers of the sequence, and nothing beside them."""
    whole = cupy_backend.to_host(getattr(cupy_backend, kind)(key, (9000,), dtype))
    for size in (*range(10), 2047, 4099):
        for start in (0, 1, 2, 3, 4, 127, 2048):
            for at in range(4):
                memory = cupy_backend.asarray(np.full(size + 8, 7, dtype))
                draw = draws.Draw(kind, key, (size,), dtype, start)
                draws.fill(memory[at : at + size], draw)
                got = cupy_backend.to_host(memory)
                np.testing.assert_array_equal(got[at : at + size], whole[start : start + size])
                assert (got[:at] == 7).all() and (got[at + size :] == 7).all()


@pytest.mark.parametrize("count", (1, 63, 64, 65, 130))
def test_many_draws_are_those_of_one_by_one(count, cupy_backend, draws, key, rng, monkeypatch):
    """Of all kinds, sizes and dtypes in any order, at most 64 in a launch for each dtype."""
    requests = []
    for i in range(count):
        shape = tuple(rng.integers(0, 12, rng.integers(1, 4)).tolist())
        shape = (int(rng.integers(1000, 5000)),) if rng.random() < 0.2 else shape
        dtype = np.dtype((np.float32, np.float64)[rng.integers(2)])
        start = int(rng.integers(3) * rng.integers(300))
        requests.append(draws.Draw(str(rng.choice(DRAWS)), key.fold_in(i), shape, dtype, start))
    empty = importlib.import_module("cupy").empty
    outs = [empty(r.shape, r.dtype) for r in requests]
    launched = []
    launch = draws._DRAWS.launch
    with monkeypatch.context() as patch:
        patch.setattr(draws._DRAWS, "launch", lambda *a: launched.append(launch(*a)))
        draws.fill_many(outs, requests)
    sizes = [sum(r.dtype == d and 0 not in r.shape for r in requests) for d in (np.float32, float)]
    assert len(launched) == sum(-(-n // 64) for n in sizes)
    for out, r in zip(outs, requests, strict=True):
        alone = getattr(cupy_backend, r.kind)(r.key, r.shape, r.dtype, r.start)
        np.testing.assert_array_equal(*map(cupy_backend.to_host, (out, alone)))


def test_draws_are_as_exact_as_float32(cupy_backend, key):
    """Normal numbers against those that float64 makes of the same uniform numbers.

    Angles count from the nearest quarter of a turn, so that small numbers are exact too.
    """
    words = np.concatenate([philox(key.bits, block) for block in range(2000)])
    rounded = words[::2].astype(np.float32).astype(np.float64)
    above_zero = (rounded * 2.0**-32 + 2.0**-33).astype(np.float32)
    radius = np.sqrt(-2 * np.log(above_zero.astype(np.float64)))
    turns = (words[1::2] >> 8) / 2**24
    quarters = np.rint(4 * turns)
    x = np.pi / 2 * (4 * turns - quarters)
    sines = np.stack([np.sin(x), np.cos(x), -np.sin(x), -np.cos(x)])
    across, up = (
        np.take_along_axis(sines, (quarters + i)[None].astype(int) % 4, 0)[0] for i in (1, 0)
    )
    expected = np.stack([radius * across, radius * up], 1).ravel()
    got = cupy_backend.to_host(cupy_backend.normal(key, expected.shape, np.float32))
    np.testing.assert_allclose(got, expected, rtol=6e-7)


@pytest.mark.parametrize(
    "shape, dtype, view",
    [
        ((3, 4), np.float32, lambda a: a[:, :2]),
        ((3, 4), np.float64, lambda a: a),
        ((4, 3), np.float32, lambda a: a),
    ],
    ids=("gaps", "dtype", "shape"),
)
def test_what_cannot_be_drawn_into_is_refused(shape, dtype, view, cupy_backend, draws, key):
    out = view(cupy_backend.asarray(np.zeros(shape, dtype)))
    draw = draws.Draw("signs", key, (3, 4) if out.shape != (3, 2) else (3, 2), np.float32)
    with pytest.raises(ValueError, match=r"fill_many draws \(3, .\) float32 into a contiguous"):
        draws.fill(out, draw)
    with pytest.raises(ValueError, match="zip"):
        draws.fill_many([], [draw])


def philox(bits, block):
    """Four words of Philox4x32-10, written from the paper in Python's integers."""
    low = 2**32 - 1
    k0, k1 = bits & low, bits >> 32 & low
    c = [block & low, block >> 32, bits >> 64 & low, bits >> 96]
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(q >> 32) ^ c[1] ^ k0, q & low, (p >> 32) ^ c[3] ^ k1, p & low]
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return np.array(c, np.uint32)


# --- kernels on larger arrays than the rows have -------------------------------------------------


def test_every_kernel_replaces_something(cupy_backend):
    launching = importlib.import_module("dualnet.backends.launching")
    assert set(launching.KERNELS) <= overridable.OVERRIDABLE


def test_a_users_optimizer_of_the_same_name_keeps_its_formula(cupy_backend):
    def update_leaf(self, g, s, p, lr, step):
        return p - 2 * lr * g, {}

    update_leaf.__qualname__ = "SGD.update_leaf"
    own = type("SGD", (OPTIMIZERS["sgd"],), {"update_leaf": update_leaf})()
    params = {"w": cupy_backend.asarray(np.ones(3, np.float32))}
    moved, _ = own.apply(params, {}, params, 0.25, 1)
    np.testing.assert_array_equal(cupy_backend.to_host(moved["w"]), 0.5)


NORMS = [
    ((70, 32), (-1,)),  # rows: a part of a warp each
    ((37, 7), (-1,)),
    ((5, 6), (-2,)),
    ((9, 1), (-1,)),  # of one entry
    ((20, 512), (-1,)),  # a warp each
    ((70, 301), (-1,)),
    ((3, 2050), (-1,)),  # a block each
    ((1, 9000), (-1,)),  # more than a block keeps
    ((2, 8193), (-1,)),
    ((700, 7, 3), (-3, -2)),  # columns
    ((33, 257), (-2,)),
    ((4500, 64), (-2,)),  # several chunks of them
    ((5, 6, 4, 9), (-3, -1)),  # both kinds of axes
    ((2, 900, 4, 8), (-3, -1)),
    ((2, 9, 8, 2, 5), (-4, -3, -1)),
    ((3, 0), (-2,)),
]


@BOTH
@pytest.mark.parametrize("shape, axes", NORMS, ids=str)
def test_normalization(shape, axes, dtype, cupy_backend, rng):
    x = (rng.standard_normal(shape) + 3).astype(dtype)
    y, s = normalization.normalized(x, axes, 1e-5)
    allowed = 100 * ALLOWED[dtype]
    for function in (normalization.normalized_by, normalization.normalized):
        statistics = normalization.moments(x, axes) if "by" in function.__name__ else ()
        assert_as_on_host(function, (x, *statistics), cupy_backend, allowed, axes, 1e-5)
    assert_as_on_host(normalization.moments, (x,), cupy_backend, allowed, axes)
    for k in (0, 1, 5):
        t = rng.standard_normal((k, *shape)).astype(dtype)
        assert_as_on_host(normalization.tangent, (t, y, s), cupy_backend, allowed, axes)


@pytest.mark.parametrize("shape, axes", [n for n in NORMS if 0 not in n[0]], ids=str)
def test_norms_lose_no_digits(shape, axes, cupy_backend, rng):
    """Far from 0 only the mean's rounding counts: it is as good as NumPy's, and the variance keeps
    its digits."""
    x = (rng.standard_normal(shape) + 1000).astype(np.float32)
    t = rng.standard_normal((2, *shape)).astype(np.float32)
    exact_y, exact_s = normalization.normalized(x.astype(float), axes, 1e-5)
    exact = normalization.tangent(t.astype(float), exact_y, exact_s, axes)
    there = cupy_backend.asarray(x)
    mean, variance = map(cupy_backend.to_host, normalization.moments(there, axes))
    exact_variance = x.var(axes, dtype=float)
    np.testing.assert_allclose(mean, x.mean(axes, dtype=float), rtol=2e-7)
    np.testing.assert_allclose(variance, exact_variance, rtol=2e-6, atol=1e-7)
    y, s = normalization.normalized(there, axes, 1e-5)
    got = normalization.tangent(cupy_backend.asarray(t), y, s, axes)
    rounding = 3 * 1000 * 2.0**-23 * exact_s  # of the mean
    assert (np.abs(cupy_backend.to_host(y) - exact_y) <= rounding + 1e-5 * np.abs(exact_y)).all()
    sizes = np.abs(t).max() * (1 + np.abs(exact_y))
    off = np.abs(cupy_backend.to_host(got) - exact)
    assert (off <= (3 * rounding + 1e-5) * sizes * exact_s).all()


@BOTH
@pytest.mark.parametrize("offset", (1, 2, 3))
def test_rows_may_begin_anywhere(offset, dtype, cupy_backend, rng):
    """Where vectors may not lie, entries are read one by one, or two."""
    flat = cupy_backend.asarray(rng.standard_normal(4 * 64 + offset).astype(dtype))
    x = np.reshape(flat[offset:], (4, 64))
    for axes in ((-1,), (-2,)):
        got = normalization.normalized(x, axes, 1e-5)
        expected = normalization.normalized(cupy_backend.to_host(x), axes, 1e-5)
        assert_same(got, expected, cupy_backend, ALLOWED[dtype])


NORMS_AND_THE_LIKE = ("normalized_in_view", "normalized_by_in_view", "moments_in_view")
NORMS_AND_THE_LIKE += ("tangent_in_view", "_softmax_along", "_tangent_of_softmax_along")
NORMS_AND_THE_LIKE += ("_losses", "_losses_and_errors")


@pytest.mark.parametrize("row", [r for r in ROWS if r.family == "models"], ids=lambda row: row.name)
def test_no_network_leaves_a_norm_to_cupy(row, cupy_backend, rng, key, monkeypatch):
    """Backward and forward, the networks' softmaxes and losses are the kernels' too."""
    left = []

    def watched(name, kernel):
        def call(*arguments):
            result = kernel(*arguments)
            if result is NotImplemented:
                left.append((name, *(getattr(a, "shape", a) for a in arguments)))
            return result

        return call

    kernels = {
        at: watched(at[1], kernel) if at[1] in NORMS_AND_THE_LIKE else kernel
        for at, kernel in overridable._KERNELS.items()
    }
    assert {name for _, name in kernels} >= set(NORMS_AND_THE_LIKE)
    monkeypatch.setattr(overridable, "_KERNELS", kernels)
    here = row.arrays(rng, np.float32)
    there = moved(here, cupy_backend)
    dn.jvp(row, there, moved(random_directions(key, here, 2), cupy_backend))
    _, pull = dn.vjp(row, *there)
    pull(moved(random_directions(key.fold_in("u"), row(*here), 2), cupy_backend))
    assert not left


def test_sums_of_norms_have_one_order(cupy_backend, rng):
    x = cupy_backend.asarray(rng.standard_normal((20000, 16)).astype(np.float32))
    one, other = (normalization.normalized(x, (-2,), 1e-5)[0] for _ in range(2))
    np.testing.assert_array_equal(*map(cupy_backend.to_host, (one, other)))


@pytest.mark.parametrize("width", (1, 2, 4))
def test_every_row_is_divided(width, cupy_backend):
    norms = importlib.import_module("dualnet.backends.norm_kernels")
    kept = 0
    for n in range(width, 3 * norms._LONGEST_ROW, width):
        lanes, vectors = norms._row_division(n, width)
        assert lanes in (1, 2, 4, 8, 16, 32, norms._ROW_THREADS)
        assert vectors * width <= norms._MOST_ENTRIES
        if vectors:
            assert lanes * (vectors - 1) * width < n <= lanes * vectors * width
            kept = n
    assert kept == norms._LONGEST_ROW


@BOTH
@pytest.mark.parametrize("shape", [(3, 1), (2, 17, 10), (40, 65), (3, 1000), (2, 9001), (0, 4)])
def test_softmax(shape, dtype, cupy_backend, rng):
    x = (10 * rng.standard_normal(shape)).astype(dtype)
    assert_as_on_host(softmax, (x,), cupy_backend, ALLOWED[dtype])
    p = softmax(x)
    for k in (0, 1, 5):
        t = rng.standard_normal((k, *shape)).astype(dtype)
        summed = p * np.abs(t)
        terms = summed + p * summed.sum(-1, keepdims=True)  # cancel where a p is near 1
        function = _tangent_of_softmax_along
        assert_as_on_host(function, (t, p), cupy_backend, ALLOWED[dtype], -1, terms=terms)


def test_softmax_of_what_is_not_finite(cupy_backend):
    x = np.log(np.arange(1, 8.0)) + np.zeros((6, 1))
    x[0, 0] = x[1, 3] = np.nan
    x[2, 2], x[3, 0], x[4] = np.inf, -np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        assert_as_on_host(softmax, (x,), cupy_backend, 1e-12)


@BOTH
@pytest.mark.parametrize("classes", (1, 2, 7, 10, 128, 1000, 9001))
def test_cross_entropy(classes, dtype, cupy_backend, rng):
    logits = (30 * rng.standard_normal((50, classes))).astype(dtype)
    labels = rng.integers(0, classes, 50)
    for function in (_losses_and_errors, softmax_cross_entropy):
        assert_as_on_host(function, (logits, labels), cupy_backend, 10 * ALLOWED[dtype])


@pytest.mark.parametrize("dtype", (np.float16, np.float32, np.float64))
def test_the_loss_of_a_label_out_of_range_is_nan_on_a_device(dtype, cupy_backend):
    """Memory beside the logits is not read, and the host does not wait."""
    logits = cupy_backend.asarray(np.zeros((4, 3), dtype))
    labels = cupy_backend.asarray(np.array([-1, 2, 3, 1 << 40]))
    for losses in (_losses_and_errors(logits, labels)[0], softmax_cross_entropy(logits, labels)):
        wrong = np.isnan(cupy_backend.to_host(losses))
        np.testing.assert_array_equal(wrong, [True, False, True, True])


def test_cross_entropy_of_nan_is_nan(cupy_backend):
    for at in (0, 1, 9):
        logits = np.zeros((1, 10), np.float32)
        logits[0, at] = np.nan
        losses, _ = _losses_and_errors(cupy_backend.asarray(logits), cupy_backend.asarray([3]))
        assert np.isnan(cupy_backend.to_host(losses)).all()


@BOTH
@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((3, 3), (1, 1), ((1, 1), (1, 1))),
        Geometry((2, 3), (2, 1), ((0, 1), (2, 0))),
        Geometry((5, 2), (3, 4)),
    ],
    ids=str,
)
def test_windows(geometry, dtype, cupy_backend, rng):
    image, channels = (11, 9), 5
    places = geometry.output_size(image)
    windows = geometry.window[0] * geometry.window[1]

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    x, y = normal(3, *image, channels), normal(3, *places, windows, channels)
    weights = normal(windows, 3, *places, channels)
    stack, outputs = normal(2, 3, *image, channels), normal(2, 3, *places, channels)
    for function, arguments, more in (
        (unfold, (x,), (geometry,)),
        (fold, (y,), (geometry, image)),
        (weighted_window_sum, (stack, weights), (geometry,)),
        (weighted_window_sum_transpose, (outputs, weights), (geometry, image)),
    ):
        assert_as_on_host(function, arguments, cupy_backend, 10 * ALLOWED[dtype], *more)


@BOTH
@pytest.mark.parametrize("k, rank", [(1, 1), (2, 2), (5, 5), (8, 3), (13, 13), (16, 16), (5, 0)])
def test_eigenvectors(k, rank, dtype, cupy_backend, rng):
    v = rng.standard_normal((3, k, rank)).astype(dtype)
    v[1] *= 1e-3
    g = v @ np.swapaxes(v, 1, 2)
    values, vectors = map(cupy_backend.to_host, eigen(cupy_backend.asarray(g)))
    assert values.dtype == vectors.dtype == dtype
    size = np.abs(g).max(axis=(1, 2), keepdims=True) + np.finfo(dtype).tiny
    allowed = 10 * ALLOWED[dtype] * size
    expected = np.linalg.eigvalsh(g)
    assert (np.abs(np.sort(values) - expected) <= allowed[..., 0]).all()
    back = vectors * values[:, None] @ np.swapaxes(vectors, 1, 2)
    assert (np.abs(back - g) <= allowed).all()
    along = np.swapaxes(vectors, 1, 2) @ vectors
    np.testing.assert_allclose(along, np.broadcast_to(np.eye(k), along.shape), atol=allowed.max())


@BOTH
@pytest.mark.parametrize("k", (1, 2, 7, 24))
def test_inverse_factor(k, dtype, cupy_backend, rng):
    v = rng.standard_normal((k, 4 * k)).astype(dtype)
    g = v @ v.T
    assert_as_on_host(inverse_factor, (g,), cupy_backend, 10 * ALLOWED[dtype])
    indefinite = cupy_backend.asarray(np.diag(np.arange(k, dtype=dtype) - 0.5))
    assert not np.isfinite(cupy_backend.to_host(inverse_factor(indefinite))).all()


def test_larger_matrices_are_left_to_the_library(cupy_backend, rng):
    v = rng.standard_normal((300, 310))
    g, d = v @ v.T, rng.standard_normal(300)
    assert_as_on_host(least_norm, (g, d), cupy_backend, 1e-6, 1e-12)
    assert_as_on_host(inverse_factor, (g,), cupy_backend, 1e-9)
    values, _ = eigen(cupy_backend.asarray(g[None]))
    np.testing.assert_allclose(cupy_backend.to_host(values)[0], np.linalg.eigvalsh(g), rtol=1e-8)


@pytest.mark.parametrize("k, n", ((5, 40), (8, 3)), ids=("regular", "singular"))
def test_least_norm(k, n, cupy_backend, rng):
    v = rng.standard_normal((k, n))
    g, d = v @ v.T, v @ rng.standard_normal(n)
    assert_as_on_host(least_norm, (g, d), cupy_backend, 1e-8, 1e-12)
