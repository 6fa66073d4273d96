"""The CuPy backend against NumPy: on a device where one answers, and on a stand-in everywhere.

The stand-in (`fake_cupy`) is as strict as CuPy about what may meet what, and runs the kernels'
sources on the host's processor; so these tests say that nothing is asked of CuPy that it does not
have, that nothing moves between host and device unseen, and that the kernels' arithmetic is right.
"""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import fake_cupy
import numpy as np
import pytest
from learning_problems import EVERY_RULE, NETWORKS, WITH_BATCH_NORM, WITH_HEADS, problem

import dualnet as dn
from dualnet import backends, data, tree
from dualnet.backends import replaceable
from dualnet.check import NOT_IN_CUPY, ROWS
from dualnet.core.checking import random_directions
from dualnet.core.windows import Geometry, fold, spread, unfold, weigh
from dualnet.data.dataset import Rows
from dualnet.errors import BackendError, DivergedError, UsageError
from dualnet.learning import RULES, SAMPLERS, WeightPerturbation
from dualnet.learning.aggregate import AGGREGATIONS, least_norm
from dualnet.nn import normalization_kernels as normalization
from dualnet.nn import softmax_cross_entropy
from dualnet.nn.losses import _losses_and_errors
from dualnet.optim import OPTIMIZERS
from dualnet.training.objective import OBJECTIVES
from dualnet.training.run import make_trainer, restored, run
from dualnet.training.run_folder import RunFolder
from dualnet.training.settings import Settings
from models import MODELS

HOST = backends.get("numpy")
ALLOWED = {np.float32: 1e-5, np.float64: 1e-12}
BOTH = pytest.mark.parametrize("dtype", (np.float32, np.float64), ids=("float32", "float64"))


class SameDraws:
    """A backend with NumPy's random numbers, so that both sides compute the same thing."""

    def __init__(self, backend):
        self._backend = backend

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def normal(self, *args):
        return self._backend.asarray(HOST.normal(*args))

    def signs(self, *args):
        return self._backend.asarray(HOST.signs(*args))

    def uniform(self, *args):
        return self._backend.asarray(HOST.uniform(*args))


def moved(t, backend):
    return tree.map(backend.asarray, t)


def moved_back(t, backend):
    return tree.map(backend.to_host, t)


def assert_same(got, expected, backend, allowed, what=""):
    """Leaf by leaf, relative to the largest entry of all leaves."""
    got = [backend.to_host(x) for x in tree.leaves(got)]
    expected = [np.asarray(x) for x in tree.leaves(expected)]
    sizes = [np.max(np.abs(e[np.isfinite(e)]), initial=0.0) for e in expected]
    for g, e in zip(got, expected, strict=True):
        assert g.shape == e.shape and g.dtype == e.dtype, (what, g.shape, g.dtype, e.shape, e.dtype)
        np.testing.assert_allclose(g, e, rtol=allowed, atol=allowed * max(sizes), err_msg=what)


# --- operations, layers, losses, models ----------------------------------------------------------


def derivatives(row, primals, v, u):
    out, pushed = dn.jvp(row, primals, v)
    _, pull = dn.vjp(row, *primals)
    return out, pushed, pull(u)


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.name not in NOT_IN_CUPY], ids=lambda row: row.name
)
def test_rows(row, cupy_backend, rng, key):
    for dtype, allowed in ALLOWED.items():
        here = row.arrays(rng, dtype)
        v = random_directions(key, here, 2)
        u = random_directions(key.fold_in("u"), row(*here), 2)
        expected = derivatives(row, here, v, u)
        arguments = (moved(t, cupy_backend) for t in (here, v, u))
        got = derivatives(row, *arguments)
        for what, a, b in zip(("value", "jvp", "vjp"), got, expected, strict=True):
            # a reference through x - x·(1 - small) loses digits on one side as on the other
            assert_same(a, b, cupy_backend, 20 * allowed, f"{row.name}, {what}")


