"""Operations: what no row of `dualnet.check` verifies, promises at kinks, answers by hand."""

import math

import numpy as np
import pytest

import dualnet as dn
from dualnet import linear, tree
from dualnet.check import ROWS
from dualnet.check.operations import OPERATIONS
from dualnet.check.operations.methods import METHODS
from dualnet.check.operations.zero import ZERO, ZERO_METHODS
from dualnet.checking.comparison import compare
from dualnet.checking.directions import one_of, random_directions
from dualnet.core import dual, transforms
from dualnet.core.dual import Dual
from dualnet.core.refusals import name_of

# --- the table is complete -----------------------------------------------------------------------


def test_every_method_of_a_dual_is_in_the_table():
    public = {name for name in dir(Dual) if not name.startswith("_")}
    about_itself = {"alias", "evaluate", "level", "primal", "tangent", "item", "tolist", "tobytes"}
    of_other_tables = {"argpartition", "choose", "compress", "partition"}
    attributes = {"shape", "ndim", "size", "dtype"}
    covered = ZERO_METHODS.keys() | {name for methods in METHODS.values() for name in methods}
    assert covered >= public - about_itself - attributes - of_other_tables


def test_rows_reach_the_rule_they_are_about(monkeypatch, rng, key):
    reached = set()

    def spy(fn, rule):
        def evaluate(*arguments):
            reached.add(fn)
            return rule.evaluate(*arguments)

        return rule._replace(evaluate=evaluate)

    for fn, rule in list(dual.RULES.items()):
        monkeypatch.setitem(dual.RULES, fn, spy(fn, rule))
    for row in OPERATIONS:
        reached.clear()
        arrays = row.arrays(rng)
        dn.jvp(row, arrays, random_directions(key, arrays, 1))
        assert isinstance(row.covers, str) or row.covers in reached, row.name


# --- every row -----------------------------------------------------------------------------------


def size(row):
    """The number of entries of its arguments."""
    return tree.size(row.arrays(np.random.default_rng(0)))


SMALL_ROWS = [r for r in ROWS if r.family not in ("optimizers", "models") and size(r) <= 48]
small_rows = pytest.mark.parametrize("row", SMALL_ROWS, ids=lambda row: row.name)


def test_every_function_has_a_small_row():
    assert {row.covers for row in SMALL_ROWS} >= {row.covers for row in OPERATIONS}


@small_rows
def test_as_many_directions_as_an_axis_is_long(row, key, rng, worst):
    """Where a mix-up of axes would not raise; and one, which is not the same as none."""
    primals = row.arrays(rng)
    for k in {1, *(n for x in tree.leaves(primals) for n in x.shape[:1] if n)}:
        v = random_directions(key, primals, k)
        out, pushed = dn.jvp(row, primals, v)
        u = random_directions(key.fold_in("u"), out, k)
        pull = dn.vjp(row, *primals)[1]
        for kind, many, single in (
            ("jvp", pushed, lambda i: dn.jvp(row, primals, one_of(v, i))[1]),  # noqa: B023
            ("vjp", pull(u), lambda i: pull(one_of(u, i))),  # noqa: B023
        ):
            for i in range(k):
                error = compare(kind, one_of(many, i), single(i), 1e-12, np.asarray)
                worst(f"{kind}, k directions against single ones", error, row.name)


@small_rows
def test_orders_of_nesting_agree(row, rng, worst):
    primals = row.arrays(rng)
    weights = tree.map(lambda x: rng.standard_normal(np.shape(x)), row(*primals))

    def projection(*xs):
        # sin makes the second derivative of linear rows other than 0
        parts = tree.map(lambda w, y: np.sum(w * np.sin(1.3 * y)), weights, row(*xs))
        return sum(tree.leaves(parts))

    every = tuple(range(len(primals)))
    forward, *others = (
        outer(inner(projection, every), every)(*primals)
        for outer, inner in ((dn.jacfwd, dn.jacrev), (dn.jacrev, dn.jacfwd), (dn.jacrev, dn.jacrev))
    )
    for other in others:
        error = compare("the Hessian", other, forward, 1e-10, np.asarray)
        worst("orders of nesting against one another", error, row.name)


IN_FLOAT32 = [
    row
    for row in OPERATIONS
    for y in [row(*row.arrays(np.random.default_rng(0), np.float32))]
    if all(np.asarray(leaf).dtype == np.float32 for leaf in tree.leaves(y))
]


@pytest.mark.parametrize("row", IN_FLOAT32, ids=lambda row: row.name)
def test_float32_tangents_are_not_widened_on_their_way(row, rng, key, monkeypatch):
    primals = row.arrays(rng, np.float32)
    seen = []
    real_cast, real_transpose = linear.cast.forward, transforms.transpose_all

    def transpose_all(*args):
        pulled = real_transpose(*args)
        seen.extend(ct.dtype for ct in pulled if ct is not None)
        return pulled

    monkeypatch.setattr(
        linear.cast, "forward", lambda t, to: (seen.extend([t.dtype, to]), real_cast(t, to))[1]
    )
    monkeypatch.setattr(transforms, "transpose_all", transpose_all)
    out, pushed = dn.jvp(row, primals, random_directions(key, primals, 3))
    pulled = dn.vjp(row, *primals)[1](random_directions(key, out, 2))
    seen.extend(x.dtype for x in tree.leaves((out, pushed, pulled)))
    assert set(seen) == {np.dtype(np.float32)}


# --- functions without a slope -------------------------------------------------------------------


ZERO_CALLS = {
    **{name_of(fn): lambda x, call=call: call(np, x) for fn, call in ZERO.items()},
    **{f"method {name}": call for name, call in ZERO_METHODS.items()},
}


@pytest.mark.parametrize("call", ZERO_CALLS.values(), ids=ZERO_CALLS.keys())
def test_functions_without_a_slope_give_plain_results(call, rng):
    x = np.round(rng.uniform(-2, 2, (2, 3)), 1) + 0.05
    plain = call(x)

    def inside(y):
        for a, b in zip(tree.leaves(call(y)), tree.leaves(plain), strict=True):
            assert not isinstance(a, Dual) and np.array_equal(a, b)
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
