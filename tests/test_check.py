"""`python -m dualnet.check`: its table is complete, its rows pass, and every mistake is found."""

import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dualnet as dn
import dualnet.check.__main__ as command
from dualnet import backends, nn, optim, tree
from dualnet.check import LIMITS, ROWS, Row, verify, worst
from dualnet.check.operations.zero import ZERO
from dualnet.checking.checks import DerivativeError
from dualnet.console import exit_code
from dualnet.core import dual, linear
from dualnet.core.dual import Dual
from dualnet.core.engine import rule, take_apart
from dualnet.core.linear import LinearMap
from dualnet.core.refusals import name_of
from dualnet.core.tables.writing import WRITES
from dualnet.errors import TangentError, UsageError
from dualnet.models import MODELS
from dualnet.nn import losses
from dualnet.nn.affine import affine
from dualnet.optim import Optimizer

COVERED = {row.covers for row in ROWS}
FAMILIES = tuple(dict.fromkeys(row.family for row in ROWS))


def row_named(name):
    (found,) = [row for row in ROWS if row.name == name]
    return found


# --- every row passes ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_passes(family, key, worst):
    results = [verify(row, key) for row in ROWS if row.family == family]
    assert not [result.failure for result in results if result.failure]
    for result in results:
        for kind, error in result.errors.items():
            worst(f"check, {kind}", error, result.row.name)
            assert error <= LIMITS[kind], (result.row.name, kind)
        expected = set(LIMITS) - ({"composed"} if result.row.composed is None else set())
        if result.row.decreed:  # no difference is near a derivative that is decreed
            expected -= {"first order", "second order"}
        assert set(result.errors) == expected


def test_the_limits_are_those_of_the_plan():
    assert LIMITS["first order"] <= 1e-7 and LIMITS["second order"] <= 1e-5
    assert LIMITS["adjoint"] <= 1e-10 and LIMITS["float32"] <= 1e-5


# --- the table is complete -----------------------------------------------------------------------

BUILDS_OR_LOOKS = {
    *(nn.walk, nn.couples_examples, nn.has_local_heads, nn.with_local_heads, nn.table),
}
"""Functions of dualnet.nn that take no arrays, and build nothing that does."""


def public(module):
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


def test_every_function_with_a_rule_has_a_row():
    """But those of learning rules, whose derivative is to be another than that of the value."""
    own = ("numpy", "dualnet.core", "dualnet.images", "dualnet.nn", "dualnet.optim")
    ours = {fn for fn in dual.RULES if (getattr(fn, "__module__", None) or "numpy").startswith(own)}
    ours -= {fn for fn in ours if name_of(fn).startswith("scipy.")}  # those are in test_scipy
    # The methods of all ufuncs share four rules, of which the table has rows.  What gives NaN at
    # kinks has no differences to be compared with; tests/test_edges.py has it.
    ours -= {fn for fn in ours if isinstance(getattr(fn, "__self__", None), np.ufunc)}
    ours -= {fn for fn in ours if getattr(fn, "__module__", "").endswith(".kinks")}
    ours -= {
        fn for fn in ours if name_of(fn).startswith("np.") and hasattr(fn, "__code__")
    }  # mutants
    # It takes moments that go with its argument, so the rows of batch norm are its rows.
    ours -= {fn for fn in ours if fn.__name__ == "_normalize_by"}
    assert not COVERED & ZERO.keys()
    missing = ours - COVERED - ZERO.keys()
    assert not missing, f"no row in dualnet/check for {sorted(map(name_of, missing))}"


def test_every_layer_and_function_of_nn_has_a_row():
    members = [getattr(nn, name) for name in nn.__all__ if name != "Layer"]
    layers = {m for m in members if inspect.isclass(m) and hasattr(m, "init") and m is not nn.Layer}
    functions = {m for m in members if inspect.isfunction(m)} - BUILDS_OR_LOOKS
    assert len(layers) > 15 and len(functions) > 10
    missing = (layers | functions | set(nn.ACTIVATIONS.values())) - COVERED
    assert not missing, f"no row in dualnet/check for {sorted(m.__name__ for m in missing)}"


def test_every_layer_written_is_a_layer_offered():
    written = {
        value
        for module in vars(nn).values()
        if inspect.ismodule(module) and module.__name__.startswith("dualnet.nn.")
        for value in public(module).values()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and hasattr(value, "apply")
    }
    assert written - {nn.Layer} <= COVERED


def test_every_loss_has_a_row():
    written = {
        value
        for value in public(losses).values()
        if inspect.isfunction(value) and value.__module__ == losses.__name__
    }
    assert len(written) > 1 and written <= {r.covers for r in ROWS if r.family == "losses"}


def test_every_optimizer_and_function_of_optim_has_a_row():
    written = {
        value
        for value in public(optim).values()
        if getattr(value, "__module__", "").startswith("dualnet.optim.") and value is not Optimizer
    }
    assert written >= set(optim.OPTIMIZERS.values())
    assert written <= {row.covers for row in ROWS if row.family == "optimizers"}


def test_every_model_has_a_row():
    covered = {row.covers for row in ROWS if row.family == "models"}
    assert covered == {f"model {name}" for name in MODELS}


def test_names_of_rows_are_distinct():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)


# --- the checker is checked: rules with a mistake ------------------------------------------------


