"""What a process may do ten thousand times: nothing that it made on the way is kept."""

import dataclasses
import gc
import resource
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest

import dualnet as dn
from dualnet import nn
from dualnet.errors import UsageError
from dualnet.options import Options


def define_by_rules(n):
    f = dn.custom_jvp(lambda x: n * x)
    f.defjvps(lambda t, out, x: n * t)
    return f


def define_by_linearizer(n):
    f = dn.custom_jvp(lambda x: n * x)
    f.deflinearizer(lambda x: (n * x, lambda t: n * t))
    return f


def kept_bytes(work, count):
    """The bytes that are still held after `count` calls of `work(n)`, and were not before."""
    for n in range(count // 10):
        work(n)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n in range(count):
            work(n)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("define", "count"), [(define_by_rules, 10_000), (define_by_linearizer, 1000)]
)
def test_rules_go_with_their_functions(define, count):
    x = np.ones(3)
    alive = weakref.WeakSet()

    def define_and_use(n):
        f = define(n)
        dn.jvp(f, (x,), (x,))
        alive.add(f)

    for n in range(count):
        define_and_use(n)
    gc.collect()
    assert not alive
    assert kept_bytes(define_and_use, 200) < 50_000  # one takes 3,000


def test_a_second_rule_of_a_function_of_the_users_is_refused():
    f = define_by_rules(2)
    with pytest.raises(ValueError, match="has a derivative rule already"):
        f.defjvps(lambda t, out, x: t)


def test_what_is_known_of_options_goes_with_their_class():
    alive = weakref.WeakSet()
    for _ in range(20):

        @dataclasses.dataclass(frozen=True)
        class Scale(Options):
            gain: float = 1.0

        Scale(gain=2.0)
        with pytest.raises(UsageError):
            Scale(gian=2.0)
        alive.add(Scale)
    del Scale
    gc.collect()
    assert not alive


def differentiate(n):
    """Closures of every transform, of which nothing is to be kept."""
    x = np.ones(3)

    def f(y):
        return np.sin(y * n)

    def total(y):
        return f(y).sum()

    dn.jvp(f, (x,), (x,))
    dn.vjp(f, x)[1](x)
    dn.linearize(f, x)[1](x)
    dn.hvp(total, (x,), (x,))
    dn.jacfwd(dn.grad(total))(x)
    dn.recorded(f)(x)
    dn.stop_gradient(x)


def test_closures_that_were_differentiated_are_not_kept():
    assert kept_bytes(differentiate, 300) < 30_000  # one record takes 5,000


@pytest.mark.parametrize("rule", ("bp", "fg-a", "fg-w"))
def test_fits_keep_nothing(rule, rng):
    """By the objects that are there: free lists make bytes of memory come and go."""
    x = rng.standard_normal((16, 5)).astype(np.float32)
    examples = (x, np.arange(16) % 3)

    def objects_after(fits):
        for _ in range(fits):
            network = nn.Sequential({"hidden": nn.Linear(4), "output": nn.Linear(3)})
            dn.fit(network, examples, rule=rule, epochs=1, quiet=True)
        gc.collect()
        return len(gc.get_objects())

    before = objects_after(5)
    assert objects_after(25) < before + 25  # not one object for each fit


@pytest.mark.slow
@pytest.mark.parametrize("rule", ("bp", "fg-a", "fg-w"))
def test_ten_thousand_steps_keep_nothing(rule, rng):
    """Between step 1,000 and 10,000 the process does not grow."""
    x = rng.standard_normal((64, 5)).astype(np.float32)
    examples = (x, np.arange(64) % 3)
    seen = []

    def look(_figures):
        gc.collect()
        seen.append((len(gc.get_objects()), resident()))

    network = nn.Sequential({"hidden": nn.Linear(4), "output": nn.Linear(3)})
    how = {"epochs": 10, "batch_size": 64, "quiet": True, "callbacks": [look]}
    many = tuple(np.concatenate([part] * 1000) for part in examples)
    dn.fit(network, many, rule=rule, **how)
    (objects, memory), (objects_at_end, memory_at_end) = seen[0], seen[-1]
    assert objects_at_end - objects < 300  # an epoch's figures stay
    assert memory_at_end - memory < 4 << 20


def resident():
    """The bytes that the process has in memory."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        pytest.skip("only Linux tells how much memory a process has")
    return int(pages.read_text().split()[1]) * resource.getpagesize()


CHAINS = {
    "jvp": lambda f, x: dn.jvp(f, (x,), (np.ones(2),))[1],
    "vjp": lambda f, x: dn.vjp(f, x)[1](np.ones(2))[0],
    "linearize": lambda f, x: dn.linearize(f, x)[1](np.ones(2)),
}


@pytest.mark.parametrize("transform", CHAINS.values(), ids=CHAINS.keys())
def test_a_hundred_thousand_operations_in_a_row(transform):
    def f(x):
        for _ in range(50_000):
            x = x * 1.0 + 1e-6
        return x

    np.testing.assert_array_equal(transform(f, np.array([0.3, 0.7])), 1.0)


def test_second_derivatives_of_many_operations_in_a_row():
    def f(x):
        y = x
        for _ in range(5_000):
            y = y + 1e-3
        return (x * y).sum()

    x = np.array([0.3, 0.7])
    np.testing.assert_allclose(dn.hvp(f, (x,), (np.ones(2),))[0], 2.0)
    np.testing.assert_allclose(dn.grad(lambda z: dn.grad(f)(z).sum())(x), 2.0)
