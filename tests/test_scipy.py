"""SciPy's functions: its ufuncs as they stand, and the others by name in dualnet.scipy."""

import math
import re
import subprocess
import sys

import numpy as np
import pytest
from peers import peer

import dualnet as dn
from dualnet.errors import DualConversionError, MissingRuleError, UsageError

special = peer("scipy.special", "scipy")
linalg = peer("scipy.linalg", "scipy")
stats = peer("scipy.stats", "scipy")
import dualnet.scipy as ds  # noqa: E402, which needs SciPy

WIDE = np.array([-3.1, -0.7, 0.4, 1.9, 4.2])
UNIT = np.array([0.03, 0.2, 0.5, 0.77, 0.96])
POSITIVE = np.array([0.3, 0.9, 1.4, 2.6, 5.5])

UFUNCS = {
    "erf": (WIDE,),
    "erfc": (WIDE,),
    "erfinv": (2 * UNIT - 1,),
    "ndtr": (WIDE,),
    "ndtri": (UNIT,),
    "log_ndtr": (WIDE,),
    "expit": (WIDE,),
    "log_expit": (WIDE,),
    "logit": (UNIT,),
    "gammaln": (np.array([-2.4, -0.3, 0.4, 1.3, 6.1]),),
    "loggamma": (POSITIVE,),
    "gamma": (np.array([-1.4, -0.3, 0.4, 1.3, 4.1]),),
    "digamma": (np.array([0.2, 0.8, 1.5, 3.3, 7.1]),),
    "xlogy": (WIDE, POSITIVE),
    "xlog1py": (WIDE, POSITIVE),
    "entr": (POSITIVE,),
    "rel_entr": (POSITIVE, POSITIVE[::-1].copy()),
    "kl_div": (POSITIVE, POSITIVE[::-1].copy()),
    "beta": (POSITIVE, POSITIVE[::-1].copy()),
    "betaln": (POSITIVE, POSITIVE[::-1].copy()),
    "expm1": (WIDE,),
    "log1p": (POSITIVE,),
    "exp2": (WIDE,),
    "exp10": (UNIT,),
    "cbrt": (WIDE,),
    "i0": (WIDE,),
    "i0e": (WIDE,),
    "i1": (WIDE,),
    "i1e": (WIDE,),
}