def with_other_tangent(result, level, change):
    """The result of a rule with every tangent of `level` changed."""

    def one(x):
        if isinstance(x, Dual) and x.level is level:
            return Dual(x.primal, change(x.tangent), level)
        return x

    return tree.map(one, result)


def off_by_a_thousandth(real):
    def mutant(level, args, kwargs):
        return with_other_tangent(real(level, args, kwargs), level, lambda t: t * 1.001)

    return mutant


def of_the_wrong_sign(real):
    def mutant(level, args, kwargs):
        return with_other_tangent(real(level, args, kwargs), level, lambda t: -t)

    return mutant


def forgetting_an_axis(real):
    """Takes the first entry along the last axis for all of them; in a result of one number, the
    first of k directions."""

    def change(t):
        shape = linear.shape_of(t)
        if shape and shape[-1] > 1:
            return linear.broadcast_to(linear.index(t, (..., slice(0, 1))), shape)
        return t if isinstance(t, linear.StructuredTangent) else t[:1] + 0 * t

    def mutant(level, args, kwargs):
        return with_other_tangent(real(level, args, kwargs), level, change)

    return mutant


def with_a_stale_residual(real):
    """Maps the tangent as the first call with arguments of these shapes had to."""
    first = {}

    def mutant(level, args, kwargs):
        now, tangents_now = take_apart(args, level)
        shapes = str([tree.map(np.shape, a) if tree.leaves(a) else a for a in now])
        kept = first.setdefault(shapes, now)

        def moved(t, old):
            if isinstance(t, list):
                return [moved(*pair) for pair in zip(t, old, strict=True)]
            return old if t is None else Dual(old, t, level)

        stale = real(level, list(map(moved, tangents_now, kept)), kwargs)
        tangents = iter(tree.leaves(stale))
        result = real(level, args, kwargs)
        return tree.map(
            lambda x, y: (
                Dual(x.primal, y.tangent, level)
                if isinstance(x, Dual) and isinstance(y, Dual)
                else x
            ),
            result,
            tree.unflatten(result, list(tangents)),
        )

    return mutant


def broken(fn, mistake):
    """The rule of `fn` with a mistake."""
    entry = dual.RULES[fn]
    return entry._replace(evaluate=mistake(entry.evaluate))


MISTAKES = [off_by_a_thousandth, of_the_wrong_sign, forgetting_an_axis, with_a_stale_residual]
WITH_RULES = {
    fn: [row for row in ROWS if row.covers is fn]
    for fn in dual.RULES
    if any(row.covers is fn for row in ROWS)
}


def has_residuals(fn):
    """Whether the tangent depends on where it is taken: not so for what only moves entries or
    adds them up."""
    for row in WITH_RULES[fn]:
        rng = np.random.default_rng(5)
        here, there = row.arrays(rng), row.arrays(rng)
        v = tree.map(lambda x: np.sin(1.0 + np.arange(x.size)).reshape(x.shape), here)
        a, b = (tree.leaves(dn.jvp(row, x, v)[1]) for x in (here, there))
        if not all(np.allclose(x, y) for x, y in zip(a, b, strict=True)):
            return True
    return False


def results_of(rows, key):
    """Verifies the rows with four draws of their arrays, one after the other: a residual that says
    which entries were picked, kept from other arrays, may happen to be right.  In one draw of 40 it
    is for `np.nanpercentile`, whose row has a single result."""
    for draw in range(4):
        yield from (verify(row, key.fold_in(draw)) for row in rows)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("optimizers", "models")])
def test_a_rule_with_a_mistake_fails(family, mistake, monkeypatch, key):
    tried, survivors = 0, []
    for fn, rows in WITH_RULES.items():
        if rows[0].family != family or fn in WRITES:  # which return nothing to put a mistake into
            continue
        if mistake is with_a_stale_residual and not has_residuals(fn):
            continue
        with monkeypatch.context() as patch:
            patch.setitem(dual.RULES, fn, broken(fn, mistake))
            failed = next((r for r in results_of(rows, key) if r.failure), None)
        tried += 1
        if failed is None:
            survivors.append(name_of(fn))
        else:
            assert failed.failure.startswith(f"{failed.row.name}: ")
    assert tried > 0 or (family, mistake) in NOTHING_TO_BREAK
    assert not survivors


NOTHING_TO_BREAK = {("indexing", with_a_stale_residual)}
"""Which entry goes where is said by an index, which a row does not change; but see `iteration`."""


def test_an_index_kept_from_an_earlier_call_fails(monkeypatch):
    getitem = next(fn for fn in dual.RULES if name_of(fn).endswith("getitem"))

    first = []

    def stale(level, args, kwargs):
        x, index = args
        first.append(index)
        result = real(level, args, kwargs)
        return Dual(result.primal, real(level, (x, first[0]), kwargs).tangent, level)

    real = dual.RULES[getitem].evaluate
    monkeypatch.setitem(dual.RULES, getitem, broken(getitem, lambda _real: stale))
    assert verify(row_named("iteration")).failure.startswith("iteration: forward: jvp at 1[0] is ")


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
@pytest.mark.parametrize(
    ("name", "fn"),
    [
        ("model mlp", affine),
        ("model mlp", nn.relu),
        ("model mlp", nn.softmax_cross_entropy),
        ("model mlp-gelu", nn.gelu),
        ("Linear", affine),
        ("LayerNorm", nn.normalize),
        ("MultiHeadAttention", nn.softmax),
        ("Residual-shortcut", np.tanh),
    ],
)
def test_a_rule_with_a_mistake_fails_in_layers_and_models(name, fn, mistake, monkeypatch, key):
    monkeypatch.setitem(dual.RULES, fn, broken(fn, mistake))
    result = verify(row_named(name), key)
    assert result.failure.startswith(f"{name}: forward: ")


