"""Arguments that broadcast: custom rules, the rules of the tables, and mistakes in such rules."""

import itertools

import numpy as np
import pytest

import dualnet as dn
from dualnet import tree
from dualnet.errors import MissingRuleError, TangentError, UsageError


def by_defjvps(f, *rules):
    f = dn.custom_jvp(f)
    f.defjvps(*rules)
    return f


def by_deflinearizer(f, *rules):
    """The same rules, of a t alone."""
    g = dn.custom_jvp(lambda *xs: f(*xs))

    @g.deflinearizer
    def _(*xs):
        out = f(*xs)
        return out, tuple(None if r is None else lambda t, r=r: r(t, out, *xs) for r in rules)

    return g


either_form = pytest.mark.parametrize("made", [by_defjvps, by_deflinearizer])
PRODUCT = (lambda x, y: x * y, lambda t, out, x, y: t * y, lambda t, out, x, y: t * x)


def by_differences(f, xs, argument):
    """The Jacobian by one argument, `(*out, *x)`, by central differences."""
    x, columns = xs[argument], []
    for i in np.ndindex(x.shape):
        moved = []
        for h in (1e-6, -1e-6):
            at = x.copy()
            at[i] += h
            moved.append(f(*xs[:argument], at, *xs[argument + 1 :]))
        columns.append((moved[0] - moved[1]) / 2e-6)
    return np.reshape(np.stack(columns, -1), (*np.shape(moved[0]), *x.shape))


# --- custom rules of arguments that broadcast ----------------------------------------------------


@either_form
def test_the_rows_of_the_tangent_are_those_of_the_other_factor(made):
    f, y = made(*PRODUCT), np.arange(6.0).reshape(2, 3)
    out, t = dn.jvp(lambda x: f(x, y), (np.ones(3),), (np.array([1.0, 0.0, 0.0]),))
    assert out.tolist() == y.tolist() and t.tolist() == [[0, 0, 0], [3, 0, 0]]
    (ct,) = dn.vjp(lambda x: f(x, y), np.ones(3))[1](np.array([[1.0, 1, 1], [1, 0, 0]]))
    assert ct.tolist() == [0 + 3, 1, 2]


@either_form
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(
    "shapes", [((3,), (2, 3)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2, 3)), ((3,), (3, 2, 3))]
)
def test_a_custom_product_is_np_multiply(made, shapes, k, rng, key):
    """In each mode and nested; k is also the length of an axis."""
    f = made(*PRODUCT)
    xs = tuple(rng.uniform(0.5, 1.5, s) for s in shapes)
    vs = tuple(rng.standard_normal((k, *s)) for s in shapes)
    ct = rng.standard_normal((k, *np.multiply(*xs).shape))
    for transform in (
        lambda f: dn.jvp(f, xs, vs)[1],
        lambda f: dn.vjp(f, *xs)[1](ct),
        lambda f: dn.jvp(lambda *xs: dn.jvp(f, xs, vs)[1], xs, vs)[1],
        lambda f: dn.jvp(lambda *xs: dn.vjp(f, *xs)[1](ct), xs, vs)[1],
        lambda f: dn.vjp(lambda *xs: dn.vjp(f, *xs)[1](ct[0])[0], *xs)[1](vs[0]),
    ):
        got, expected = (
            np.concatenate([*map(np.ravel, tree.leaves(transform(g)))]) for g in (f, np.multiply)
        )
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)
    dn.check_jvp(f, xs, order=2, k=k, key=key)
    dn.check_vjp(f, xs, order=2, k=k, key=key)


# --- rules with a mistake ------------------------------------------------------------------------

