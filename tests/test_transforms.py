"""The transforms: nesting, trees, k directions, structured tangents, and what stays clean."""

import concurrent.futures
import multiprocessing
import pickle
import threading
from typing import NamedTuple

import numpy as np
import pytest

import dualnet as dn
from dualnet import linear, tree
from dualnet.core.spaces import RankOne
from dualnet.errors import DualConversionError, DualnetError, EscapedDualError, MissingRuleError


def d(f):
    """The derivative of a function of one number, by forward mode."""
    return lambda x: dn.jvp(f, (x,), (np.ones_like(x),))[1]


def r(f):
    """The same by reverse mode."""
    return dn.grad(f)


either = pytest.mark.parametrize("inner", [d, r], ids=["jvp", "grad"])
outer_either = pytest.mark.parametrize("outer", [d, r], ids=["jvp", "grad"])
ONE, TWO = np.array(1.0), np.array(2.0)
V = np.array([0.3, -1.2, 2.0])


def close(a, b, tolerance=1e-12):
    a, b = tree.leaves(a), tree.leaves(b)
    assert [np.shape(x) for x in a] == [np.shape(x) for x in b]
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)
    return True


# --- nesting and perturbation confusion ----------------------------------------------------------


@either
@outer_either
class TestNesting:
    def test_the_classic(self, inner, outer):
        assert outer(lambda x: x * inner(lambda y: x + y)(ONE))(ONE) == 1

    def test_products_of_both(self, inner, outer):
        # d/dx (x · d/dy (x y²) at y = 2) = d/dx (4 x²) = 8 x
        assert outer(lambda x: x * inner(lambda y: x * y * y)(TWO))(np.array(3.0)) == 24

    def test_an_inner_function_that_ignores_its_argument(self, inner, outer):
        assert inner(lambda y: np.sin(TWO))(ONE) == 0
        assert outer(lambda x: inner(lambda y: x * x)(ONE))(TWO) == 0
        assert outer(lambda x: x + inner(lambda y: x)(ONE))(TWO) == 1

    def test_the_inner_point_depends_on_the_outer_variable(self, inner, outer):
        assert outer(lambda x: inner(lambda y: y**3)(x))(TWO) == 12  # (3x²)'
        assert outer(lambda x: inner(lambda y: y**3)(x * x))(TWO) == 12 * 8  # (3x⁴)'

    def test_a_closure_kept_between_the_levels(self, inner, outer):
        def f(x):
            shifted = np.sin(x)
            return inner(lambda y: shifted * y * x)(ONE)  # x sin x

        assert outer(f)(TWO) == pytest.approx(np.sin(2.0) + 2 * np.cos(2.0), rel=1e-14)

    def test_the_inner_result_used_by_both(self, inner, outer):
        def f(x):
            slope = inner(lambda y: np.exp(x * y))(TWO)  # x e^{2x}
            return slope * slope

        x = 0.5
        expected = 2 * (x * np.exp(2 * x)) * (np.exp(2 * x) * (1 + 2 * x))
        assert outer(f)(np.array(x)) == pytest.approx(expected, rel=1e-14)

    def test_branches_on_the_value(self, inner, outer):
        def f(x):
            return x * x if x > 0 else -x

        assert outer(inner(f))(ONE) == 2 and outer(inner(f))(-ONE) == 0


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("transforms", ["ddddd", "rrrrr", "drdrd", "rrddd"])
def test_repeated_derivatives_of_sin(order, transforms):
    f = np.sin
    for name in transforms[:order]:
        f = {"d": d, "r": r}[name](f)
    expected = [np.sin, np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x)][order % 4]
    assert f(np.array(0.7)) == pytest.approx(expected(0.7), rel=1e-13)


def test_third_derivatives_of_a_polynomial():
    assert dn.grad(dn.grad(dn.grad(lambda x: x**4)))(TWO) == 48
    assert d(r(d(lambda x: x**4 / x)))(TWO) == pytest.approx(6)


def test_jvp_inside_grad_inside_jvp():
    def f(x, y, z):
        return x**2 * y**3 * np.sin(z)

    x, y, z = (np.array(v) for v in (1.5, 0.5, 0.3))
    by_all = d(lambda a: r(lambda b: d(lambda c: f(a, b, c))(z))(y))(x)
    assert by_all == pytest.approx(2 * 1.5 * 3 * 0.5**2 * np.cos(0.3), rel=1e-14)


def test_three_levels_of_one_variable_through_indexing_and_products(rng):
    x = rng.uniform(0.5, 1.5, 3)

    def f(x):
        return np.sum(np.prod(x) * x[1:] @ np.outer(x[:2], x))

    third = [
        dn.jacfwd(dn.jacfwd(dn.jacfwd(f)))(x),
        dn.jacrev(dn.jacfwd(dn.jacrev(f)))(x),
        dn.jacfwd(dn.jacrev(dn.jacrev(f)))(x),
    ]
    assert close(third[0], third[1]) and close(third[0], third[2])
    assert close(third[0], np.transpose(third[0], (2, 0, 1)))


