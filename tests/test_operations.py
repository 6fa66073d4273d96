"""Every derivative rule against finite differences, and a few answers worked out by hand."""

import dataclasses
import math

import numpy as np
import pytest

import dualnet as dn
from dualnet import linear, tree
from dualnet.check.operations import OPERATIONS
from dualnet.check.operations.methods import METHODS
from dualnet.check.operations.zero import ZERO, ZERO_METHODS
from dualnet.checking.checks import DerivativeError
from dualnet.core import dual, transforms
from dualnet.core.dual import Dual
from dualnet.core.refusals import name_of
from dualnet.errors import TangentError

every_row = pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.name)
FLOAT32_TOLERANCE = 2e-5


def directions(rng, arrays, k):
    return tuple(rng.standard_normal((k, *x.shape)).astype(x.dtype) for x in arrays)


def ks(arrays):
    """1, 3, and the length of another axis, where a mix-up of axes would not raise."""
    return sorted({1, 3, *(n for x in arrays for n in x.shape[:1] if n)})


# --- the table is complete -----------------------------------------------------------------------


def test_every_function_with_a_rule_is_in_the_table():
    ours = {
        fn
        for fn in dual.RULES
        if (getattr(fn, "__module__", None) or "numpy").startswith(
            ("numpy", "dualnet.core", "dualnet.images")
        )
    }
    covered = {row.covers for row in OPERATIONS if not isinstance(row.covers, str)}
    assert not covered & ZERO.keys()
    missing = ours - covered - ZERO.keys()
    assert not missing, f"no row in dualnet/check/operations for {[*map(name_of, missing)]}"
    assert covered | ZERO.keys() <= ours


def test_every_method_of_a_dual_is_in_the_table():
    public = {name for name in dir(Dual) if not name.startswith("_")}
    about_itself = {"handle", "level", "primal", "tangent", "item", "tolist", "sort"}
    attributes = {"shape", "ndim", "size", "dtype"}
    covered = ZERO_METHODS.keys() | {name for methods in METHODS.values() for name in methods}
    assert covered >= public - about_itself - attributes


def test_names_of_rows_are_distinct():
    names = [row.name for row in OPERATIONS]
    assert len(set(names)) == len(names)


def test_rows_reach_the_rule_they_are_about(monkeypatch, rng):
    reached = set()

    def spy(fn, rule):
        def evaluate(*arguments):
            reached.add(fn)
            return rule.evaluate(*arguments)

        return dataclasses.replace(rule, evaluate=evaluate)

    for fn, rule in list(dual.RULES.items()):
        monkeypatch.setitem(dual.RULES, fn, spy(fn, rule))
    for row in OPERATIONS:
        reached.clear()
        arrays = row.arrays(rng)
        dn.jvp(row, arrays, directions(rng, arrays, 1))
        assert isinstance(row.covers, str) or row.covers in reached, row.name


# --- every row -----------------------------------------------------------------------------------


@every_row
def test_against_finite_differences(row, key, rng, worst):
    """First and second order, k directions against single ones, the primal bit for bit, and the
    transpose against the map."""
    arrays = row.arrays(rng)
    kind = "exact rows" if row.exact else "smooth rows"
    for k in ks(arrays):
        report = dn.check_jvp(
            row,
            arrays,
            order=2,
            k=k,
            linear=row.exact,
            tolerance=1e-12 if row.exact else 1e-7,
            key=key.fold_in(k),
        )
        worst(f"first order, {kind}", report.first_order, row.name)
        worst(f"second order, {kind}", report.second_order, row.name)
        worst("k directions against single ones", report.k_against_single, row.name)
        report = dn.check_vjp(row, arrays, k=k, tolerance=1e-12, key=key.fold_in(k))
        worst("⟨u, J v⟩ against ⟨Jᵀ u, v⟩", report.adjoint, row.name)


SMALL_ROWS = [
    r for r in OPERATIONS if sum(x.size for x in r.arrays(np.random.default_rng(0))) <= 24
]


def test_every_function_has_a_small_row():
    assert {row.covers for row in SMALL_ROWS} == {row.covers for row in OPERATIONS}


