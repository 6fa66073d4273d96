"""Training on the CuPy backend against NumPy, on a device or on the stand-in: the same runs, and no
step that moves or waits for anything."""

import importlib
from dataclasses import replace

import fake_cuda
import numpy as np
import pytest
from cupy_comparisons import HOST, SameDraws, assert_same, moved_back
from fake_cupy import is_stand_in

from dualnet import backends, data, tree
from dualnet.data.dataset import Rows
from dualnet.errors import BackendError, DivergedError
from dualnet.learning import RULES
from dualnet.models import MODELS
from dualnet.optim import OPTIMIZERS
from dualnet.training.assemble import make_trainer
from dualnet.training.epoch import course
from dualnet.training.fit import fit
from dualnet.training.objective import OBJECTIVES
from dualnet.training.restored import restored
from dualnet.training.run import run
from dualnet.training.run_folder import RunFolder
from dualnet.training.settings import Settings

pytestmark = pytest.mark.usefixtures("cupy_by_name")


def settings(rule="fg-a", optimizer="adam", **how):
    usual = {"schedule": "cosine", "lr": 1e-3, "epochs": 2, "batch_size": 32, "backend": "cupy"}
    return Settings("digits", "mlp", rule, optimizer, **{**usual, **how})


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


CHOICES = {
    "contrastive": {"rule": "fg-a", "objective": "contrastive", "augment": "contrastive"},
    "negatives of both views": {
        "rule": "bp",
        "objective": "contrastive",
        "objective_options": {"negatives": "both-views", "readout_norm": True},
    },
    "a rate for the output": {"rule": "bp", "optimizer": "momentum", "output_lr": 0.1},
    "clipped": {"rule": "bp", "clip_norm": 0.3},
    "skipping": {"rule": "fdfa", "on_nan": "skip"},
    "flip": {"rule": "bp", "augment": "flip"},
    "flip and crop": {"rule": "bp", "augment": "flip-crop"},
    "enlarged": {"rule": "bp", "augment": "flip-resized-crop", "image_size": 11},
    "lars": {"rule": "bp", "optimizer": "lars", "optimizer_options": {"weight_decay": 0.1}},
    "shards": {"rule": "fg-a", "shards": 2},
    "feedback by adam": {"rule": "fdfa", "rule_options": {"feedback_optimizer": "adam"}},
    "compared gradients": {"rule": "fa", "grad_stats": 3},
    "independent": {
        "rule": "fg-w",
        "rule_options": {"tangents": 3, "independent": True, "sampler": "rank-one"},
    },
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", ("bp", "fg-w", "fg-a", "fdfa"))
def test_no_training_step_moves_anything_or_waits(rule, optimizer, stand_in, digits, network):
    """Nor under any of CHOICES: those are recorded in test_cupy_graphs, where it is an error."""
    trainer = make_trainer(settings(rule, optimizer), network, digits)
    states = course(trainer, trainer.start(), [], True)
    next(states)  # pixels' mean and deviation are looked at
    with fake_cuda.counted() as happened:
        now = [next(states) for _ in range(4)][-1]
    assert not happened, dict(happened)
    with fake_cuda.counted() as happened:
        read = trainer.collect_losses(now)
    assert happened == {"to_host": 2} and read.sums[2] == 5 * 32 and len(now.unread) == 5


def steps_of(trainer, number):
    """The state after so many steps of an epoch."""
    states = course(trainer, trainer.start(), [], True)
    now = [next(states) for _ in range(number)][-1]
    states.close()
    return trainer.collect_losses(now)


@pytest.mark.parametrize("name", CHOICES)
def test_training_with_every_choice(name, cupy_backend, digits):
    chosen = settings(**CHOICES[name], dtype="float64")
    digits = replace(digits, image_size=chosen.image_size)
    network = built(digits, chosen.objective)
    trainer = make_trainer(chosen, network, digits)
    here = steps_of(replace(trainer, backend=HOST, dataset=digits), 3)
    there = steps_of(replace(trainer, backend=SameDraws(cupy_backend)), 3)
    for part in ("params", "opt_state", "rule_state", "readout"):
        got, expected = (getattr(now.carried, part) for now in (there, here))
        assert_same(got, expected, cupy_backend, 1e-9, part)
    np.testing.assert_allclose(there.sums[:3], here.sums[:3], rtol=1e-9)
    assert len(there.comparisons) == (chosen.grad_stats is not None)
    if chosen.grad_stats:
        assert isinstance(there.comparisons, np.ndarray)
        np.testing.assert_allclose(there.comparisons, here.comparisons, rtol=1e-8)


@pytest.mark.parametrize("on_disk", (True, False))
def test_what_is_on_disk_or_does_not_fit_is_read_by_the_host(
    on_disk, cupy_backend, digits, network, monkeypatch
):
    trainer = make_trainer(settings("bp"), network, digits)
    if not on_disk:
        monkeypatch.setattr(type(cupy_backend), "keep_on_device", lambda _self, x: x)
    streamed = make_trainer(settings("bp"), network, replace(digits, on_disk=on_disk))
    assert isinstance(streamed.dataset.train_images, np.ndarray)
    kept = moved_back(steps_of(trainer, 2).carried.params, cupy_backend)
    assert_same(steps_of(streamed, 2).carried.params, kept, cupy_backend, 1e-7)


def test_each_batch_is_moved_while_the_one_before_is_in_use(cupy_backend):
    batches = [(np.full(3, i), np.array([i])) for i in range(4)]
    on_stand_in = is_stand_in(cupy_backend)
    main, before = fake_cuda.streams.current[-1], 0
    moved_ahead = cupy_backend.prefetch(iter(batches))
    moved_before = cupy_backend._moving.moved if on_stand_in else 0
    for number, (host, moved) in enumerate(zip(batches, (2, 3, 4, 4), strict=True)):
        fake_cuda.streams.waited.clear()
        here = next(moved_ahead)
        for a, b in zip(here, host, strict=True):
            np.testing.assert_array_equal(cupy_backend.to_host(a), b)
        if on_stand_in:
            *by_moving, (waiting, moving, arrays) = fake_cuda.streams.waited
            assert waiting is main and arrays - moved_before == 2 * (number + 1)
            assert moving.moved - moved_before == 2 * moved
            # what is moved waits for all that main was asked for
            assert [w[:2] for w in by_moving] == [(moving, main)] * (moved - before)
        before = moved
    assert list(moved_ahead) == list(cupy_backend.prefetch([])) == []
    there = [tuple(map(cupy_backend.asarray, batch)) for batch in batches]
    fake_cuda.streams.waited.clear()
    for batch, here in zip(cupy_backend.prefetch(there), there, strict=True):
        assert batch is here
    assert not fake_cuda.streams.waited  # they need not be moved


def test_rows_of_a_set_go_to_the_device(cupy_backend, digits, network):
    kept = Rows(digits.train_images, np.arange(3, 103))
    some = replace(digits, train_images=kept, train_labels=digits.train_labels[3:103])
    assert kept.nbytes == kept[:].nbytes
    trainer = make_trainer(settings("bp"), network, some)
    assert type(trainer.dataset.train_images) is type(cupy_backend.asarray(0))
    np.testing.assert_array_equal(cupy_backend.to_host(trainer.dataset.train_images), kept[:])
    mean, std = trainer.dataset.training_mean_and_std
    assert_same((mean, std), some.training_mean_and_std, cupy_backend, 1e-12)


def test_arrays_of_floats_are_learned_and_predicted(cupy_backend, rng):
    x = rng.normal(3.0, 2.0, size=(60, 5)).astype(np.float32)
    run_there = fit("mlp", (x, np.where(x[:, 0] > 3.0, "high", "low")), backend="cupy", quiet=True)
    assert set(run_there.predict(x)) <= {"high", "low"}
    whole = data.from_arrays(x, np.zeros(60, int))
    there = replace(whole, train_images=cupy_backend.keep_on_device(x)).training_mean_and_std
    assert_same(there, whole.training_mean_and_std, cupy_backend, 1e-12)


@pytest.mark.parametrize("rule", ("bp", "fa"))
def test_a_run_is_that_of_numpy(rule, cupy_backend, digits, network, tmp_path):
    """Rules whose draws are made on the host alone."""
    there = run(settings(rule), network, digits, RunFolder(tmp_path / "there"), quiet=True).summary
    trainer = make_trainer(settings(rule), network, digits)
    here = replace(trainer, backend=HOST, dataset=digits)
    now, _ = here.train(here.start(), lambda _: None, lambda _: None, quiet=True)
    np.testing.assert_allclose(there["train_loss"], now.history[-1, 1], rtol=1e-4)
    np.testing.assert_allclose(there["test_loss"], now.history[-1, 3], rtol=1e-4)
    assert there["device_pool_bytes"] >= there["device_used_bytes"] > 0


@pytest.mark.parametrize(
    "how",
    [
        {"rule": "fg-w"},
        {"rule": "fdfa", "graph": True},
        {"rule": "fg-a", "objective": "contrastive", "augment": "contrastive", "grad_stats": 3},
    ],
    ids=str,
)
def test_a_resumed_run_is_the_same_run(how, cupy_backend, digits, tmp_path):
    chosen = settings(**how, schedule="constant")
    network = built(digits, chosen.objective)
    whole = run(chosen, network, digits, RunFolder(tmp_path / "whole"), quiet=True).summary
    folder = RunFolder(tmp_path / "parts")
    run(replace(chosen, epochs=1), network, digits, folder, quiet=True)
    trainer = make_trainer(chosen, network, digits)
    back = restored(trainer, trainer.start(), folder)
    on_host = (back.position, back.sums, back.history, back.comparisons)
    assert all(isinstance(x, np.ndarray) for x in tree.leaves(on_host))
    there = tree.leaves((back.carried.params, back.carried.readout.get("params", {})))
    assert all(type(x) is type(cupy_backend.asarray(0)) for x in there)
    resumed = run(chosen, network, digits, folder, resume=True, quiet=True).summary
    for name in ("train_loss", "test_loss", "test_accuracy"):
        assert resumed[name] == whole[name]


def test_losses_are_looked_at_now_and_then(cupy_backend, digits, network, monkeypatch):
    monkeypatch.setattr(cupy_backend, "read_every", 3, raising=False)
    trainer = make_trainer(settings("bp"), network, digits)
    unread = [len(state.unread) for state in course(trainer, trainer.start(), [], True)]
    of_an_epoch = [1, 2, 0, 1, 2, 0, 0, 0]  # 7 steps, the last of which is read, and the evaluation
    assert unread == of_an_epoch * 2
    trainer = make_trainer(replace(settings("bp", "sgd"), lr=1e30), network, digits)
    said = (
        r"diverged at step [234]: the loss is (nan|inf); the first number .* of step [123]; lower"
    )
    with pytest.raises(DivergedError, match=said):
        trainer.train(trainer.start(), lambda _: None, lambda _: None, quiet=True)


GIB = 1 << 30


@pytest.mark.parametrize("during", ["init", "measure"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("Out of memory allocating 8 bytes", ""),
        (
            f"Out of memory allocating {2 * GIB:,} bytes (allocated so far: {GIB:,} bytes).",
            "; of such a batch, no more than 21 would fit",  # 32 of 3 GiB in the stand-in's 2
        ),
        (f"Out of memory allocating {GIB:,} bytes (allocated so far: 0 bytes).", ""),
    ],
)
def test_out_of_memory_says_what_to_lower(
    during, error, said, stand_in, digits, network, tmp_path, monkeypatch
):
    def full(*_args, **_kwargs):
        raise fake_cuda.OutOfMemoryError(error)

    options = {"tangents": 64, "tangent_chunk": 16}
    monkeypatch.setattr(RULES["fg-w"], during, full)
    with pytest.raises(BackendError) as raised:
        chosen = settings("fg-w", rule_options=options)
        run(chosen, network, digits, RunFolder(tmp_path), quiet=True)
    free, total = cupy_memory()
    assert str(raised.value) == (
        "backend cupy: out of memory with batch size 32, k = 64, tangent_chunk=16: "
        f"{error.rstrip('.')}; the device has {total:,} bytes, {free:,} of them free{said}; lower "
        "tangent_chunk or batch_size, raise shards, or take a smaller model; what was "
        "checkpointed is kept"
    )


def cupy_memory():
    return importlib.import_module("dualnet.backends.cupy_backend").device_memory()