def test_different_k_inside_and_outside(rng):
    x, inside, outside = rng.normal(size=3), rng.normal(size=(2, 3)), rng.normal(size=(3, 3))

    def inner(x):
        return dn.jvp(lambda y: np.sin(y) * x[0], (x,), (inside,))[1]  # (2, 3)

    out, t = dn.jvp(inner, (x,), (outside,))
    assert out.shape == (2, 3) and t.shape == (3, 2, 3)
    # sin'(y) x₀ v, by x along u: -sin(x) u x₀ v + cos(x) u₀ v
    expected = -np.sin(x) * outside[:, None] * x[0] * inside
    expected = expected + np.cos(x) * outside[:, None, :1] * inside
    assert close(t, expected)


def test_a_transform_inside_ignores_the_outer_tangent():
    # the tangent given inside depends on x: d/dx (cos(1) x²) = 2 x cos(1)
    def f(x):
        return dn.jvp(np.sin, (ONE,), (x * x,))[1]

    assert d(f)(TWO) == pytest.approx(4 * np.cos(1.0))
    assert r(f)(TWO) == pytest.approx(4 * np.cos(1.0))


def test_a_cotangent_that_depends_on_the_outer_variable():
    def f(x):
        return dn.vjp(np.sin, ONE)[1](x * x)[0]

    assert d(f)(TWO) == pytest.approx(4 * np.cos(1.0))
    assert r(f)(TWO) == pytest.approx(4 * np.cos(1.0))


# --- duals that leave their transform ------------------------------------------------------------


@pytest.mark.parametrize("transform", [d, r], ids=["jvp", "grad"])
def test_a_dual_kept_from_inside_is_refused_afterwards(transform):
    kept = []

    def f(x):
        kept.append(x)
        return x * x

    transform(f)(TWO)
    for use in (lambda x: x + 1, np.sin, lambda x: x[()], lambda x: x.sum(), lambda x: x > 0):
        with pytest.raises(EscapedDualError):
            use(kept[0])
    with pytest.raises(EscapedDualError):
        d(lambda x: x * kept[0])(ONE)


def test_a_dual_of_an_inner_level_is_refused_outside():
    def f(x):
        kept = []
        d(lambda y: kept.append(y) or y)(x)
        return x * kept[0]

    with pytest.raises(EscapedDualError):
        d(f)(ONE)


def test_an_exception_closes_the_level_and_leaves_nothing_behind():
    kept = []

    def f(x):
        kept.append(x)
        raise KeyError("from inside")

    for transform in (d, r, lambda f: lambda x: dn.linearize(f, x)):
        with pytest.raises(KeyError, match="from inside"):
            transform(f)(ONE)
        with pytest.raises(EscapedDualError):
            kept[-1] + 1
    assert d(np.sin)(ONE) == np.cos(1.0)
    assert d(lambda x: x * d(lambda y: x + y)(ONE))(ONE) == 1


def test_an_inner_exception_caught_inside_leaves_the_outer_level_open():
    def f(x):
        try:
            d(lambda y: np.unique(y))(x)
        except DualnetError:
            return x * x
        raise AssertionError("unique has a rule now: choose another function")

    assert d(f)(TWO) == 4


def test_two_threads_at_once():
    x = np.linspace(0.1, 1.0, 7)
    expected = dn.jacfwd(dn.grad(lambda x: np.sum(np.sin(x) * np.cumsum(x))))(x)
    failures = []

    def work():
        for _ in range(20):
            got = dn.jacfwd(dn.grad(lambda x: np.sum(np.sin(x) * np.cumsum(x))))(x)
            if not np.array_equal(got, expected):
                failures.append(got)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# --- trees, aux, argnums -------------------------------------------------------------------------


class Pair(NamedTuple):
    first: object
    second: object


PARAMS = {
    "w": np.array([[1.0, 2.0], [3.0, 4.0]]),
    "rest": [np.array([0.5, -0.5]), (np.array(2.0),)],
}


def of_params(p):
    hidden = np.tanh(p["w"] @ p["rest"][0])
    return {"sum": np.sum(hidden) * p["rest"][1][0], "all": [hidden, Pair(p["w"][0], 3.0)]}


def test_trees_as_arguments_and_results(rng):
    v = tree.map(lambda x: rng.normal(size=x.shape), PARAMS)
    out, t = dn.jvp(of_params, (PARAMS,), (v,))
    assert isinstance(t["all"][1], Pair) and t["all"][1].second == 0
    assert close(out, of_params(PARAMS))
    assert close(t["all"][1].first, v["w"][0])
    ct = tree.map(lambda x: rng.normal(size=np.shape(x)), out)
    (pulled,) = dn.vjp(of_params, PARAMS)[1](ct)
    assert tree.describe(pulled) == tree.describe(PARAMS)
    inner = lambda a, b: sum(np.sum(x * y) for x, y in zip(tree.leaves(a), tree.leaves(b)))  # noqa: B905, E731
    assert inner(ct, t) == pytest.approx(inner(pulled, v), rel=1e-12)