X, Y = np.array([0.3, 0.7, 1.1]), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
RECORDED = "met a structured or recorded tangent inside a derivative rule; write the rule with oper"
NO_TANGENT = r"by argument 0 returned {}, expected a tangent: what operators, NumPy functions or dn"
WRONG = {
    # what: f, its rule by x, what is said of k directions, and of a recorded tangent
    "forgotten broadcast": (
        lambda x, y: x + y,
        lambda t, out, x, y: t,
        *[r"by argument 0 returned .* shape \((\d, )?1, 3\), expected \((\d, )?2, 3\) .*st_to"] * 2,
    ),
    "lost k": (
        lambda x, y: x * y,
        lambda t, out, x, y: t[0] * y,
        r"shape \(2, 3\), expected \(\d, 2, 3\) .* loses the leading axis .*from the end",
        None,
    ),
    "summed over k": (
        lambda x, y: np.sum(x * y, axis=0),
        lambda t, out, x, y: np.sum(t, axis=0) * y[0],
        r"shape \(\d?,? ?3,?\), expected \(\d, 3\) .*leading axis",
        RECORDED,
    ),
    "another shape": (
        lambda x, y: x * y,
        lambda t, out, x, y: np.concatenate([t * y, t * y], -1),
        r"returned a tangent of shape \(\d, 2, 6\), expected \(\d, 2, 3\)",
        RECORDED,
    ),
    **{
        name: (
            lambda x, y: x * y,
            lambda t, out, x, y, make=make: make(t),
            *[NO_TANGENT.format(name)] * 2,
        )
        for name, make in {
            "float": lambda t: 1.0,
            "list": lambda t: [t],
            "NoneType": lambda t: None,
        }.items()
    },
}


@either_form
@pytest.mark.parametrize("what", WRONG)
def test_a_mistake_is_refused(what, made):
    body, by_x, *messages = WRONG[what]
    f = made(body, lambda t, out, x, y: by_x(t, out, x, y), None)
    for k in (2, 3):
        with pytest.raises(TangentError, match=messages[0]) as error:
            dn.jvp(lambda x: f(x, Y), (X,), (np.ones((k, 3)),))
        assert "\n" not in str(error.value)
    if messages[1] is None:  # a recorded tangent has no index
        return
    for call in (
        lambda: dn.grad(lambda x: f(x, Y).sum())(X),
        lambda: dn.linearize(lambda x: f(x, Y), X),
        lambda: dn.vjp(dn.grad(lambda x: f(x, Y).sum()), X),
    ):
        with pytest.raises(TangentError, match=messages[1]):
            call()


@either_form
def test_a_function_of_several_results_has_no_rule(made):
    f = made(lambda x, y: [x, y], lambda t, out, x, y: t, None)
    for call in (
        lambda: dn.jvp(lambda x: f(x, Y), (X,), (X,)),
        lambda: dn.grad(lambda x: f(x, Y)[0].sum())(X),
    ):
        with pytest.raises(
            TangentError, match=r"returned list, expected one array of floats; return"
        ):
            call()


# --- the tables' rules of arguments that broadcast -----------------------------------------------

BROADCASTING = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "power": lambda x, y: np.power(x, y / 4),
    "remainder": np.remainder,
    "fmod": np.fmod,
    "copysign": np.copysign,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "fmax": np.fmax,
    "fmin": np.fmin,
    "arctan2": np.arctan2,
    "hypot": np.hypot,
    "logaddexp": np.logaddexp,
    "logaddexp2": np.logaddexp2,
    "float_power": lambda x, y: np.float_power(x, y / 4),
    "where": lambda x, y, z: np.where(x > 3.5, y, z),
    "clip": lambda x, y, z: np.clip(x, np.minimum(y, 3.0), np.maximum(z, 3.5)),
    "clip below": lambda x, y: np.clip(x, y, None),
    "clip above": lambda x, y: np.clip(x, None, y),
    "where of two": lambda x, y: np.where(MASK, x, y),
}
MASK = np.array([True, False, True])
SHAPES = ((3,), (2, 3), (4, 1, 3))
CASES = [
    (name, shapes)
    for name, f in BROADCASTING.items()
    for n in [3 if name in ("where", "clip") else 2]
    for shapes in itertools.product(SHAPES, repeat=n)
]


