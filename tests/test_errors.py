"""What the core says when something cannot be done: one line, where, what came, what to do."""

import math
import re
import sys
import warnings
from fractions import Fraction

import numpy as np
import pytest

import dualnet as dn
from dualnet import errors
from dualnet.core import dual
from dualnet.core.engine import rule
from dualnet.core.spaces import RankOne
from dualnet.errors import (
    BackendError,
    DataError,
    DivergedError,
    DualConversionError,
    DualnetError,
    EscapedDualError,
    Interrupted,
    MissingRuleError,
    TangentError,
    TreeError,
    UsageError,
)

X = np.array([1.0, 2.0, 3.0])
M = np.array([[1.0, 2.0], [3.0, 4.0]])


def message(error, call, *args):
    """The text of the error, which must be a single, finished line."""
    with pytest.raises(error) as caught:
        call(*args)
    assert type(caught.value) is error
    text = str(caught.value)
    assert "\n" not in text and text == text.strip() and "  " not in text
    assert not re.search(r"\{\w*\}", text), f"an unfilled placeholder: {text}"
    return text


def inside(f, x=X):
    """Run f on a dual."""

    def with_dual(x):
        f(x)
        return x

    return dn.jvp(with_dual, (x,), (np.ones_like(x),))


def check(error, pattern, call, *args):
    text = message(error, call, *args)
    assert re.fullmatch(pattern, text), text


# --- functions without a rule --------------------------------------------------------------------

HOW_TO_ADD = (
    r" has no derivative rule\. Write it with functions that have one \(python -m "
    r"dualnet\.check\.listing lists them\), call it on dn\.stop_gradient\(x\) if its derivative "
    r"is zero, or wrap "
    r"it: `f = dn\.custom_jvp\(f\)` and `f\.defjvps\(lambda t, out, x: \.\.\.\)` gives the tangent "
    r"of the result from the tangent t of x, written with operators or dn\.linear; try it with "
    r"dn\.check_jvp and dn\.check_vjp"
)


@pytest.mark.parametrize(
    ("name", "call"),
    {
        "np.i0": np.i0,
        "np.gcd": lambda x: np.gcd(x, 2),
        "np.unique": np.unique,
        "np.roots": np.roots,
    }.items(),
)
def test_a_missing_rule_names_the_function_and_says_how_to_add_it(name, call):
    check(MissingRuleError, re.escape(name) + HOW_TO_ADD, inside, call)


def test_a_custom_function_without_its_rule():
    def softplus(x):
        return np.logaddexp(x, 0.0)

    text = message(MissingRuleError, inside, dn.custom_jvp(softplus))
    assert re.search(r"softplus has no derivative rule", text)


def test_the_advice_of_a_missing_rule_works():
    f = dn.custom_jvp(lambda x: np.i0(x))
    f.defjvps(lambda t, out, x: t * np.sinh(x))
    assert dn.jvp(f, (X,), (X,))[1].shape == (3,)
    inside(lambda x: np.unique(dn.stop_gradient(x)))


def test_a_second_rule_is_refused():
    pattern = "np.sin has a derivative rule already; two would hide a mistake"
    check(ValueError, pattern, rule, np.sin, lambda t, out, x: t)
    f = dn.custom_jvp(lambda x: x)
    f.defjvps(lambda t, out, x: t)
    text = message(ValueError, f.defjvps, lambda t, out, x: t)
    assert text.endswith("has a derivative rule already; two would hide a mistake")
    assert np.sin in dual.RULES and dn.grad(np.sin)(0.0) == 1


def test_methods_of_ufuncs_without_a_rule():
    pattern = r"np\.arctan2\.at has no derivative rule; write it as a loop over the entries, or .*"
    check(MissingRuleError, pattern, inside, lambda x: np.arctan2.at(x, [0], 1.0))
    pattern = r"np\.add\.at writes in place what carries a tangent, .*"
    check(DualConversionError, pattern, inside, lambda x: np.add.at(np.zeros(3), [0], x[0]))