def test_absent_tangents_are_constants():
    f = lambda x, y: x * y  # noqa: E731
    x, y = np.array([2.0, 3.0]), np.array([5.0, 7.0])
    assert dn.jvp(f, (x, y), (np.ones(2), None))[1].tolist() == [5, 7]
    assert dn.jvp(f, (x, y), (None, np.ones((4, 2))))[1].shape == (4, 2)
    assert dn.jvp(f, (x, y), (None, None))[1].tolist() == [0, 0]
    params = {"a": x, "b": y}
    _, t = dn.jvp(lambda p: p["a"] * p["b"], (params,), ({"a": None, "b": np.ones(2)},))
    assert t.tolist() == [2, 3]


def test_an_absent_cotangent_counts_as_zero():
    _, f_vjp = dn.vjp(lambda x: (x * 2.0, x * 3.0), np.ones(2))
    assert f_vjp((np.ones(2), None))[0].tolist() == [2, 2]
    assert f_vjp((None, None))[0].tolist() == [0, 0]


def test_results_that_do_not_depend_have_zero_tangents():
    _, t = dn.jvp(lambda x: (x * 2.0, np.arange(3.0), 7.0, np.array([1, 2])), (ONE,), (ONE,))
    assert t[0] == 2 and t[1].tolist() == [0, 0, 0] and t[2] == 0 and t[3].tolist() == [0, 0]
    _, t = dn.jvp(lambda x: np.arange(3.0), (ONE,), (np.ones(2),))
    assert t.shape == (2, 3) and not t.any()
    _, f_vjp = dn.vjp(lambda x: np.arange(3.0), np.ones(2))
    assert f_vjp(np.ones(3))[0].tolist() == [0, 0] and f_vjp(np.ones((4, 3)))[0].shape == (4, 2)
    _, f_jvp = dn.linearize(lambda x: np.arange(3.0), np.ones(2))
    assert f_jvp(np.ones(2)).tolist() == [0, 0, 0] and f_jvp(np.ones((4, 2))).shape == (4, 3)


def test_arguments_that_are_not_float_arrays_can_be_passed_along():
    def f(x, i, mask, name, scale):
        assert name == "relu" and type(scale) is float
        return np.sum(x[i] * scale, where=True) if False else np.where(mask, x[i], 0.0) * scale

    args = (np.array([1.0, 2, 3]), np.array([2, 0]), np.array([True, False]), "relu", 2.0)
    out, t = dn.jvp(f, args, (np.ones(3), None, None, None, None))
    assert out.tolist() == [6, 0] and t.tolist() == [2, 0]
    assert dn.grad(lambda *a: np.sum(f(*a)))(*args).tolist() == [0, 0, 2]


def test_python_floats():
    assert dn.jvp(lambda x: x * x, (3.0,), (1.0,)) == (9, 6)
    assert dn.jvp(lambda x: x * x, (3.0,), (np.array([1.0, 2.0]),))[1].tolist() == [6, 12]
    assert dn.grad(lambda x: x**3)(2.0) == 12
    assert dn.grad(lambda x, y: x * y, (0, 1))(2.0, 3.0) == (3, 2)
    assert dn.jacfwd(lambda x: np.stack([x, x * x]))(2.0).tolist() == [1, 4]
    assert dn.value_and_grad(lambda x: 3.0)(2.0) == (3, 0)


def test_float32_is_kept():
    x = np.ones(3, np.float32)
    f = lambda x: np.sum(2 * np.sin(x) ** 2 / 3)  # noqa: E731
    assert dn.grad(f)(x).dtype == np.float32
    assert dn.jacfwd(np.sin)(x).dtype == dn.jacrev(np.sin)(x).dtype == np.float32
    assert dn.hvp(f, (x,), (x,))[0].dtype == np.float32


def test_mixed_precision():
    x, y = np.ones(2, np.float32), np.ones(2)
    out, t = dn.jvp(lambda x, y: x * y, (x, y), (x, y))
    assert out.dtype == t.dtype == np.float64
    by_x, by_y = dn.vjp(lambda x, y: x * y, x, y)[1](np.ones(2))
    assert by_x.dtype == np.float32 and by_y.dtype == np.float64


def test_has_aux():
    def f(x):
        return np.sum(x * x), {"doubled": x * 2.0, "note": "kept", "n": 3}

    x = np.array([1.0, 2.0])
    out, t, aux = dn.jvp(f, (x,), (np.ones(2),), has_aux=True)
    assert (out, t) == (5, 6) and aux["note"] == "kept" and aux["n"] == 3
    assert type(aux["doubled"]) is np.ndarray and aux["doubled"].tolist() == [2, 4]
    out, f_vjp, aux = dn.vjp(f, x, has_aux=True)
    assert f_vjp(np.float64(1))[0].tolist() == [2, 4] and aux["doubled"].tolist() == [2, 4]
    (value, aux), gradient = dn.value_and_grad(f, has_aux=True)(x)
    assert value == 5 and gradient.tolist() == [2, 4] and aux["note"] == "kept"
    gradient, aux = dn.grad(f, has_aux=True)(x)
    assert gradient.tolist() == [2, 4] and aux["doubled"].tolist() == [2, 4]