@pytest.mark.parametrize("name", UFUNCS)
def test_a_ufunc_of_scipy_has_its_derivatives(name):
    f, args = getattr(special, name), UFUNCS[name]
    ones = tuple(map(np.ones_like, args))
    assert np.array_equal(dn.jvp(f, args, ones)[0], f(*args))
    dn.check_jvp(f, args, order=2)
    dn.check_vjp(f, args)
    twice = dn.jacrev(dn.jacrev(lambda *a: f(*a).sum()))(*args)
    np.testing.assert_allclose(
        twice, dn.jacfwd(dn.jacfwd(lambda *a: f(*a).sum()))(*args), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("name", UFUNCS)
def test_a_ufunc_of_scipy_does_not_widen(name):
    f, args = getattr(special, name), UFUNCS[name]
    single = tuple(x.astype(np.float32) for x in args)
    out, moved = dn.jvp(f, single, tuple(map(np.ones_like, single)))
    assert out.dtype == moved.dtype == np.float32
    wanted = dn.jvp(f, args, tuple(map(np.ones_like, args)))[1]
    np.testing.assert_allclose(moved, wanted, rtol=2e-4, atol=2e-5)
    everywhere = tuple(range(len(args)))
    slopes = dn.grad(lambda *a: dn.grad(lambda *b: f(*b).sum())(*a).sum(), everywhere)(*single)
    assert all(slope.dtype == np.float32 and np.all(np.isfinite(slope)) for slope in slopes)


def slope(f, at, n=1, dtype=float):
    """The n-th derivative of a function of one number, by reverse mode and forward mode."""
    for _ in range(n):
        f = dn.grad(f)
    return f(np.asarray(at, dtype))


def test_broadcasting_and_parts_of_a_program():
    x, y = np.array([[0.3], [1.2]]), np.array([0.5, 2.0, 3.0])
    dn.check_vjp(special.xlogy, (x, y))
    dn.check_jvp(lambda x, y: special.rel_entr(x, 2.0) + special.xlogy(3.0, y), (x, y), order=2)

    def black_scholes(s, k, r, v, t):
        d = (np.log(s / k) + (r + v**2 / 2) * t) / (v * np.sqrt(t))
        return s * special.ndtr(d) - k * np.exp(-r * t) * special.ndtr(d - v * np.sqrt(t))

    dn.check_jvp(black_scholes, (100.0, 90.0, 0.02, 0.3, 0.7), order=2)


# --- edges ---------------------------------------------------------------------------------------

E = np.exp(1.0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("name", "at", "first", "second"),
    [
        ("erf", 0.0, 2 / np.sqrt(np.pi), 0.0),
        ("erf", 40.0, 0.0, 0.0),
        ("erf", 1e30, 0.0, 0.0),
        ("erfc", -1e30, 0.0, 0.0),
        ("erf", np.inf, 0.0, 0.0),
        ("ndtr", -1e25, 0.0, 0.0),
        ("ndtri", 0.5, np.sqrt(2 * np.pi), 0.0),
        ("expit", 80.0, np.exp(-80.0), -np.exp(-80.0)),
        ("expit", -80.0, np.exp(-80.0), np.exp(-80.0)),
        ("expit", 2000.0, 0.0, 0.0),
        ("log_expit", -2000.0, 1.0, 0.0),
        ("log_expit", 80.0, np.exp(-80.0), -np.exp(-80.0)),
        ("log_ndtr", -1e3, 1000.000999998, -0.999999000006),
        ("log_ndtr", -1e6, 1e6 + 1e-6, -1.0),
        ("log_ndtr", -1e18, 1e18, -1.0),
        ("log_ndtr", 50.0, 0.0, 0.0),
        ("i0", 0.0, 0.0, 0.5),
        ("i1", 0.0, 0.5, 0.0),
        ("i1", 1e-5, 0.5 + 1.875e-11, 0.375e-5 + 5.20833e-17),
        ("i0e", 0.0, 0.0, np.nan),  # a kink
        ("i0e", 1e10, -1.9947114020819783e-16, 2.99206710319775e-26),
        ("i1e", 0.0, 0.5, 0.0),
        ("entr", 1.0, -1.0, -1.0),
    ],
)
def test_edges(name, at, first, second, dtype):
    f = getattr(special, name)
    rtol = 1e-11 if dtype is np.float64 else 3e-5
    for n, wanted in ((1, first), (2, second)):
        np.testing.assert_allclose(slope(f, at, n, dtype), wanted, rtol=rtol, atol=1e-30)


def test_the_slope_of_log_ndtr_is_smooth_where_its_formula_changes():
    x = np.linspace(-25.2, -24.8, 41)
    second = dn.jvp(dn.jacfwd(special.log_ndtr), (x,), (np.ones_like(x),))[1].sum(0)
    np.testing.assert_allclose(second, -1 + 1 / x**2 - 6 / x**4 + 50 / x**6 - 518 / x**8, rtol=1e-9)


def test_higher_orders_of_bessel_functions_at_zero():
    # i1 is x/2 + x³/16 + x⁵/384 + …
    assert slope(special.i1, 0.0, 3) == pytest.approx(6 / 16)
    assert slope(special.i1, 0.0, 5) == pytest.approx(120 / 384)
    assert slope(special.i0, 0.0, 4) == pytest.approx(24 / 64)


def test_polygamma_of_every_order():
    for n in range(1, 5):
        wanted = special.polygamma(n, 1.7)
        assert slope(special.digamma, 1.7, n) == pytest.approx(wanted, rel=1e-12)
    # By ψ(1 - x) - ψ(x) = π cot πx, at x = -3/2, where cot and its second derivative are 0:
    wanted = special.polygamma(2, 2.5)
    assert slope(special.digamma, -1.5, 2) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.filterwarnings("ignore:divide by zero|invalid value:RuntimeWarning")
def test_entropies_at_zero():
    by_x, by_y = dn.grad(special.xlogy, (0, 1))(0.0, 2.0)
    assert (by_x, by_y) == (np.log(2.0), 0.0)
    assert dn.grad(lambda y: special.xlogy(0.0, y))(0.0) == 0.0
    assert dn.grad(special.xlogy)(0.0, 0.0) == -np.inf
    assert dn.grad(dn.grad(special.xlogy, 1), 0)(0.0, 2.0) == 0.5
    assert not np.isfinite(dn.grad(dn.grad(special.xlogy, 1), 0)(0.0, 0.0))
    assert dn.grad(lambda y: special.xlog1py(0.0, y))(-1.0) == 0.0
    assert slope(special.entr, 0.0) == np.inf
    assert dn.grad(lambda y: special.rel_entr(0.0, y))(0.0) == 0.0
    assert dn.grad(special.rel_entr)(0.0, 2.0) == -np.inf
    assert np.isnan(slope(special.entr, -1.0))  # it is -inf there


# --- functions that are no ufuncs ----------------------------------------------------------------

RNG = np.random.default_rng(3)
X = RNG.normal(size=(3, 4))
A = RNG.normal(size=(3, 3))
SPD = A @ A.T + 2 * np.eye(3)
B = RNG.normal(size=(3, 2))
W = RNG.uniform(0.5, 2, size=(3, 4))

CALLS = {
    "logsumexp": (ds.logsumexp, special.logsumexp, (X,), {}),
    "logsumexp axis": (ds.logsumexp, special.logsumexp, (X,), {"axis": 1}),
    "logsumexp kept": (ds.logsumexp, special.logsumexp, (X, (0, 1)), {"keepdims": True}),
    "softmax": (ds.softmax, special.softmax, (X,), {}),
    "softmax axis": (ds.softmax, special.softmax, (X,), {"axis": 0}),
    "log_softmax": (ds.log_softmax, special.log_softmax, (X,), {}),
    "log_softmax axis": (ds.log_softmax, special.log_softmax, (X,), {"axis": -1}),
    "expm": (ds.expm, linalg.expm, (A,), {}),
    "expm of a stack": (ds.expm, linalg.expm, (np.stack([A, 0.1 * A.T]),), {}),
    "norm": (ds.norm.logpdf, stats.norm.logpdf, (X,), {}),
}
BY_ALL = {
    "logsumexp b": (
        lambda a, b: ds.logsumexp(a, 1, b),
        lambda a, b: special.logsumexp(a, 1, b),
        (X, W),
    ),
    "logsumexp b broadcast": (
        lambda a, b: ds.logsumexp(a, 0, b, keepdims=True),
        lambda a, b: special.logsumexp(a, 0, b, keepdims=True),
        (X, W[0]),
    ),
    "triangular": (ds.solve_triangular, linalg.solve_triangular, (SPD, B)),
    "triangular vector": (ds.solve_triangular, linalg.solve_triangular, (SPD, B[:, 0])),
    "triangular lower": (
        lambda a, b: ds.solve_triangular(a, b, lower=True, trans="T"),
        lambda a, b: linalg.solve_triangular(a, b, lower=True, trans="T"),
        (SPD, B),
    ),
    "triangular unit": (
        lambda a, b: ds.solve_triangular(a, b, lower=True, trans=1, unit_diagonal=True),
        lambda a, b: linalg.solve_triangular(a, b, lower=True, trans=1, unit_diagonal=True),
        (SPD, B),
    ),
    "cho_solve lower": (
        lambda c, b: ds.cho_solve((c, True), b),
        lambda c, b: linalg.cho_solve((c, True), b),
        (SPD, B),
    ),
    "cho_solve upper": (
        lambda c, b: ds.cho_solve((c, False), b),
        lambda c, b: linalg.cho_solve((c, False), b),
        (SPD, B[:, 1]),
    ),
    "norm by all": (ds.norm.logpdf, stats.norm.logpdf, (X, X[0], W)),
    "multivariate": (
        lambda x, m, a: ds.multivariate_normal.logpdf(x, m, a @ a.T + np.eye(3, dtype=a.dtype)),
        lambda x, m, a: stats.multivariate_normal.logpdf(x, m, a @ a.T + np.eye(3, dtype=a.dtype)),
        (X.T.copy(), B[:, 0], A),
    ),
    "multivariate of one point": (
        lambda x, m: ds.multivariate_normal.logpdf(x, m, SPD.astype(x.dtype)),
        lambda x, m: stats.multivariate_normal.logpdf(x, m, SPD),
        (B[:, 1], B[:, 0]),
    ),
} | {
    name: (
        lambda x, f=f, args=args, kw=kw: f(x, *args[1:], **kw),
        lambda x, f=f, g=g, args=args, kw=kw: g(x, *args[1:], **kw),
        args[:1],
    )
    for name, (f, g, args, kw) in CALLS.items()
}


@pytest.mark.parametrize("name", BY_ALL)
def test_a_function_by_name_has_scipys_values_and_its_derivatives(name):
    f, original, args = BY_ALL[name]
    wanted = original(*args)
    np.testing.assert_allclose(f(*args), wanted, rtol=1e-11, atol=1e-12)
    out, _ = dn.jvp(f, args, tuple(map(np.ones_like, args)))
    np.testing.assert_allclose(out, wanted, rtol=1e-11, atol=1e-12)
    dn.check_jvp(f, args, order=2)
    dn.check_vjp(f, args)
    x, rest = args[0], args[1:]
    over = dn.jacfwd(dn.grad(lambda x: np.sum(f(x, *rest))))(x)
    np.testing.assert_allclose(
        over, dn.jacrev(dn.grad(lambda x: np.sum(f(x, *rest))))(x), rtol=1e-8, atol=1e-9
    )
    single = tuple(a.astype(np.float32) for a in args)
    out, moved = dn.jvp(f, single, tuple(map(np.ones_like, single)))
    assert out.dtype == moved.dtype == np.float32


def test_logsumexp_at_large_and_masked_entries():
    x = np.array([1e4, 0.0, -np.inf])
    np.testing.assert_array_equal(dn.grad(ds.logsumexp)(x), [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(dn.grad(ds.logsumexp)(np.array([-1e4, -1e4])), [0.5, 0.5])
    hessian = dn.jacfwd(dn.grad(ds.logsumexp))(np.zeros(2))
    np.testing.assert_allclose(hessian, [[0.25, -0.25], [-0.25, 0.25]])
    assert ds.log_softmax(np.array([0.0, 1e4]))[0] == -1e4
    np.testing.assert_allclose(dn.jacfwd(ds.softmax)(np.array([0.0, 2e3])), 0.0)


@pytest.mark.parametrize("how", [{"axis": 0}, {"axis": 0, "b": 0.5}, {"axis": -1, "b": 0.5}])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), ()])
def test_logsumexp_without_entries_and_of_a_number(shape, how):
    a = np.full(shape, 2.0)
    value, tangents = dn.jvp(lambda a: ds.logsumexp(a, **how), (a,), (np.ones((2, *shape)),))
    with np.errstate(divide="ignore"):
        expected = special.logsumexp(a, **how)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(tangents, np.full((2, *expected.shape), float(a.size)))