@pytest.mark.parametrize(
    "row",
    [r for r in ROWS if r.composed or r.family in ("optimizers", "models")],
    ids=lambda row: row.name,
)
def test_rows_by_plain_calls(row, cupy_backend, rng, key, monkeypatch):
    """Without kernels: CuPy gets NumPy's calls, which are what other dtypes and layouts get."""
    kept = ("view", "bytes_at_a_time", "zeros_plus")  # in whose place CuPy's own would wait
    fewer = {at: kernel for at, kernel in replaceable._KERNELS.items() if at[1] in kept}
    monkeypatch.setattr(replaceable, "_KERNELS", fewer)
    here = row.arrays(rng)
    v = random_directions(key, here, 2)
    expected = dn.jvp(row, here, v)
    got = dn.jvp(row, *(moved(t, cupy_backend) for t in (here, v)))
    assert_same(got, expected, cupy_backend, 20 * ALLOWED[np.float64], row.name)


def test_rows_that_cupy_lacks_are_rows():
    assert {row.name for row in ROWS} >= NOT_IN_CUPY


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.name not in NOT_IN_CUPY], ids=lambda row: row.name
)
def test_verified_rows(row, cupy_backend, key):
    result = dn.check.verify(row, key, cupy_backend)
    assert result.failure is None, result.failure


# --- learning rules ------------------------------------------------------------------------------

PROBLEMS = {
    **NETWORKS,
    "batch norm": ((6,), WITH_BATCH_NORM),
    "local heads": ((6,), WITH_HEADS),
}


def on(backend, p):
    """A problem with its arrays on a backend."""
    fields = ("params", "state", "x", "labels")
    return replace(p, **{name: moved(getattr(p, name), backend) for name in fields})


@pytest.mark.parametrize(
    "dtype",
    (pytest.param(np.float32, marks=pytest.mark.slow), np.float64),
    ids=("float32", "float64"),
)
@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_step_of_every_rule(name, rule, dtype, cupy_backend, rng, key):
    in_shape, layers = PROBLEMS[name]
    p = problem(rng, key, *layers, in_shape=in_shape, dtype=dtype)
    learned = p.learned(rule)
    expected = p.step(rule, key, learned=learned)
    there = on(cupy_backend, p)
    got = there.step(rule, key, SameDraws(cupy_backend), learned=moved(learned, cupy_backend))
    # solving for coefficients magnifies rounding by the condition of the directions
    allowed = ALLOWED[dtype] * (1e4 if getattr(rule, "aggregate", "mean") != "mean" else 100)
    for part in ("gradients", "learned", "state", "loss"):
        assert_same(getattr(got, part), getattr(expected, part), cupy_backend, allowed, part)
    assert int(got.correct) == int(expected.correct)


@pytest.mark.parametrize(
    "name",
    [
        # of its many weights, drawing random directions takes the stand-in long
        pytest.param(name, marks=pytest.mark.slow if name == "mixer" else ())
        for name in PROBLEMS
    ],
)
def test_no_step_moves_anything_or_waits(name, cupy_backend, rng, key):
    if type(cupy_backend.asarray(0)) is not fake_cupy.ndarray:
        pytest.skip("only the stand-in counts")
    in_shape, layers = PROBLEMS[name]
    p = on(cupy_backend, problem(rng, key, *layers, in_shape=in_shape, dtype=np.float32))
    for rule in EVERY_RULE:
        learned = rule.init(key, p.task, p.params, p.state, p.x)
        with fake_cupy.counted() as happened:
            p.step(rule, key, cupy_backend, learned=learned)
        assert not happened, f"{rule}: {dict(happened)}"