def test_aux_keeps_the_outer_tangent():
    def f(x):
        _, _, aux = dn.jvp(lambda y: (y, y * x), (x,), (np.ones_like(x),), has_aux=True)
        return aux  # x², as the outer level sees it

    assert d(f)(np.array(3.0)) == 6


def test_argnums():
    f = lambda x, y, scale=1.0: np.sum(x * y**2) * scale  # noqa: E731
    x, y = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    assert dn.grad(f)(x, y).tolist() == [9, 16]
    assert dn.grad(f, 1)(x, y).tolist() == dn.grad(f, -1)(x, y).tolist() == [6, 16]
    by_y, by_x = dn.grad(f, (1, 0))(x, y, scale=2.0)
    assert by_y.tolist() == [12, 32] and by_x.tolist() == [18, 32]
    assert isinstance(dn.grad(f, (0,))(x, y), tuple)
    value, gradients = dn.value_and_grad(f, [0, 1])(x, y)
    assert value == 41 and len(gradients) == 2
    elementwise = lambda x, y: x * y**2  # noqa: E731
    for jacobian in (dn.jacfwd, dn.jacrev):
        by_x, by_y = jacobian(elementwise, (0, 1))(x, y)
        assert by_x.tolist() == [[9, 0], [0, 16]] and by_y.tolist() == [[6, 0], [0, 16]]
        assert jacobian(elementwise, 1)(x, y).tolist() == [[6, 0], [0, 16]]


# --- Jacobians and Hessians ----------------------------------------------------------------------


def test_jacobian_of_a_matrix_product():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4) - 5
    expected = np.einsum("ip,ql->ilpq", np.eye(2), b)
    for jacobian in (dn.jacfwd, dn.jacrev):
        assert close(jacobian(np.matmul)(a, b), expected)


def test_jacobians_of_trees(rng):
    by_forward, by_reverse = dn.jacfwd(of_params)(PARAMS), dn.jacrev(of_params)(PARAMS)
    assert tree.describe(by_forward) == tree.describe(by_reverse)
    assert by_forward["all"][0]["w"].shape == (2, 2, 2)
    assert by_forward["sum"]["rest"][1][0].shape == ()
    assert isinstance(by_forward["all"][1], Pair)
    assert close(by_forward, by_reverse)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 6, 7, 100])
@pytest.mark.parametrize("jacobian", [dn.jacfwd, dn.jacrev])
def test_chunks_do_not_change_the_jacobian(jacobian, chunk, rng):
    x = {"a": rng.normal(size=(2, 3)), "b": rng.normal(size=5)}

    def f(x):
        return np.sin(x["a"]) * np.sum(x["b"] ** 2), np.outer(x["b"], x["b"])[:, 0]

    whole, cut = jacobian(f)(x), jacobian(f, tangent_chunk=chunk)(x)
    assert close(whole, cut, 1e-15)


def test_jacobians_at_an_infinite_slope_are_what_jacfwd_says():
    x = np.array([0.0, 1.0])
    with np.errstate(divide="ignore", invalid="ignore"):
        forward, reverse = dn.jacfwd(lambda x: x**0.5)(x), dn.jacrev(lambda x: x**0.5)(x)
    np.testing.assert_array_equal(forward, [[np.inf, np.nan], [0.0, 0.5]])
    np.testing.assert_array_equal(reverse, [[np.inf, 0.0], [0.0, 0.5]])


def test_chunks_are_really_of_that_size():
    seen = []

    def f(x):
        seen.append(x.tangent.shape[0])
        return x * 2.0

    dn.jacfwd(f, tangent_chunk=3)(np.ones(7))
    assert seen == [3, 3, 1]


def test_hvp_against_the_whole_hessian(rng):
    x, v, a = rng.normal(size=4), rng.normal(size=(3, 4)), rng.normal(size=(4, 4))

    def f(x):
        return np.sum(np.tanh(a @ x) ** 2) * x[0]

    hessian = dn.jacfwd(dn.grad(f))(x)
    assert close(hessian, hessian.T) and close(hessian, dn.jacrev(dn.jacrev(f))(x))
    assert close(dn.hvp(f, (x,), (v[0],))[0], hessian @ v[0])
    assert close(dn.hvp(f, (x,), (v,))[0], v @ hessian.T)


def test_hvp_of_two_arguments(rng):
    x, y, v = rng.normal(size=3), rng.normal(size=3), rng.normal(size=3)
    by_x, by_y = dn.hvp(lambda x, y: np.sum(x**2 * y), (x, y), (v, None))
    assert close(by_x, 2 * y * v) and close(by_y, 2 * x * v)


