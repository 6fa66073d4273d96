"""What a process that was forked can do: it has no threads but the one that forked."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

import dualnet as dn
from dualnet import backends
from dualnet.core import late
from dualnet.data.batches import read_ahead
from dualnet.errors import BackendError

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def in_a_fork(work, seconds=20):
    """Whether `work()` returns True in a forked process, within some time."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if work() is True else 1)
        except BaseException:
            os._exit(2)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail(f"a forked process did not end within {seconds} s")


def uses_threads(backend, key):
    """Draw on all cores, and spread work over the backend's threads."""
    drawn = backend.normal(key, (1 << 18,), np.float32)
    return drawn.sum(), backend.map(lambda n: n * n, range(20))


@pytest.mark.parametrize("used_before", (False, True))
def test_a_threaded_backend_works_in_a_fork_and_in_a_fork_of_it(used_before, key):
    backend, expected = backends.get("numpy", 4), uses_threads(backends.get("numpy"), key)
    if used_before:
        assert uses_threads(backend, key) == expected

    def same():
        return uses_threads(backend, key) == expected

    assert in_a_fork(lambda: same() and in_a_fork(same))
    assert same()


def test_a_fork_within_the_work_of_a_thread(key):
    backend = backends.get("numpy", 2)
    expected = uses_threads(backend, key)
    forked = backend.map(lambda _: in_a_fork(lambda: uses_threads(backend, key) == expected), [0])
    assert forked == [True]


def test_batches_are_read_on_in_a_fork():
    ahead = read_ahead(lambda n: n * n, range(9))
    assert [next(ahead) for _ in range(3)] == [0, 1, 4]
    assert in_a_fork(lambda: list(ahead) == [9, 16, 25, 36, 49, 64])
    assert list(ahead) == [9, 16, 25, 36, 49, 64]


def test_a_fork_waits_for_rules_that_are_being_registered(monkeypatch):
    """Another thread's lock would be held in the fork for ever."""
    registering, go_on = threading.Event(), threading.Event()

    def slowly(_module):
        registering.set()
        go_on.wait(20)

    monkeypatch.setitem(sys.modules, "slow_rules", SimpleNamespace(register=slowly))
    monkeypatch.setattr(late, "WAITING", {"os": "slow_rules"})
    thread = threading.Thread(target=late.register_waiting)
    thread.start()
    registering.wait(20)
    threading.Timer(0.05, go_on.set).start()
    assert in_a_fork(lambda: late.register_waiting() is None)
    thread.join()


def test_processes_of_multiprocessing_train():
    """A pool of processes, as hyperparameters are searched with, after the parent's threads ran."""
    uses_threads(backends.get("numpy", 2), dn.Key(0))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        losses = pool.map_async(_loss_of_a_fit, [0, 0]).get(60)
    assert losses[0] == losses[1] == _loss_of_a_fit(0)


def _loss_of_a_fit(seed):
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    network = dn.nn.Sequential({"hidden": dn.nn.Linear(4), "out": dn.nn.Linear(3)})
    examples = (x, x[:, :3].argmax(1))
    fitted = dn.fit(network, examples, epochs=1, seed=seed, threads=2, shards=2, quiet=True)
    return fitted.history[-1]["train_loss"]


def test_the_device_says_that_it_does_not_survive_a_fork(stand_in, key):
    def refused(call):
        with pytest.raises(BackendError, match="CUDA does not survive a fork"):
            call()
        return True

    assert in_a_fork(lambda: refused(lambda: stand_in.asarray(np.ones(2))))
    assert in_a_fork(lambda: refused(lambda: stand_in.normal(key, (3,), np.float32)))
    assert stand_in.to_host(stand_in.asarray(np.ones(2))).sum() == 2