# --- arguments that a rule does not know ---------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "argument", "call"),
    [
        ("np.matvec", "axes=", lambda x: np.matvec(M[:, :1] * x, x, axes=[(0, 1), 0, 0])),
        ("np.add", "where=", lambda x: np.add(x, 1, where=X > 1)),
        ("np.exp", "dtype=", lambda x: np.exp(x, dtype=np.float64)),
        ("np.matmul", "axes=", lambda x: np.matmul(x, X, axes=[0, 0, 0])),
        ("np.clip", "where=", lambda x: np.clip(x, 0, 1, where=X > 1)),
        ("np.einsum", "casting=", lambda x: np.einsum("i->", x, casting="no")),
        ("np.stack", "dtype=", lambda x: np.stack([x, x], dtype=np.float32)),
        ("np.cumulative_sum", "dtype=", lambda x: np.cumulative_sum(x, dtype=np.float64)),
    ],
)
def test_an_unknown_argument_is_named_with_its_function(name, argument, call):
    assert message(MissingRuleError, inside, call) == (
        f"{name}: the argument {argument} has no derivative rule; leave it out, or use another "
        "function for it (np.where for where=, x.astype for dtype=)"
    )


def test_an_argument_unknown_to_a_custom_rule():
    f = dn.custom_jvp(lambda x, scale=1.0: x * scale)
    f.defjvps(lambda t, out, x: t)
    text = message(MissingRuleError, inside, lambda x: f(x, scale=2.0))
    assert "the argument scale= has no derivative rule" in text


def by_hand(vector, _pad_width, _iaxis, _how):
    return vector


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        (
            r"np\.pad: mode='by_hand' has no derivative rule with these arguments; modes that are "
            r"named by a string have, with constant end_values",
            lambda x: np.pad(x, 1, mode=by_hand),
        ),
        (
            r"np\.put_along_axis writes into a plain array, which cannot .* write np\.where.*",
            lambda x: np.put_along_axis(np.zeros(3), np.array([0]), x[:1], 0),
        ),
        (
            r"np\.histogram counts, and counts do not move with small changes; .* smooth kernel .*",
            np.histogram,
        ),
        (r"np\.fft\.rfft works with complex numbers, .* real matrices .*", np.fft.rfft),
        (
            r"np\.linalg\.svd: full_matrices=True has no derivative for a matrix of shape "
            r"\(1, 3\), because the singular vectors that it adds are not determined; pass "
            r"full_matrices=False",
            lambda x: np.linalg.svd(x[None]),
        ),
        (
            r"np\.linalg\.qr: mode='complete' has no derivative rule for a matrix of shape "
            r"\(3, 1\); 'reduced' and 'r' have, and 'complete' where no columns are added to Q",
            lambda x: np.linalg.qr(x[:, None], "complete"),
        ),
        (
            r"np\.linalg\.lstsq: rcond=0\.9 drops singular values that are not 0, which has no "
            r"derivative rule; write np\.linalg\.pinv\(a, rcond\) @ b",
            lambda x: np.linalg.lstsq(np.diag(x), x, 0.9),
        ),
        (
            r"np\.where cannot be differentiated by argument 0; pass dn\.stop_gradient\(x\) there",
            lambda x: np.where(x, 1.0, 2.0),
        ),
        (
            r"np\.broadcast_to: pass arrays that carry tangents by position, not by keyword or in "
            r"nested lists \(np\.stack builds an array from duals\)",
            lambda x: np.broadcast_to(array=x, shape=(2, 3)),
        ),
        (
            r"np\.concatenate: pass arrays that carry tangents by position.*",
            lambda x: np.concatenate(arrays=[x, x]),
        ),
        (r"np\.sum: pass arrays that carry tangents by position.*", lambda x: np.sum(a=x)),
        (r"np\.diff: pass arrays that carry tangents by position.*", lambda x: np.diff(a=x)),
        (
            r"np\.isclose: pass arrays that carry tangents by position.*",
            lambda x: np.isclose(x, X, atol=x),
        ),
    ],
)
def test_forms_without_a_rule(pattern, call):
    check(MissingRuleError, pattern, inside, call)