# --- linearize, vjp and their transposes ---------------------------------------------------------


def test_linearize_applies_to_many_tangents_without_evaluating_again(rng):
    x, y = rng.normal(size=3), rng.normal(size=(2, 3))
    calls = []

    def f(x, y):
        calls.append(1)
        return np.exp(y) @ x, x[0] * y

    out, f_jvp = dn.linearize(f, x, y)
    for k in (None, 1, 3, 0):
        shape = () if k is None else (k,)
        tangents = rng.normal(size=(*shape, 3)), rng.normal(size=(*shape, 2, 3))
        assert close((out, f_jvp(*tangents)), dn.jvp(f, (x, y), tangents), 1e-14)
        assert close(f_jvp(tangents[0], None), dn.jvp(f, (x, y), (tangents[0], None))[1])
    assert len(calls) == 1 + 2 * 4


def test_a_result_that_is_the_argument(rng):
    x = rng.normal(size=3)
    _, f_vjp = dn.vjp(lambda x: (x, x, x[0]), x)
    assert f_vjp((np.ones(3), 2 * np.ones(3), np.float64(5)))[0].tolist() == [8, 3, 3]
    assert dn.jvp(lambda x: x, (x,), (x,))[1] is not None
    assert close(dn.linearize(lambda x: x, x)[1](x), x)
    assert dn.grad(lambda x: x)(2.0) == 1


def test_linear_transpose_of_a_convolution(rng):
    kernel, ct = rng.normal(size=3), rng.normal(size=(2, 5))

    def convolve(x):
        return sum(kernel[i] * x[i : i + 5] for i in range(3))

    matrix = dn.jacfwd(convolve)(np.zeros(7))
    back = dn.linear_transpose(convolve, np.zeros(7))
    assert close(back(ct[0])[0], np.convolve(ct[0], kernel))
    assert close(back(ct)[0], ct @ matrix)


def test_linear_transpose_of_two_arguments(rng):
    f = lambda x, y: np.concatenate([x + y[::-1], 2.0 * y])  # noqa: E731
    by_x, by_y = dn.linear_transpose(f, np.ones(2), np.ones(2))(np.array([1.0, 2.0, 3.0, 4.0]))
    assert by_x.tolist() == [1, 2] and by_y.tolist() == [2 + 6, 1 + 8]


def test_linear_transpose_can_be_differentiated(rng):
    a, ct = rng.normal(size=(2, 2)), rng.normal(size=2)

    def f(a):
        return dn.linear_transpose(lambda x: a @ x, np.ones(2))(ct)[0]  # aᵀ ct

    assert close(dn.jacfwd(f)(a), np.einsum("jp,q->jqp", np.eye(2), ct))
    assert close(dn.jacrev(f)(a), dn.jacfwd(f)(a))


# --- stop_gradient and custom rules --------------------------------------------------------------


@either
def test_stop_gradient(inner):
    assert inner(lambda x: x * dn.stop_gradient(x))(TWO) == 2
    assert inner(lambda x: dn.stop_gradient({"a": x * x})["a"])(TWO) == 0
    nested = d(lambda x: x * inner(lambda y: y * y * dn.stop_gradient(x))(TWO))
    assert nested(np.array(3.0)) == 12  # x · 4 · constant(3)
    nested = d(lambda x: inner(lambda y: y * dn.stop_gradient(y * x))(TWO))
    assert nested(np.array(3.0)) == 0  # constant(6): a constant in x too
    assert type(dn.stop_gradient(np.ones(2))) is np.ndarray


@pytest.mark.parametrize("form", ["defjvps", "factor first", "deflinearizer"])
@pytest.mark.parametrize("name", ["d", "r", "dd", "dr", "rd", "rr", "drd", "rrr"])
def test_custom_rules_nest(form, name):
    f = dn.custom_jvp(lambda x: x * x * x)
    if form == "defjvps":
        f.defjvps(lambda t, out, x: t * (3.0 * x * x))
    elif form == "factor first":
        f.defjvps(lambda t, out, x: 3.0 * np.square(x) * t)
    else:

        @f.deflinearizer
        def _(x):
            square = x * x
            return square * x, lambda t: t * (3.0 * square)

    assert f(TWO) == 8
    differentiated = f
    for letter in name:
        differentiated = {"d": d, "r": r}[letter](differentiated)
    assert differentiated(TWO) == {1: 12, 2: 12, 3: 6}[len(name)]


def test_a_custom_rule_is_really_used():
    f = dn.custom_jvp(lambda x: np.round(x))
    f.defjvps(lambda t, out, x: t)  # straight through
    assert d(f)(np.array(1.3)) == 1 and r(f)(np.array(1.3)) == 1


