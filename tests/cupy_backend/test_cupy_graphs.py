"""Steps recorded as a CUDA graph and repeated: the same runs as without, bit for bit."""

import gc
import weakref
from dataclasses import replace

import cuda_on_cpu
import fake_cuda
import numpy as np
import pytest
from cupy_comparisons import HOST, moved_back
from fake_cupy import is_stand_in
from learning_problems import EVERY_RULE
from test_cupy_training import CHOICES, built, cupy_by_name, settings  # noqa: F401
from test_models import REDUCED

from dualnet import data, tree
from dualnet.learning import WEIGHT_SAMPLERS
from dualnet.learning.aggregate import WEIGHT_AGGREGATIONS
from dualnet.nn import (
    Activation,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    LayerNorm,
    Linear,
    LocalHead,
    MaxPool,
    Sequential,
    relu,
)
from dualnet.optim import OPTIMIZERS
from dualnet.random import Key
from dualnet.training.objective import READOUT_LR
from dualnet.training.run import make_trainer, run
from dualnet.training.run_folder import RunFolder
from dualnet.training.state import Carried, TrainState

pytestmark = pytest.mark.usefixtures("cupy_by_name")


@pytest.fixture
def digits():
    return data.load("digits", limit_train=100, limit_test=50)


def advanced(trainer, epochs=2):
    """The last state, the losses on the way, and what the steps were made with."""
    made = []

    def record(function):
        made.append(type(trainer.backend).recorded(trainer.backend, function))
        return made[-1]

    backend = trainer.backend
    backend.recorded = record
    try:
        now, _ = trainer.train(trainer.start(), lambda _: None, lambda _: None, quiet=True)
    finally:
        del backend.recorded
    return now, made


def assert_the_same_run(trainer, backend):
    """With and without a graph."""
    plain, made = advanced(trainer)
    assert not made
    recorded, (made,) = advanced(replace(trainer, graph=True))
    assert made.refusal is None and made.is_recorded, made.refusal
    pairs = zip(
        tree.items(moved_back(recorded.carried, backend)),
        tree.items(moved_back(plain.carried, backend)),
        strict=True,
    )
    for (path, got), (_, expected) in pairs:
        np.testing.assert_array_equal(got, expected, err_msg=path)
    np.testing.assert_array_equal(recorded.history[:, :-1], plain.history[:, :-1])


SMALL = Sequential(
    (
        ("conv", Conv2d(4, 3)),
        ("norm", BatchNorm()),
        ("relu", Activation(relu)),
        ("pool", MaxPool(3)),
        ("flat", Flatten()),
        ("first", Linear(6)),
        ("layer norm", LayerNorm()),
        ("drop", Dropout(0.25)),
        ("head", LocalHead(10)),
        ("last", Linear(10)),
    )
)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_every_rule(rule, cupy_backend, digits):
    trainer = make_trainer(settings("bp"), SMALL, digits)
    assert_the_same_run(replace(trainer, rule=rule), cupy_backend)


@pytest.mark.parametrize(
    "option", [*WEIGHT_SAMPLERS, "angle:45", "rank-one:3", *WEIGHT_AGGREGATIONS]
)
def test_every_sampler_and_aggregation(option, cupy_backend, digits):
    kind = "aggregate" if option in WEIGHT_AGGREGATIONS else "sampler"
    chosen = replace(
        settings("fg-w", rule_options={"tangents": 5, kind: option}), batch_size=10, epochs=1
    )
    assert_the_same_run(make_trainer(chosen, built(digits), digits), cupy_backend)


@pytest.mark.parametrize("rule", ("fg-w", "fg-a"))
@pytest.mark.parametrize("name", [name for name in REDUCED])
def test_every_network(name, rule, cupy_backend, digits, rng):
    model, in_shape = REDUCED[name]
    shown = replace(
        digits,
        train_images=rng.integers(0, 256, (24, *in_shape)).astype(np.uint8),
        test_images=rng.integers(0, 256, (2, *in_shape)).astype(np.uint8),
        train_labels=rng.integers(0, 10, 24),
        test_labels=rng.integers(0, 10, 2),
    )
    chosen = replace(settings(rule), batch_size=4, epochs=1)
    assert_the_same_run(make_trainer(chosen, model.network(in_shape, 10), shown), cupy_backend)


def test_numbers_of_two_optimizers(cupy_backend, digits):
    """AdamW beside the read-out's Adam, at the same rate: other numbers for the same kernel."""
    chosen = replace(settings("bp", "adamw", objective="contrastive"), lr=READOUT_LR)
    trainer = make_trainer(chosen, built(digits, "contrastive"), digits)
    assert_the_same_run(trainer, cupy_backend)


def test_compared_gradients(cupy_backend, digits):
    trainer = make_trainer(settings("fg-a", grad_stats=2), built(digits), digits)
    plain, _ = advanced(trainer)
    recorded, (made,) = advanced(replace(trainer, graph=True))
    assert made.is_recorded and len(plain.comparisons) == 4
    np.testing.assert_array_equal(recorded.comparisons, plain.comparisons)


def test_a_run_resumed_in_an_epoch(cupy_backend, digits):
    trainer = make_trainer(replace(settings("fdfa"), batch_size=10), built(digits), digits)
    whole, _ = advanced(trainer)
    with np.errstate(all="ignore"):
        states = replace(trainer, graph=True)._states(trainer.start(), [], True)
        stopped = trainer.collect_losses([next(states) for _ in range(6)][-1])
        stopped = tree.map(cupy_backend.to_host, stopped.as_trees())  # the next steps change it
        states.close()
    on_device = {name: tree.map(cupy_backend.asarray, stopped[name]) for name in Carried._fields}
    back = TrainState.from_trees({**stopped, **on_device})
    now, _ = replace(trainer, graph=True).train(back, lambda _: None, lambda _: None, quiet=True)
    same(now.carried.params, whole.carried.params, cupy_backend)
    np.testing.assert_array_equal(now.history[:, :-1], whole.history[:, :-1])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer(optimizer, cupy_backend, digits):
    chosen = settings("fg-w", optimizer, optimizer_options={"weight_decay": 0.1}, graph=True)
    trainer = make_trainer(chosen, built(digits), digits)
    assert trainer.graph
    assert_the_same_run(replace(trainer, graph=False), cupy_backend)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("name", CHOICES)
def test_every_choice(name, dtype, cupy_backend, digits):
    chosen = settings(**CHOICES[name], dtype=dtype)
    digits = replace(digits, image_size=chosen.image_size)
    trainer = make_trainer(chosen, built(digits, chosen.objective), digits)
    assert_the_same_run(trainer, cupy_backend)


def test_a_run_tells_the_memory_of_its_recording(cupy_backend, digits, tmp_path):
    plain, recorded = (
        run(chosen, built(digits), digits, RunFolder(tmp_path / name), quiet=True)
        for name, chosen in (("plain", settings("bp")), ("recorded", settings("bp", graph=True)))
    )
    assert plain["test_loss"] == recorded["test_loss"]
    assert recorded["device_pool_bytes"] > plain["device_pool_bytes"] > 0


# --- a function by itself ------------------------------------------------------------------------


def drifting(backend):
    """A function with all that a step has, and the arguments for its calls."""

    def function(carried, batch, key, numbers):
        x = carried["x"] + batch + backend.normal(key.fold_in("a").fold_in(3), (4,), np.float64)
        (moved,) = tree.leaves(
            OPTIMIZERS["adam"]().apply(
                [x], carried["opt_state"], [x], 2 * numbers["lr"], numbers["n"]
            )[0]
        )
        opt_state = tree.map(lambda m: m + 1, carried["opt_state"])
        return {"x": moved, "opt_state": opt_state}, {"sum": x.sum(), "x": x}

    x = backend.asarray(np.arange(4.0))
    start = {"x": x, "opt_state": OPTIMIZERS["adam"]().init_opt_state([x])}
    return function, start


def called(function, carried, number, backend, rows=4):
    batch = backend.asarray(np.full(rows, number / 10) if rows > 1 else np.array(number / 10))
    return function(
        carried, batch, Key(5).fold_in(number), {"lr": 0.1 / (number + 1), "n": number + 1}
    )


def same(got, expected, backend):
    for a, b in zip(tree.leaves(got), tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(backend.to_host(a), backend.to_host(b))


def test_a_function_is_repeated(cupy_backend):
    """Where it was plain twice; batches of another shape are plain too, and lose nothing."""
    function, start = drifting(cupy_backend)
    calls = []

    def counting(*arguments):
        calls.append(len(arguments))
        return function(*arguments)

    recorded = cupy_backend.recorded(counting)
    expected = got = start
    for number, (rows, known) in enumerate(
        [(4, 1), (4, 2), (4, 3), (4, 3), (1, 4), (4, 4), (1, 5), (1, 6), (1, 7), (4, 7), (4, 7)]
    ):
        expected, seen = called(function, expected, number, cupy_backend, rows)
        got, saw = called(recorded, got, number, cupy_backend, rows)
        same((got, saw), (expected, seen), cupy_backend)
        assert len(calls) == known, number


def test_a_state_stays_until_the_call_after_the_next(cupy_backend):
    function, now = drifting(cupy_backend)
    recorded = cupy_backend.recorded(function)
    for number in range(4):
        now, seen = called(recorded, now, number, cupy_backend)
    was = moved_back((now, seen), cupy_backend)
    later, _ = called(recorded, now, 4, cupy_backend)
    same(moved_back((now, seen), cupy_backend), was, HOST)
    again, _ = called(recorded, now, 4, cupy_backend)  # from the older state, on its own shelf
    same(again, later, cupy_backend)


def test_what_cannot_be_recorded_goes_on_without(cupy_backend, capsys):
    function, start = drifting(cupy_backend)

    def looking(carried, batch, key, numbers):
        assert float(batch.sum()) < 100  # to look is to wait
        return function(carried, batch, key, numbers)

    recorded = cupy_backend.recorded(looking)
    expected = got = start
    for number in range(5):
        expected, _ = called(function, expected, number, cupy_backend)
        got, _ = called(recorded, got, number, cupy_backend)
        same(got, expected, cupy_backend)
    assert not recorded.is_recorded
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--graph: this step cannot be recorded (" in said


def refusal_of(function, backend, capsys):
    """What is said of a function that is called often enough, and cannot be recorded."""
    recorded = backend.recorded(function)
    for number in range(4):
        called(recorded, {"x": backend.asarray(np.arange(4.0))}, number, backend)
    assert not recorded.is_recorded
    said = capsys.readouterr().err
    assert said.startswith("--graph: this step cannot be recorded (")
    return said


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x @ x,
        lambda x: np.einsum("i,i->", x, x),
        lambda x: np.linalg.eigh(x[:, None] * x),
        lambda x: x.dot(x),
        lambda x: np.stack([x] * 9),
    ],
)
def test_what_cupy_does_not_record_goes_on_without(work, cupy_backend, capsys):
    refusal_of(lambda carried, *_: (carried, {"n": work(carried["x"])}), cupy_backend, capsys)


@pytest.mark.parametrize(
    "carried, refusal",
    [
        (lambda x: x.astype(np.float32), "what is carried from step to step does not keep its"),
        (lambda x: x[:3], "what is carried from step to step does not keep its"),
        (lambda x: 3.0, "attribute"),
    ],
)
def test_what_is_carried_keeps_its_shape(carried, refusal, cupy_backend, capsys):
    x = cupy_backend.asarray(np.arange(4.0))
    assert refusal in refusal_of(lambda *_: ({"x": carried(x)}, {}), cupy_backend, capsys)


@pytest.mark.parametrize("result", (3.0, np.ones(2)), ids=("a number", "a host array"))
def test_what_is_returned_is_arrays(result, cupy_backend, capsys):
    said = refusal_of(lambda carried, *_: (carried, {"n": result}), cupy_backend, capsys)
    assert "TypeError: result n is no array: " in said


@pytest.mark.parametrize(
    "asks",
    [lambda n: n == 4, lambda n: bool(n), lambda n: n > 1, lambda n: n + 1, lambda n: float(n)],
)
def test_a_number_does_not_say_what_it_is(asks, cupy_backend, capsys):
    def function(carried, batch, key, numbers):
        asks(numbers["n"])
        return carried, {}

    assert "TypeError" in refusal_of(function, cupy_backend, capsys)


def test_batches_of_two_sizes_in_turn(cupy_backend):
    function, expected = drifting(cupy_backend)
    recorded, got = cupy_backend.recorded(function), expected
    for number in range(8):
        expected, _ = called(function, expected, number, cupy_backend, 4 if number % 2 else 1)
        got, _ = called(recorded, got, number, cupy_backend, 4 if number % 2 else 1)
    assert recorded.is_recorded
    same(got, expected, cupy_backend)


def test_memory_is_counted_while_it_is_held(cupy_backend):
    before = cupy_backend.memory()
    recorded = cupy_backend.recorded(lambda *_: None)
    counted = cupy_backend.memory()
    assert counted["device_pool_bytes"] - before["device_pool_bytes"] == recorded.pool.total_bytes()
    assert counted["device_used_bytes"] - before["device_used_bytes"] == recorded.pool.used_bytes()
    del recorded
    assert cupy_backend.memory() == before


def test_without_memory_nothing_recorded_is_given_away(cupy_backend, monkeypatch):
    """CuPy's pools answer CUDA's own error by giving away what is free, and asking again."""
    cupy = cupy_backend._cupy
    if not is_stand_in(cupy_backend):
        pytest.skip("only the stand-in can be out of memory")

    def full(size):
        raise cupy.cuda.runtime.CUDARuntimeError("out of memory")

    recorded = cupy_backend.recorded(lambda *_: None)
    assert recorded.pool.malloc(64) == (64, 0)
    monkeypatch.setattr(cupy.cuda, "Memory", full)
    with pytest.raises(MemoryError, match="no 1,024 bytes more for a recording"):
        recorded.pool.malloc(1024)


def test_a_refused_recording_holds_nothing(cupy_backend, capsys):
    held = []

    def function(carried, batch, key, numbers):
        new = carried["x"] + 1
        held.append(weakref.ref(new))
        return {"x": new}, {"seen": float(batch.sum())}

    recorded = cupy_backend.recorded(function)
    x = {"x": cupy_backend.asarray(np.ones(2))}
    for number in range(3):
        called(recorded, x, number, cupy_backend)
    gc.collect()
    assert recorded.refusal and not any(ref() is not None for ref in held)


def test_what_interrupts_a_recording_ends_it(cupy_backend):
    function, now = drifting(cupy_backend)
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return function(*arguments)

    recorded = cupy_backend.recorded(interrupted)
    for number in range(2):
        now, _ = called(recorded, now, number, cupy_backend)
    with pytest.raises(KeyboardInterrupt):
        called(recorded, now, 2, cupy_backend)
    assert fake_cuda.recorder.tape is None
    called(recorded, now, 2, cupy_backend)
    assert recorded.is_recorded


def test_many_draws_and_arrays_of_all_sizes(cupy_backend):
    """More words than one launch takes along; arrays that do not end where the next may begin."""

    def function(carried, batch, key, numbers):
        drawn = [cupy_backend.normal(key.fold_in(i), x.shape, x.dtype) for i, x in carried.items()]
        new = {i: x + u for (i, x), u in zip(carried.items(), drawn, strict=True)}
        return new, {}

    dtypes = (np.float32, np.float64)
    start = {str(i): cupy_backend.asarray(np.zeros(i % 3, dtypes[i % 2])) for i in range(300)}
    recorded = cupy_backend.recorded(function)
    expected = got = start
    for number in range(5):
        expected, _ = called(function, expected, number, cupy_backend)
        got, _ = called(recorded, got, number, cupy_backend)
    same(got, expected, cupy_backend)
    assert recorded.is_recorded


def test_more_than_there_is_room_for(cupy_backend, capsys):
    def function(carried, batch, key, numbers):
        for i in range(1 << 15):
            cupy_backend._key_words(key.fold_in(i))
        return carried, {}

    recorded = cupy_backend.recorded(function)
    for number in range(3):
        called(recorded, {"x": cupy_backend.asarray(np.ones(2))}, number, cupy_backend)
    assert recorded.is_recorded
    recorded = cupy_backend.recorded(
        lambda carried, batch, key, numbers: (
            function(carried, batch, key, numbers),
            cupy_backend._key_words(key),
        )[0]
    )
    for number in range(3):
        called(recorded, {"x": cupy_backend.asarray(np.ones(2))}, number, cupy_backend)
    assert "more than 65536 words" in capsys.readouterr().err


def test_a_recorded_step_moves_nothing_and_calls_nothing(cupy_backend, digits, monkeypatch):
    if not is_stand_in(cupy_backend):
        pytest.skip("only the stand-in counts")
    trainer = make_trainer(replace(settings("fg-a"), batch_size=10), built(digits), digits)
    states = replace(trainer, graph=True)._states(trainer.start(), [], True)
    with np.errstate(all="ignore"):  # while a device records, nothing is computed
        for _ in range(4):
            next(states)
    launched = []
    launch = cuda_on_cpu.Program.launch
    monkeypatch.setattr(
        cuda_on_cpu.Program,
        "launch",
        lambda self, name, *a: (launched.append(name), launch(self, name, *a)),
    )
    monkeypatch.setattr(type(trainer.rule), "sample", None)  # not called again
    with fake_cuda.counted() as happened:
        next(states)
    states.close()
    assert not happened and launched[0] == "put" and launched.count("put") == 1