def test_weights_of_logsumexp_that_are_zero_or_negative():
    a, mask = np.array([900.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0])
    wanted = special.softmax(a[1:])
    assert ds.logsumexp(a, b=mask) == pytest.approx(special.logsumexp(a, b=mask), rel=1e-14)
    np.testing.assert_allclose(dn.grad(lambda a: ds.logsumexp(a, b=mask))(a), [0, *wanted])
    signed = np.array([-1.0, 3.0])
    dn.check_jvp(lambda b: ds.logsumexp(np.array([1.0, 2.0]), b=b), (signed,), order=2)
    by_weight = dn.grad(lambda b: ds.logsumexp(np.array([1.0, 2.0]), b=b))(np.array([0.0, 1.0]))
    np.testing.assert_allclose(by_weight, [np.exp(-1.0), 1.0])


@pytest.mark.parametrize(
    "f",
    [
        lambda x, s: ds.logsumexp(x, b=s),
        lambda x, s: ds.logsumexp(s, b=x),
        lambda x, s: ds.norm.logpdf(x, s, s),
    ],
)
def test_a_python_number_does_not_widen(f):
    x = np.array([0.5, 1.0, 2.0], np.float32)
    assert f(x, 0.5).dtype == np.float32
    np.testing.assert_allclose(f(x, 0.5), f(x.astype(float), 0.5), rtol=1e-6)
    for s in (0.5, np.float32(0.5)):
        out, moved = dn.jvp(f, (x, s), (np.ones_like(x), np.ones_like(s)))
        assert out.dtype == moved.dtype == np.float32