def test_unequal_split():
    pattern = r"np\.split: the array does not divide equally; np\.array_split cuts it"
    check(ValueError, pattern, inside, lambda x: np.split(x, 2))


# --- writing in place ----------------------------------------------------------------------------

INSTEAD = (
    r" writes in place what carries a tangent, and in a plain array the tangent would be lost\. "
    r"Use the result instead: W = W \+ x, np\.where\(mask, x, W\), np\.stack of the parts, or W = "
    r"dn\.numpy\.put_at\(W, i, x\)"
)


def add_to_array(x):
    a = np.zeros(3)
    a += x


@pytest.mark.parametrize(
    ("what", "call"),
    [
        (r"np\.add with out= \(.*\+=\)", lambda x: np.add(x, 1, out=np.zeros(3))),
        (r"np\.add with out= \(or an operator such as \+=\)", add_to_array),
        (r"np\.sum with out=", lambda x: np.sum(x, out=np.zeros(()))),
        (r"np\.sum with out=", lambda x: x.sum(out=np.zeros(()))),
        (r"np\.concatenate with out=", lambda x: np.concatenate([x], out=np.zeros(3))),
    ],
)
def test_writing_in_place_into_plain_arrays(what, call):
    check(DualConversionError, what + INSTEAD, inside, call)


def add_and_scale(x):
    x += 1.0
    x *= x


def through_a_view(x):
    row = x[1:]
    row -= 1.0
    x[0] = row[0] * x[2]


@pytest.mark.parametrize(
    "change",
    [
        add_and_scale,
        through_a_view,
        lambda x: x.__setitem__(0, 5.0),
        lambda x: x.__setitem__([2, 0], x[:2] * 2),
        lambda x: x[::-1].sort(),
        lambda x: x.__imatmul__(np.diag([2.0, 3.0, 4.0]) + 1),
    ],
)
def test_writing_in_place_into_duals(change):
    """It means what it means on arrays, and its derivative is that of the difference."""

    def f(x):
        x = x * 1.0
        change(x)
        return x

    t = np.array([0.5, -1.0, 0.25])
    out, pushed = dn.jvp(f, (X,), (t,))
    assert out.tolist() == f(X).tolist()
    difference = (f(X + 1e-6 * t) - f(X - 1e-6 * t)) / 2e-6
    assert np.allclose(pushed, difference, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("sum", lambda x, y: np.sum(x[None], 0, None, y)),
        ("mean", lambda x, y: x[None].mean(0, None, y)),
        ("cumsum", lambda x, y: np.cumsum(x, 0, None, y)),
        ("dot", lambda x, y: np.dot(x, np.eye(3), y)),
        ("clip", lambda x, y: x.clip(1.0, 2.0, y)),
    ],
)
def test_out_by_position_is_to_be_given_by_keyword(name, write):
    pattern = rf"np\.{name}: where the result is to be .* give this array by keyword: out=y"
    check(MissingRuleError, pattern, inside, lambda x: write(x, x * 1.0))


def test_writing_in_place_what_does_not_fit():
    def widen(x):
        x += np.ones((2, 3))

    pattern = r"np\.add in place: cannot write shape \(2, 3\) into an array of shape \(3,\) .*"
    check(DualConversionError, pattern, inside, widen)

    def read_outdated(x):
        rows = np.reshape(x, (3, 1))
        rows += 1.0
        return x * 2.0

    pattern = r"an array was written to in place, and a view of it .* was used afterwards, .*"
    check(DualConversionError, pattern, inside, read_outdated)


