"""Inputs at the edges give the right value or a clear refusal, and never a wrong number."""

import itertools
import re
import warnings

import numpy as np
import pytest
from edge_inputs import EDGES, KINDS, Edge, Either, MayBeNaN, Refused
from peers import peer

import dualnet as dn
from dualnet.errors import DualnetError


def failure_of(edge):
    """Run a row, and say what is wrong with what it gives; None where it is right."""
    choices = edge.right.choices if isinstance(edge.right, Either) else (edge.right,)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", PendingDeprecationWarning)  # of np.matrix
            given = edge.program()
    except Exception as error:
        if any(isinstance(choice, Refused) and refuses(choice, error) for choice in choices):
            return None
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    if any(not isinstance(choice, Refused) and same(choice, given) for choice in choices):
        return None
    return " ".join(repr(given).split())


def refuses(refused, error):
    """Tell whether an error is the refusal that is right."""
    return isinstance(error, refused.errors) and re.search(refused.piece, str(error)) is not None


def same(right, given):
    """Compare trees of arrays, to the precision of their dtype."""
    if isinstance(right, (str, type(None))):
        return type(given) is type(right) and right == given
    if isinstance(right, dict):
        alike = isinstance(given, dict) and list(right) == list(given)
        return alike and all(same(right[name], given[name]) for name in right)
    if isinstance(right, (tuple, list)) and isinstance(given, (tuple, list)):
        alike = len(right) == len(given)
        return alike and all(itertools.starmap(same, zip(right, given, strict=True)))
    try:
        given = np.asarray(given)
        wanted = np.asarray(right.value if isinstance(right, MayBeNaN) else right, float)
    except (DualnetError, ValueError):
        return False
    if given.shape != wanted.shape or given.dtype.kind not in "fi":
        return False
    if isinstance(right, MayBeNaN):
        wanted = np.where(np.isnan(given), np.nan, wanted)
    finite = np.abs(wanted[np.isfinite(wanted)])
    close = np.isclose(
        given.astype(float),
        wanted,
        rtol=1e-2 if given.dtype == np.float16 else 1e-5,
        atol=1e-12 * finite.max() if finite.size else 0.0,
        equal_nan=True,
    )
    return bool(np.all(close))


@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_an_edge(edge):
    wrong = failure_of(edge)
    assert wrong is None, f"{edge}: gives {wrong}; right is {edge.right}"


def test_every_kind_has_rows_enough():
    for kind in KINDS:
        assert sum(edge.kind == kind for edge in EDGES) >= 6, kind
    names = [str(edge) for edge in EDGES]
    assert len(set(names)) == len(names)


# --- a wrong number must be seen -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "given"),
    [
        (np.ones(2), np.array([1.0, 1.001])),
        (np.ones(2), np.ones((1, 2))),
        (np.ones(2), np.array([1.0, np.nan])),
        ((1.0, np.ones(2)), (1.0, np.zeros(2))),
        ({"a": np.ones(2)}, {"b": np.ones(2)}),
        (("float32", np.ones(2)), ("float64", np.ones(2))),
        (Refused("order"), np.ones(2)),
        (Either((np.ones(2), Refused())), np.zeros(2)),
        (MayBeNaN(np.ones(2)), np.array([np.nan, 2.0])),
        (np.float16([1.0]), np.float16([1.03])),
        (0.0, np.array(1e-30)),
        (None, 0.0),
    ],
)
def test_what_is_wrong_is_seen(right, given):
    assert failure_of(Edge("none", "wrong", lambda: given, right)) is not None


def test_a_wrong_refusal_is_seen():
    def fail():
        raise ValueError("another cause")

    for right in (np.ones(2), Refused("order", (ValueError,)), Refused("cause")):
        assert failure_of(Edge("none", "wrong", fail, right)) is not None
    assert failure_of(Edge("none", "right", fail, Refused("cause", (ValueError,)))) is None
    some = MayBeNaN(np.ones(2))
    assert failure_of(Edge("none", "right", lambda: np.array([np.nan, 1.0]), some)) is None