# --- mistakes that people make -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fn", "maps"),
    [
        ("np.sum-axis=0", np.sum, [lambda t, out, x, axis, keepdims: np.sum(t, axis=axis)]),
        ("np.sum-axis=-1, keepdims", np.sum, [lambda t, out, x, axis, keepdims: t]),
        (
            "np.multiply-rank 1 and 2",
            np.multiply,
            [lambda t, out, x, y: t * y, lambda t, out, x, y: t * x],
        ),
        ("np.transpose", np.transpose, [lambda t, out, x: linear.transpose(t, (-1, -3, -2))]),
        (
            "np.matmul-(2, 3)(3, 4)",
            np.matmul,
            [lambda t, out, x, y: t @ y, lambda t, out, x, y: linear.matmul_from_left(t, y.T)],
        ),
    ],
    ids=["sum over k", "no sum", "no alignment", "wrong axes", "wrong factor"],
)
def test_an_axis_mistaken_fails(name, fn, maps, monkeypatch, key):
    monkeypatch.delitem(dual.RULES, fn)
    rule(fn, *maps)
    failure = verify(row_named(name), key).failure
    del dual.RULES[fn]  # so that monkeypatch finds what it left
    assert failure.startswith(f"{name}: forward: ")


@pytest.mark.parametrize("optimizer", optim.OPTIMIZERS.values(), ids=lambda o: o.__name__)
@pytest.mark.parametrize("mistake", ["a thousandth", "wrong sign", "an axis", "stale"])
def test_an_optimizer_with_a_mistake_fails(optimizer, mistake, monkeypatch, key):
    real, first = optimizer.update_leaf, {}

    def mistaken(self, g, s, p, lr, step):
        if mistake == "an axis":
            g = np.broadcast_to(np.mean(g, axis=-1, keepdims=True), g.shape)
        if mistake == "stale":
            g = first.setdefault((g.shape, g.dtype), g)
        new_p, memory = real(self, g, s, p, lr, step)
        if mistake == "a thousandth":
            new_p = p + (new_p - p) * p.dtype.type(1.001)
        if mistake == "wrong sign":
            new_p = p - (new_p - p)
        return new_p, memory

    monkeypatch.setattr(optimizer, "update_leaf", mistaken)
    failure = verify(row_named(optimizer.__name__), key).failure
    assert failure.startswith(f"{optimizer.__name__}: forward: ")


def linear_maps():
    """Every linear map of the package, wherever it is written, but that which makes NaN, and that
    of the matrix exponential, which test_scipy verifies."""
    left_out = {"dualnet.core.tables.kinks", "dualnet.scipy"}
    modules = [m for n, m in sys.modules.items() if n.startswith("dualnet.") and n not in left_out]
    found = [v for m in modules for v in vars(m).values() if isinstance(v, LinearMap)]
    return {repr(v): v for v in found}


@pytest.fixture(scope="module")
def rows_by_transpose():
    """For each linear map, the rows whose verification transposes it, of the first two of each
    function."""
    of_function = {}
    for row in ROWS:
        if row.family != "models":  # which are made of the others
            of_function.setdefault(row.covers, []).append(row)
    maps, used = linear_maps(), {}
    with pytest.MonkeyPatch.context() as patch:
        for name, linear_map in maps.items():
            real = linear_map.transpose

            def spy(*args, name=name, real=real):
                used.setdefault(name, {})[current.name] = current
                return real(*args)

            patch.setattr(linear_map, "transpose", spy)
        for current in [row for rows in of_function.values() for row in rows[:2]]:
            verify(current)
    return {name: list(rows.values()) for name, rows in used.items()}


NEVER_TRANSPOSED = {"linear.weighted_sum_transpose_of_tangent", "linear.share_back"}
"""Themselves transposes, which no rule applies to a tangent."""


@pytest.mark.parametrize("name", sorted(linear_maps().keys() - NEVER_TRANSPOSED))
def test_a_wrong_transpose_fails(name, rows_by_transpose, monkeypatch):
    linear_map = linear_maps()[name]
    real = linear_map.transpose
    for change in (lambda ct: ct * 1.001, lambda ct: -ct):
        with monkeypatch.context() as patch:
            patch.setattr(linear_map, "transpose", lambda *args, c=change: c(real(*args)))
            # a row that transposes twice does not notice a sign
            failed = (r for r in map(verify, rows_by_transpose[name]) if r.failure)
            told = "" if name == "linear.cast" else "vjp: ⟨u, J v⟩ = "  # double is not converted
            found = next((r for r in failed if told in r.failure), None)
        assert found and found.failure.startswith(f"{found.row.name}: ")


def test_a_transpose_of_another_primal_fails(monkeypatch, key):
    monkeypatch.setattr(linear.scale, "transpose", lambda ct, shape, c: linear.scale(ct, c + 1.0))
    assert "does not fit the map" in verify(row_named("np.var-axis=0"), key).failure


# --- mistakes that only one kind of check can see ------------------------------------------------


