"""`dualnet.numpy`: lists of duals, functions that make arrays, updates, and programs for it."""

import functools
import itertools
import math
import pickle
import re
from pathlib import Path

import numpy
import pytest

import dualnet as dn
import dualnet.numpy as np
from dualnet.core.dual import Dual
from dualnet.errors import DualConversionError, MissingRuleError

K = 3


def verify(f, *primals):
    """Hold f to differences in both modes and to second order, at k = 3, and to its plain value."""
    primals = tuple(numpy.asarray(x, float) for x in primals)
    dn.check_jvp(f, primals, order=2)
    dn.check_vjp(f, primals, order=2)
    directions = tuple(numpy.stack([x + i for i in range(K)]) for x in primals)
    out, pushed = dn.jvp(f, primals, directions)
    plain = f(*primals)
    assert numpy.array_equal(out, plain) and out.dtype == plain.dtype
    for i in range(K):
        single = dn.jvp(f, primals, tuple(d[i] for d in directions))[1]
        assert numpy.allclose(pushed[i], single, rtol=1e-13, atol=1e-13)


def inside(f, x=(1.0, 2.0)):
    """What f raises or returns on a Dual."""
    x = numpy.array(x)
    return dn.jvp(f, (x,), (numpy.ones_like(x),))


V = [0.7, -1.3, 2.1]


# --- the namespace -------------------------------------------------------------------------------


def test_what_is_not_a_function_is_numpys_own():
    for name in ("float64", "ndarray", "dtype", "pi", "inf", "newaxis", "s_", "mgrid", "testing"):
        assert getattr(np, name) is getattr(numpy, name)
    assert np.linalg.LinAlgError is numpy.linalg.LinAlgError
    assert np.random.Generator is numpy.random.Generator
    assert np.__version__ == numpy.__version__


def test_every_name_is_found():
    for ours, numpys in ((np, numpy), (np.linalg, numpy.linalg), (np.fft, numpy.fft)):
        assert set(dir(ours)) >= set(dir(numpys))
        assert set(ours.__all__) >= set(numpys.__all__)
        for name in numpys.__all__:
            theirs = getattr(numpys, name)
            if callable(theirs) and not isinstance(theirs, type):
                assert callable(getattr(ours, name)), name
                assert getattr(ours, name).__doc__, name
    assert set(dir(np)) >= {"put_at", "add_at"}


def test_a_wrong_name_is_told_as_numpy_tells_it():
    with pytest.raises(AttributeError, match="nothing_like_it"):
        np.nothing_like_it  # noqa: B018
    with pytest.raises(AttributeError, match="removed"):
        np.float_  # noqa: B018
    assert not hasattr(np.linalg, "nothing_like_it")


def test_every_way_of_importing():
    import dualnet.numpy.fft as fft
    import dualnet.numpy.linalg as la
    import dualnet.numpy.random as npr
    from dualnet.numpy import exp, pi
    from dualnet.numpy.linalg import norm

    assert (fft, la, npr) == (np.fft, np.linalg, np.random)
    assert exp is np.exp and pi is numpy.pi and norm is np.linalg.norm and dn.numpy is np
    names = {}
    exec("from dualnet.numpy import *", names)
    assert names["put_at"] is np.put_at and names["array"] is np.array
    assert names["sin"] is np.sin


def test_functions_keep_their_attributes_and_can_be_pickled():
    assert np.exp.nin == 1 and np.add.identity == 0 and np.sum.__name__ == "sum"
    assert np.add.reduce([1, 2, 3]) == 6 and np.multiply.outer([1, 2], [3]).tolist() == [[3], [6]]
    x = numpy.zeros(3)
    np.add.at(x, [0, 0], 1.0)
    assert x.tolist() == [2, 0, 0]
    for fn in (np.exp, np.abs, np.sum, np.array, np.linalg.norm, np.fft.fftfreq, np.add.reduce):
        if fn is not np.add.reduce:
            assert pickle.loads(pickle.dumps(fn)) is fn