def test_a_custom_rule_of_several_arguments_and_parameters(rng):
    f = dn.custom_jvp(lambda x, w, *, scale=1.0: scale * (x @ w))
    f.defjvps(
        lambda t, out, x, w, *, scale=1.0: linear.matmul(t, w) * scale,
        lambda t, out, x, w, *, scale=1.0: linear.matmul_from_left(t, x) * scale,
    )
    x, w = rng.normal(size=(2, 3)), rng.normal(size=(3, 4))
    dn.check_jvp(lambda x, w: f(x, w, scale=2.0), (x, w), order=2)
    dn.check_vjp(lambda x, w: f(x, w, scale=2.0), (x, w))
    dn.check_jvp(lambda x: f(x, w), (x,))


@pytest.mark.parametrize("call", [lambda f, x: f(x=x), lambda f, x: f([x, x])])
def test_a_custom_rule_is_never_passed_by(call):
    """The body must not be differentiated in place of the rule, however the dual comes in."""
    f = dn.custom_jvp(lambda x: x * x if not isinstance(x, list) else x[0] * x[1])
    f.defjvps(lambda t, out, x: (t if not isinstance(t, list) else t[0]) * 100.0)
    try:
        slope = d(lambda x: call(f, x))(ONE)
    except MissingRuleError as error:
        assert "by position" in str(error)
    else:
        assert slope == 100


# --- structured tangents -------------------------------------------------------------------------


def rank_one(rng, k, p, q, dtype=np.float64):
    return RankOne(rng.normal(size=(k, p)).astype(dtype), rng.normal(size=(k, q)).astype(dtype))


RANK_ONE_USES = {
    "x @ w": lambda x, w: x @ w,
    "row @ w": lambda x, w: x[0] @ w,
    "batch @ w": lambda x, w: np.stack([x, 2 * x]) @ w,
    "x @ w.T": lambda x, w: x[:, :2] @ w[:, :2].T,
    "w.T @ x.T": lambda x, w: w.T @ x.T,
    "w @ x": lambda x, w: w @ x[:2].T[:2],
    "scaled": lambda x, w: x @ (2.5 * w) + x @ (w / 2.0) - x @ -w,
    "scaled by an array": lambda x, w: x @ (w * x[0, :2]),
    "sum": lambda x, w: np.sum(w, axis=0),
    "w + w.T": lambda x, w: w[:2, :2] + w[:2, :2].T,
    "w with its axes in place": lambda x, w: x @ np.transpose(w, (0, 1)),
    "w itself": lambda x, w: w,
    "sin": lambda x, w: np.sin(w),
    "reshape": lambda x, w: w.reshape(-1)[::2],
    "stacked": lambda x, w: np.concatenate([w, np.zeros((1, 2)), w]),
    "twice": lambda x, w: x @ w + (x @ w) ** 2,
    "einsum": lambda x, w: np.einsum("ij,jk->k", x, w),
}


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("use", RANK_ONE_USES.values(), ids=RANK_ONE_USES.keys())
def test_rank_one_tangents_equal_dense_ones(use, k, rng):
    x, w, t = rng.normal(size=(4, 3)), rng.normal(size=(3, 2)), rank_one(rng, k, 3, 2)
    f = lambda w: use(x, w)  # noqa: E731
    expected = dn.jvp(f, (w,), (t.dense(),))
    assert close(dn.jvp(f, (w,), (t,)), expected)
    assert close(dn.linearize(f, w)[1](t), expected[1])
    both = lambda x, w: use(x, w)  # noqa: E731
    v = rng.normal(size=(k, *x.shape))
    assert close(dn.jvp(both, (x, w), (v, t)), dn.jvp(both, (x, w), (v, t.dense())))


@pytest.mark.parametrize("use", ["x @ w", "x @ w.T", "twice", "sin"])
def test_rank_one_tangents_under_nesting(use, rng):
    x, w, t = rng.normal(size=(4, 3)), rng.normal(size=(3, 2)), rank_one(rng, 2, 3, 2)
    f = lambda x, t: dn.jvp(lambda w: RANK_ONE_USES[use](x, w), (w,), (t,))[1]  # noqa: E731
    v = rng.normal(size=(3, *x.shape))
    forward = lambda t: dn.jvp(lambda x: f(x, t), (x,), (v,))[1]  # noqa: E731
    assert close(forward(t), forward(t.dense()))
    reverse = lambda t: dn.grad(lambda x: np.sum(np.sin(f(x, t))))(x)  # noqa: E731
    assert close(reverse(t), reverse(t.dense()))


# --- sizes at the edge ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_empty_arrays(shape):
    x = np.zeros(shape)

    def f(x):
        return np.sum(np.sin(x) * x, axis=0), np.reshape(x, -1)[:0], np.concatenate([x, x])

    for k in ((), (2,)):
        out, t = dn.jvp(f, (x,), (np.zeros((*k, *shape)),))
        assert [a.shape for a in t] == [(*k, *a.shape) for a in out]
        (ct,) = dn.vjp(f, x)[1](t)
        assert ct.shape == (*k, *shape)
    assert dn.grad(lambda x: np.sum(x * x))(x).shape == shape
    assert dn.jacfwd(np.sin)(x).shape == dn.jacrev(np.sin)(x).shape == shape * 2
    assert dn.jacfwd(lambda x: np.sum(x) + np.ones(2))(x).shape == (2, *shape)
    assert dn.jacrev(lambda x: np.sum(x) + np.ones(2))(x).shape == (2, *shape)


