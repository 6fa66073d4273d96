"""Runs side by side on the CuPy backend: on streams of their own, and the same runs as alone."""

import importlib
from collections import Counter
from dataclasses import replace

import fake_cublas
import fake_cuda
import numpy as np
import pytest
from cupy_comparisons import moved_back
from learning_problems import EVERY_RULE
from test_cupy_graphs import SMALL
from test_cupy_training import CHOICES, built, cupy_by_name, settings  # noqa: F401

from dualnet import data, tree
from dualnet.backends.overridable import exact_matmul
from dualnet.random import Key
from dualnet.training.assemble import make_trainer
from dualnet.training.side_by_side import _Group, train_side_by_side

pytestmark = pytest.mark.usefixtures("cupy_by_name")

SEEDS = (3, 0)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", limit_train=100, limit_test=50)


def nothing(_):
    pass


def side_by_side(trainer, seeds=SEEDS):
    """The last states of a run for each seed."""
    trainers = [replace(trainer, seed=seed) for seed in seeds]
    starts = [one.start() for one in trainers]
    states, _ = train_side_by_side(trainers, starts, nothing, nothing, quiet=True)
    return states


@pytest.fixture(autouse=True)
def recorded_where_it_should_be(capsys):
    """What cannot be recorded goes on without, and says so."""
    yield
    assert "cannot be recorded" not in capsys.readouterr().err


def assert_as_alone(trainer, backend):
    """With the same arguments, but for the seeds."""
    states = side_by_side(trainer)
    for seed, got in zip(SEEDS, states, strict=True):
        alone = replace(trainer, seed=seed, graph=False)
        expected, _ = alone.train(alone.start(), nothing, nothing, quiet=True)
        pairs = zip(
            tree.items(moved_back(got.carried, backend)),
            tree.items(moved_back(expected.carried, backend)),
            strict=True,
        )
        for (path, here), (_, there) in pairs:
            np.testing.assert_array_equal(here, there, err_msg=f"seed {seed}: {path}")
        np.testing.assert_array_equal(got.history[:, :-1], expected.history[:, :-1])
        np.testing.assert_array_equal(got.comparisons, expected.comparisons)
    first, second = (state.history[:, 1] for state in states)
    assert (first != second).all()


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_every_rule_recorded(rule, cupy_backend, digits):
    trainer = make_trainer(settings("bp", graph=True, epochs=1, batch_size=25), SMALL, digits)
    assert_as_alone(replace(trainer, rule=rule), cupy_backend)


@pytest.mark.parametrize("graph", (False, True), ids=("plain", "recorded"))
@pytest.mark.parametrize("name", CHOICES)
def test_every_choice(name, graph, cupy_backend, digits):
    """With a last batch of another size."""
    chosen = settings(**CHOICES[name], graph=graph, batch_size=22, epochs=1 + graph)
    digits = replace(digits, image_size=chosen.image_size)
    trainer = make_trainer(chosen, built(digits, chosen.objective), digits)
    assert_as_alone(trainer, cupy_backend)


def test_data_that_stay_on_the_host(cupy_backend, digits):
    trainer = make_trainer(settings("fdfa", graph=True), built(digits), digits)
    assert_as_alone(replace(trainer, dataset=digits), cupy_backend)


def test_many_runs_are_recorded(cupy_backend, digits):
    """CuPy itself joins more than eight arrays by their addresses, which it moves to the device."""
    trainer = make_trainer(
        settings("bp", graph=True, epochs=1, batch_size=25), built(digits), digits
    )
    side_by_side(trainer, range(9))


def test_a_recorded_step_of_all_is_one_launch_and_moves_nothing(stand_in, digits, monkeypatch):
    launched = Counter()
    launch = fake_cuda.Graph.launch
    monkeypatch.setattr(
        fake_cuda.Graph, "launch", lambda graph: (launched.update([graph]), launch(graph))
    )
    moved = []

    def count_in_steps(self, *args):
        with fake_cuda.counted() as happened:
            now = step(self, *args)
        moved.append(dict(happened))
        return now

    step = _Group.step
    monkeypatch.setattr(_Group, "step", count_in_steps)
    trainer = make_trainer(settings("fdfa", graph=True, batch_size=10), built(digits), digits)
    side_by_side(trainer)
    assert len(moved) == 2 * 10 and not any(moved[1:])
    # The first step checks, two go before recording; then two graphs take turns.
    assert sorted(launched.values()) == [8, 9]


# --- streams -------------------------------------------------------------------------------------


def test_each_item_has_a_stream_and_a_workspace(stand_in):
    seen = []
    main = fake_cuda.streams.current[-1]
    square = stand_in.asarray(np.eye(3))

    def multiply(i):
        product = exact_matmul(square * i, square)
        seen.append((fake_cuda.streams.current[-1], fake_cublas.chosen["workspace"]))
        return product

    fake_cuda.streams.waited.clear()
    results = stand_in.side_by_side(multiply, range(4))
    assert [stand_in.to_host(x)[0, 0] for x in results] == [0, 1, 2, 3]
    lanes, workspaces = zip(*seen, strict=True)
    assert main not in lanes and len({id(lane) for lane in lanes}) == len(set(workspaces)) == 4
    waits = [(waiting, awaited) for waiting, awaited, _ in fake_cuda.streams.waited]
    assert waits == [(lane, main) for lane in lanes] + [(main, lane) for lane in lanes]
    assert fake_cuda.streams.current[-1] is main

    multiply(1)  # on the stream of all others, which has another workspace
    assert seen[-1][0] is main and seen[-1][1] not in workspaces
    stand_in.side_by_side(multiply, range(2))
    assert seen[-2:] == seen[:2]  # the streams stay