PLAIN_CALLS = {
    "array": lambda np: np.array([[1, 2], [3, 4]], dtype=np.float32, ndmin=3),
    "array of object": lambda np: np.array([None, 1], dtype=object),
    "array by keyword": lambda np: np.array(object=[1.0]),
    "asarray": lambda np: np.asarray((1, 2.5)),
    "ascontiguousarray": lambda np: np.ascontiguousarray(3.0),
    "asfortranarray": lambda np: np.asfortranarray([[1.0, 2.0]]),
    "require": lambda np: np.require([1, 2], np.float64, "W"),
    "arange": lambda np: np.arange(1, 7, 2),
    "arange by keyword": lambda np: np.arange(stop=5, dtype=float, start=1),
    "full": lambda np: np.full((2, 2), 7),
    "full, list": lambda np: np.full((2, 2), [1.5, 2.5], np.float32),
    "full_like": lambda np: np.full_like([1, 2], 3.7),
    "full_like, shape": lambda np: np.full_like(np.ones(2), 3, shape=(1, 2)),
    "linspace": lambda np: np.linspace([0, 1], 2, 5, axis=-1),
    "r_": lambda np: np.r_[1, 0:5, 0:1:3j, [2.5]],
    "r_, directive": lambda np: np.r_["0,2", [1, 2], [3, 4]],
    "c_": lambda np: np.c_[[1, 2], [3, 4]],
    "block": lambda np: np.block([[np.eye(2), np.zeros((2, 1))], [1, 2, 3]]),
    "fromiter": lambda np: np.fromiter(iter(range(9)), int, 4),
    "fromfunction": lambda np: np.fromfunction(lambda i, j: i * j, (2, 3)),
    "vectorize": lambda np: np.vectorize(lambda a, b: a if a > b else b)([1, 5], 3),
    "vectorize, many": lambda np: np.vectorize(lambda a: (a, 2.0 * a))(np.arange(3)),
    "vectorize, signature": lambda np: np.vectorize(np.sum, signature="(n)->()")(np.ones((2, 3))),
    "vectorize, otypes": lambda np: np.vectorize(lambda a: a, otypes=[np.float32])([1, 2]),
    "mean": lambda np: np.mean([[1, 2], [3, 5]], axis=0),
    "norm": lambda np: np.linalg.norm([3, 4]),
    "select": lambda np: np.select([[True, False]], [[1, 2]], 9),
    "exp": lambda np: np.exp([0, 1]),
    "isscalar": lambda np: np.array([np.isscalar(1), np.isscalar([1]), np.iterable(3)]),
    "ndenumerate": lambda np: np.array([a for _, a in np.ndenumerate([[1, 2]])]),
}


@pytest.mark.parametrize("call", PLAIN_CALLS.values(), ids=PLAIN_CALLS.keys())
def test_plain_calls_give_what_numpy_gives(call):
    ours, theirs = call(np), call(numpy)
    assert type(ours) is type(theirs)
    for a, b in zip(dn.tree.leaves(ours), dn.tree.leaves(theirs), strict=True):
        assert numpy.array_equal(a, b) and a.dtype == b.dtype
    x = numpy.ones(3)
    assert np.asarray(x) is x and np.vectorize.__mro__[1] is numpy.vectorize


# --- lists ---------------------------------------------------------------------------------------