@pytest.mark.parametrize("row", SMALL_ROWS, ids=lambda row: row.name)
def test_orders_of_nesting_agree(row, rng, worst):
    arrays = row.arrays(rng)
    weights = tree.map(lambda x: rng.standard_normal(np.shape(x)), row(*arrays))

    def projection(*xs):
        # sin makes the second derivative of linear rows other than 0
        parts = tree.map(lambda w, y: np.sum(w * np.sin(1.3 * y)), weights, row(*xs))
        return sum(tree.leaves(parts))

    every = tuple(range(len(arrays)))
    hessians = [
        tree.leaves(outer(inner(projection, every), every)(*arrays))
        for outer, inner in ((dn.jacfwd, dn.jacrev), (dn.jacrev, dn.jacfwd), (dn.jacrev, dn.jacrev))
    ]
    largest = max(np.max(np.abs(block), initial=1e-300) for block in hessians[0])
    for other in hessians[1:]:
        for a, b in zip(hessians[0], other, strict=True):
            assert a.shape == b.shape
            error = np.max(np.abs(a - b), initial=0) / largest
            worst("orders of nesting against one another", error, row.name)
            assert error < 1e-10


@every_row
def test_float32_stays_float32(row, rng, monkeypatch, worst):
    arrays = row.arrays(rng, np.float32)
    tangents = directions(rng, arrays, 3)
    plain = tree.leaves(row(*arrays))
    narrow = all(np.asarray(y).dtype == np.float32 for y in plain)
    casts = []
    real_cast, real_transpose = linear.cast.forward, transforms.transpose_all

    def transpose_all(*args):
        pulled = real_transpose(*args)
        casts.extend(f"cotangent {ct.dtype}" for ct in pulled if ct is not None and narrow)
        return pulled

    monkeypatch.setattr(
        linear.cast,
        "forward",
        lambda t, to: (casts.append(f"{t.dtype} to {to}"), real_cast(t, to))[1],
    )
    monkeypatch.setattr(transforms, "transpose_all", transpose_all)
    out, pushed = dn.jvp(row, arrays, tangents)
    cotangents = tree.map(lambda y: rng.standard_normal((2, *y.shape)).astype(y.dtype), out)
    _, f_vjp = dn.vjp(row, *arrays)
    pulled = f_vjp(cotangents)

    for y, value, t in zip(plain, tree.leaves(out), tree.leaves(pushed), strict=True):
        assert np.array_equal(y, value) and value.dtype == np.asarray(y).dtype == t.dtype
    assert all(ct.dtype == np.float32 for ct in pulled)
    widened = {c for c in casts if c not in ("float32 to float32", "cotangent float32")}
    assert not narrow or not widened, f"{row.name} computes tangents in {widened}"

    wide = [np.asarray(x, np.float64) for x in arrays]
    as_wide = lambda trees: tree.map(lambda x: x.astype(np.float64), trees)  # noqa: E731
    expected = *dn.jvp(row, wide, as_wide(tangents)), dn.vjp(row, *wide)[1](as_wide(cotangents))
    for got, want in zip((out, pushed, pulled), expected, strict=True):
        for a, b in zip(tree.leaves(got), tree.leaves(want), strict=True):
            error = np.max(np.abs(a - b), initial=0) / np.max(np.abs(b), initial=1)
            worst("float32 against float64", error, row.name)
            assert error < FLOAT32_TOLERANCE


# --- functions without a slope -------------------------------------------------------------------


def is_plain(result):
    return not any(isinstance(leaf, Dual) for leaf in tree.leaves(result))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True))


ZERO_CALLS = {
    **{name_of(fn): lambda x, call=call: call(np, x) for fn, call in ZERO.items()},
    **{f"method {name}": call for name, call in ZERO_METHODS.items()},
}


@pytest.mark.parametrize("call", ZERO_CALLS.values(), ids=ZERO_CALLS.keys())
def test_functions_without_a_slope_give_plain_results(call, rng):
    x = np.round(rng.uniform(-2, 2, (2, 3)), 1) + 0.05
    plain = call(x)

    def inside(y):
        result = call(y)
        assert is_plain(result) and same(result, plain)
        return np.sum(y) * 1.0

    dn.jvp(inside, (x,), (np.ones_like(x),))
    dn.vjp(inside, x)
    dn.jvp(lambda y: dn.jvp(inside, (y,), (np.ones_like(x),))[1], (x,), (np.ones_like(x),))


def test_a_result_without_a_slope_has_tangent_zero():
    out, t = dn.jvp(np.floor, (np.array([1.5, 2.5]),), (np.ones(2),))
    assert out.tolist() == [1, 2] and t.tolist() == [0, 0]
    (ct,) = dn.vjp(np.floor, np.array([1.5, 2.5]))[1](np.ones(2))
    assert ct.tolist() == [0, 0]


# --- what the rules promise at kinks -------------------------------------------------------------