def own_row(f, *draws, **how):
    draws = draws or (lambda rng: rng.uniform(0.5, 1.5, (2, 3)),)
    return Row("mine", "", "mine", lambda _xp, *x: f(*x), draws, **how)


def test_a_residual_that_a_later_call_overwrites_fails():
    f = dn.custom_jvp(lambda x: np.sin(x))
    buffer = np.empty((2, 3))

    @f.deflinearizer
    def _(x):
        if isinstance(x, Dual):
            return np.sin(x), lambda t: t * np.cos(x)
        factor = np.cos(x, out=buffer) if x.dtype == buffer.dtype else np.cos(x)
        return np.sin(x), lambda t: linear.scale(t, factor)

    assert verify(own_row(f)).failure.startswith("mine: replay: the jvp")


def test_single_precision_that_is_lost_fails():
    failure = verify(own_row(lambda x: (x + 1e4) - 1e4)).failure
    assert failure.startswith("mine: float32: the value[")


def test_a_composition_that_differs_fails():
    row = row_named("softmax_cross_entropy")
    other = dataclasses.replace(row, composed=lambda _xp, x: row(x) + 1e-6 * x[:, 0])
    assert verify(other).failure.startswith("softmax_cross_entropy: composed: the value[")


def test_a_gradient_that_is_not_stopped_fails(monkeypatch):
    monkeypatch.setattr("dualnet.nn.layers.stop_gradient", lambda x: x)
    assert verify(row_named("StopGradient")).failure.startswith("StopGradient: composed: the jvp[")


def test_a_row_that_raises_fails():
    failure = verify(own_row(lambda x: np.unique(x))).failure
    assert failure.startswith("mine: forward: MissingRuleError: np.unique has no derivative")


def test_points_that_cannot_be_drawn_fail():
    failure = verify(own_row(lambda x: x, watch=True)).failure
    assert "draw: ValueError: is_judged: f meets no maximum and no root; leave out" in failure
    failure = verify(own_row(lambda x: np.maximum(1e-6 * x, 0), watch=True)).failure
    assert "mine: none of 1000 points is far enough from all kinks; make the row sm" in failure


# --- what a failed check says --------------------------------------------------------------------

PARAMS = {"w": np.array([[0.3, 0.7], [1.1, -0.2]]), "b": np.array([0.1, -0.4])}
X = np.array([[1.0, 2.0], [0.5, -1.5], [0.25, 0.75]])


def layer(product):
    return lambda params, x: {"y": np.tanh(product(x, params["w"]) + params["b"])}


def mistaken_product():
    product = dn.custom_jvp(lambda x, w: x @ w)
    product.defjvps(
        lambda t, out, x, w: linear.matmul(t, w),
        lambda t, out, x, w: linear.matmul_from_left(t, x) * 1.001,
    )
    return product


def test_trees_pass():
    report = dn.check_jvp(layer(np.matmul), (PARAMS, X), order=2)
    assert 0 < report.first_order < 1e-9 and 0 < report.second_order < 1e-9
    report = dn.check_vjp(layer(np.matmul), (PARAMS, X), order=2)
    assert report.adjoint < 1e-15 and 0 < report.second_order < 1e-9


def test_a_report_says_none_for_what_was_not_measured():
    report = dn.check_jvp(np.sin, (X,))
    assert report.first_order is not None and report.k_against_single is not None
    assert report.second_order is None and report.adjoint is None
    report = dn.check_vjp(np.sin, (X,))
    assert report.first_order is None and report.second_order is None
    assert report.adjoint is not None and report.k_against_single is not None
    assert dn.check_vjp(np.sin, (X,), order=2).second_order is not None


def test_a_failure_names_element_step_and_argument():
    pattern = (
        r"^jvp at y\[\d, \d\] is \S+, expected \S+ \(central difference, step 6\.1e-06\): relative "
        r"error \S+, allowed 1e-07\. \d of 6 entries differ: likely a rule that is wrong for some "
        r"arguments or leaves out a term or an axis\. It comes with the tangent at 0/w of the "
        r"arguments$"
    )
    with pytest.raises(DerivativeError, match=pattern):
        dn.check_jvp(layer(mistaken_product()), (PARAMS, X))


def test_a_failure_names_the_worst_element_of_all():
    f = dn.custom_jvp(lambda x: np.sin(x))
    f.defjvps(lambda t, out, x: t * np.cos(x) * np.array([1.0, 1.001, 1.1]))
    with pytest.raises(DerivativeError, match=r"jvp at 1\[2\] is .* 2 of 3 entries differ"):
        dn.check_jvp(lambda x, y: [np.cos(x), f(y)], (np.ones(3), np.ones(3)))


M = np.array([[0.3, 0.7, 1.1], [0.2, 0.5, 0.9]])
TOTAL = LinearMap(lambda t: np.sum(t, axis=-1))
TOTAL.transposed(lambda ct, shape: ct)  # forgot to stretch it back
DOUBLE = LinearMap(lambda t: t * 2.0)
DOUBLE.transposed(lambda ct, shape: ct * 3.0)


def columns_sum(x):
    return np.sum(x, axis=0)


def mixed(t):
    return t * 0 + np.mean(t, axis=0)


def twice(x, beyond_one):
    return np.where(x > 1, beyond_one, 2.0 * x)


ANY = r"jvp\[0, 2\] is .* wrong for some arguments"