OF_LISTS = {
    "sum": lambda x: np.sum([x[0] ** 2, x[1], 3.0]),
    "sum of a tuple": lambda x: np.sum((x[0] ** 2, x[1])),
    "sum over an axis": lambda x: np.sum([[x[0], x[1]], [x[2], x[0] * x[1]]], axis=1),
    "mean": lambda x: np.mean([x * x, [x[0], 1, x[1]]]),
    "max": lambda x: np.max([x[0] ** 2, x[1], 2.0]),
    "min": lambda x: np.min([x, x * x], axis=0),
    "prod": lambda x: np.prod([x[0], x[1], x[2]]),
    "std": lambda x: np.std([x[0], x[1] ** 2, 4.0]),
    "var": lambda x: np.var([x[0], x[1] ** 2, 4.0], ddof=1),
    "cumsum": lambda x: np.cumsum([x[0], x[1]]),
    "norm": lambda x: np.linalg.norm([x[0], x[1] * x[2]]),
    "exp": lambda x: np.exp([x[0], [x[1]][0]]),
    "maximum": lambda x: np.maximum([x[0], x[1]], 0.1),
    "arctan2": lambda x: np.arctan2([x[0], 1.0], [x[1], x[2]]),
    "dot": lambda x: np.dot([[x[0], x[1]], [1.0, x[2]]], [x[1], 2.0]),
    "solve": lambda x: np.linalg.solve([[3.0, x[0]], [x[1], 5.0]], [x[2], 1.0]),
    "det": lambda x: np.linalg.det([[x[0], x[1]], [x[1], x[2]]]),
    "einsum": lambda x: np.einsum("i,i->", [x[0], x[1]], [x[2], 1.0]),
    "where": lambda x: np.where([True, False], [x[0], x[1]], [x[1], x[2]]),
    "concatenate": lambda x: np.concatenate([x, [x[0], 3 * x[0]], (x[1],), [1.0]]),
    "stack": lambda x: np.stack([[x[0], x[1]], x[1:], [1.0, 2.0]]),
    "vstack": lambda x: np.vstack([[x[0], x[1]], x[1:]]),
    "row_stack": lambda x: np.row_stack([x, [x[0], 1.0, 2.0]]),
    "hstack": lambda x: np.hstack([x[0], [x[1], 2.0]]),
    "column_stack": lambda x: np.column_stack(([x[0], x[1]], x[1:])),
    "reshape": lambda x: np.reshape([x[0], x[1], x[2], x[0] * x[1]], (2, 2)),
    "transpose": lambda x: np.transpose([[x[0], x[1]]]),
    "sort": lambda x: np.sort([x[0] * 2, x[1], x[2]]),
    "outer": lambda x: np.outer([x[0], x[1]], x),
    "mixed depth": lambda x: np.sum([[x[0], 1.0], x[1:]], axis=0),
    "by keyword": lambda x: np.append(x, values=[x[0], x[1] ** 2], axis=None),
    "all by keyword": lambda x: np.mean(a=[x[0], x[1] ** 2]),
    "bounds by keyword": lambda x: np.clip(x * 2, a_min=x[0] ** 2, a_max=x[2]),
    "unpacked": lambda x: np.sum([*map(np.sin, x)]),
}


@pytest.mark.filterwarnings("ignore:.*row_stack:DeprecationWarning")
@pytest.mark.parametrize("f", OF_LISTS.values(), ids=OF_LISTS.keys())
def test_lists_that_hold_duals(f):
    verify(f, V)


def test_as_many_directions_as_the_list_is_long():
    x = numpy.array([1.0, 2.0])
    for derivative in (dn.jacfwd, dn.jacrev):
        j = derivative(lambda x: np.concatenate([x, [x[0], 3 * x[0]]]))(x)
        assert j.tolist() == [[1, 0], [0, 1], [1, 0], [3, 0]]
    assert dn.grad(lambda x: np.max([x[0], x[1]]))(x).tolist() == [0, 1]


def test_duals_of_two_levels_in_one_list():
    def outer(y):
        return dn.grad(lambda x: np.prod([x, y, x * y]))(y)  # x² y² → 2 x y² = 2 y³

    assert dn.grad(outer)(numpy.array(2.0)) == 24


def test_a_list_of_unequal_items_is_refused():
    with pytest.raises(ValueError, match=r"must have one shape; got \(2,\) and \(\)"):
        inside(lambda x: np.sum([x, 1.0]))
    with pytest.raises(ValueError, match=r"must have one shape; got \(0,\) and \(1,\)"):
        inside(lambda x: np.array([[], [x[0]]]))


def test_dtypes_of_lists_are_as_numpy_has_them():
    x = numpy.ones(2, numpy.float32)
    for f in (lambda x: np.array([x[0], x[1]]), lambda x: np.array([x[0], 1.0])):
        assert dn.jvp(f, (x,), (x,))[1].dtype == f(x).dtype


def test_functions_without_a_slope_take_lists_too():
    def f(x):
        assert np.argmax([x[0], x[1]]) == 1 and np.shape([[x[0]], [x[1]]]) == (2, 1)
        assert np.allclose([x[0], x[1]], [1.0, 2.0]) and np.array_equal([x[0]], [1.0])
        return x

    inside(f)


# --- functions that make arrays ------------------------------------------------------------------