def slope(f, *xs):
    """The directional derivative along the first argument, and through reverse mode too."""
    xs = tuple(np.asarray(x, np.float64) for x in xs)
    ones = (np.ones_like(xs[0]), *(np.zeros_like(x) for x in xs[1:]))
    forward = dn.jvp(f, xs, ones)[1]
    out, f_vjp = dn.vjp(f, *xs)
    if np.shape(out) == xs[0].shape:  # elementwise
        assert f_vjp(np.ones_like(out))[0].tolist() == forward.tolist()
    return forward.tolist()


def gradient(f, *xs):
    return dn.grad(f)(*(np.asarray(x, np.float64) for x in xs)).tolist()


def test_abs_at_0():
    assert slope(np.abs, [0.0, -0.0, 2.0, -2.0]) == [0, 0, 1, -1]
    assert slope(np.fabs, [0.0]) == [0]


@pytest.mark.parametrize("fn", [np.maximum, np.minimum, np.fmax, np.fmin])
def test_a_tie_of_two_is_shared_equally(fn):
    assert slope(fn, [1.0], [1.0]) == [0.5]
    assert slope(lambda x, y: fn(y, x), [1.0], [1.0]) == [0.5]
    assert slope(lambda x: fn(x, x), [1.0]) == [1]
    assert slope(lambda x: fn(x, 0.0), [0.0]) == [0.5]


@pytest.mark.parametrize("fn", [np.max, np.min])
def test_a_tie_of_many_is_shared_equally(fn):
    assert gradient(fn, [3.0, 3.0, 3.0, 3.0]) == [0.25] * 4
    assert gradient(lambda x: np.sum(fn(x, axis=1)), [[1.0, 1.0], [2.0, 2.0]]) == [[0.5, 0.5]] * 2


def test_clip_passes_at_its_bounds():
    assert slope(lambda x: np.clip(x, -1, 1), [-1.5, -1.0, 0.0, 1.0, 1.5]) == [0, 1, 1, 1, 0]
    assert slope(lambda low, x: np.clip(x, low, 3.0), [-1.0, 1.0], [-1.0, 0.0]) == [0, 1]
    assert slope(lambda up, x: np.clip(x, -3.0, up), [-1.0, 1.0], [-1.0, 2.0]) == [0, 1]


def test_power_at_0():
    assert slope(lambda x: x**0, [0.0, 2.0]) == [0, 0]
    assert slope(lambda x: x**0.0, [0.0]) == [0]
    assert slope(lambda x: x**1, [0.0]) == [1]
    assert slope(lambda x: x**2, [0.0]) == [0]
    assert slope(np.power, [0.0, 0.0, 0.0], [0.0, 1.0, 2.0]) == [0, 1, 0]
    assert slope(lambda y, x: np.power(x, y), [2.0, 1.0], [0.0, 0.0]) == [0, 0]
    assert slope(lambda y: 0**y, [2.0]) == [0]
    assert slope(lambda x: dn.jvp(lambda y: y**2, (x,), (np.ones(1),))[1], [0.0]) == [2]


def test_power_of_a_negative_base():
    x = np.array([-2.0])
    assert slope(lambda x: x**3, x) == [12]
    with pytest.warns(RuntimeWarning, match="invalid value"):  # as np.log says it
        assert np.isnan(dn.jvp(lambda y: (-2.0) ** y, (np.array(2.0),), (np.array(1.0),))[1])


def test_the_mixed_derivative_of_power_at_exponent_0():
    def by_base(y):  # y x^(y-1), whose derivative by y at 0 is 1/x
        return dn.jvp(lambda x: np.power(x, y), (np.array(4.0),), (np.array(1.0),))[1]

    assert slope(by_base, 0.0) == 0.25


def test_norm_at_0():
    for order in (None, 1, 2, 3, np.inf):
        assert gradient(lambda x, order=order: np.linalg.norm(x, order), [0.0, 0.0]) == [0, 0]
    assert gradient(lambda x: np.linalg.norm(x, np.inf), [2.0, -2.0]) == [0.5, -0.5]


def test_sinc_at_0():
    assert slope(np.sinc, [0.0]) == [0]
    second = slope(lambda x: dn.jvp(np.sinc, (x,), (np.ones(1),))[1], [0.0])
    assert second == [pytest.approx(-(math.pi**2) / 3, rel=1e-15)]


def test_logaddexp_of_infinities():
    assert slope(np.logaddexp, [-np.inf, 1.0], [1.0, -np.inf]) == [0, 1]
    assert slope(np.logaddexp, [np.inf, 800.0], [1.0, 0.0]) == [1, 1]


