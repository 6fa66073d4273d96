"""BLAS has one thread in steps of small networks and for shards, if the user chose no number."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from peers import peer

from dualnet import data
from dualnet.backends import NumpyBackend, blas
from dualnet.learning import Backprop, Batch, Task, estimate_gradient
from dualnet.nn import Conv2d, Flatten, Linear, Sequential, softmax_cross_entropy
from dualnet.random import Key
from dualnet.training.assemble import TABLES, make_trainer
from dualnet.training.evaluation import Evaluation
from dualnet.training.resolve import resolve

ROOT = Path(__file__).parent.parent


@pytest.fixture(params=["NumPy's own", "threadpoolctl"])
def threads(request, monkeypatch, tmp_path):
    """`threads()` says how many NumPy's BLAS has: 2 in the test, where nothing changes them."""
    threadpoolctl = peer("threadpoolctl", "threads")
    if request.param == "threadpoolctl":  # as if NumPy came without a library
        monkeypatch.setattr(blas, "Path", lambda _: tmp_path / "numpy" / "__init__.py")
    else:
        monkeypatch.setattr(blas, "ThreadpoolController", None)
    monkeypatch.setattr(blas, "CHOSEN", False)
    blas._libraries.cache_clear()

    def threads(_item=None):
        (of_numpy,) = (p for p in threadpoolctl.threadpool_info() if "numpy" in p["filepath"])
        return of_numpy["num_threads"]

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        yield threads
        assert threads() == 2
    blas._libraries.cache_clear()


def test_shards_on_threads_have_one_thread_each(threads):
    assert NumpyBackend(1).map(threads, [0]) == [2]
    assert NumpyBackend(2).map(threads, [0, 1]) == [1, 1]


def test_one_thread_ends_with_an_error(threads):
    with pytest.raises(ZeroDivisionError), blas.one_thread():
        assert threads() == 1
        raise ZeroDivisionError


def threads_in_a_step(threads, network, images):
    """The number of threads in each part of a step, and the plan of the network."""
    seen = []

    class Watching(Backprop):
        def sample(self, *args):
            seen.append(threads())
            return super().sample(*args)

        def measure(self, *args):
            seen.append(threads())
            return super().measure(*args)

        def estimate(self, *args):
            seen.append(threads())
            return super().estimate(*args)

    rule = Watching()
    plan, learner = rule.start(Task(network, softmax_cross_entropy), images[:1], Key(0))
    batch = Batch(images, np.zeros(len(images), int))
    estimate_gradient(rule, plan, learner, batch, Key(2), NumpyBackend())
    return set(seen), plan


def of_linear(width):
    return Sequential((("flatten", Flatten()), ("hidden", Linear(width)), ("output", Linear(2))))


def test_a_step_of_a_small_network_has_one_thread_and_that_of_a_large_one_all(threads):
    images = np.ones((8, 8, 8, 1), np.float32)
    width = blas.SMALL // (8 * 64)
    seen, plan = threads_in_a_step(threads, of_linear(width), images)
    assert (seen, plan.largest_product) == ({1}, 64 * width)
    seen, _ = threads_in_a_step(threads, of_linear(width + 1), images)
    assert seen == {2}


def test_the_products_of_a_convolution_are_those_at_all_places(threads):
    layers = ("conv", Conv2d(8, 3)), ("flatten", Flatten()), ("output", Linear(2))
    _, plan = threads_in_a_step(threads, Sequential(layers), np.ones((2, 6, 7, 3), np.float32))
    assert plan.largest_product == 4 * 5 * (3 * 3 * 3 * 8)


def test_what_the_user_chose_stays(threads, monkeypatch):
    monkeypatch.setattr(blas, "CHOSEN", True)
    seen, _ = threads_in_a_step(threads, of_linear(4), np.ones((8, 8, 8, 1), np.float32))
    assert seen == {2}


@pytest.mark.parametrize("chosen", [{}, {"OPENBLAS_NUM_THREADS": "2"}, {"OMP_NUM_THREADS": "2"}])
def test_a_setting_in_the_environment_is_seen(chosen):
    inherited = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", "from dualnet.backends import blas; print(blas.CHOSEN)"],
        env={**inherited, **chosen, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == str(bool(chosen)), done.stderr


@pytest.mark.parametrize("fits", [True, False])
def test_an_evaluation_of_a_small_network_has_one_thread(threads, monkeypatch, fits):
    """With one unit more it is none."""
    digits = data.load("digits", limit_train=8, limit_test=8)
    network = of_linear(blas.SMALL // (8 * 64) + (0 if fits else 1))
    settings = resolve({"rule": "bp"}, TABLES)
    trainer = make_trainer(settings, network, digits)
    now, seen = trainer.start(), []
    monkeypatch.setattr(Evaluation, "__call__", lambda *_: seen.append(threads()))
    trainer.evaluate(now)
    assert seen == ([1] if fits else [2])