@pytest.mark.parametrize("row", [r for r in ROWS if r.family == "models"], ids=lambda row: row.name)
def test_no_model_moves_anything_or_waits(row, cupy_backend, rng, key):
    if type(cupy_backend.asarray(0)) is not fake_cupy.ndarray:
        pytest.skip("only the stand-in counts")
    here = row.arrays(rng, np.float32)
    there = moved(here, cupy_backend)
    v = moved(random_directions(key, here, 2), cupy_backend)
    with fake_cupy.counted() as happened:
        dn.jvp(row, there, v)
    assert happened in ({}, {"to_device": 1}), dict(happened)  # the labels, which the row brings


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        *({"sampler": name} for name in (*SAMPLERS, "angle:45", "rank-one:3")),
        *({"sampler": f"{name}:unit"} for name in ("rank-one", "orthogonal")),
        *({"aggregate": name} for name in AGGREGATIONS),
        {"tangent_chunk": 2, "sampler": "orthogonal"},
    ],
    ids=str,
)
def test_every_sampler_and_aggregation(options, dtype, cupy_backend, rng, key):
    p = problem(rng, key, dtype=dtype)
    rule = WeightPerturbation(tangents=5, **options)
    expected = p.step(rule, key)
    with fake_cupy.counted() as happened:
        got = on(cupy_backend, p).step(rule, key, SameDraws(cupy_backend), learned={})
    assert "waits" not in happened and "to_host" not in happened
    assert_same(got.gradients, expected.gradients, cupy_backend, 1e4 * ALLOWED[dtype])


# --- training ------------------------------------------------------------------------------------


def settings(rule="fg-a", optimizer="adam", **how):
    return Settings("digits", "mlp", rule, optimizer, "cosine", 1e-3, 2, 32, backend="cupy", **how)


@pytest.fixture
def digits():
    return data.load("digits", limit_train=200, limit_test=50)


@pytest.fixture
def network(digits):
    return built(digits)


def built(dataset, objective="supervised"):
    """A small network for a data set and what it is trained for."""
    model = MODELS["mlp"](width=8, depth=1)
    return OBJECTIVES[objective]().network(
        lambda outputs: model.network(dataset.in_shape, outputs), len(dataset.classes)
    )


@pytest.fixture
def cupy_by_name(cupy_backend, monkeypatch):
    """`backends.get("cupy")` gives the backend of this test; no curve is drawn, which is slow."""
    monkeypatch.setattr(backends, "get", lambda *_: cupy_backend)
    monkeypatch.setattr("dualnet.training.run.draw_curve", lambda *_: False)


@pytest.mark.usefixtures("cupy_by_name")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", ("bp", "fg-w", "fg-a", "fdfa"))
def test_no_training_step_moves_anything_or_waits(rule, optimizer, cupy_backend, digits, network):
    if type(cupy_backend.asarray(0)) is not fake_cupy.ndarray:
        pytest.skip("only the stand-in counts")
    trainer = make_trainer(settings(rule, optimizer), network, digits)
    states = trainer._states(trainer.start(), [], True)
    next(states)  # pixels' mean and deviation are looked at
    with fake_cupy.counted() as happened:
        now = [next(states) for _ in range(4)][-1]
    assert not happened, dict(happened)
    with fake_cupy.counted() as happened:
        read = trainer.read(now)
    assert happened == {"to_host": 2} and read.sums[2] == 5 * 32 and len(now.unread) == 5


CHOICES = {
    "contrastive": {"rule": "fg-a", "objective": "contrastive", "augment": "contrastive"},
    "flip and crop": {"rule": "bp", "augment": "flip-crop"},
    "enlarged": {"rule": "bp", "augment": "flip-resized-crop", "image_size": 11},
    "lars": {"rule": "bp", "optimizer": "lars", "optimizer_options": {"weight_decay": 0.1}},
    "shards": {"rule": "fg-a", "shards": 2},
    "independent": {
        "rule": "fg-w",
        "rule_options": {"tangents": 3, "independent": True, "sampler": "rank-one"},
    },
}


def steps_of(trainer, number):
    """The state after so many steps of an epoch."""
    states = trainer._states(trainer.start(), [], True)
    now = [next(states) for _ in range(number)][-1]
    states.close()
    return trainer.read(now)


@pytest.mark.usefixtures("cupy_by_name")
@pytest.mark.parametrize("name", CHOICES)
def test_training_with_every_choice(name, cupy_backend, digits):
    chosen = settings(**CHOICES[name], dtype="float64")
    digits = replace(digits, image_size=chosen.image_size)
    network = built(digits, chosen.objective)
    trainer = make_trainer(chosen, network, digits)
    here = steps_of(replace(trainer, backend=HOST, dataset=digits), 3)
    there = steps_of(replace(trainer, backend=SameDraws(cupy_backend)), 3)
    for part in ("params", "optimizer", "learned", "readout"):
        assert_same(getattr(there, part), getattr(here, part), cupy_backend, 1e-9, part)
    np.testing.assert_allclose(there.sums[:3], here.sums[:3], rtol=1e-9)
    if type(cupy_backend.asarray(0)) is not fake_cupy.ndarray:
        return  # only the stand-in counts
    states = trainer._states(trainer.start(), [], True)
    next(states)
    with fake_cupy.counted() as happened:
        next(states)
    states.close()
    assert not happened, dict(happened)