@pytest.mark.parametrize(
    ("pattern", "f"),
    [
        (r"np\.multiply is timedelta64\[s\], and only .*", lambda x: x * np.timedelta64(3, "s")),
        (
            r"np\.concatenate is int32, and only floats carry tangents\. Call it on .*",
            lambda x: np.concatenate((x, x), dtype="i4", casting="unsafe"),
        ),
        (
            r"np\.add is an array of objects, .* \(write float\(c\)\).*",
            lambda x: Fraction(1, 2) + x,
        ),
        (r"np\.add is an array of objects, .*", lambda x: x.sum() + Fraction(1, 2)),
    ],
)
def test_results_that_are_no_floats(pattern, f):
    check(TangentError, r"the result of " + pattern, inside, f)


TO_ARRAY = (
    r"a Dual of shape \(3,\) cannot become a plain array: its tangent would be lost\. {}\. Want "
    r"the value alone\? Use dn\.stop_gradient\(x\)"
)


@pytest.mark.parametrize(
    ("asked", "call"),
    [
        (r"Writing `a\[i\] = dual` into an array\? .*", np.asarray),
        (
            r"np\.asarray makes a plain array\. .* np\.stack.* dn\.numpy\.array.*",
            lambda x: np.asarray(x),
        ),
        (r"np\.array makes a plain array\. .*", lambda x: np.array([x, x])),
        (r"`X\.dot` is a method of a plain array .* Write X @ x", lambda x: X.dot(x)),
        (r"A function of np\.ma or a masked array met a Dual.*", lambda x: np.ma.sum(x)),
        (r"A function of np\.ma or a masked array .*", lambda x: np.ma.array(X, mask=X > 1) * x),
    ],
)
def test_becoming_a_plain_array(asked, call):
    if sys.version_info < (3, 11) and asked.startswith(("np", "`X")):
        asked = r"Writing `a\[i\] = dual` into an array\? .*"  # Python 3.10 does not say which call
    check(DualConversionError, TO_ARRAY.format(asked), inside, call)


def test_writing_a_row_of_an_array():
    def write(x):
        np.zeros((2, 3))[0] = x

    def write_an_entry(x):
        np.zeros(3)[0] = x[0]

    def write_a_copy(x):
        W = np.zeros((2, 3))
        W[0] = x

    for call in (write, write_a_copy, write_an_entry):
        text = message(DualConversionError, inside, call)
        assert "`a[i] = dual` writes into a plain array" in text and "put_at" in text


TO_NUMBER = (
    r"a Dual cannot become a Python number: its tangent would be lost\. {}, or "
    r"dn\.stop_gradient\(x\) for the value alone"
)


@pytest.mark.parametrize(
    ("asked", "call"),
    [
        *(
            (r"Use NumPy functions \(np\.exp instead of math\.exp\)", call)
            for call in (float, int, complex, math.exp, lambda x: x.item(0), lambda x: x.tolist())
        ),
        (r"Use NumPy functions .*", lambda x: [1, 2, 3][x]),
        (r"Use NumPy functions .*", lambda x: range(x)),
        (r"math\.exp takes plain numbers alone\. Write np\.exp", lambda x: math.exp(x)),
        (r"math\.pow takes plain numbers alone\. Write np\.power", lambda x: math.pow(x, 2)),
        (r"math\.erf takes .* Write scipy\.special\.erf", lambda x: math.erf(x)),
    ],
)
def test_becoming_a_python_number(asked, call):
    if sys.version_info < (3, 11) and asked.startswith("math"):
        asked = r"Use NumPy functions .*"  # Python 3.10 does not say which call of a line it is
    check(DualConversionError, TO_NUMBER.format(asked), inside, call, np.array(1.0))


def test_writing_one_entry_of_an_array():
    # NumPy replaces the error by its own, and shows ours as the cause
    with pytest.raises((ValueError, TypeError)) as caught:
        inside(lambda x: np.zeros(3).__setitem__(0, x[0]))
    shown = (caught.value, caught.value.__cause__)
    assert any("a Dual cannot become a Python number" in str(error) for error in shown)