@pytest.mark.parametrize("swap", [False, True])
def test_where_takes_nothing_from_the_branch_not_taken(swap):
    x, factor, mask = np.array([1.0, 2.0]), np.array([np.inf, 3.0]), np.array([True, False])

    def f(x):
        return np.where(~mask, x * factor, x) if swap else np.where(mask, x, x * factor)

    _, t = dn.jvp(f, (x,), (np.ones(2),))
    assert t.tolist() == [1, 3]  # and no 0 · inf


def test_equal_entries_keep_their_order_in_sort():
    x = np.array([2.0, 1.0, 2.0])
    _, t = dn.jvp(np.sort, (x,), (np.array([10.0, 20.0, 30.0]),))
    assert t.tolist() == [20, 10, 30]


# --- answers worked out by hand ------------------------------------------------------------------


def test_sin():
    out, t = dn.jvp(np.sin, (np.array([0.0, math.pi]),), (np.array([1.0, 2.0]),))
    assert out.tolist() == [0.0, math.sin(math.pi)]
    assert t.tolist() == [1.0, -2.0]


def test_product():
    x, y = np.array([2.0, 3.0]), np.array([5.0, 7.0])
    out, t = dn.jvp(np.multiply, (x, y), (np.array([1.0, 0.0]), np.array([10.0, 1.0])))
    assert out.tolist() == [10, 21]
    assert t.tolist() == [5 + 20, 3]


def test_quotient():
    assert slope(np.divide, [6.0], [2.0]) == [0.5]
    assert slope(lambda y, x: x / y, [2.0], [6.0]) == [-1.5]


