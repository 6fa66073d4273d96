"""`dn.recorded`: the function itself on NumPy, on CuPy graphs that give the same numbers."""

import dataclasses

import numpy as np
import pytest
from cupy_comparisons import moved_back

import dualnet as dn
from dualnet import tree
from dualnet.errors import UsageError


def counting(function):
    """The function, and a list with an entry for each time that its Python code ran."""
    ran = []

    def counted(*args, **kwargs):
        ran.append(1)
        return function(*args, **kwargs)

    return counted, ran


def same(got, expected, backend, rounding=0.0):
    got, expected = (moved_back(t, backend) for t in (got, expected))
    assert tree.describe(got) == tree.describe(expected)
    for a, b in zip(tree.leaves(got), tree.leaves(expected), strict=True):
        if rounding and np.asarray(a).dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=rounding, atol=rounding)
        else:
            np.testing.assert_array_equal(a, b)


def loss(w):
    return np.tanh(w["w"] * 2.0 + w["b"]).sum()


def made(backend, n, size=3):
    return {
        "w": backend.asarray(np.linspace(0, n, size)),
        "b": backend.asarray(np.linspace(n, 1, size)),
    }


def test_on_numpy_it_is_the_function_itself(rng):
    function, ran = counting(lambda w, v: dn.jvp(loss, (w,), (v,)))
    recorded = dn.recorded(function)
    w, v = ({"w": rng.standard_normal(3), "b": rng.standard_normal(3)} for _ in range(2))
    v = tree.map(lambda x: x[None], v)
    for number in range(5):
        got = recorded(w, v)
        assert len(ran) == number + 1
        for a, b in zip(got, dn.jvp(loss, (w,), (v,)), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ZeroDivisionError):
        dn.recorded(lambda x: x / 0)(1)


@pytest.mark.parametrize(
    "function",
    [
        lambda w: dn.jvp(loss, (w,), (tree.map(lambda x: np.stack([x, 2 * x]), w),)),
        lambda w: dn.value_and_grad(loss)(w),
        lambda w: {"same": w, "sum": w["w"] + w["b"], "constants": (None, 2, 3.5, "text", True)},
        lambda w: (),
        lambda w: w["w"] * np.nan,
    ],
)
def test_a_device_repeats_it(function, cupy_backend):
    counted, ran = counting(function)
    recorded = dn.recorded(counted)
    results = []
    for number in range(6):
        w = made(cupy_backend, number)
        results.append((recorded(w), function(w)))
    for got, expected in results:  # which no later call has changed
        same(got, expected, cupy_backend, 1e-14)  # sums are added up in another order
    assert len(ran) == 2 + 1 + 1  # plainly, recorded, and compared with


def test_each_set_of_shapes_and_other_arguments(cupy_backend):
    @dn.recorded
    def recorded(x, factor, *, name=None, more=()):
        return {"times": x * factor, "named": (name, [y + factor for y in more])}

    def calls(number):
        for size in (3, 4):
            x = made(cupy_backend, number, size)
            for factor in (2, 2.0, 0.0, -0.0, True):
                yield (x["w"], factor), {}
            yield (x["w"], 2), {"name": "a"}
            yield (x["w"], 2), {"name": None}
            yield (x["w"], 2), {"more": (x["b"],)}
            yield (x["w"], 2), {"more": [x["b"]]}
            yield (x["w"].astype(np.float32), 2), {}

    for number in range(5):
        for args, kwargs in calls(number):
            same(recorded(*args, **kwargs), recorded.__wrapped__(*args, **kwargs), cupy_backend)
            sign = np.copysign(1.0, moved_back(recorded(args[0] + 1, -0.0), cupy_backend)["times"])
            assert (sign < 0).all() or number == 0