@pytest.mark.usefixtures("cupy_by_name")
@pytest.mark.parametrize("name", data.AUGMENTATIONS)
def test_augmentation_of_colors(name, cupy_backend, rng, key):
    augment = data.AUGMENTATIONS[name]()
    if augment is None:
        pytest.skip("images as they are")
    images = rng.random((6, 7, 9, 3))
    there = cupy_backend.asarray(images)
    got = augment(key, there, SameDraws(cupy_backend), start=2)
    assert_same(got, augment(key, images, HOST, start=2), cupy_backend, 1e-12)
    with fake_cupy.counted() as happened:
        augment(key, there, cupy_backend)
    assert not happened


@pytest.mark.usefixtures("cupy_by_name")
def test_gradients_are_compared_as_on_numpy(cupy_backend, digits, network):
    trainer = make_trainer(settings("fa", grad_stats=2, dtype="float64"), network, digits)
    here = steps_of(replace(trainer, backend=HOST, dataset=digits), 3)
    there = steps_of(trainer, 3)
    assert isinstance(there.comparisons, np.ndarray) and there.comparisons.shape[0] == 2
    np.testing.assert_allclose(there.comparisons, here.comparisons, rtol=1e-8)


@pytest.mark.usefixtures("cupy_by_name")
def test_a_set_on_disk_is_read_by_the_host(cupy_backend, digits, network):
    trainer = make_trainer(settings("bp"), network, digits)
    streamed = make_trainer(settings("bp"), network, replace(digits, on_disk=True))
    assert isinstance(streamed.dataset.train_images, np.ndarray)
    resident = moved_back(steps_of(trainer, 2).params, cupy_backend)
    assert_same(steps_of(streamed, 2).params, resident, cupy_backend, 1e-7)


@pytest.mark.usefixtures("cupy_by_name")
def test_rows_of_a_set_go_to_the_device(cupy_backend, digits, network):
    kept = Rows(digits.train_images, np.arange(3, 103))
    some = replace(digits, train_images=kept, train_labels=digits.train_labels[3:103])
    assert kept.nbytes == kept[:].nbytes
    trainer = make_trainer(settings("bp"), network, some)
    assert type(trainer.dataset.train_images) is type(cupy_backend.asarray(0))
    np.testing.assert_array_equal(cupy_backend.to_host(trainer.dataset.train_images), kept[:])
    mean, std = trainer.dataset.training_mean_and_std
    assert_same((mean, std), some.training_mean_and_std, cupy_backend, 1e-12)


@pytest.mark.usefixtures("cupy_by_name")
@pytest.mark.parametrize("rule", ("bp", "fa"))
def test_a_run_is_that_of_numpy(rule, cupy_backend, digits, network, tmp_path):
    """Rules whose draws are made on the host alone."""
    there = run(settings(rule), network, digits, RunFolder(tmp_path / "there"), quiet=True)
    trainer = make_trainer(settings(rule), network, digits)
    here = replace(trainer, backend=HOST, dataset=digits)
    now, _ = here.train(here.start(), lambda _: None, lambda _: None, quiet=True)
    np.testing.assert_allclose(there["train_loss"], now.history[-1, 1], rtol=1e-4)
    np.testing.assert_allclose(there["test_loss"], now.history[-1, 3], rtol=1e-4)
    assert there["device_pool_bytes"] >= there["device_used_bytes"] > 0