@pytest.mark.parametrize(
    ("body", "by_x", "how", "message"),
    [
        (np.sin, lambda t, out, x: t * np.cos(x) * 1.001, {}, r"off by the factor 1\.001"),
        (np.cos, lambda t, out, x: t * np.sin(x), {}, "All entries have the wrong sign"),
        (np.square, lambda t, out, x: t * twice(x, 2.0), {}, ANY),
        (np.square, lambda t, out, x: t * twice(x, np.nan), {}, "Not finite"),
        (columns_sum, lambda t, out, x: np.sum(t, axis=0), {"k": 2}, r"axis is that of the k = \d"),
        (np.sin, lambda t, out, x: mixed(t) * np.cos(x), {}, "3 directions in one pass"),
        (np.sin, lambda t, out, x: t * np.cos(x) * np.array([1.0, 1.1, 1.0]), {}, r"an axis$"),
    ],
)
def test_what_is_said_of_a_mistaken_rule(body, by_x, how, message):
    f = dn.custom_jvp(lambda x: body(x))
    f.defjvps(by_x)
    with pytest.raises((DerivativeError, TangentError), match=message):
        dn.check_jvp(f, (M,), **how)
    if "factor" in message:  # the transpose of a wrong map is still its transpose
        dn.check_vjp(f, (M,))


def test_what_is_said_of_a_second_derivative_that_is_cut_off():
    f = dn.custom_jvp(lambda x: np.sin(x))
    f.defjvps(lambda t, out, x: t * np.cos(dn.stop_gradient(x)))
    dn.check_jvp(f, (M,))
    with pytest.raises(DerivativeError, match="the jvp of the jvp"):
        dn.check_jvp(f, (M,), order=2)


@pytest.mark.parametrize(
    ("body", "linear_map", "message"),
    [
        (lambda x: x * 2.0, DOUBLE, r"⟨u, J v⟩ = .* the transpose of a linear map"),
        (
            lambda x: np.sum(x, axis=-1),
            TOTAL,
            r"the transpose of .* returned a cotangent of shape \(2,\)",
        ),
    ],
    ids=["factor", "shape"],
)
def test_what_is_said_of_a_wrong_transpose(body, linear_map, message):
    f = dn.custom_jvp(body)
    f.defjvps(lambda t, out, x: linear_map(t))
    dn.check_jvp(f, (M,))
    with pytest.raises((DerivativeError, TangentError), match=message):
        dn.check_vjp(f, (M,))


@pytest.mark.parametrize(
    ("f", "x", "linear", "message"),
    [
        (lambda x: np.sin(dn.stop_gradient(x)), M, False, "The tangent is lost: .* stop_gradient"),
        (np.abs, X[0] * 1e-9, False, r"or a kink \(relu, abs, max, .* within a step"),
        (np.exp, X, True, r"step 1\.0e\+00.*or linear=True is wrong, and f no"),
    ],
)
def test_what_is_said_of_a_function(f, x, linear, message):
    with pytest.raises(DerivativeError, match=message):
        dn.check_jvp(f, (x,), linear=linear)


def test_what_is_said_of_a_changed_primal():
    f = dn.custom_jvp(lambda x: np.sin(x))
    f.deflinearizer(lambda x: (np.sin(x) + 1e-16 + x * 1e-16, lambda t: t * np.cos(x)))
    with pytest.raises(DerivativeError, match="the primal under jvp differs from f's own result"):
        dn.check_jvp(f, (M,))


@pytest.mark.parametrize("dtype", (np.float64, np.float32))
def test_a_primal_may_be_rounded_where_it_is_allowed(dtype):
    def off_by(ulps):
        f = dn.custom_jvp(lambda x: x * 2.0)
        f.deflinearizer(
            lambda x: (x * 2.0 + x * (2.0 * ulps * np.finfo(x.dtype).eps), lambda t: t * 2.0)
        )
        return f

    x = np.array([1.0, -2.0], dtype)
    dn.check_jvp(off_by(8), (x,), rounding=16 * 2.0**-52)
    for ulps, rounding in ((32, 16 * 2.0**-52), (8, 0.0), (np.nan, 1.0)):
        with pytest.raises(DerivativeError, match="the primal under jvp differs"):
            dn.check_jvp(off_by(ulps), (x,), rounding=rounding)


def test_only_compositions_may_be_rounded():
    rounded = {row.name for row in ROWS if row.recomposed}
    assert {"np.cov", "np.polyval", "method cumprod", "operator x **= c"} <= rounded
    assert not {"np.exp", "np.sum-axis=0", "np.max-axis=0", "operator x ** c"} & rounded
    assert not {row.name for row in ROWS if row.family in ("layers", "losses", "models")} & rounded


def test_a_wrong_transpose_names_the_worst_element():
    double = LinearMap(lambda t: t * 2.0)
    double.transposed(lambda ct, shape: ct * np.array([2.0, 3.0]))
    f = dn.custom_jvp(lambda x: x * 2.0)
    f.defjvps(lambda t, out, x: double(t))
    with pytest.raises(
        DerivativeError, match=r"fit the map\. The vjp at 0/b\[1\] is \S+, expected"
    ):
        dn.check_vjp(lambda p: f(p["b"]), (PARAMS,))