MAKING = {
    "array": lambda x: np.array([[x[0], x[1]], [2.0, x[0] * x[2]]]),
    "array of a dual": lambda x: np.array(x) * x,
    "array, ndmin": lambda x: np.array([x[0], x[1]], ndmin=3) ** 2,
    "array of a tuple of rows": lambda x: np.array((x, [x[0], 1, 2], numpy.ones(3))) ** 2,
    "array of an array of objects": lambda x: np.array(as_objects(x)),
    "asarray": lambda x: np.asarray([x[0] ** 2, x[1]]),
    "asanyarray": lambda x: np.asanyarray(x) ** 2,
    "ascontiguousarray": lambda x: np.ascontiguousarray(x[0] ** 2),
    "asfortranarray": lambda x: np.asfortranarray([[x[0], x[1]]]) ** 2,
    "require": lambda x: np.require([x[0] ** 2], float),
    "atleast_1d": lambda x: np.atleast_1d(x[0] ** 2),
    "atleast_2d of a list": lambda x: np.atleast_2d([x[0] ** 2, x[1]]),
    "atleast_3d": lambda x: np.atleast_3d([x[0] ** 2, x[1]]),
    "full": lambda x: np.full((2, 3), x[0] ** 2),
    "full of a row": lambda x: np.full((2, 3), x**2),
    "full of a list": lambda x: np.full((2, 2), [x[0], x[1] ** 2]),
    "full, one length": lambda x: np.full(2, x[0] ** 2),
    "full_like": lambda x: np.full_like(numpy.ones((2, 2)), x[0] ** 2),
    "full_like of a dual": lambda x: np.full_like(x, x[0] ** 2),
    "full_like, shape": lambda x: np.full_like(x, x[1] ** 2, shape=(2, 2)),
    "linspace": lambda x: np.linspace(x[0] ** 2, x[1], 4),
    "linspace, endpoint": lambda x: np.linspace(x[0] ** 2, 1.0, 4, endpoint=False),
    "linspace of lists": lambda x: np.linspace([x[0], 1.0], [x[1], x[2] ** 2], 3, axis=-1),
    "logspace": lambda x: np.logspace(x[0], x[1], 3),
    "geomspace": lambda x: np.geomspace(x[0] ** 2, x[2], 4),
    "arange": lambda x: np.arange(x[0], 5.0, x[2] ** 2) ** 2,
    "arange to": lambda x: np.arange(x[2] ** 2) * x[0],
    "arange, step": lambda x: np.arange(0, 5, x[2] * 0.5) ** 2,
    "arange by keyword": lambda x: np.arange(x[0], stop=4, step=x[2]) ** 2,
    "r_": lambda x: np.r_[x[0], x**2, 1, [x[1], 2.0], 0:3, x[::-1]],
    "r_, ranges": lambda x: np.r_[0 : x[2] : 3j, x[0] : 4 : x[2]] ** 2,
    "r_, directive": lambda x: np.r_["0,2", x**2, x],
    "r_, directive of axes": lambda x: np.r_["1,2,0", x**2, x],
    "c_": lambda x: np.c_[x**2, x, [1.0, 2.0, x[0]]],
    "c_ of a row": lambda x: np.c_[x[None] ** 2, 0, x[1]],
    "block": lambda x: np.block([[np.outer(x, x), x[:, None]], [x[None], 1.0]]),
    "block of numbers": lambda x: np.block([x[0] ** 2, 1, x[1]]),
    "fromiter": lambda x: np.fromiter((a**2 for a in x), float),
    "fromiter, count": lambda x: np.fromiter((a**2 for a in x), float, count=2),
    "fromfunction": lambda x: np.fromfunction(lambda i, j: x[0] ** i * j, (2, 3)),
    "vectorize": lambda x: np.vectorize(lambda a, b: a * b if a > 0 else b**2)(x, x[::-1]),
    "vectorize, closure": lambda x: np.vectorize(lambda a: a * x[0] ** 2)([[1.0, 2.0]]),
    "vectorize, stretched": lambda x: np.vectorize(lambda a, b: a * b**2)(x, [[1.0], [2.0]]),
    "vectorize, excluded": lambda x: np.vectorize(weighted, excluded=[1])([1.0, 2.0], x**2),
    "vectorize, keyword": lambda x: np.vectorize(lambda a, b=1.0: a * b)(x, b=x[1]),
    "vectorize, otypes": lambda x: np.vectorize(lambda a: a if a > 0 else 0, otypes=[float])(x),
    "ndenumerate": lambda x: sum(a * i for (i,), a in np.ndenumerate(x**2)),
    "zeros_like, ones_like": lambda x: np.zeros_like(x) + np.ones_like(x) * x**2,
}