def test_matrices_without_rows():
    out, t = dn.jvp(lambda x: x @ np.ones((3, 2)), (np.zeros((0, 3)),), (np.zeros((4, 0, 3)),))
    assert out.shape == (0, 2) and t.shape == (4, 0, 2)
    out, t = dn.jvp(lambda x: np.ones((2, 0)) @ x, (np.zeros((0, 3)),), (np.zeros((4, 0, 3)),))
    assert t.shape == (4, 2, 3) and not t.any()


def test_no_directions():
    x = np.arange(6.0).reshape(2, 3)
    f = lambda x: np.linalg.norm(np.sort(x @ x.T), axis=0)[np.array([0, 1, 0])]  # noqa: E731
    out, t = dn.jvp(f, (x,), (np.zeros((0, 2, 3)),))
    assert out.shape == (3,) and t.shape == (0, 3)
    (ct,) = dn.vjp(f, x)[1](np.zeros((0, 3)))
    assert ct.shape == (0, 2, 3)
    assert dn.linearize(f, x)[1](np.zeros((0, 2, 3))).shape == (0, 3)


def test_in_place_operators_on_names_make_new_values():
    x = np.array([1.0, 2.0])

    def f(y):
        y += 1.0
        y *= y
        return y

    out, t = dn.jvp(f, (x.copy(),), (np.ones(2),))
    assert out.tolist() == [4, 9] and t.tolist() == [4, 6] and x.tolist() == [1, 2]


def test_arguments_are_not_written_to(rng):
    x, v = rng.normal(size=(2, 2)), rng.normal(size=(3, 2, 2))
    x.flags.writeable = v.flags.writeable = False
    f = lambda x: np.sum(np.nan_to_num(np.sort(x @ x), copy=False) * np.cumprod(x, 0))  # noqa: E731
    dn.jvp(f, (x,), (v,))
    dn.grad(f)(x)
    dn.grad(lambda x: np.sum(np.nan_to_num(x, copy=False) * x))(x)


def test_zero_dimensional_results_of_reductions_keep_working():
    def f(x):
        total = np.sum(x)  # a NumPy scalar, not an array
        return total * total[()] + total.reshape(1)[0] + total.astype(np.float64).sum()

    assert dn.grad(f)(np.ones(3)).tolist() == [8, 8, 8]


# --- arguments in other forms -------------------------------------------------------------------


LIST_OPERANDS = {
    "where": lambda x: np.where([True, False, True], x, 0.0),
    "matmul": lambda x: x @ [1.0, 2.0, 3.0],
    "dot": lambda x: np.dot(x, [1.0, 2.0, 3.0]),
    "inner": lambda x: np.inner([1.0, 2.0, 3.0], x),
    "tensordot": lambda x: np.tensordot(x, [1.0, 2.0, 3.0], 1),
    "einsum": lambda x: np.einsum("i,i", x, [1.0, 2.0, 3.0]),
    "kron": lambda x: np.kron([1.0, 2.0], x),
    "solve": lambda x: np.linalg.solve([[1.0, 0, 0], [1, 1, 0], [0, 2, 1]], x),
    "power": lambda x: np.power(x, [2.0, 3.0, 1.0]),
    "arctan2": lambda x: np.arctan2([1.0, 2.0, 3.0], x),
    "subtract": lambda x: x - [[1.0], [2.0]],
}


@pytest.mark.parametrize("f", LIST_OPERANDS.values(), ids=LIST_OPERANDS.keys())
@pytest.mark.parametrize("k", [2, 3])
def test_plain_lists_may_stand_for_arrays(f, k, key):
    x = np.array([0.5, 1.5, 2.5])
    dn.check_jvp(f, (x,), k=k, order=2, key=key)
    dn.check_vjp(f, (x,), k=k, key=key)


def test_a_linearizer_must_have_a_map_for_every_argument_with_a_tangent():
    f = dn.custom_jvp(lambda x, y: x * y)
    f.deflinearizer(lambda x, y: (x * y, lambda t: t * y))
    assert dn.grad(lambda x: f(x, 3.0))(2.0) == 3.0
    with pytest.raises(MissingRuleError, match="cannot be differentiated by argument 1"):
        dn.grad(lambda y: f(2.0, y))(3.0)


@pytest.mark.parametrize("x", [1.5, np.array([1.5, 2.0]), np.array([[1.5, 2.0], [3.0, 4.0]])])
@pytest.mark.parametrize(
    "asked",
    [
        lambda x: x == "auto",
        lambda x: x != "auto",
        lambda x: "1.5" == x,
        lambda x: x == np.array(["1.5"]),
        lambda x: x == 1.5,
        lambda x: 1.5 in x,
        lambda x: 9.0 in x,
        lambda x: np.array([1.5, 9.0]) in x,
        lambda x: x * 1.0 in x,
    ],
)
def test_questions_about_values_are_answered_as_numpy_does(asked, x):
    def answer(x):
        try:
            return asked(x)
        except TypeError:
            return "TypeError"

    wanted = answer(x)
    given = dn.jvp(lambda x: (x, [answer(x)]), (x,), (x,), has_aux=True)[2][0]
    assert type(given) is type(wanted)
    np.testing.assert_array_equal(given, wanted)