# --- what random programs have found -------------------------------------------------------------


def derivatives(f, x):
    """The value, the derivative in both modes, and the Hessian of the sum of squares."""
    value, moved = dn.jvp(f, (x,), (np.ones_like(x),))
    pulled = dn.vjp(f, x)[1](np.ones_like(value))[0]
    hessian = dn.jacfwd(dn.grad(lambda x: np.sum(np.square(f(x)))))(x)
    return value, moved, pulled, hessian


def of_scipy():
    return peer("scipy.special", "scipy")


BESIDE_CONSTANTS = {
    "c ** x": lambda x, c: c**x,
    "x ** c": lambda x, c: x**c,
    "float_power": lambda x, c: np.float_power(c, x),
    "arctan2": lambda x, c: np.arctan2(x, c) + np.arctan2(c, x),
    "hypot": lambda x, c: np.hypot(x, c),
    "ldexp": lambda x, c: np.ldexp(x, c if c.dtype.kind in "iu" else c.astype(int)),
    "xlogy": lambda x, c: of_scipy().xlogy(x, c),
    "xlog1py": lambda x, c: of_scipy().xlog1py(x, c),
    "rel_entr": lambda x, c: of_scipy().rel_entr(x, c),
    "einsum": lambda x, c: np.einsum("i,j,j,i->i", x, c, c, c),
    "interp": lambda x, c: np.interp(x, np.array([0, 1, 2], c.dtype) * c[1], c),
    "average": lambda x, c: np.average(x, weights=c) * x,
    "lstsq": lambda x, c: np.linalg.lstsq(np.stack([c, c[::-1]], 1), x)[0],
    "polyval": lambda x, c: np.polyval(c, x),
    "cov": lambda x, c: np.cov(x, c),
    "trapezoid": lambda x, c: np.trapezoid(x, np.cumsum(c, dtype=float)) * x,
    "solve": lambda x, c: np.linalg.solve(np.diag(c) + np.ones((3, 3)), x),
}
NARROW = {
    **{dtype: np.array([3, 1, 2], dtype) for dtype in ("int8", "uint8", "int16", "int64")},
    **{dtype: np.array([2.7, 1.1, 3.3], dtype) for dtype in ("float16", "float32")},
    "large int8": np.array([90, 101, 125], "int8"),
}


REFUSED_BY_NUMPY = {("solve", "float16"), ("lstsq", "float16"), ("interp", "large int8")}
"""Its linear algebra takes no float16, and it multiplies knots as integers, in int8."""


@pytest.mark.parametrize(
    ("name", "narrow"), sorted({*itertools.product(BESIDE_CONSTANTS, NARROW)} - REFUSED_BY_NUMPY)
)
def test_a_narrow_constant_does_not_make_derivatives_imprecise(name, narrow):
    f, c, x = BESIDE_CONSTANTS[name], NARROW[narrow], np.array([0.7, 1.3, 0.4])
    assert np.allclose(f(x, c), f(x, c.astype(float)), 1e-12, 0), "NumPy itself is imprecise"
    found = derivatives(lambda x: f(x, c), x)
    right = derivatives(lambda x: BESIDE_CONSTANTS[name](x, c.astype(float)), x)
    for a, b in zip(found, right, strict=True):
        assert np.abs(a - b).max() <= 1e-11 * np.abs(b).max()


@pytest.mark.parametrize("c", [True, np.True_, np.array([True, False, True])], ids=repr)
@pytest.mark.parametrize("ufunc", [np.arctan2, np.hypot, np.power, np.logaddexp, np.multiply])
def test_booleans_are_numbers_to_ufuncs(ufunc, c):
    x = np.array([0.7, 1.3, 0.4])
    for f in (lambda x, c: ufunc(x, c), lambda x, c: ufunc(c, x)):
        found = derivatives(lambda x, f=f: f(x, c), x)
        right = derivatives(lambda x, f=f: f(x, np.asarray(c, float)), x)
        assert all(itertools.starmap(np.allclose, zip(found, right, strict=True)))