def as_objects(x):
    held = numpy.empty(2, object)
    held[0], held[1] = x[0] ** 2, x[1]
    return held if isinstance(x[0], Dual) else held.astype(x.dtype)


def weighted(a, weights):
    return a * weights[0] + weights[1]


@pytest.mark.parametrize("f", MAKING.values(), ids=MAKING.keys())
def test_functions_that_make_arrays(f):
    verify(f, V)


@pytest.mark.parametrize("f", MAKING.values(), ids=MAKING.keys())
def test_float32_is_kept_as_numpy_keeps_it(f):
    x = numpy.array(V, numpy.float32)
    plain, (out, t) = f(x), dn.jvp(f, (x,), (numpy.ones_like(x),))
    assert out.dtype == t.dtype == plain.dtype
    assert numpy.allclose(out, plain, rtol=1e-6, atol=0)  # np.vectorize hands on Python floats


def test_answers_by_hand():
    x = numpy.array([2.0, 5.0])
    assert dn.jacfwd(lambda x: np.full(2, x[1]))(x).tolist() == [[0, 1], [0, 1]]
    assert dn.jacrev(lambda x: np.linspace(x[0], x[1], 3))(x).tolist() == [
        [1, 0],
        [0.5, 0.5],
        [0, 1],
    ]
    assert dn.jacfwd(lambda x: np.arange(x[0], x[1], 2.0))(x).tolist() == [[1, 0], [1, 0]]
    assert dn.jacfwd(lambda x: np.r_[x[1], 7, x])(x).tolist() == [[0, 1], [0, 0], [1, 0], [0, 1]]
    assert dn.jacrev(lambda x: np.block([[x], [x[::-1]]]))(x).tolist() == [
        [[1, 0], [0, 1]],
        [[0, 1], [1, 0]],
    ]
    # 2 · 4 ** w for w = 0, 1/2, 1: by the first bound (1 - w) out / 2
    slopes = dn.jacfwd(lambda a: np.geomspace(a, 8.0, 3))(numpy.array(2.0))
    assert numpy.allclose(slopes, [1.0, 0.5 * 4 / 2, 0.0], rtol=1e-14)


def test_several_results_of_vectorize():
    x = numpy.array(V)
    both = np.vectorize(lambda a: (a**2, math.pi * a))
    _, (squares, multiples) = dn.jvp(both, (x,), (numpy.ones(3),))
    assert numpy.allclose(squares, 2 * x) and multiples.tolist() == [math.pi] * 3


def test_vectorize_as_a_decorator():
    @np.vectorize
    def relu(a):
        return a if a > 0 else 0.0

    @np.vectorize(otypes=[float])
    def square(a):
        return a**2

    x = numpy.array(V)
    assert dn.grad(lambda x: np.sum(relu(x)))(x).tolist() == [1, 0, 1]
    assert dn.grad(lambda x: np.sum(square(x)))(x).tolist() == (2 * x).tolist()


def test_vectorize_refuses_what_numpy_would_cut():
    first_is_int = np.vectorize(lambda a: 0 if a < 1.5 else a)
    assert first_is_int(numpy.array([1.0, 2.7])).tolist() == [0, 2]  # NumPy's own rule
    with pytest.raises(DualConversionError, match=r"first result is int64.*otypes=\[float\]"):
        inside(first_is_int)
    with pytest.raises(DualConversionError, match="signature="):
        inside(np.vectorize(np.sum, signature="(n)->()"))
    with pytest.raises(ValueError, match="size 0 need otypes="):
        inside(np.vectorize(np.sin), [])
    assert inside(np.vectorize(np.sin, otypes=[float]), [])[1].shape == (0,)


def test_a_conversion_to_integers_drops_the_tangent():
    out, t = inside(lambda x: np.array([x[0], x[1]], dtype=int) + x)
    assert out.tolist() == [2, 4] and t.tolist() == [1, 1]
    for dtype in (object, complex):
        with pytest.raises(DualConversionError, match="cannot hold duals"):
            inside(lambda x, dtype=dtype: np.array([x[0], x[1]], dtype=dtype))