def test_integers_made_from_a_dual_are_constants():
    value, slope = dn.jvp(lambda x: x * x.astype(int), (np.array(2.5),), (np.array(1.0),))
    assert (value, slope) == (5.0, 2.0)


def test_unsigned_exponents_do_not_wrap():
    x, n = np.array([2.0, 3.0]), np.array([0, 2], np.uint8)
    assert dn.grad(lambda x: (x**n).sum())(x).tolist() == [0.0, 6.0]


def test_gradients_may_be_written_to():
    x = np.ones((2, 3))
    gradient = dn.grad(lambda x: x.sum())(x)
    gradient *= 2
    _, tangent = dn.jvp(lambda x: np.broadcast_to(x, (2, 3)), (np.ones(3),), (np.ones(3),))
    tangent += 1
    assert gradient.tolist() == tangent.tolist() == [[2.0] * 3] * 2


def test_the_deviation_of_equal_entries_has_derivative_zero():
    assert dn.grad(np.std)(np.ones(3)).tolist() == [0.0, 0.0, 0.0]


def test_out_none_is_no_out():
    assert dn.grad(lambda x: np.sum(x, axis=0, out=None))(np.ones(2)).tolist() == [1.0, 1.0]


def test_a_count_of_sections_may_be_a_numpy_integer():
    _, second = dn.jvp(lambda x: np.split(x, np.int64(2))[1], (np.arange(4.0),), (np.ones(4),))
    assert second.tolist() == [1.0, 1.0]


def test_a_dual_says_where_constants_are_made(rng):
    """NumPy's functions with like=: the constant has no tangent, at any depth and for scalars."""
    x = rng.normal(size=3)

    def f(x):
        total = np.sum(x)
        made = [
            np.arange(3, like=x),
            np.asarray([2.0, 1.0, 0.0], like=total),
            np.zeros(3, like=x),
            np.identity(3, like=total)[0],
        ]
        assert all(type(constant) is np.ndarray for constant in made)
        return np.sum(x * sum(made))

    np.testing.assert_array_equal(dn.grad(f)(x), [3.0, 2.0, 2.0])
    product = dn.jacfwd(dn.grad(lambda x: f(x) * np.sum(x)))(x)
    np.testing.assert_allclose(product, np.add.outer([3.0, 2.0, 2.0], [3.0, 2.0, 2.0]))
    with pytest.raises(DualConversionError, match="its tangent would be lost"):
        dn.grad(lambda x: np.sum(np.asarray([x[0], 1.0], like=x)))(x)


# --- transformed functions leave the process -----------------------------------------------------


def pickled_loss(w, scale=1.0):
    return (np.tanh(w) * scale).sum()


def pickled_loss_and_aux(f, w):
    """A first argument of the name of grad's own, which must not be in its way."""
    return (f * w**2).sum(), w


def pickled_rows(w):
    return np.outer(w, w)


@pytest.mark.parametrize(
    ("transformed", "args", "kwargs"),
    [
        (dn.grad(pickled_loss), (V,), {}),
        (dn.grad(pickled_loss), (V,), {"scale": 3.0}),
        (dn.grad(pickled_loss_and_aux, 1, has_aux=True), (V, V), {}),
        (dn.value_and_grad(pickled_loss), (V,), {}),
        (dn.value_and_grad(pickled_loss_and_aux, (0, 1), has_aux=True), (V, V), {}),
        (dn.jacfwd(pickled_rows), (V,), {}),
        (dn.jacrev(pickled_rows, tangent_chunk=2), (V,), {}),
        (dn.jacfwd(dn.grad(pickled_loss)), (V,), {}),
    ],
)
def test_a_transformed_function_can_be_pickled(transformed, args, kwargs):
    again = pickle.loads(pickle.dumps(transformed))
    wanted, found = (tree.leaves(f(*args, **kwargs)) for f in (transformed, again))
    assert len(wanted) == len(found)
    assert all(map(np.array_equal, wanted, found))


def test_a_transformed_function_is_right_in_another_process():
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(dn.grad(pickled_loss), V).result()
    np.testing.assert_allclose(found, 1 - np.tanh(V) ** 2)


def test_a_transformed_function_takes_any_keyword_and_binds_as_a_method():
    assert dn.grad(lambda x, f, argnums: (x * f * argnums).sum())(2.0, f=3.0, argnums=5.0) == 15.0

    class Model:
        scale = 3.0
        slope = dn.grad(lambda self, x: self.scale * x**2, 1)

    assert Model().slope(2.0) == 12.0
