"""What a process may do ten thousand times: nothing that it made on the way is kept."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import dualnet as dn


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


@pytest.mark.parametrize("define", (define_by_rules, define_by_linearizer))
def test_rules_go_with_their_functions(define):
    x = np.ones(3)
    alive = weakref.WeakSet()

    def define_and_use(n):
        f = define(n)
        dn.jvp(f, (x,), (x,))
        alive.add(f)

    for n in range(10_000):
        define_and_use(n)
    gc.collect()
    assert not alive
    assert kept_bytes(define_and_use, 1000) < 50_000  # one takes 3,000


def test_a_second_rule_of_a_function_of_the_users_is_refused():
    f = define_by_rules(2)
    with pytest.raises(ValueError, match="has a derivative rule already"):
        f.defjvps(lambda t, out, x: t)