def test_memory_of_a_dual():
    for name in ("view", "byteswap", "resize", "dumps"):
        pattern = rf"a Dual has no x\.{name}: it gives access to the memory of a plain array.*"
        check(DualConversionError, pattern, inside, lambda x, name=name: getattr(x, name)())
    with pytest.raises(AttributeError, match="a Dual has no attribute 'foo'"):
        inside(lambda x: x.foo)


def test_duals_are_not_hashable():
    with pytest.raises(TypeError, match="unhashable type: 'Dual'"):
        inside(hash)


def test_the_truth_of_several_values_is_numpys_question():
    with pytest.raises(ValueError, match="truth value of an array"):
        inside(lambda x: bool(x > 0))
    with pytest.raises(ValueError, match="truth value of an array"):
        inside(bool)


def test_an_escaped_dual():
    kept = []
    inside(kept.append)
    pattern = (
        r"np\.multiply met a Dual whose transform has already returned\. A value was kept from "
        r"inside the differentiated function \(in a list, an attribute, a closure\); return it "
        r"instead, with has_aux=True where it is not to be differentiated"
    )
    check(EscapedDualError, pattern, lambda: kept[0] * 2.0)
    assert "Dual(primal=array([1., 2., 3.])" in repr(kept[0])


@pytest.mark.parametrize(
    ("name", "f"),
    [
        ("sin", np.sin),
        ("multiply", lambda s: s * np.float32([1.0, 2.0])),
        ("where", lambda s: np.where([True, False], s, np.float32(1.0))),
    ],
)
def test_an_escaped_dual_of_a_python_number(name, f):
    kept = []
    inside(kept.append, 2.0)
    check(EscapedDualError, rf"np\.{name} met a Dual whose transform .*", f, kept[0])


# --- tangents that do not fit --------------------------------------------------------------------


def jvp_of_x(t, x=X):
    return dn.jvp(np.sin, (x,), (t,))


@pytest.mark.parametrize(
    ("came", "t"),
    [
        (r"float64 of shape \(4,\)", np.ones(4)),
        (r"float64 of shape \(2, 4\)", np.ones((2, 4))),
        (r"float64 of shape \(2, 2, 3\)", np.ones((2, 2, 3))),
        (r"float64 of shape \(\)", 1.0),
        (r"float32 of shape \(3,\)", np.ones(3, np.float32)),
        (r"float32 of shape \(2, 3\)", np.ones((2, 3), np.float32)),
        (r"int64 of shape \(3,\)", np.ones(3, np.int64)),
        (r"float64 of shape \(3, 2\)", RankOne(np.ones((1, 3)), np.ones((1, 2)))),
    ],
)
def test_a_tangent_of_the_wrong_shape_or_dtype(came, t):
    pattern = r"jvp: the tangent at 0 must be float64 of shape \(3,\) or \(k, 3\), got " + came
    check(TangentError, pattern, jvp_of_x, t)


def test_the_byte_order_is_part_of_a_dtype():
    pattern = r"jvp: the tangent at 0 must be >f8 of shape \(3,\) or \(k, 3\), got float64 .*"
    check(TangentError, pattern, jvp_of_x, X, X.astype(">f8"))


MASKED = np.ma.array(X, mask=[1, 0, 0])


@pytest.mark.parametrize(
    "call",
    [
        lambda: dn.jvp(np.mean, (MASKED,), (X,)),
        lambda: dn.jvp(np.mean, (X,), (MASKED,)),
        lambda: dn.jvp(np.sin, (X,), (np.ma.array([X, X], mask=[MASKED.mask] * 2),)),
        lambda: dn.linearize(np.sin, X)[1](MASKED),
        lambda: dn.vjp(np.sin, X)[1](MASKED),
        lambda: dn.hvp(np.sum, (X,), (MASKED,)),
        lambda: dn.check_jvp(np.mean, (MASKED,)),
        lambda: dn.grad(np.mean)(MASKED),
        lambda: dn.RankOne(np.ones((1, 2)), MASKED[None]),
    ],
)
def test_a_masked_array_is_refused_as_primal_tangent_and_cotangent(call):
    check(MissingRuleError, r"an array of the subclass MaskedArray met derivatives\. .*", call)