def test_questions_look_at_values():
    def f(x):
        assert not np.isscalar(x) and np.iterable(x) and not np.iterable(x[0])
        assert np.isscalar(x[0]) == np.isscalar(numpy.ones(2)[0])
        return x

    inside(f)


def test_a_short_iterator_is_refused():
    with pytest.raises(ValueError, match="expected 3 items, got 2"):
        inside(lambda x: np.fromiter(iter(x), float, 3))


def test_draws_cannot_depend_on_duals():
    for f in (
        lambda x: np.random.normal(x[0], 1.0),
        lambda x: np.random.permutation(x),
        lambda x: np.random.uniform(high=x[1]),
        lambda x: np.random.normal([x[0], 1.0]),
    ):
        with pytest.raises(MissingRuleError, match=r"np\.random\.\w+: a draw.*standard_normal"):
            inside(f)
    np.random.seed(0)
    assert np.random.rand(3).tolist() == numpy.random.RandomState(0).rand(3).tolist()


# --- updates -------------------------------------------------------------------------------------

KEYS = {
    "an integer": 1,
    "from the end": (-1, 2),
    "a slice": slice(0, 1),
    "a step": (slice(None), slice(None, None, -2)),
    "ellipsis": (..., 0),
    "new axis": (None, 1),
    "all": slice(None),
    "nothing": slice(0, 0),
    "a list": [1, 0],
    "an array": numpy.array([[0, 1], [1, 0]]),
    "repeated": ([0, 1, 0, 0], [2, 1, 2, 0]),
    "negative repeats": (0, [2, -1, 0]),
    "a mask": numpy.array([[True, False, True], [False, False, True]]),
    "an empty mask": numpy.zeros((2, 3), bool),
    "a mask of one axis": (slice(None), numpy.array([True, False, True])),
    "stretched": (numpy.array([[0], [1]]), numpy.array([0, 2])),
    "True": True,
}


@pytest.mark.parametrize("kind", ["both", "x", "value"])
@pytest.mark.parametrize("at", KEYS.values(), ids=KEYS.keys())
@pytest.mark.parametrize("update", [np.put_at, np.add_at])
def test_updates(update, at, kind, rng):
    x = rng.uniform(-1, 1, (2, 3))
    value = rng.uniform(-1, 1, x[at].shape)
    expected = x.copy()
    if update is np.put_at:
        expected[at] = value
    else:
        numpy.add.at(expected, at, value)
    assert numpy.allclose(update(x, at, value), expected, rtol=1e-15, atol=1e-15)
    if kind == "both":
        verify(lambda x, v: np.sin(update(x * x, at, v * v)), x, value)
    elif kind == "x":
        verify(lambda x: np.sin(update(x * x, at, value)), x)
    elif value.size:
        verify(lambda v: np.sin(update(x, at, v * v)), value)


@pytest.mark.parametrize("update", [np.put_at, np.add_at])
def test_values_that_stretch(update):
    x = numpy.arange(6.0).reshape(2, 3)
    for key in (1, (slice(None), [0, 2]), [0, 1, 1], numpy.ones((2, 3), bool)):
        for value in (numpy.array(2.0), numpy.array([3.0]), numpy.array([[4.0]])):
            verify(lambda x, v, key=key: update(x * x, key, v * v), x, value)
        verify(lambda x, key=key: update(x, key, x[0, 0] ** 2), x)
        verify(lambda x, key=key: update(x * x, key, 0.5), x)


def test_updates_by_hand():
    x, v = numpy.array([1.0, 2.0, 3.0]), numpy.array([5.0, 7.0])
    by_x, by_v = dn.jacrev(lambda x, v: np.put_at(x, [2, 2], v), (0, 1))(x, v)
    assert by_x.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert by_v.tolist() == [[0, 0], [0, 0], [0, 1]]  # the last wins
    by_x, by_v = dn.jacfwd(lambda x, v: np.add_at(x, [2, 2], v), (0, 1))(x, v)
    assert by_x.tolist() == numpy.eye(3).tolist()
    assert by_v.tolist() == [[0, 0], [0, 0], [1, 1]]
    assert x.tolist() == [1, 2, 3]  # nothing was written to


