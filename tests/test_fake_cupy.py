"""The stand-in for CuPy is as strict as CuPy, and counts what it should."""

import functools
import inspect

import fake_cupy
import numpy as np
import pytest
from fake_cupy import LACKING, LACKING_ARGUMENTS, ndarray
from peers import peer

from dualnet.core.dispatch import RULES


@pytest.fixture
def x():
    return ndarray(np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x + np.ones(3),
        lambda x: np.ones(3) * x,
        lambda x: x @ np.ones(3),
        lambda x: np.add(x, 1, out=np.ones((2, 3))),
        lambda x: np.where(np.ones(3, bool), x, 0),
        lambda x: np.concatenate([x, np.ones((1, 3))]),
        lambda x: np.linalg.trace(x),
        lambda x: np.asarray(x),
        lambda x: np.ones((2, 3)).__setitem__(..., x),
        lambda x: np.add.reduce(x),
        lambda x: np.clip(x, min=0),
        lambda x: np.reshape(x, shape=(3, 2)),
        lambda x: np.eye(3, like=x),
        lambda x: np.ones(3, like=x),
        lambda x: np.sum(x, where=x > 0),
        lambda x: np.stack([x[0, 0], 1.0]),
        lambda x: np.concatenate([x[0], [1.0]]),
        lambda x: x.dot(np.ones(3)),
    ],
)
def test_it_refuses_what_cupy_refuses(use, x):
    with fake_cupy.counted() as happened, pytest.raises(TypeError):
        use(x)
    assert not happened


def test_it_refuses_a_host_array_as_value(x):
    with pytest.raises(ValueError, match=r"numpy\.ndarray cannot be used for fill"):
        x[0] = np.ones(3)


@pytest.mark.parametrize(
    "use, expected",
    [
        (lambda x: (x + 1, np.float32(2) * x, -x, x > 0, x[0], x[:, None], x.T, x.sum()), {}),
        (lambda x: (np.sum(x), np.stack([x, x]), np.split(x, 3, 1), x.shape, len(x)), {}),
        (lambda x: (np.arange(3, like=x), np.zeros_like(x), [row for row in x]), {}),
        (lambda x: float(x[0, 0]), {"to_host": 1}),
        (lambda x: (bool(x[0, 0]), x.tolist(), x[0, 0].item()), {"to_host": 3}),
        (lambda x: np.asarray(np.ones(3), like=x), {"to_device": 1}),
        (lambda x: np.asarray([0.0, 1.0], like=x), {"to_device": 1}),
        (lambda x: (np.asarray(x, np.float32, like=x), np.array([x[0], x[1]], like=x)), {}),
        (lambda x: np.take(x, np.array([0, 1])), {"to_device": 1}),
        (lambda x: x[np.array([0, 1])], {"to_device": 1}),
        (lambda x: x[[0, 1]], {"to_device": 1}),
        (lambda x: x[x > 2], {"waits": 1}),
        (lambda x: x[True], {"waits": 1}),
        (lambda x: np.bincount(np.arange(3, like=x)), {"waits": 1}),
        (lambda x: np.nonzero(x), {"waits": 1}),
    ],
)
def test_it_counts(use, expected, x):
    with fake_cupy.counted() as happened:
        use(x)
    assert happened == expected


def test_numbers_are_arrays_without_axes(x):
    for number in (x[0, 0], x.sum(), np.max(x), np.add(x[0, 0], 1)):
        assert isinstance(number, ndarray) and number.shape == ()


def test_kernels_get_what_they_take():
    code = 'extern "C" __global__ void f(const REAL* x, int n) {}'
    if fake_cupy.Program.__init__.__globals__["COMPILER"] is None:
        pytest.skip("g++ is not here")
    run = fake_cupy.RawModule(code=code, options=("-DREAL=float",)).get_function("f")
    good = ndarray(np.zeros((2, 3), np.float32))
    run((1,), (1,), (good, np.int32(1)))
    for wrong in (
        (good, np.int64(1)),
        (good, 1),
        (good,),
        (ndarray(np.zeros(3)), np.int32(1)),
        (good.T, np.int32(1)),
    ):
        with pytest.raises(AssertionError):
            run((1,), (1,), wrong)


def test_it_lacks_what_cupy_lacks():
    cupy = peer("cupy")
    special = pytest.importorskip("cupyx.scipy.special")

    def has(fn):
        if isinstance(fn, np.ufunc):
            return hasattr(cupy, fn.__name__) or hasattr(special, fn.__name__)
        try:
            path = [*fn.__module__.split(".")[1:], fn.__name__]
            return functools.reduce(getattr, path, cupy) is not fn
        except AttributeError:
            return False

    of_numpy = [f for f in RULES if (f.__module__ or "numpy").startswith("numpy")]
    lacking = {".".join([*f.__module__.split(".")[1:], f.__name__]) for f in of_numpy if not has(f)}
    assert lacking == LACKING


def test_it_lacks_the_arguments_that_cupy_lacks():
    cupy = peer("cupy")
    created = [getattr(np, name) for name in fake_cupy._CREATES]
    for f in (*(f for f in RULES if hasattr(f, "_implementation")), *created):
        try:
            name = ".".join([*f.__module__.split(".")[1:], f.__name__])
            there = inspect.signature(functools.reduce(getattr, name.split("."), cupy))
            here = inspect.signature(f)
        except (AttributeError, ValueError):  # CuPy lacks it, or it does not say what it takes
            continue
        if any(p.kind == p.VAR_KEYWORD for p in there.parameters.values()):
            continue
        # the first argument is given by position, and may have any name
        absent = set(list(here.parameters)[1:]) - set(there.parameters) - NEVER_ASKED
        assert absent <= LACKING_ARGUMENTS.get(name, set()), name
    for name, arguments in LACKING_ARGUMENTS.items():
        there = functools.reduce(getattr, name.split("."), cupy)
        assert not arguments & set(inspect.signature(there).parameters), name


NEVER_ASKED = {"like", "subok", "ndmax", "kwargs", "obj", "keepdims"}
"""`like` is NumPy's own; nobody here gives the others to a function that lacks them."""