@pytest.mark.usefixtures("cupy_by_name")
@pytest.mark.parametrize(
    "how",
    [
        {"rule": "fg-w"},
        {"rule": "fdfa"},
        {"rule": "fg-a", "objective": "contrastive", "augment": "contrastive", "grad_stats": 3},
    ],
    ids=str,
)
def test_a_resumed_run_is_the_same_run(how, cupy_backend, digits, tmp_path):
    chosen = settings(**how)
    network = built(digits, chosen.objective)
    whole = run(chosen, network, digits, RunFolder(tmp_path / "whole"), quiet=True)
    folder = RunFolder(tmp_path / "parts")
    run(replace(chosen, epochs=1), network, digits, folder, quiet=True)
    # one epoch of a schedule over one is not the first of two; so it is redone from the start
    trainer = make_trainer(chosen, network, digits)
    states = []
    trainer.train(trainer.start(), states.append, lambda _: None, quiet=True)
    folder.write_checkpoint(moved_back(states[0].as_trees(), cupy_backend))
    back = restored(trainer.start(), chosen, folder)
    on_host = (back.position, back.sums, back.history, back.comparisons)
    assert all(isinstance(x, np.ndarray) for x in tree.leaves(on_host))
    there = tree.leaves((back.params, back.readout.get("params", {})))
    assert all(type(x) is type(cupy_backend.asarray(0)) for x in there)
    resumed = run(chosen, network, digits, folder, resume=True, quiet=True)
    for name in ("train_loss", "test_loss", "test_accuracy"):
        assert resumed[name] == whole[name]


@pytest.mark.usefixtures("cupy_by_name")
def test_losses_are_looked_at_now_and_then(cupy_backend, digits, network, monkeypatch):
    monkeypatch.setattr(cupy_backend, "read_every", 3, raising=False)
    trainer = make_trainer(settings("bp"), network, digits)
    unread = [len(state.unread) for state in trainer._states(trainer.start(), [], True)]
    of_an_epoch = [1, 2, 0, 1, 2, 0, 0, 0]  # 7 steps, the last of which is read, and the evaluation
    assert unread == of_an_epoch * 2
    trainer = make_trainer(replace(settings("bp", "sgd"), lr=1e30), network, digits)
    with pytest.raises(DivergedError, match=r"diverged at step [234]: the loss is (nan|inf)"):
        trainer.train(trainer.start(), lambda _: None, lambda _: None, quiet=True)


@pytest.mark.usefixtures("cupy_by_name")
def test_data_stays_on_the_host_where_it_does_not_fit(cupy_backend, digits, network, monkeypatch):
    monkeypatch.setattr(type(cupy_backend), "resident", lambda _self, x: x)
    trainer = make_trainer(settings("bp"), network, digits)
    assert isinstance(trainer.dataset.train_images, np.ndarray)
    now, _ = trainer.train(trainer.start(), lambda _: None, lambda _: None, quiet=True)
    assert np.isfinite(now.history).all()