def test_the_logarithm_beside_a_boolean_is_precise():
    slope = dn.grad(lambda x: of_scipy().xlog1py(x, True))(np.array(0.7))
    assert np.isclose(slope, np.log(2.0), 1e-15)


def test_heaviside_has_a_slope_by_its_value_at_0():
    x, y = np.array([-1.0, 0.0, 2.0, 0.0]), np.array([0.5, 0.5, 0.5, 3.0])
    value, slope = dn.jvp(lambda y: np.heaviside(x, y), (y,), (np.ones(4),))
    assert np.array_equal(value, [0, 0.5, 1, 3])
    assert np.array_equal(slope, [0, 1, 0, 1])
    assert np.array_equal(dn.grad(lambda x, y: np.heaviside(x, y).sum(), 1)(x, y), slope)
    assert np.array_equal(dn.grad(lambda x: np.sum(np.heaviside(x, y) * x))(x), [0, 0.5, 1, 3])


ONE_OF_THREE = np.array([False, True, False])
CONSTANT_DEVIATIONS = {
    "one counts": lambda x: np.std(x, where=ONE_OF_THREE),
    "one counts, kept": lambda x: np.std(x[None], (0, 1), where=ONE_OF_THREE, keepdims=True)[0, 0],
    "one is a number": lambda x: np.nanstd(np.where(ONE_OF_THREE, x, np.nan)),
    "one entry": lambda x: np.std(x[1:2]),
    "one entry of rank 0": lambda x: np.std(x[1]),
    "one entry along an axis": lambda x: np.std(x[None], axis=0).sum(),
}


@pytest.mark.parametrize("middle", [-2.6754010206157086, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("name", CONSTANT_DEVIATIONS)
def test_the_deviation_of_one_entry_does_not_move(name, middle):
    x, f = np.array([0.3, middle, 0.9]), CONSTANT_DEVIATIONS[name]
    assert np.array_equal(dn.grad(f)(x), np.zeros(3))
    assert np.array_equal(dn.jvp(f, (x,), (np.eye(3),))[1], np.zeros(3))
    assert np.array_equal(dn.jacfwd(dn.grad(f))(x), np.zeros((3, 3)))


@pytest.mark.parametrize("entry", [0.1, 0.7, 1e-9, 3.3, -2.6754010206157086])
@pytest.mark.parametrize("n", [3, 5, 6, 7, 11])
def test_the_deviation_of_equal_entries_has_the_slope_0(n, entry):
    """The mean of equal entries may be rounded, and then their deviation is not 0."""
    equal = np.full(n, entry)
    for f in (np.std, lambda x: np.std(x, where=np.ones(n, bool)), np.nanstd):
        assert np.abs(dn.grad(f)(equal)).max() < 1e-8
        hessian = dn.jacfwd(dn.grad(lambda x, f=f: f(x) ** 2))(equal)
        right = 2 / n * (np.eye(n) - 1 / n)
        assert np.isnan(hessian).all() or np.allclose(hessian, right)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2, 3, 6, 7])
def test_copies_that_tie_keep_their_second_derivative(n, dtype):
    x, d = np.array([0.3, 1.7], dtype), np.array([0.37, 0.11], dtype)
    for f in (
        lambda x: np.max(np.repeat(x**3, n)),
        lambda x: np.max(np.tile(x**3, (n, 1)), axis=(0, 1)),
        lambda x: np.sum(np.max(np.stack([x**3] * n), axis=0) * np.array([0, 1], dtype)),
        lambda x: -np.min(np.stack([-(x[1] ** 3)] * n)),
    ):
        second = dn.jvp(dn.grad(f), (x,), (d,))[1]
        assert np.allclose(second, [0, 6 * 1.7 * 0.11], 1e-5)
    parting = dn.jvp(dn.grad(lambda x: np.max(np.stack([x[1], x[1] ** 2 / 1.7]))), (x,), (d,))
    assert np.isnan(parting[1][1]) or dtype is np.float32