def test_a_wrong_second_derivative_of_the_vjp_is_found():
    scaled = LinearMap(lambda t, c: t * c)
    scaled.transposed(lambda ct, shape, c: scaled(ct, dn.stop_gradient(c)))
    f = dn.custom_jvp(lambda x: np.sin(x))
    f.defjvps(lambda t, out, x: scaled(t, np.cos(x)))
    dn.check_jvp(f, (X,), order=2)
    dn.check_vjp(f, (X,))
    with pytest.raises(DerivativeError, match=r"^the jvp of the vjp at 0"):
        dn.check_vjp(f, (X,), order=2)


# --- answers worked out by hand ------------------------------------------------------------------


def test_the_tangent_of_a_convolution():
    x, w = np.arange(4.0).reshape(1, 2, 2, 1), np.array([[[[2.0]], [[3.0]]]])
    dw = np.array([[[[1.0]], [[10.0]]]])
    y, t = dn.jvp(lambda w: nn.conv2d(x, w), (w,), (dw,))
    assert y.ravel().tolist() == [0 * 2 + 1 * 3, 2 * 2 + 3 * 3]
    assert t.ravel().tolist() == [0 * 1 + 1 * 10, 2 * 1 + 3 * 10]


def test_the_gradient_of_max_pooling():
    x = np.array([[1.0, 5.0], [2.0, 2.0]]).reshape(1, 2, 2, 1)
    gradient = dn.grad(lambda x: 7.0 * np.sum(nn.max_pool(x, (1, 2))))(x)
    assert gradient.ravel().tolist() == [0, 7, 3.5, 3.5]


def test_the_tangent_of_normalization():
    # of 0 and 2 with ε = 3: y = ±1/2; a shift does nothing; stretching by t: t (1 - y²) / 2
    x = np.array([0.0, 2.0])
    directions = np.array([[1.0, 1.0], [-1.0, 1.0]])
    y, t = dn.jvp(lambda x: nn.normalize(x, (0,), 3.0), (x,), (directions,))
    assert y.tolist() == [-0.5, 0.5]
    assert t.tolist() == [[0, 0], [-0.375, 0.375]]


def test_the_gradient_of_cross_entropy():
    logits = np.log(np.array([[1.0, 1.0, 2.0]]))
    gradient = dn.grad(lambda z: nn.softmax_cross_entropy(z, np.array([2]))[0])(logits)
    assert gradient.tolist() == [[pytest.approx(0.25), pytest.approx(0.25), pytest.approx(-0.5)]]


def test_a_step_of_momentum():
    p, g, v = {"w": np.array([1.0])}, {"w": np.array([2.0])}, {"w": np.array([4.0])}
    state = {"step": np.array(1), "velocity": v}
    new, memory = optim.Momentum(momentum=0.5).update(g, state, p, 0.25)
    assert new["w"].tolist() == [1 - 0.25 * (0.5 * 4 + 2)]
    assert memory["velocity"]["w"].tolist() == [4]


# --- the command ---------------------------------------------------------------------------------