@pytest.mark.usefixtures("cupy_by_name")
@pytest.mark.parametrize("during", ["init", "measure"])
def test_out_of_memory_says_what_to_lower(during, digits, network, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise fake_cupy.OutOfMemoryError("Out of memory allocating 8 bytes")

    options = {"tangents": 64, "tangent_chunk": 16}
    monkeypatch.setattr(RULES["fg-w"], during, full)
    with pytest.raises(BackendError) as raised:
        chosen = settings("fg-w", rule_options=options)
        run(chosen, network, digits, RunFolder(tmp_path), quiet=True)
    assert str(raised.value) == (
        "backend cupy: out of memory with batch size 32, k = 64, --tangent-chunk 16: Out of memory "
        "allocating 8 bytes; lower --tangent-chunk or --batch-size, or take a smaller model; what "
        "was checkpointed is kept"
    )


# --- random numbers ------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("kind", ("normal", "uniform", "signs"))
def test_any_part_of_a_sequence_can_be_drawn(kind, dtype, cupy_backend, key):
    draw = getattr(cupy_backend, kind)
    whole = cupy_backend.to_host(draw(key, (40, 50), dtype)).ravel()
    assert whole.dtype == dtype
    for start, size in ((0, 1), (1, 3), (3, 1), (127, 130), (500, 1500), (1999, 1), (7, 0)):
        part = cupy_backend.to_host(draw(key, (size,), dtype, start))
        np.testing.assert_array_equal(part, whole[start : start + size])
    assert not np.array_equal(whole, cupy_backend.to_host(draw(key.fold_in(0), (2000,), dtype)))


@BOTH
def test_moments_of_draws(dtype, cupy_backend, key):
    n = 1 << 16
    x = cupy_backend.to_host(cupy_backend.normal(key, (n,), dtype)).astype(np.float64)
    u = cupy_backend.to_host(cupy_backend.uniform(key, (n,), dtype)).astype(np.float64)
    s = cupy_backend.to_host(cupy_backend.signs(key, (n,), dtype))
    assert set(np.unique(s)) == {-1, 1} and 0 <= u.min() and u.max() < 1
    # means and mean products of neighbors, in standard errors; a run makes 22 of these
    for sample, mean, deviation in (
        (x, 0, 1),
        (x**2, 1, 2**0.5),
        (x**3, 0, 15**0.5),
        (x**4, 3, 96**0.5),
        (x[1:] * x[:-1], 0, 1),
        (x[2:] * x[:-2], 0, 1),
        (u, 1 / 2, 12**-0.5),
        ((u[1:] - 0.5) * (u[:-1] - 0.5), 0, 1 / 12),
        (s, 0, 1),
        (s[1:] * s[:-1], 0, 1),
        (s[32:] * s[:-32], 0, 1),
    ):
        assert abs(sample.mean() - mean) < 5.5 * deviation / len(sample) ** 0.5


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
    kernels = importlib.import_module("dualnet.backends.kernels")
    updates = {family.update_leaf.__qualname__ for family in OPTIMIZERS.values()}
    assert set(kernels.KERNELS) <= replaceable.REPLACEABLE | updates
    assert updates <= set(kernels.KERNELS)


@BOTH
@pytest.mark.parametrize(
    "shape, axes",
    [
        ((70, 300), (-1,)),
        ((33, 257), (-2,)),
        ((700, 7, 3), (-3, -2)),
        ((5, 6, 4, 9), (-3, -1)),
        ((2, 9, 8, 2, 5), (-4, -3, -1)),
        ((1, 9000), (-1,)),  # one long run: left to CuPy's own sums
        ((3, 0), (-2,)),
    ],
    ids=str,
)
def test_normalization(shape, axes, dtype, cupy_backend, rng):
    x = (rng.standard_normal(shape) + 3).astype(dtype)
    t = rng.standard_normal((3, *shape)).astype(dtype)
    there = cupy_backend.asarray(x)
    y, s = normalization.normalized(x, axes, 1e-5)
    got = normalization.normalized(there, axes, 1e-5)
    assert_same(got, (y, s), cupy_backend, 100 * ALLOWED[dtype])
    pushed = normalization.tangent(cupy_backend.asarray(t), *got, axes)
    expected = normalization.tangent(t, y, s, axes)
    assert_same(pushed, expected, cupy_backend, 100 * ALLOWED[dtype])
    moments = normalization.moments(there, axes)
    assert_same(moments, normalization.moments(x, axes), cupy_backend, 100 * ALLOWED[dtype])


@BOTH
@pytest.mark.parametrize("classes", (1, 10, 128, 1000))
def test_cross_entropy(classes, dtype, cupy_backend, rng):
    logits = (30 * rng.standard_normal((50, classes))).astype(dtype)
    labels = rng.integers(0, classes, 50)
    there = cupy_backend.asarray(logits), cupy_backend.asarray(labels)
    got, expected = _losses_and_errors(*there), _losses_and_errors(logits, labels)
    assert_same(got, expected, cupy_backend, 10 * ALLOWED[dtype])
    values = softmax_cross_entropy(*there)
    assert_same(values, expected[0], cupy_backend, 10 * ALLOWED[dtype])


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
    places = geometry.places(image)
    windows = geometry.window[0] * geometry.window[1]

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    x, y = normal(3, *image, channels), normal(3, *places, windows, channels)
    weights = normal(windows, 3, *places, channels)
    stack, outputs = normal(2, 3, *image, channels), normal(2, 3, *places, channels)
    for function, arguments, more in (
        (unfold, (x,), (geometry,)),
        (fold, (y,), (geometry, image)),
        (weigh, (stack, weights), (geometry,)),
        (spread, (outputs, weights), (geometry, image)),
    ):
        got = function(*moved(arguments, cupy_backend), *more)
        assert_same(got, function(*arguments, *more), cupy_backend, 10 * ALLOWED[dtype])


@pytest.mark.parametrize("k, n", ((5, 40), (8, 3)), ids=("regular", "singular"))
def test_least_norm(k, n, cupy_backend, rng):
    v = rng.standard_normal((k, n))
    g, d = v @ v.T, v @ rng.standard_normal(n)
    expected = least_norm(g, d, 1e-12)
    got = least_norm(cupy_backend.asarray(g), cupy_backend.asarray(d), 1e-12)
    np.testing.assert_allclose(cupy_backend.to_host(got), expected, rtol=1e-8)


# --- which backend, and what is missing -----------------------------------------------------------


def test_float32_products_are_exact_unless_asked(monkeypatch):
    with fake_cupy.installed():
        backends.get("cupy")
        backends.get("cupy", tf32=True)
        from cupy._core import _routines_linalg

        assert [kind for _, kind in _routines_linalg.chosen] == ["default", "tf32"]
    with pytest.raises(UsageError, match="--tf32 is of no use to --backend numpy"):
        backends.get("numpy", tf32=True)


def test_threads_are_for_numpy():
    with fake_cupy.installed(), pytest.raises(UsageError, match="--threads is of no use to"):
        backends.get("cupy", threads=2)


@pytest.mark.parametrize(
    "driver, remedy",
    [
        (None, "cuda12 or cuda13, whichever fits"),
        (12080, r"pip install 'dualnet\[cuda12\]'"),
        (13010, r"pip install 'dualnet\[cuda13\]'"),
    ],
)
def test_without_cupy(driver, remedy, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr("dualnet.backends.cupy_backend.driver_version", lambda: driver)
    with pytest.raises(BackendError, match=f"CuPy cannot be imported .*{remedy}") as raised:
        backends.get("cupy")
    assert raised.value.exit_code == 5
    assert backends.get("auto", threads=2).threads == 2
    assert capsys.readouterr().err.startswith("backend auto: NumPy it is, as backend cupy: CuPy")


@pytest.mark.parametrize("count", (0, RuntimeError("cudaErrorInsufficientDriver")), ids=str)
def test_without_a_device(count, capsys):
    def answer():
        if isinstance(count, Exception):
            raise count
        return count

    with fake_cupy.installed() as cupy:
        cupy.cuda.runtime.getDeviceCount = answer
        with pytest.raises(BackendError, match=r"cannot use a CUDA device here .*NVIDIA driver"):
            backends.get("cupy")
        assert backends.get("auto").name == "numpy"
    assert "backend auto: NumPy it is" in capsys.readouterr().err


def test_auto_takes_the_device():
    with fake_cupy.installed():
        assert backends.get("auto").name == "cupy"


@pytest.mark.parametrize("device", (False, True))
def test_auto_drops_what_is_of_no_use_to_its_choice(device, tmp_path, monkeypatch):
    import train

    monkeypatch.setattr("dualnet.training.run.draw_curve", lambda *_: False)
    size = ["--epochs", "1", "--limit-train", "64", "--limit-test", "20", "--width", "8"]
    with fake_cupy.installed() as cupy:
        cupy.cuda.runtime.getDeviceCount = lambda: int(device)
        flags = ["--backend", "auto", "--threads", "2", "--tf32", "--rule", "bp", "--quiet"]
        train.main([*flags, *size, "--run-dir", str(tmp_path)])
    used = json.loads((tmp_path / "config.json").read_text())["settings"]
    expected = {"backend": "cupy", "threads": 1, "tf32": True}
    if not device:
        expected = {"backend": "numpy", "threads": 2, "tf32": False}
    assert expected.items() <= used.items()


def test_nothing_imports_cupy_unless_asked():
    code = "import sys, train, dualnet.check; print('cupy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.gpu
def test_the_verifier_on_a_device(capsys):
    from dualnet.check.__main__ import main

    assert main(["--backend", "cupy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == []
