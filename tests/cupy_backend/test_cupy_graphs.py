"""Steps recorded as a CUDA graph and repeated: the same runs as without, bit for bit."""

import gc
import importlib
import sys
import weakref
from collections import Counter
from dataclasses import replace

import cuda_on_cpu
import fake_arrays
import fake_cuda
import numpy as np
import pytest
from cupy_comparisons import HOST, moved_back
from learning_problems import EVERY_RULE
from test_cupy_training import CHOICES, built, cupy_by_name, settings  # noqa: F401
from test_models import REDUCED

from dualnet import data, tree
from dualnet.backends.blas import one_thread
from dualnet.learning import WEIGHT_SAMPLERS
from dualnet.learning.aggregate import WEIGHT_AGGREGATIONS
from dualnet.models import MODELS
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
from dualnet.training.assemble import make_trainer
from dualnet.training.epoch import course
from dualnet.training.objective import READOUT_LR
from dualnet.training.run import run
from dualnet.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("cupy_by_name")


@pytest.fixture(autouse=True)
def one_thread_for_the_stand_in():
    """A repeated step does not pass the place that holds BLAS to one thread for a small network.
    On a device nothing hangs on it; the stand-in's products would be rounded in another order."""
    with one_thread():
        yield


@pytest.fixture
def digits():
    return data.load("digits", limit_train=100, limit_test=50)


def advanced(trainer):
    """The last state, and what was recorded on the way, by what it is."""
    made = {}

    def record(function, recording=True, what="step"):
        returned = type(trainer.backend).recorded(trainer.backend, function, recording, what)
        if recording:
            made[what] = returned
        return returned

    backend = trainer.backend
    backend.recorded = record
    try:
        now, _ = trainer.train(trainer.start(), lambda _: None, lambda _: None, quiet=True)
    finally:
        del backend.recorded
    return now, made


def assert_the_same_run(trainer, backend, steps=1, evaluations=0):
    """With and without graphs; of so many shapes of steps and of evaluations."""
    plain, made = advanced(replace(trainer, graph=False))
    assert not made
    recorded, made = advanced(replace(trainer, graph=True))
    assert [made[what].refusal for what in ("step", "evaluation")] == [None, None]
    assert [made[what].recordings for what in ("step", "evaluation")] == [steps, evaluations]
    pairs = zip(
        tree.items(moved_back(recorded.carried, backend)),
        tree.items(moved_back(plain.carried, backend)),
        strict=True,
    )
    for (path, got), (_, expected) in pairs:
        np.testing.assert_array_equal(got, expected, err_msg=path)
    np.testing.assert_array_equal(recorded.history[:, :-1], plain.history[:, :-1])
    np.testing.assert_array_equal(recorded.comparisons, plain.comparisons)


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
        ("head", LocalHead(10, norm=True)),
        ("last", Linear(10)),
    )
)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_every_rule(rule, cupy_backend, digits):
    trainer = make_trainer(settings("bp"), SMALL, digits)
    assert_the_same_run(replace(trainer, rule=rule), cupy_backend)


FIVE = {"rule": "fg-w", "batch_size": 10, "epochs": 1}
RUNS = {
    **{f"{name}, float32": {**chosen, "dtype": "float32"} for name, chosen in CHOICES.items()},
    **{f"{name}, float64": {**chosen, "dtype": "float64"} for name, chosen in CHOICES.items()},
    **{
        name: {"rule": "fg-w", "optimizer": name, "optimizer_options": {"weight_decay": 0.1}}
        for name in OPTIMIZERS
    },
    **{
        name: {**FIVE, "rule_options": {"tangents": 5, "sampler": name}}
        for name in (*WEIGHT_SAMPLERS, "angle:45", "varying:3", "rank-one:3")
    },
    **{
        name: {**FIVE, "rule_options": {"tangents": 5, "aggregate": name}}
        for name in WEIGHT_AGGREGATIONS
    },
    # AdamW beside the read-out's Adam, at the same rate: other numbers for the same kernel
    "two optimizers": {
        **{"rule": "bp", "optimizer": "adamw", "objective": "contrastive", "lr": READOUT_LR}
    },
}


@pytest.mark.parametrize("name", RUNS)
def test_every_choice(name, cupy_backend, digits):
    chosen = settings(**RUNS[name])
    digits = replace(digits, image_size=chosen.image_size)
    trainer = make_trainer(chosen, built(digits, chosen.objective), digits)
    assert trainer.graph
    assert_the_same_run(trainer, cupy_backend)


@pytest.mark.parametrize("rule", ("fg-w", "fg-a"))
@pytest.mark.parametrize("name", REDUCED)
def test_every_network(name, rule, cupy_backend, digits, rng):
    model, in_shape = REDUCED[name]
    shown = replace(
        digits,
        train_images=rng.integers(0, 256, (24, *in_shape)).astype(np.uint8),
        test_images=rng.integers(0, 256, (2, *in_shape)).astype(np.uint8),
        train_labels=rng.integers(0, 10, 24),
        test_labels=rng.integers(0, 10, 2),
    )
    chosen = settings(rule, batch_size=4, epochs=1)
    assert_the_same_run(make_trainer(chosen, model.network(in_shape, 10), shown), cupy_backend)


def test_the_last_batch_and_the_evaluation_are_recorded_too(cupy_backend, digits):
    """A step of another size, and the evaluation, from their third time on."""
    trainer = make_trainer(settings("fg-a", epochs=4), SMALL, digits)
    assert_the_same_run(trainer, cupy_backend, steps=2, evaluations=1)


def test_images_that_the_host_reads_are_recorded_too(cupy_backend, digits, monkeypatch):
    trainer = make_trainer(settings("bp"), built(digits), digits)
    streamed = make_trainer(settings("bp"), built(digits), replace(digits, on_disk=True))
    assert isinstance(streamed.dataset.train_images, np.ndarray)
    assert_the_same_run(streamed, cupy_backend)
    for (_, got), (_, expected) in zip(
        tree.items(moved_back(advanced(streamed)[0].carried.params, cupy_backend)),
        tree.items(moved_back(advanced(trainer)[0].carried.params, cupy_backend)),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_a_run_tells_the_memory_of_its_recordings(cupy_backend, digits, tmp_path, monkeypatch):
    counted = []
    memory = type(cupy_backend).memory

    def spy(backend):
        pools = [f.pool.total_bytes() for f in backend._graphs.RECORDED if f.recordings]
        counted.append((memory(backend), sum(pools)))
        return counted[-1][0]

    monkeypatch.setattr(type(cupy_backend), "memory", spy)
    summary = run(settings("bp"), built(digits), digits, RunFolder(tmp_path), quiet=True).summary
    figures, of_recordings = counted[-1]
    assert figures.items() <= summary.items()
    assert figures["device_pool_bytes"] > of_recordings > 0


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


def compared(function, start, backend, rows=(4,) * 5):
    """Call a function as it is and recorded, with batches of so many rows; return what was
    recorded, and how often the function had been called for it after each."""
    calls, counts = [], []

    def counting(*arguments):
        calls.append(1)
        return function(*arguments)

    recorded = backend.recorded(counting)
    plain = backend.recorded(function, record=False)
    expected = got = start
    for number, n in enumerate(rows):
        expected, seen = called(plain, expected, number, backend, n)
        got, saw = called(recorded, got, number, backend, n)
        same((got, saw), (expected, seen), backend)
        counts.append(len(calls))
    return recorded, counts


@pytest.mark.parametrize(
    "rows, known, recordings",
    [
        ((4, 4, 4, 4, 1, 4, 1, 1, 1, 4, 4), [1, 2, 4, 4, 5, 5, 6, 8, 8, 8, 8], 2),
        ((1, 4, 1, 4, 1, 4, 1, 4), [1, 2, 3, 4, 6, 8, 8, 8], 2),
        ((4, 4, 4, 1, 4, 1, 4), [1, 2, 4, 5, 5, 6, 6], 1),
    ],
)
def test_each_shape_is_repeated(rows, known, recordings, cupy_backend):
    """From its third time on, when it is recorded in both directions."""
    recorded, calls = compared(*drifting(cupy_backend), cupy_backend, rows)
    assert recorded.recordings == recordings and calls == known


def test_the_recording_that_was_of_use_longest_ago_is_given_up(cupy_backend):
    """For a ninth; its shape is called plainly twice before it is recorded again."""

    def function(carried, batch, key, numbers):
        return {"x": carried["x"] + batch.sum()}, {"batch": 2 * batch}

    start = {"x": cupy_backend.asarray(np.arange(3.0))}
    eight = [n for n in range(2, 10) for _ in range(3)]
    rows = (*eight, 2, *(10,) * 3, 2, 3, 3, 3, *range(4, 11))
    recorded, calls = compared(function, start, cupy_backend, rows)
    assert recorded.recordings == 8
    # 2 is of use again, so that 3 goes for 10, and 4 for 3
    known = dict(zip(range(len(rows)), calls, strict=True))
    assert known[23] == known[24] == 8 * 4 and known[27] == known[28] == 36
    assert [known[i] - 36 for i in range(29, 39)] == [1, 2, 4, 5, 5, 5, 5, 5, 5, 5]


def test_a_state_stays_until_the_call_after_the_next(cupy_backend):
    function, now = drifting(cupy_backend)
    recorded = cupy_backend.recorded(function)
    for number in range(4):
        now, seen = called(recorded, now, number, cupy_backend)
    was = moved_back((now, seen), cupy_backend)
    later, _ = called(recorded, now, 4, cupy_backend)
    same(moved_back((now, seen), cupy_backend), was, HOST)
    then = moved_back(later, cupy_backend)
    expected = moved_back(called(function, now, 6, cupy_backend), cupy_backend)
    again = called(recorded, now, 6, cupy_backend)  # from the older state
    same(moved_back(again, cupy_backend), expected, HOST)
    same(moved_back(later, cupy_backend), then, HOST)


@pytest.mark.parametrize("order", ("as it was", "swapped", "from both", "changed", "another one"))
@pytest.mark.parametrize("plain_before", (False, True))
def test_any_state_may_be_given(order, plain_before, cupy_backend):
    """Whether or not a block holds its arrays, or some of them at other places."""

    def function(carried, batch, key, numbers):
        new = {name: 3 * x + numbers["n"] for name, x in carried.items()}
        return {**new, "same": carried["same"]}, {"x": carried["x"], "same": carried["same"]}

    def state(*numbers):
        names = zip(("x", "y", "same"), numbers, strict=True)
        return {name: cupy_backend.asarray(np.full(3, float(n))) for name, n in names}

    recorded = cupy_backend.recorded(function)
    now = state(1, 2, 3)
    states = [now]
    for number in range(5):
        now, _ = called(recorded, now, number, cupy_backend)
        states.append(now)
    if plain_before:
        states.append(called(recorded, now, 5, cupy_backend, rows=2)[0])
    older, now = states[-2:]
    given = {
        "as it was": now,
        "swapped": {"x": now["y"], "y": now["x"], "same": now["same"]},
        "from both": {**now, "x": older["x"]},
        "changed": now,
        "another one": state(4, 5, 6),
    }[order]
    if order == "changed":  # a tree that was handed out holds another array now
        given["y"] = cupy_backend.asarray(np.full(3, 7.0))
    for _ in range(2):
        expected = moved_back(called(function, given, 6, cupy_backend), cupy_backend)
        last = moved_back(now, cupy_backend)
        first = called(recorded, given, 6, cupy_backend)
        same(moved_back(now, cupy_backend), last, HOST)
        same(moved_back(first, cupy_backend), expected, HOST)
        after = moved_back(called(function, first[0], 7, cupy_backend), cupy_backend)
        then = called(recorded, first[0], 7, cupy_backend)
        same(moved_back((first, then), cupy_backend), (expected, after), HOST)
        given = now = then[0]


def test_what_cannot_be_recorded_goes_on_without(cupy_backend, capsys):
    function, start = drifting(cupy_backend)

    def looking(carried, batch, key, numbers):
        assert float(batch.sum()) < 100  # to look is to wait
        return function(carried, batch, key, numbers)

    recorded, _ = compared(looking, start, cupy_backend)
    assert not recorded.recordings
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("this step cannot be recorded (")


@pytest.mark.parametrize(
    "work, refusal",
    [
        # what is carried keeps its shape and type
        (lambda x, n: (x.astype(np.float32), x), "what is carried from step to step does not keep"),
        (lambda x, n: (x[:3], x), "what is carried from step to step does not keep its"),
        (lambda x, n: (3.0, x), "attribute"),
        # what is returned is arrays
        (lambda x, n: (x, np.ones(2)), "TypeError: result n is no array: "),
        # a number does not say what it is
        (lambda x, n: (x, (n == 4, x)[1]), "TypeError"),
        (lambda x, n: (x, (bool(n), x)[1]), "TypeError"),
        (lambda x, n: (x, (n > 1, x)[1]), "TypeError: the number n is not known"),
        (lambda x, n: (x, (2 * n + 1 <= 7, x)[1]), "the number (((2) * n) + (1)) is not known"),
        (lambda x, n: (x, (float(n), x)[1]), "TypeError: the number n is not known"),
        (lambda x, n: (x, (n // 2, x)[1]), "TypeError"),
        (lambda x, n: (x, (np.float32(2) * n, x)[1]), "TypeError"),
        (lambda x, n: (x, (np.exp(-n), x)[1]), "TypeError"),
        (lambda x, n: (x, n * (x > 0)), "TypeError"),
    ],
)
def test_what_cannot_be_recorded_is_said_to_be(work, refusal, cupy_backend, capsys):
    def function(carried, batch, key, numbers):
        new, result = work(carried["x"], numbers["n"])
        return {"x": new}, {"n": result}

    recorded = cupy_backend.recorded(function)
    x = cupy_backend.asarray(np.arange(4.0))
    for number in range(4):
        # without a recording, numbers are what they are
        called(recorded, {"x": x}, number, cupy_backend)
    assert not recorded.recordings
    said = capsys.readouterr().err
    assert said.startswith("this step cannot be recorded (") and refusal in said


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
def test_what_cupy_may_not_record_is_right_anyway(work, cupy_backend, capsys):
    """It depends on CuPy and on its libraries; what they refuse is said and goes on without."""

    def function(carried, batch, key, numbers):
        return {"x": carried["x"] + batch}, {"result": work(carried["x"])}

    recorded, _ = compared(function, {"x": cupy_backend.asarray(np.arange(4.0))}, cupy_backend)
    refused = capsys.readouterr().err.startswith("this step cannot be recorded (")
    assert bool(recorded.recordings) != bool(recorded.refusal) == refused


def test_memory_is_counted_while_it_is_held(cupy_backend):
    before = cupy_backend.memory()
    recorded = cupy_backend.recorded(lambda *_: None)
    counted = cupy_backend.memory()
    assert counted["device_pool_bytes"] - before["device_pool_bytes"] == recorded.pool.total_bytes()
    assert counted["device_used_bytes"] - before["device_used_bytes"] == recorded.pool.used_bytes()
    del recorded
    assert cupy_backend.memory() == before


def test_without_memory_nothing_recorded_is_given_away(stand_in, monkeypatch):
    """CuPy's pools answer CUDA's own error by giving away what is free, and asking again."""
    cupy = stand_in._cupy

    def full(size):
        raise cupy.cuda.runtime.CUDARuntimeError("out of memory")

    recorded = stand_in.recorded(lambda *_: None)
    assert recorded.pool.malloc(64) == (64, 0)
    monkeypatch.setattr(cupy.cuda, "Memory", full)
    with pytest.raises(MemoryError, match="no 1,024 bytes more for a recording"):
        recorded.pool.malloc(1024)


def test_a_plain_call_without_memory_gets_that_of_the_recordings(cupy_backend, capsys):
    function, now = drifting(cupy_backend)
    calls = []

    def full(*arguments):
        calls.append(1)
        if other.recordings:
            raise fake_cuda.OutOfMemoryError("no memory")
        return function(*arguments)

    other = cupy_backend.recorded(function)
    for number in range(4):
        now, _ = called(other, now, number, cupy_backend)
    expected = called(function, now, 4, cupy_backend)
    same(called(cupy_backend.recorded(full), now, 4, cupy_backend), expected, cupy_backend)
    assert len(calls) == 2 and not other.recordings
    same(called(other, now, 4, cupy_backend), expected, cupy_backend)  # which is plain now
    said = capsys.readouterr().err
    assert "this step cannot be recorded (its recording was given up, because there was no" in said

    def always_full(*_):
        raise fake_cuda.OutOfMemoryError("no memory")

    with pytest.raises(MemoryError, match="no memory"):
        called(cupy_backend.recorded(always_full), now, 4, cupy_backend)


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
    assert recorded.recordings


def test_many_draws_and_arrays_of_all_sizes(cupy_backend):
    """More words than one launch takes along; arrays that do not end where the next may begin."""

    def function(carried, batch, key, numbers):
        drawn = [cupy_backend.normal(key.fold_in(i), x.shape, x.dtype) for i, x in carried.items()]
        new = {i: x + u for (i, x), u in zip(carried.items(), drawn, strict=True)}
        return new, {}

    dtypes = (np.float32, np.float64)
    start = {str(i): cupy_backend.asarray(np.zeros(i % 3, dtypes[i % 2])) for i in range(300)}
    recorded, _ = compared(function, start, cupy_backend)
    assert recorded.recordings


@pytest.mark.parametrize("too_many", (0, 1))
def test_more_than_there_is_room_for(too_many, cupy_backend, capsys):
    placeholders = importlib.import_module("dualnet.backends.placeholders")

    def function(carried, batch, key, numbers):
        for i in range((1 << 15) + too_many):
            placeholders.key_words(key.fold_in(i))
        return carried, {}

    recorded = cupy_backend.recorded(function)
    for number in range(3):
        called(recorded, {"x": cupy_backend.asarray(np.ones(2))}, number, cupy_backend)
    assert bool(recorded.recordings) == (not too_many)
    assert ("more than 65536 words" in capsys.readouterr().err) == bool(too_many)


# --- numbers -------------------------------------------------------------------------------------

NUMBERS = {
    "sums": lambda n, m: (n + 1, 1.5 + n, n + m, n - 3, 3 - n, n - m, -n, +n),
    "products": lambda n, m: (2 * n, n * 0.1, n * m, n / 3, 1 / (n + 1), m / (n + 2)),
    "powers": lambda n, m: (n**2, 0.9**n, m**n, (1.0 - 0.999 ** (n + 1)) ** 0.5),
    "roots": lambda n, m: (np.sqrt(n), np.sqrt(1.0 - 0.999 ** (n + 1)) * m),
    "ufuncs": lambda n, m: (np.multiply(n, 3), np.add(m, n), np.divide(1, n + 1), 1e400 + 0 * n),
    "signs": lambda n, m: (0.0 * n + -0.0, -0.0 * (n + 1), 2 * n, 2.0 * n),
}


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_those_of_python(name, dtype, cupy_backend):
    """Formulas of a step's numbers, computed before each repetition, to the last bit."""

    def function(carried, batch, key, numbers):
        made = NUMBERS[name](numbers["n"], numbers["lr"])
        if isinstance(numbers["n"], int):
            return carried, [cupy_backend.asarray(np.array([float(x)], dtype)) for x in made]
        return carried, [x.place(dtype) * 1 for x in made]

    recorded = cupy_backend.recorded(function)
    carried = {"x": cupy_backend.asarray(np.ones(2))}
    for number in range(5):
        _, expected = called(function, carried, number, cupy_backend)
        _, got = called(recorded, carried, number, cupy_backend)
        for a, b in zip(got, expected, strict=True):
            a, b = (cupy_backend.to_host(x) for x in (a, b))
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), (number, a, b)
    assert recorded.recordings == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_update_by_their_own_code(name, stand_in):
    """With the numbers of a recorded step, as with Python's."""

    def function(carried, batch, key, numbers):
        rule = OPTIMIZERS[name](weight_decay=0.1)
        p, state = carried["p"], carried["state"]
        new, state = rule.update_leaf(0.1 * p, state, p, 2 * numbers["lr"], numbers["n"])
        return {"p": new, "state": state}, {}

    p = stand_in.asarray(np.linspace(1, 2, 3, dtype=np.float32)[:, None])
    start = {"p": p, "state": OPTIMIZERS[name]().init_leaf(p)}
    recorded, _ = compared(function, start, stand_in)
    assert recorded.recordings == 1 and not recorded.refusal


# --- the host's work -----------------------------------------------------------------------------


def third_step(trainer):
    """The steps of a trainer, of which the next one is a repetition."""
    states = course(trainer, trainer.start(), [], True)
    with np.errstate(all="ignore"):  # while a device records, nothing is computed
        for _ in range(5):
            next(states)
    return states


def calls_of(work):
    """How many calls of Python functions of dualnet some work makes, by their names."""
    made = Counter()

    def note(frame, event, _argument):
        path = frame.f_code.co_filename
        if event == "call" and "/dualnet/" in path and "/tests/" not in path:
            made[frame.f_code.co_name] += 1

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return made


@pytest.mark.parametrize("rule, most", [("bp", 50), ("fg-a", 50), ("fg-w", 50), ("fdfa", 50)])
def test_a_repetition_is_little_work_for_the_host(rule, most, stand_in, digits, monkeypatch):
    """However many layers there are and whatever is drawn."""
    network = MODELS["mlp"](width=8, depth=4).network(digits.in_shape, 10)
    states = third_step(make_trainer(settings(rule, batch_size=10), network, digits))
    done = Counter()
    for owner, name in (
        *((fake_arrays._Pointer, "copy_from_device_async"), (cuda_on_cpu.Program, "launch")),
        (fake_cuda.Graph, "launch"),
    ):
        own = getattr(owner, name)

        def counted(self, *args, own=own, name=f"{owner.__name__}.{name}"):
            if not done["Graph.launch"] or name != "Program.launch":  # the others are in the graph
                done[name] += 1
            return own(self, *args)

        monkeypatch.setattr(owner, name, counted)
    made = calls_of(lambda: next(states))
    states.close()
    assert sum(made.values()) <= most, made
    # the batch's indices in, the numbers in, the graph, and the results out
    assert done == {"_Pointer.copy_from_device_async": 2, "Program.launch": 1, "Graph.launch": 1}


def test_a_recorded_step_moves_nothing_and_calls_nothing(stand_in, digits, monkeypatch):
    trainer = make_trainer(settings("fg-a", batch_size=10), built(digits), digits)
    states = third_step(trainer)
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