def test_lists_of_duals_are_arrays():
    x = np.array([1.0, 0.3])
    for f in (ds.logsumexp, ds.softmax, ds.log_softmax, lambda v: ds.norm.logpdf(v, 0.5, 2.0)):
        dn.check_jvp(lambda x, f=f: f([x[0], 2.0 * x[1], 3.0]), (x,), order=2)
        assert np.array_equal(f([1.0, 2.0]), f(np.array([1.0, 2.0])))
    dn.check_jvp(lambda x: ds.expm([[0.0, x[0]], [x[1], 1.0]]), (x,), order=2)


def test_the_slope_by_a_covariance_is_symmetric():
    by_cov = dn.grad(lambda c: ds.multivariate_normal.logpdf(B[:, 0], None, c))(SPD)
    inverse = np.linalg.inv(SPD)
    z = inverse @ B[:, 0]
    np.testing.assert_allclose(by_cov, 0.5 * (np.outer(z, z) - inverse), rtol=1e-10)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("scipy.special.jv", lambda x: special.jv(2, x)),
        ("scipy.special.ellipk", lambda x: special.ellipk(x)),
        ("scipy.special.betainc", lambda x: special.betainc(2.0, 3.0, x)),
        ("own", lambda x: np.frompyfunc(math.sin, 1, 1)(x)),
    ],
)
def test_a_ufunc_without_a_rule_is_named_by_its_module(name, call):
    name = "sin (vectorized)" if name == "own" else name
    pattern = f"^{re.escape(name)} has no derivative rule. Write it with functions that have one"
    for transform in (dn.grad, dn.jacfwd):
        with pytest.raises(MissingRuleError, match=pattern):
            transform(call)(0.5)