def test_what_is_overwritten_does_not_matter():
    x = numpy.array([numpy.nan, 1.0])
    out, t = dn.jvp(lambda x: np.put_at(np.log(x), 0, x[1]), (x,), (numpy.ones(2),))
    assert out.tolist() == [1, 0] and t.tolist() == [1, 1]
    (ct,) = dn.vjp(lambda x: np.put_at(x, 0, x[1]), x)[1](numpy.ones(2))
    assert ct.tolist() == [0, 2]


def test_updates_take_lists():
    assert np.put_at([1.0, 2.0], 0, 3).tolist() == [3, 2]
    j = dn.jacfwd(lambda x: np.put_at([x[0], 2.0, 0.0], [1, 2], [x[1], x[0]]))(numpy.ones(2))
    assert j.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert np.put_at(np.zeros((), float), (), 2.0).tolist() == 2


@pytest.mark.parametrize("update", [np.put_at, np.add_at])
def test_updates_keep_the_dtype_of_x(update):
    for dtype in (numpy.float32, numpy.float64):
        x = numpy.zeros(3, dtype)
        out, t = dn.jvp(
            lambda v, x=x: update(x, [0, 0], v), (V[:1] * numpy.ones(2),), (numpy.ones(2),)
        )
        assert out.dtype == t.dtype == dtype
        out, t = dn.jvp(lambda x: update(x, 0, 2.5), (x,), (x,))
        assert out.dtype == t.dtype == dtype


@pytest.mark.parametrize("update", [np.put_at, np.add_at])
def test_updates_that_are_refused(update):
    name = update.__name__
    for x in (numpy.zeros(3, int), numpy.zeros(3, bool), numpy.zeros(3, complex)):
        with pytest.raises(TypeError, match=rf"{name}: .* can hold float64, got {x.dtype}"):
            inside(lambda v, x=x: update(x, 0, v[0]))
    with pytest.raises(TypeError, match=rf"{name}: .*complex128"):
        inside(lambda x: update(x, 0, 1j))
    with pytest.raises(ValueError, match=rf"{name}: .* of shape \(2,\), got one of shape \(3,\)"):
        update(numpy.zeros(4), [0, 1], numpy.ones(3))
    with pytest.raises(IndexError, match="out of bounds"):
        inside(lambda x: update(x, 7, 1.0))


def test_updates_on_a_device(cupy_backend):
    asarray, asnumpy = cupy_backend.asarray, cupy_backend.to_host
    x, v = numpy.arange(6.0).reshape(2, 3), numpy.array([2.0, 3.0])
    for update in (np.put_at, np.add_at):
        for at in ((0, slice(0, 2)), (slice(None), 1), ([0, 1], [2, 0])):
            f = functools.partial(lambda update, at, x, v: update(x * x, at, v), update, at)
            found = [
                (dn.jvp(f, (x, v), (x, v)), dn.jacrev(f, (0, 1))(x, v))
                for x, v in ((x, v), (asarray(x), asarray(v)))
            ]
            for a, b in zip(*map(dn.tree.leaves, found), strict=True):
                assert numpy.array_equal(a, asnumpy(b))
    f = lambda v: np.sum([v[0], 2.0, v[1] ** 2])  # noqa: E731
    assert asnumpy(dn.grad(f)(asarray(v))).tolist() == [1, 6]


# --- programs as they are written for HIPS/autograd ----------------------------------------------


def tanh_by_hand(x):
    y = np.exp(-2.0 * x)
    return (1.0 - y) / (1.0 + y)


def logistic_regression(weights):
    inputs = np.array([[0.52, 1.12, 0.77], [0.88, -1.08, 0.15], [0.52, 0.06, -1.30]])
    targets = np.array([True, True, False])
    predictions = 0.5 * (np.tanh(np.dot(inputs, weights)) + 1)
    label_probabilities = predictions * targets + (1 - predictions) * (1 - targets)
    return -np.sum(np.log(label_probabilities))


def rosenbrock(x):
    return np.sum([100 * (b - a**2) ** 2 + (1 - a) ** 2 for a, b in itertools.pairwise(x)])