def test_numbers_that_are_others_each_time_are_not_recorded(cupy_backend, capsys):
    counted, ran = counting(lambda x, n: x * n)
    recorded = dn.recorded(counted)
    x = cupy_backend.asarray(np.ones(2))
    for n in range(1100):
        if n < 5 or n > 1095:
            same(recorded(x, n), x * n, cupy_backend)
        else:
            recorded(x, n)
    assert len(ran) == 1100 and not capsys.readouterr().err


def refused(function, argument, capsys):
    """What is said of a function that cannot be recorded, with the results of plain calls."""
    recorded = dn.recorded(function)
    for _ in range(6):
        recorded(argument)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("this function cannot be recorded ("), said
    return said


def test_impure_functions_are_refused_where_it_is_seen(cupy_backend, capsys):
    x = cupy_backend.asarray(np.ones(3))
    other = "a repetition gives other results than a plain call"

    def looks(x):
        return x * 2 if float(x.sum()) > 0 else x

    def counts(x):
        count.append(1)
        return x * len(count)

    def changes(x):
        x += 1
        return x * 2

    count = []
    refused(looks, x, capsys)
    assert other in refused(counts, x, capsys)
    assert len(count) == 6 + 1  # each call once, and the recording
    given = x.copy()
    assert "it changes an argument in place" in refused(changes, given, capsys)
    np.testing.assert_array_equal(cupy_backend.to_host(given), np.full(3, 7.0))
    assert "no array: ndarray" in refused(lambda x: np.ones(3), x, capsys)
    assert "no array: object" in refused(lambda x: object(), x, capsys)


def test_a_host_array_among_the_arguments_is_said(cupy_backend, capsys):
    counted, ran = counting(lambda x, y: x * len(y))
    recorded = dn.recorded(counted)
    x = made(cupy_backend, 1)["w"]
    for _ in range(5):
        same(recorded(x, np.ones(3)), x * 3, cupy_backend)
    assert len(ran) == 5 and capsys.readouterr().err.count("array on the host") == 1


def test_errors_come_out_as_they_are(cupy_backend, capsys):
    def function(x, ok):
        if not ok:
            raise KeyError("not ok")
        return x + 1

    recorded = dn.recorded(function)
    x = cupy_backend.asarray(np.ones(3))
    for _ in range(4):
        with pytest.raises(KeyError, match="not ok"):
            recorded(x, False)
    for _ in range(4):
        same(recorded(x, True), x + 1, cupy_backend)
    assert not capsys.readouterr().err


def test_what_cannot_be_hashed_is_called_itself(cupy_backend):
    @dataclasses.dataclass
    class Options:
        n: int

    recorded = dn.recorded(lambda x, options: x * options.n)
    x = cupy_backend.asarray(np.ones(3))
    for n in range(5):
        same(recorded(x, Options(n)), x * n, cupy_backend)


@pytest.mark.parametrize("calls_before", (0, 5))
def test_within_derivatives_and_within_another_one(calls_before, cupy_backend, capsys):
    """Whether or not the inner one is recorded already when the outer one is."""
    inner, ran_inner = counting(lambda x: np.sin(x).sum())
    inner = dn.recorded(inner)
    outer, ran = counting(lambda x: dn.grad(inner)(x) + inner(x))
    outer = dn.recorded(outer)
    for number in range(calls_before):
        inner(made(cupy_backend, number)["w"])
    for number in range(5):
        x = made(cupy_backend, number)["w"]
        same(outer(x), np.cos(x) + np.sin(x).sum(), cupy_backend)
        same(dn.grad(inner)(x), np.cos(x), cupy_backend)
    assert len(ran) == 4
    before = len(ran_inner)
    for number in range(5):
        inner(made(cupy_backend, number)["w"])
    assert len(ran_inner) - before < 5 and not capsys.readouterr().err


def test_without_a_backend_it_says_what_to_do():
    class ndarray:
        pass

    ndarray.__module__ = "cupy"
    with pytest.raises(UsageError, match=r'make it first, by dualnet.backends.get\("cupy"\)'):
        dn.recorded(lambda x: x)(ndarray())