def test_the_table_as_it_is_printed(capsys):
    assert exit_code("dualnet.check", command.main, ["--only", "losses"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    rows = [row.name for row in ROWS if row.family == "losses"]
    first, second, *table = lines[: -len(LIMITS) - 1]
    titles = " ".join(first.split() + second.split())
    assert all(word in titles for kind in LIMITS for word in kind.split())
    assert second.endswith("ms")
    # A name that is too long for its column has a line of its own above its figures.
    named = [line for line in table if not line.startswith(" ")]
    assert [line.partition("  ")[0] for line in named] == rows
    figures = [line for line in table if line not in rows]
    assert len(figures) == len(rows) and {len(line) for line in figures} == {len(second)}
    assert max(map(len, table)) <= 80
    assert [line.split(":")[0] for line in lines[-8:-1]] == [f"worst {kind}" for kind in LIMITS]
    assert lines[-1].startswith(f"{len(rows)} rows, 0 failed, ")
    assert "row/s" not in err and "row/s" not in out  # a bar is for terminals


def test_a_failure_is_named_and_ends_with_1(capsys, monkeypatch):
    monkeypatch.setitem(dual.RULES, np.sin, broken(np.sin, off_by_a_thousandth))
    assert exit_code("dualnet.check", command.main, ["--only", "np.[sc]in*"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith(" FAILED")] == [
        "np.sin",
        "np.sin-0-d",
    ]
    assert lines[-3].startswith("FAILED np.sin: forward: jvp[")
    assert "All entries are off by the factor 1.001" in lines[-3]
    assert ", 2 failed, " in lines[-1]
    assert exit_code("dualnet.check", command.main, ["--only", "np.sin", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["failed"][:2] == ["np.sin", "np.sin-0-d"]


def test_the_json_document_is_the_last_line():
    arguments = ["--only", "optimizers", "--seed", "3", "--json"]
    run = subprocess.run(
        [sys.executable, "-m", "dualnet.check", *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert run.returncode == 0
    document = json.loads(run.stdout.splitlines()[-1])
    assert document["seed"] == 3 and document["backend"] == "numpy" and not document["failed"]
    assert [row["name"] for row in document["rows"]] == [
        row.name for row in ROWS if row.family == "optimizers"
    ]
    for row in document["rows"]:
        assert row["family"] == "optimizers" and row["failure"] is None and row["seconds"] > 0
        assert row["errors"].keys() == document["worst"].keys() == LIMITS.keys()
    assert "Adam-weight decay" in run.stderr  # the table


def test_equal_seeds_give_equal_errors(key):
    row = row_named("transformer_block")
    assert verify(row, key).errors == verify(row, key).errors
    assert verify(row, key).errors != verify(row, key.fold_in("other")).errors


def test_the_worst_of_each_kind():
    results = [verify(row) for row in ROWS if row.family == "losses"]
    found = worst(results)
    for kind, (error, name) in found.items():
        assert error == max(r.errors[kind] for r in results if kind in r.errors)
        assert error == next(r for r in results if r.row.name == name).errors[kind]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--only", "np.nothing"], 2, "--only: no row or family matches 'np.nothing'; families"),
        (["--backend", "cupy"], 5, "backend cupy: "),
        (["--backend", "torch"], 2, "--backend: expected one of numpy, cupy, auto, got 'torch'"),
        (["--seed", "x"], 2, "--seed: expected an int, got 'x'"),
        (["--quick"], 2, "there is no flag --quick"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, code, message, capsys):
    if "cupy" in arguments and works("cupy"):
        pytest.skip("this machine has CuPy and a device, whose absence is tested")
    assert exit_code("dualnet.check", command.main, arguments) == code
    out, err = capsys.readouterr()
    assert not out and err.startswith(f"dualnet.check: {message}") and err.count("\n") == 1


def works(name):
    try:
        backends.get(name)
    except backends.BackendError:
        return False
    return True


def test_an_interrupt_ends_with_130(capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "verify", interrupt)
    assert exit_code("dualnet.check", command.main, ["--only", "losses"]) == 130
    assert capsys.readouterr().err.endswith("dualnet.check: interrupted\n")


def test_arrays_are_made_by_the_backend_and_compared_on_the_host():
    class Counting(backends.NumpyBackend):
        made = fetched = 0

        def asarray(self, x, dtype=None):
            self.made += 1
            return super().asarray(x, dtype)

        def to_host(self, x):
            self.fetched += 1
            return super().to_host(x)

    backend = Counting()
    assert verify(row_named("Linear"), backend=backend).failure is None
    assert backend.made == 6 and backend.fetched > 100


# --- what check_jvp says of its own limits --------------------------------------------------------


def test_a_slope_that_differences_cannot_see_is_not_passed():
    lost = dn.custom_jvp(lambda x: x * x)
    lost.defjvps(lambda t, out, x: t * 0.0)
    with pytest.raises(DerivativeError, match="cannot judge a slope of"):
        dn.check_jvp(lambda x: lost(x) + 1e10, (np.array([1.0, 2.0]),))
    dn.check_jvp(lambda x: np.sum(np.exp(x) / np.sum(np.exp(x))), (np.array([1.0, 2.0]),))


WRONG = dn.custom_jvp(lambda x: x * 1.0)
WRONG.defjvps(lambda t, out, x: t * -7.0)
WRONG_SQUARE = dn.custom_jvp(lambda x: x**2)
WRONG_SQUARE.defjvps(lambda t, out, x: t * -500.0 * x)
THREE = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("f", "x", "message"),
    [
        (WRONG, THREE * 1e10, "All entries are off by the factor -7"),
        (WRONG_SQUARE, THREE * 1e11, "entries differ"),
        (WRONG, np.array([1.0, 2e10]), "All entries are off by the factor -7"),
        (lambda x: WRONG(x) + 1e12, THREE, "cannot judge a slope of"),
        (lambda x: (WRONG(x), x * 1e9), THREE, r"jvp at 0\[\d\] is"),
        (lambda x: (np.exp(x * 0.0), WRONG(x) * 1e-9), THREE, r"jvp at 1\[\d\] is"),
        (lambda x: (WRONG(x), np.full(2, np.inf)), THREE, r"jvp at 1\[0\] is 0, expected nan"),
        (lambda x: (WRONG(x), np.full(2, 1e300)), THREE, r"jvp at 0\[\d\] is"),
    ],
)
def test_a_wrong_rule_is_found_beside_large_numbers(f, x, message):
    with pytest.raises(DerivativeError, match=message), np.errstate(invalid="ignore"):
        dn.check_jvp(f, (x,))


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("size", [1.0, 1e4, 1e10, 1e100])
def test_right_rules_pass_at_every_size(size, linear):
    report = dn.check_jvp(np.square, (THREE * size,), linear=linear, order=2)
    assert report.first_order < 1e-8 and report.second_order < 1e-8


def test_arrays_that_are_rounding_beside_others_are_passed():
    def parts(x):
        y = np.exp(x)
        return np.sum(y / np.sum(y)), np.mean(y - np.mean(y)), y

    for dtype in (np.float64, np.float32, np.float16):
        dn.check_jvp(parts, (THREE.astype(dtype),), order=2)
        dn.check_vjp(parts, (THREE.astype(dtype),), order=2)


def test_a_wrong_second_derivative_is_found_beside_large_ones():
    cut_off = dn.custom_jvp(lambda x: np.sin(x))
    cut_off.defjvps(lambda t, out, x: t * np.cos(dn.stop_gradient(x)))
    for large in (lambda x: 1e6 * np.square(x), lambda x: np.full(2, 1e300)):
        with pytest.raises(DerivativeError, match="the jvp of the jvp at 0"):
            dn.check_jvp(lambda x, large=large: (cut_off(x), large(x)), (THREE,), order=2)


def test_a_small_array_is_held_to_its_own_precision():
    doubled = dn.custom_jvp(lambda x: x * 1.0)
    doubled.defjvps(lambda t, out, x: t * x.dtype.type(1.0 + (x.dtype == np.float32)))
    with pytest.raises(DerivativeError, match="the jvp in float32 at 0"):
        dn.check_jvp(lambda x: (doubled(x), x * 1e4), (THREE.astype(np.float32),))


@pytest.mark.parametrize("f", [lambda x: np.log(x - 5.0), lambda x: np.sqrt(x - 1.0)])
def test_a_function_that_is_not_finite_is_said_to_be_so(f):
    with pytest.raises(DerivativeError, match=r"expected nan .*What is expected is not finite: f"):
        with np.errstate(all="ignore"):
            dn.check_jvp(f, (THREE,))


def test_a_function_that_bends_too_much_for_the_step_is_said_to():
    with pytest.raises(DerivativeError, match="f bends too much here") as error:
        dn.check_jvp(lambda x: np.sin(300 * x), (np.array([0.1, 0.2]),))
    assert "factor 1." not in str(error.value)


@pytest.mark.parametrize("how", [{"k": 0}, {"k": 2.5}, {"order": 3}, {"primals": ()}])
@pytest.mark.parametrize("check", [dn.check_jvp, dn.check_vjp])
def test_arguments_of_the_checks(check, how):
    arguments = {"primals": (np.ones(2),), **how}
    with pytest.raises(
        UsageError, match="expected at least one primal, order 1 or 2 and an int k >= 1"
    ):
        check(np.sin, **arguments)


def test_checks_ask_for_floats():
    with pytest.raises(UsageError, match=r"floats among the primals, got \(int64\(2,\)\); convert"):
        dn.check_jvp(np.sin, (np.array([1, 2]),))
    with pytest.raises(TangentError, match=r"check_vjp: only float arrays .* got int; write 1.0"):
        dn.check_vjp(np.sin, (1,))


@pytest.mark.parametrize("threads", [0, 1.5, "2"])
def test_a_backend_asks_for_a_count_of_threads(threads):
    with pytest.raises(
        UsageError, match=f"^threads: expected an int of at least 1, got {threads!r}"
    ):
        backends.get("numpy", threads)


def test_patterns_do_not_mind_case(capsys):
    assert command.main(["--only", "BATCHNORM"]) == 0
    assert "BatchNorm" in capsys.readouterr().out


# --- a mutant of each kind of wrong number that goes unseen --------------------------------------


def own_rule(body, linear_map):
    """Make a function with a derivative rule of its own."""
    fn = dn.custom_jvp(body)
    fn.defjvps(linear_map)
    return fn


def overwritten_residual():
    """Make a square whose rule keeps its slope in one buffer for all calls."""
    buffer = np.zeros(2)
    square = dn.custom_jvp(np.square)

    @square.deflinearizer
    def _(x):
        buffer[:] = 2 * x
        return np.square(x), lambda t: t * buffer

    def f(x):
        buffer[:] = 2 * dn.stop_gradient(x)
        return square(x)

    return f


def widening():
    """Make a square that is float64 once it is differentiated."""
    square = dn.custom_jvp(np.square)
    square.deflinearizer(lambda x: (np.square(x) * np.ones(2), lambda t: t * (2 * x)))
    return square


TWO = np.array([1.0, 2.0])
absolute = own_rule(np.absolute, lambda t, out, x: t * np.sign(dn.stop_gradient(x)))
TABLE = np.arange(6.0).reshape(2, 3)
arcsinh = own_rule(np.arcsinh, lambda t, out, x: t / np.sqrt(np.square(x) + 1))
MUTANTS = {
    "overflow in float32": (arcsinh, np.array([1e20, 3e20], np.float32)),
    "overflow in float16": (arcsinh, np.array([300.0, 600.0], np.float16)),
    "sums of many in float16": (
        own_rule(
            np.mean,
            lambda t, out, x: dn.linear.sum(t, (-1,)) / np.asarray(x.size).astype(x.dtype),
        ),
        np.ones(70000, np.float16),
    ),
    "k is dropped": (own_rule(np.sum, lambda t, out, x: t.sum((-1,))[:1] + 0 * t[:, 0]), TWO),
    "memory order": (
        own_rule(lambda x: x.ravel("F"), lambda t, out, x: dn.linear.reshape(t, out.shape)),
        TABLE,
    ),
    "memory order of the argument": (
        own_rule(lambda x: x.ravel("K"), lambda t, out, x: dn.linear.reshape(t, out.shape)),
        np.asfortranarray(TABLE),
    ),
    "second order": (
        own_rule(np.square, lambda t, out, x: t * (2 * dn.stop_gradient(x))),
        TWO,
    ),
    "second order at a removable kink": (lambda x: absolute(x) ** 2, np.zeros(2)),
    "a wider dtype": (widening(), TWO.astype(np.float32)),
    "a buffer changed later": (overwritten_residual(), TWO),
}


@pytest.mark.parametrize("kind", MUTANTS)
def test_a_mutant_of_each_kind_is_found(kind):
    with np.errstate(all="ignore"), pytest.raises((DerivativeError, TangentError)):
        f, x = MUTANTS[kind]
        dn.check_jvp(f, (x,), order=2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rules_that_are_right_pass_in_each_dtype(dtype):
    x = np.array([0.5, 1.5], dtype)
    for f in (np.arcsinh, np.mean, lambda x: np.tanh(x) * x, lambda x: np.outer(x, x).ravel("F")):
        dn.check_jvp(f, (x,), order=2)