@pytest.mark.parametrize(("name", "shapes"), CASES, ids=lambda value: str(value))
def test_rules_that_broadcast(name, shapes, rng):
    """The Jacobian by each argument, in both modes, and k directions at once."""
    f, positive = BROADCASTING[name], name in ("power", "float_power")
    xs = []
    for argument, shape in enumerate(shapes):
        n = int(np.prod(shape))
        # no entry of one is equal to one of another, or divides it
        grid = 0.25 + 0.5 * np.arange(n) if argument == 0 else 1 + 0.1 * argument + np.arange(n)
        signs = 1 if positive else rng.choice([-1, 1], n)
        xs.append(np.reshape(signs * rng.permutation(grid), shape))
    every = tuple(range(len(xs)))
    forward, reverse = (transform(f, every)(*xs) for transform in (dn.jacfwd, dn.jacrev))
    for argument in every:
        expected = by_differences(f, tuple(xs), argument)
        for got in (forward[argument], reverse[argument]):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


# --- what the shapes of the arguments must not decide --------------------------------------------


@pytest.mark.parametrize("columns", [2, 3])
def test_a_rule_that_indexes_its_tangent_gets_it_as_it_is(columns):
    """Where the arguments happen to broadcast to the result, the tangent has its own axes still."""
    f = dn.custom_jvp(lambda x, y: x[0] * y)
    f.defjvps(lambda t, out, x, y: dn.linear.scale(dn.linear.index(t, (0,)), y), None)
    x, y = np.ones(3), np.arange(2.0 * columns).reshape(2, columns) + 1
    _, slope = dn.jvp(lambda x: f(x, y), (x,), (np.array([1.0, 10.0, 100.0]),))
    np.testing.assert_array_equal(slope, y)
    np.testing.assert_array_equal(dn.grad(lambda x: f(x, y).sum())(x), [y.sum(), 0.0, 0.0])


@pytest.mark.parametrize(
    "by_x", [lambda t, out, x: t * 2j, lambda t, out, x: t > 0, lambda t, out, x: t.astype(int)]
)
def test_a_tangent_that_is_no_float_is_refused(by_x):
    f = dn.custom_jvp(lambda x: 2.0 * x)
    f.defjvps(by_x)
    with pytest.raises(TangentError, match="expected a real floating dtype"):
        dn.jvp(f, (np.array([0.1, 0.5]),), (np.array([0.3, 0.9]),))


def test_a_function_of_integers_with_a_rule_is_refused():
    f = dn.custom_jvp(lambda x: np.floor(3.0 * x).astype(int))
    f.defjvps(lambda t, out, x: 3.0 * t)
    with pytest.raises(TangentError, match="returned int64, expected one array of floats"):
        dn.jvp(f, (np.array([0.1, 0.5]),), (np.array([0.3, 0.9]),))


def test_python_sums_the_tangents_of_a_list():
    f = dn.custom_jvp(lambda xs: xs[0] + xs[1])
    f.defjvps(lambda ts, out, xs: sum(t for t in ts if t is not None))
    x = np.array([1.0, 2.0])
    np.testing.assert_array_equal(dn.grad(lambda x: f([x, 3.0 * x]).sum())(x), [4.0, 4.0])


def test_clip_with_bounds_that_cross_is_the_upper_bound():
    slopes = dn.grad(np.clip, (0, 1, 2))(np.array(0.5), np.array(1.5), np.array(1.2))
    assert [float(s) for s in slopes] == [0.0, 0.0, 1.0]


# --- what is said of a mistake -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grad", "jacfwd", "jacrev"])
def test_an_integer_is_refused_by_the_transform_that_was_called(name):
    with pytest.raises(TangentError, match=rf"^{name}: only float arrays .*got int; write 2\.0"):
        getattr(dn, name)(lambda x: x)(2)


def test_a_custom_function_is_told_what_it_still_lacks():
    @dn.custom_jvp
    def half(x):
        return x / 2

    said = r"half has no derivative rule yet: call \S*half\.defjvps\(.*@\S*half\.deflinearizer"
    with pytest.raises(MissingRuleError, match=said) as error:
        dn.grad(half)(1.0)
    assert "wrap" not in str(error.value)