def test_a_matrix_is_refused_as_primal_and_tangent():
    pattern, square = r"an array of the subclass matrix met derivatives\. .*", np.eye(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        matrix = np.matrix(square)
    check(MissingRuleError, pattern, dn.jvp, lambda x: x * square, (matrix,), (square,))
    check(MissingRuleError, pattern, dn.vjp(np.sin, square)[1], matrix)


def test_a_tangent_of_a_number():
    pattern = r"jvp: the tangent at 0 must be float64 of shape \(\) or \(k,\), got float64 .*"
    check(TangentError, pattern, jvp_of_x, np.ones((1, 2)), 1.0)


def test_the_place_in_a_tree_is_named():
    p = {"a": [X, X]}
    pattern = r"jvp: the tangent at 0/a/1 must be float64 of shape \(3,\) or \(k, 3\), got .*"
    check(TangentError, pattern, dn.jvp, lambda p: p["a"][0], (p,), ({"a": [X, np.ones(2)]},))


@pytest.mark.parametrize(
    ("counts", "t"),
    [
        (r"a single one and k = 2", (X, np.ones((2, 3)))),
        (r"k = 2 and k = 4", (np.ones((4, 3)), np.ones((2, 3)))),
    ],
)
def test_numbers_of_directions_that_differ(counts, t):
    pattern = rf"jvp: all tangents must agree on k, got {counts}"
    check(TangentError, pattern, dn.jvp, np.multiply, (X, X), t)


def test_cotangents():
    _, f_vjp = dn.vjp(lambda x: (np.sum(x), {"y": x}), X)
    pattern = (
        r"vjp: the cotangent at 1/y must be float64 of shape \(3,\) or \(k, 3\), got float64 .*"
    )
    check(TangentError, pattern, f_vjp, (1.0, {"y": np.ones(2)}))
    pattern = r"vjp: all cotangents must agree on k, got a single one and k = 2"
    check(TangentError, pattern, f_vjp, (1.0, {"y": np.ones((2, 3))}))
    _, f_vjp = dn.vjp(np.sin, X)
    pattern = r"vjp: the cotangent at the only leaf must be .*"
    check(TangentError, pattern, f_vjp, np.ones(2))
    pattern = (
        r"trees differ at the root: expected float64\(3,\), got \(float64\(3,\), float64\(3,\)\)"
    )
    check(TreeError, pattern, f_vjp, (X, X))


def test_cotangents_of_integers():
    _, f_vjp = dn.vjp(lambda x: (x, np.argmax(x)), X)
    pattern = r"vjp, cotangent at 1: only float arrays can be differentiated by, got int64; .*"
    check(TangentError, pattern, f_vjp, (X, np.array(1.0)))


def test_tangents_of_a_linearized_function():
    _, f_jvp = dn.linearize(np.sin, X)
    pattern = r"linearize: the tangent at 0 must be float64 of shape \(3,\) or \(k, 3\), got .*"
    check(TangentError, pattern, f_jvp, np.ones(2))
    pattern = r"trees differ at the root: expected \(float64\(3,\)\), got .*"
    check(TreeError, pattern, f_jvp, X, X)


@pytest.mark.parametrize(
    ("pattern", "primals", "tangents"),
    [
        (
            r"trees differ at the root: expected \(float64\(3,\)\), got \(float64\(3,\), "
            r"float64\(3,\)\)",
            (X,),
            (X, X),
        ),
        (
            r"trees differ at 0: expected \{a: float64\(3,\)\}, got \{b: float64\(3,\)\}",
            ({"a": X},),
            ({"b": X},),
        ),
        (
            r"trees differ at 0: expected float64\(3,\), got \[float, float, float\]",
            (X,),
            ([1.0] * 3,),
        ),
        (r"trees differ at 0/1: expected float64\(3,\), got \(\)", ((X, X),), ((X, ()),)),
    ],
)
def test_tangents_of_another_structure(pattern, primals, tangents):
    check(TreeError, pattern, dn.jvp, lambda *x: X, primals, tangents)


@pytest.mark.parametrize(
    ("argument", "args"), [("primals", (X, (X,))), ("tangents", ((X,), X)), ("primals", (X, X))]
)
def test_one_array_where_a_tuple_is_expected(argument, args):
    pattern = (
        rf"jvp: {argument} must be a tuple with one entry for each argument of f, got ndarray; "
        rf"write \({argument[:-1]},\) for a single one"
    )
    check(TangentError, pattern, dn.jvp, np.sin, *args)


def test_the_checks_and_hvp_expect_tuples_too():
    for name, call in (("check_jvp", dn.check_jvp), ("check_vjp", dn.check_vjp)):
        check(TangentError, rf"{name}: primals must be a tuple .*", call, np.sin, X)
    check(TangentError, r"jvp: primals must be a tuple .*", dn.hvp, np.sum, X, X)


@pytest.mark.parametrize(
    ("got", "x"),
    [("int64", np.arange(3)), ("int", 3), ("str", "x"), ("NoneType", None), ("bool", True)],
)
def test_only_floats_can_be_differentiated_by(got, x):
    instead = {"int64": r"convert with x\.astype\(float\), or ", "int": r"write 3\.0, or "}
    advice = (
        rf": only float arrays can be differentiated by, got {got}; "
        rf"{instead.get(got, '(write 1.0, or )?')}close over the constant in the function"
    )
    for name in ("grad", "jacfwd", "jacrev"):
        check(TangentError, name + advice, getattr(dn, name)(np.sum), x)
    check(TangentError, "vjp" + advice, dn.vjp, np.sum, x)
    check(TangentError, "linearize" + advice, dn.linearize, np.sum, x)
    check(TangentError, "jvp, tangent at 0" + advice, dn.jvp, np.sum, (x,), (1.0,))


# --- what the transforms expect of the function --------------------------------------------------


@pytest.mark.parametrize(
    ("got", "f"),
    [
        (r"float64\(3,\)", lambda x: x * 2.0),
        (r"\(float64\(\), float64\(3,\)\)", lambda x: (np.sum(x), x)),
        (r"\{loss: float64\(\)\}", lambda x: {"loss": np.sum(x)}),
        (r"int64\(\)", lambda x: np.argmax(x)),
        (r"bool\(\)", lambda x: x[0] > 0),
    ],
)
def test_grad_of_something_other_than_one_float(got, f):
    pattern = rf"grad: the function must return one float, got {got}; sum it, or use vjp or jacrev"
    with pytest.raises(TangentError) as caught:
        dn.grad(f)(X)
    assert re.fullmatch(pattern, str(caught.value)), caught.value


@pytest.mark.parametrize(("argnums", "missing"), [(1, 1), (-2, -2), ((0, 3), 3)])
@pytest.mark.parametrize("transform", [dn.grad, dn.value_and_grad, dn.jacfwd, dn.jacrev])
def test_argnums_out_of_range(transform, argnums, missing):
    pattern = rf"argnums: no argument {missing} among the 1 by position"
    check(TangentError, pattern, transform(np.sum, argnums), X)


@pytest.mark.parametrize("f", [lambda x: x[:2], lambda x: np.sum(x), lambda x: (x, x, x)])
def test_has_aux_expects_a_pair(f):
    for call in (
        lambda: dn.jvp(f, (X,), (X,), has_aux=True),
        lambda: dn.vjp(f, X, has_aux=True),
        lambda: dn.grad(f, has_aux=True)(X),
    ):
        check(TangentError, r"has_aux=True: the function must return \(out, aux\), got .*", call)


def test_linear_transpose_of_an_affine_function():
    pattern = (
        r"linear_transpose: f is not linear, f\(0\) is not 0 at its result; vjp transposes the "
        r"derivative of any function"
    )
    check(TangentError, pattern, dn.linear_transpose, lambda x: x + 1.0, X)
    pattern = r"linear_transpose: f is not linear, f\(0\) is not 0 at a/1; .*"
    check(TangentError, pattern, dn.linear_transpose, lambda x: {"a": [x, np.cos(x)]}, X)


@pytest.mark.parametrize(
    "f", [np.square, np.abs, np.max, np.sort, np.linalg.norm, lambda x: np.maximum(x, 0.1 * x)]
)
def test_linear_transpose_of_a_function_that_bends(f):
    pattern = r"linear_transpose: f is not linear, f differs from its derivative at its result; .*"
    check(TangentError, pattern, dn.linear_transpose, f, X)
    pattern = r"linear_transpose: f is not linear, f differs from its derivative at y; .*"
    single = X.astype(np.float32)
    check(TangentError, pattern, dn.linear_transpose, lambda x: {"x": x, "y": f(x)}, single)


@pytest.mark.parametrize("transform", [dn.jacfwd, dn.jacrev])
def test_jacobians_are_of_floats_and_in_chunks_of_at_least_one(transform):
    name = transform.__name__
    pattern = (
        rf"{name}: the function must return floats alone, got \(float64\(3,\), int64\(\)\); .*"
    )
    check(TangentError, pattern, transform(lambda x: (x, np.argmax(x))), X)
    for chunk in (2.5, 0, -1, "2", True):
        pattern = rf"{name}: tangent_chunk: expected an int of at least 1, got {chunk!r}"
        check(UsageError, pattern, lambda: transform(np.sin, tangent_chunk=chunk))  # noqa: B023


@pytest.mark.parametrize("factors", [(np.ones(3), np.ones(2)), (np.ones((2, 3)), np.ones((3, 3)))])
def test_factors_of_a_rank_one_tangent(factors):
    left, right = (re.escape(str(f.shape)) for f in factors)
    pattern = rf"RankOne: expected factors \(k, \*b, p\) and \(k, \*b, q\), got {left} and {right}"
    check(TangentError, pattern, RankOne, *factors)


def test_the_factors_are_arrays_of_one_dtype():
    factor = np.ones((2, 3))
    pattern = "RankOne: expected factors of one dtype, got float64 and float32; convert one .*"
    check(TangentError, pattern, RankOne, factor, factor.astype(np.float32))
    for factors in [([[1.0]], factor), (factor, [[1.0]])]:
        pattern = "RankOne: expected arrays as factors, got list; convert it by np.asarray"
        check(TangentError, pattern, RankOne, *factors)


def test_a_custom_rule_by_the_wrong_argument():
    f = dn.custom_jvp(lambda x, y: x + y)
    f.defjvps(lambda t, out, x, y: t)
    text = message(MissingRuleError, inside, lambda x: f(x, x))
    assert text.endswith("cannot be differentiated by argument 1; pass dn.stop_gradient(x) there")


# --- the hierarchy -------------------------------------------------------------------------------


def test_every_error_is_a_dualnet_error_and_has_its_exit_code():
    kinds = {
        **dict.fromkeys((TreeError, MissingRuleError, EscapedDualError, TangentError), 1),
        **{DualConversionError: 1, UsageError: 2, DataError: 3, DivergedError: 4, BackendError: 5},
        Interrupted: 130,
    }
    for kind, code in kinds.items():
        assert issubclass(kind, DualnetError) and kind.exit_code == code
    defined = {kind for kind in vars(errors).values() if isinstance(kind, type)}
    assert set(kinds) | {DualnetError} == defined


def test_errors_can_be_caught_as_what_python_calls_them():
    assert issubclass(DualConversionError, TypeError)
    assert issubclass(MissingRuleError, NotImplementedError)
    assert issubclass(TangentError, ValueError) and issubclass(TreeError, ValueError)