def euler_in_a_buffer(p):
    n, h = 20, 0.1
    y = np.put_at(np.zeros(n), 0, p[0])
    for i in range(1, n):
        y = np.put_at(y, i, y[i - 1] + h * (p[1] * y[i - 1] - p[2] * y[i - 1] ** 2))
    return np.sum(y**2)


def rotated_points(p):
    c, s = np.cos(p[0]), np.sin(p[0])
    rotation = np.array([[c, -s], [s, c]])
    points = np.array([[1.0, 0.0], [0.5, 2.0]])
    return np.linalg.norm(np.dot(points, rotation.T) - np.array([p[1], p[2]]))


def gaussian_process(p):
    x = np.linspace(0, 1, 5)
    y = np.sin(3 * x)
    differences = (x[:, None] - x) / np.exp(p[0])
    covariance = np.exp(p[1] - 0.5 * differences**2) + np.exp(p[2]) * np.eye(len(x))
    _, log_det = np.linalg.slogdet(covariance)
    return 0.5 * np.dot(y, np.linalg.solve(covariance, y)) + 0.5 * log_det


def lengths_of_a_path(p):
    path = [np.array([0.0, 0.0])]
    for angle in p:
        path.append(path[-1] + np.array([np.cos(angle), np.sin(angle)]))
    return np.array([np.linalg.norm(a) for a in path[1:]])


def mixture(p):
    x = np.array([-1.0, 0.3, 2.0])
    means, log_weights = np.array([p[0], p[1]]), np.array([p[2], 0.0])
    terms = log_weights - 0.5 * (x[:, None] - means) ** 2
    top = np.max(terms, axis=1, keepdims=True)
    normalizer = np.log(np.sum(np.exp(log_weights)))
    return -np.sum(np.log(np.sum(np.exp(terms - top), axis=1)) + top[:, 0] - normalizer)


def spline_through_knots(p):
    knots = np.r_[0.0, p, 0.0]
    slopes = np.concatenate(([0.0], 0.5 * (knots[2:] - knots[:-2]), [0.0]))
    t = np.linspace(0, 1, 7)[:, None]
    values = (
        knots[:-1] * (1 + 2 * t) * (1 - t) ** 2
        + slopes[:-1] * t * (1 - t) ** 2
        + knots[1:] * t**2 * (3 - 2 * t)
        + slopes[1:] * t**2 * (t - 1)
    )
    return np.mean(np.square(values), axis=0)


def histogram_of_forces(p):
    forces = np.zeros(4)
    for i, j in ((0, 1), (1, 2), (2, 3), (0, 3)):
        pull = (j - i) * p[i % 3] ** 2
        forces = np.add_at(forces, [i, j], np.array([pull, -pull]))
    return forces


def recurrent_network(p):
    hidden = np.full(2, p[0])
    weights = np.block([[p[1], 0.5], [0.1, np.ones((1, 1)) * p[2]]])
    outputs = []
    for step in range(4):
        hidden = np.tanh(np.dot(weights, hidden) + 0.1 * step)
        outputs.append(np.mean(hidden))
    return np.std(outputs) + np.max(outputs)


PROGRAMS = (
    *(tanh_by_hand, logistic_regression, rosenbrock, euler_in_a_buffer, rotated_points),
    *(gaussian_process, lengths_of_a_path, mixture, spline_through_knots, histogram_of_forces),
    recurrent_network,
)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_programs(program):
    verify(program, V)


def test_the_hessian_of_rosenbrock_by_hand():
    h = dn.jacfwd(dn.grad(rosenbrock))(numpy.array([1.0, 1.0]))
    assert numpy.allclose(h, [[802, -400], [-400, 200]], rtol=1e-14)


def test_the_page_about_the_module_runs():
    text = (Path(__file__).parent.parent / "docs/numpy.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names = {}
    exec(compile(block, "numpy.md", "exec"), names)
    # y = (1 - 0.1 r)^49, and the norm of rotated points does not depend on the angle
    assert numpy.isclose(names["slope"], -4.9 * 0.95**48, rtol=1e-12)
    assert numpy.allclose(names["gradient"], [0, 2], atol=1e-14)


def test_lists_of_python_floats_that_are_differentiated():
    """They are duals of a kind of their own, which lists must not miss."""
    assert dn.grad(lambda x: dn.numpy.mean([x, 2 * x, 3.0]))(2.0) == 1.0