def test_an_error_leaves_no_stream_unawaited(stand_in):
    main = fake_cuda.streams.current[-1]
    used = []

    def fail(i):
        used.append(fake_cuda.streams.current[-1])
        if i:
            raise KeyboardInterrupt

    fake_cuda.streams.waited.clear()
    with pytest.raises(KeyboardInterrupt):
        stand_in.side_by_side(fail, range(3))
    waits = [(waiting, awaited) for waiting, awaited, _ in fake_cuda.streams.waited]
    assert len(used) == 2 and waits[-2:] == [(main, lane) for lane in used]
    assert fake_cuda.streams.current[-1] is main


def repeated(stand_in, function):
    """What a function of `batch` and `key` gives in its fourth, recorded call, and plainly."""
    step = lambda carried, batch, key, numbers: (carried, function(batch, key))  # noqa: E731
    recorded, plain = (stand_in.recorded(step, record) for record in (True, False))
    for number in range(1, 5):
        batch = stand_in.asarray(number * np.eye(2))
        key = Key(number)
        got, expected = (f({}, batch, key, {})[1] for f in (recorded, plain))
    assert recorded.recordings == 1
    return [[stand_in.to_host(x) for x in tree.leaves(results)] for results in (got, expected)]


def test_branches_that_need_each_other_show_on_the_stand_in(stand_in):
    """What keeps runs apart is tested here only if the stand-in can tell."""
    shared = []

    def careless(batch, key):
        def work(i):
            if i == 0:
                shared[:] = [exact_matmul(batch, batch)]
            return exact_matmul(shared[0], shared[0])

        return stand_in.side_by_side(work, range(2))

    got, expected = repeated(stand_in, careless)
    np.testing.assert_array_equal(expected, [256 * np.eye(2)] * 2)
    np.testing.assert_array_equal(got[0], expected[0])
    assert (got[1] != expected[1]).any()


def test_what_an_item_leaves_noted_is_not_computed_by_another(stand_in):
    """An item that overwrites memory computes what it has noted, but nothing of the others."""

    def function(batch, key):
        def work(i):
            noted = exact_matmul(batch, batch) * (i + 1.0)
            overwritten = exact_matmul(batch, batch)
            also_noted = overwritten + 1.0
            overwritten[0] = 5.0
            later = exact_matmul(batch, overwritten) - 1.0
            return [noted, overwritten, also_noted, later]

        return stand_in.side_by_side(work, range(3))

    got, expected = repeated(stand_in, function)
    for here, there in zip(got, expected, strict=True):
        np.testing.assert_array_equal(here, there)
    assert expected[0][0, 0] == 16 and expected[2][0, 0] == 17 and expected[3][0, 0] == 19


def test_what_was_noted_before_is_computed_before_all_items(stand_in):
    def function(batch, key):
        noted = exact_matmul(batch, batch) * 2.0

        def work(i):
            x = batch
            for _ in range(3 - 3 * i):  # the first item comes to it last
                x = exact_matmul(x, batch)
            return [exact_matmul(noted, batch), x]

        return stand_in.side_by_side(work, range(2)), noted

    got, expected = repeated(stand_in, function)
    np.testing.assert_array_equal(got, expected)
    assert expected[0][0, 0] == 128


def test_each_item_draws_and_reduces_on_its_stream(stand_in, monkeypatch):
    """What is left is computed after the streams are joined, for all items together."""
    from dualnet.backends import draws, fused  # here, because the stand-in must be there

    streams = {}

    def watch(module, name):
        function = getattr(module, name)

        def watched(*args):
            streams.setdefault(name, []).append(fake_cuda.streams.current[-1])
            return function(*args)

        monkeypatch.setattr(module, name, watched)

    for module, name in ((draws, "fill_many"), (fused, "reduce"), (fused, "_launch")):
        watch(module, name)
    main = fake_cuda.streams.current[-1]

    def function(batch, key):
        def work(i):
            used.append(fake_cuda.streams.current[-1])
            drawn = stand_in.normal(key.fold_in(i), (2, 2), np.float64)
            return [drawn, np.sum(batch * 2.0, axis=0) + 1.0]

        used = []
        results = stand_in.side_by_side(work, range(3))
        assert streams.pop("fill_many") == used and streams.pop("reduce") == used
        assert main not in used and not streams.pop("_launch", None)
        return results

    for number in range(2):
        got = stand_in.recorded(lambda _, *given: ({}, function(*given[:2])), False)(
            {}, stand_in.asarray(np.eye(2)), Key(number), {}
        )[1]
        assert set(streams.pop("_launch")) == {main}
        np.testing.assert_array_equal([stand_in.to_host(x) for _, x in got], 3.0)


def test_an_item_that_fails_leaves_nothing_apart(stand_in):

    def fail(i):
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        stand_in.side_by_side(fail, range(2))
    assert len(importlib.import_module("dualnet.backends.computing").PENDING) == 1