def test_matmul():
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0], [7.0, 8.0]])
    da, db = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [0.0, 1.0]])
    _, t = dn.jvp(np.matmul, (a, b), (da, db))
    assert t.tolist() == [[5, 6 + 2], [0, 4]]  # da b + a db
    by_a, by_b = dn.vjp(np.matmul, a, b)[1](np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert by_a.tolist() == [[5, 7], [0, 0]]  # ct bᵀ
    assert by_b.tolist() == [[1, 0], [2, 0]]  # aᵀ ct


def test_three_directions_at_once():
    _, t = dn.jvp(lambda x: x[0] * x[1] + x[2], (np.array([2.0, 3.0, 5.0]),), (np.eye(3),))
    assert t.tolist() == [3, 2, 1]


def test_einsum_diagonal():
    assert gradient(lambda x: np.einsum("ii->", x), np.ones((2, 2))) == [[1, 0], [0, 1]]


def test_det_of_a_2_by_2():
    assert gradient(np.linalg.det, [[3.0, 1.0], [2.0, 4.0]]) == [
        [pytest.approx(4), pytest.approx(-2)],
        [pytest.approx(-1), pytest.approx(3)],
    ]


def test_repeated_indices_add_up():
    assert gradient(lambda x: np.sum(x[np.array([0, 0, 2])]), np.ones(3)) == [2, 0, 1]


def test_variance():
    # mean 2, so 2 (x - 2) / 3
    assert gradient(np.var, [1.0, 2.0, 3.0]) == [pytest.approx(-2 / 3), 0, pytest.approx(2 / 3)]


# --- the checks find what is wrong ---------------------------------------------------------------


def custom(f, *rules):
    f = dn.custom_jvp(f)
    f.defjvps(*rules)
    return f


X = np.array([[0.3, 0.7, 1.1], [0.2, 0.5, 0.9]])
Y = np.array([1.0, 2.0, 0.5])


def test_a_rule_off_by_a_thousandth_is_found():
    f = custom(lambda x: np.sin(x), lambda t, out, x: t * np.cos(x) * 1.001)
    with pytest.raises(DerivativeError, match=r"off by the factor 1\.001"):
        dn.check_jvp(f, (X,))
    dn.check_vjp(f, (X,))  # the transpose of the wrong map is still its transpose


def test_a_wrong_sign_is_found():
    f = custom(lambda x: np.cos(x), lambda t, out, x: t * np.sin(x))
    with pytest.raises(DerivativeError, match="All entries have the wrong sign"):
        dn.check_jvp(f, (X,))


def test_a_lost_tangent_is_found():
    with pytest.raises(DerivativeError, match=r"The tangent is lost: .* stop_gradient"):
        dn.check_jvp(lambda x: np.sin(dn.stop_gradient(x)), (X,))


def test_a_rule_wrong_for_some_entries_is_found():
    f = custom(lambda x: np.square(x), lambda t, out, x: t * np.where(x > 1, 2.0, 2.0 * x))
    with pytest.raises(DerivativeError, match=r"jvp\[0, 2\] is .* wrong for some arguments"):
        dn.check_jvp(f, (X,))


def test_a_kink_within_the_step_is_found():
    with pytest.raises(DerivativeError, match=r"or a kink \(relu, abs, max, a rounding\)"):
        dn.check_jvp(np.abs, (np.array([1e-9, 1.0]),))


def test_a_rule_that_is_not_finite_is_found():
    f = custom(lambda x: np.square(x), lambda t, out, x: t * np.where(x > 1, np.nan, 2.0 * x))
    with pytest.raises(DerivativeError, match="Not finite"):
        dn.check_jvp(f, (X,))


def test_a_forgotten_axis_is_found():
    f = custom(
        lambda x: np.sum(x, axis=0), lambda t, out, x: linear.index(linear.sum(t, (-2,)), ())
    )
    dn.check_jvp(f, (X,))  # axes from the end are right for any k
    f = custom(lambda x: np.sum(x, axis=0), lambda t, out, x: np.sum(t, axis=0))  # sums over k
    with pytest.raises(TangentError, match=r"the leading axis is that of the k = 2 directions"):
        dn.check_jvp(f, (X,), k=2)


def test_a_forgotten_broadcast_is_found():
    f = custom(lambda x, y: x + y, lambda t, out, x, y: t, lambda t, out, x, y: t)
    with pytest.raises(TangentError, match=r"by argument 1 returned .*use dn.linear.broadcast_to"):
        dn.check_jvp(f, (X, Y), k=2)
    dn.check_jvp(
        custom(
            lambda x, y: x * y,
            lambda t, out, x, y: linear.scale(t, y),
            lambda t, out, x, y: linear.scale(t, x),
        ),
        (X, Y),
        k=2,
    )


def wrongly_transposed():
    @linear.LinearMap
    def double(t):
        return t * 2.0

    @double.transposed
    def _(ct, shape):
        return ct * 3.0

    return double


def test_a_wrong_transpose_is_found():
    double = wrongly_transposed()
    f = custom(lambda x: x * 2.0, lambda t, out, x: double(t))
    dn.check_jvp(f, (X,))
    with pytest.raises(DerivativeError, match=r"⟨u, J v⟩ = .* the transpose of a linear map"):
        dn.check_vjp(f, (X,))


def test_a_transpose_of_the_wrong_shape_is_found():
    @linear.LinearMap
    def total(t):
        return np.sum(t, axis=-1)

    @total.transposed
    def _(ct, shape):
        return ct  # forgot to stretch it back

    f = custom(lambda x: np.sum(x, axis=-1), lambda t, out, x: total(t))
    with pytest.raises(DerivativeError, match=r"the vjp at 0 has shape \(3, 2\), not \(3, 2, 3\)"):
        dn.check_vjp(f, (X,))


def test_a_rule_that_mixes_directions_is_found():
    f = custom(lambda x: np.sin(x), lambda t, out, x: (t * 0 + np.mean(t, axis=0)) * np.cos(x))
    with pytest.raises(DerivativeError, match=r"3 directions in one pass"):
        dn.check_jvp(f, (X,))


def test_a_wrong_second_derivative_is_found():
    # right at first order; the factor is cut from the outer tangent
    f = custom(lambda x: np.sin(x), lambda t, out, x: t * np.cos(dn.stop_gradient(x)))
    dn.check_jvp(f, (X,))
    with pytest.raises(DerivativeError, match="the jvp of the jvp"):
        dn.check_jvp(f, (X,), order=2)


def test_a_rule_that_changes_the_primal_is_found():
    f = dn.custom_jvp(lambda x: np.sin(x))

    @f.deflinearizer
    def _(x):
        return np.sin(x) + 1e-16 + x * 1e-16, lambda t: t * np.cos(x)

    with pytest.raises(DerivativeError, match="the primal under jvp differs from f's own result"):
        dn.check_jvp(f, (X,))


def test_reports_are_small_numbers():
    report = dn.check_jvp(lambda x: np.sin(x) * x, (X,), order=2)
    assert 0 < report.first_order < 1e-9 and 0 < report.second_order < 1e-9
    assert report.adjoint == 0
    assert dn.check_vjp(lambda x: np.sin(x) * x, (X,)).adjoint < 1e-14