@pytest.mark.parametrize(
    ("by_x", "got"),
    [
        (lambda t, x: t, r"takes \(t, x\)"),
        (lambda t, out, x: t, r"takes \(t, out, x\)"),
        (lambda t, out, x, y, z: t, r"takes \(t, out, x, y, z\)"),
        (2.0, "is float"),
    ],
)
def test_a_rule_that_cannot_be_called_is_refused_where_it_is_given(by_x, got):
    f = dn.custom_jvp(lambda x, y: x * y)
    said = rf"defjvps: the rule by argument 1 {got}, expected a function of \(t, out, x, y\)"
    with pytest.raises(UsageError, match=said):
        f.defjvps(None, by_x)


def test_rules_may_leave_the_number_of_arguments_open():
    f = dn.custom_jvp(lambda x, n=2: x**n)
    f.defjvps(lambda t, out, x, n=2: t * (n * x ** (n - 1)), None)
    assert dn.grad(f)(3.0) == 6.0 and dn.grad(lambda x: f(x, 3))(3.0) == 27.0
    g = dn.custom_jvp(lambda *xs: xs[0] * xs[1])
    g.defjvps(lambda t, *others: t * others[2], lambda t, out, *xs: t * xs[0])
    assert dn.grad(g, (0, 1))(3.0, 5.0) == (5.0, 3.0)


@pytest.mark.parametrize(
    ("returned", "got"),
    [
        (lambda x: 2.0 * x, r"\(out, maps\), got float64\(2,\)"),
        (lambda x: (x, lambda t: t, None), r"\(out, maps\), got \(float64\(2,\), function, Non"),
        (lambda x: (x, 2.0), "function or None for each argument; got maps = float"),
        (lambda x: (x, (2.0,)), r"function or None for each argument; got maps = \(float\)"),
    ],
)
def test_a_linearizer_that_returns_no_pair_is_refused(returned, got):
    f = dn.custom_jvp(lambda x: 2.0 * x)
    f.deflinearizer(returned)
    with pytest.raises(TangentError, match=f"the linearizer must return .*{got}"):
        dn.jvp(f, (np.ones(2),), (np.ones(2),))


def test_a_rule_of_a_list_is_told_which_tangents_it_cannot_take():
    f = dn.custom_jvp(lambda xs: xs[0] + xs[1])
    f.defjvps(lambda ts, out, xs: ts[0][:1] + ts[1])
    with pytest.raises(
        TangentError, match=r"by argument 0 cannot take a Symbolic tangent \(.*oper"
    ):
        dn.grad(lambda x: f([x, x]).sum())(np.ones(2))


@pytest.mark.parametrize("transform", ["jvp", "vjp", "linearize", "grad"])
@pytest.mark.parametrize(
    ("f", "said"),
    [
        (lambda x: None, "the function returned NoneType at the only leaf, expected arrays"),
        (lambda x: {"loss": x, "name": "sum"}, "returned str at name, .* has_aux=True"),
        (lambda x: (x, np.array(["a"])), "returned <U1 at 1, expected arrays or numbers"),
    ],
)
def test_a_result_that_is_no_array_is_refused(transform, f, said):
    call = {
        "jvp": lambda: dn.jvp(f, (1.0,), (1.0,)),
        "vjp": lambda: dn.vjp(f, 1.0),
        "linearize": lambda: dn.linearize(f, 1.0),
        "grad": lambda: dn.grad(f)(1.0),
    }[transform]
    with pytest.raises(TangentError, match=f"^{transform}: .*{said}"):
        call()


def test_integers_and_aux_need_no_tangent():
    out, tangents = dn.jvp(lambda x: (x, np.arange(3), True), (1.0,), (1.0,))
    assert tangents[1].tolist() == [0, 0, 0] and not tangents[2] and out[2] is True
    assert dn.jvp(lambda x: (x, "note"), (1.0,), (1.0,), has_aux=True)[2] == "note"
    assert dn.grad(lambda x: (x, None), has_aux=True)(1.0)[1] is None