def test_a_function_that_makes_plain_arrays_points_to_ours():
    for f in (special.logsumexp, special.softmax, stats.norm.logpdf):
        with pytest.raises(DualConversionError, match=r"dualnet\.scipy has those"):
            dn.jacfwd(f)(X[0])


def test_arguments_that_are_not_served_are_named():
    with pytest.raises(TypeError, match=r"logsumexp\(\) got .* 'return_sign'"):
        dn.grad(lambda x: ds.logsumexp(x, return_sign=True)[0])(X)
    with pytest.raises(UsageError, match=r"solve_triangular: trans must be 0 or 'N' .*, got 7"):
        ds.solve_triangular(A, B, trans=7)
    with pytest.raises(MissingRuleError, match=r"multivariate_normal\.logpdf: only a matrix"):
        dn.grad(lambda x: ds.multivariate_normal.logpdf(x, None, 2.0))(B[:, 0])


def test_importing_dualnet_does_not_import_scipy():
    code = (
        "import sys, dualnet, numpy as np\n"
        "assert 'scipy' not in sys.modules\n"
        "dualnet.grad(np.sin)(1.0)\n"
        "from scipy.special import erf\n"
        "assert abs(dualnet.grad(erf)(0.0) - 2 / np.pi**0.5) < 1e-15\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("x", "shares"),
    [
        ([-np.inf, -np.inf], [0.5, 0.5]),
        ([-np.inf, 1.0], [0.0, 1.0]),
        ([np.inf, 1.0], [1.0, 0.0]),
        ([np.inf, -np.inf], [1.0, 0.0]),
        ([np.inf, np.inf], [0.5, 0.5]),
    ],
    ids=str,
)
def test_shares_of_a_log_sum_add_up_to_one_where_it_is_infinite(x, shares):
    x = np.array(x)
    gradient = dn.grad(ds.logsumexp)
    np.testing.assert_array_equal(gradient(x), shares)
    assert dn.jvp(ds.logsumexp, (x,), (np.array([2.0, 2.0]),))[1] == 2.0
    np.testing.assert_array_equal(dn.jacfwd(gradient)(x), np.zeros((2, 2)))
