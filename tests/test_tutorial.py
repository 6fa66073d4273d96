"""The tutorial: the answers to its exercises, and that its pages and `tiny.py` are the same.

`test_docs` runs the code of the pages, and compares what it prints with what they show.
"""

import ast
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import dualnet as dn

TUTORIAL = Path(__file__).parent.parent / "docs/tutorial"
sys.path[:0] = [str(TUTORIAL), str(TUTORIAL.parent / "figures")]  # for these

import notebooks  # noqa: E402
import tiny  # noqa: E402
import variance  # noqa: E402

PAGES = sorted(TUTORIAL.glob("[1-8]-*.md"))


def text_of(page):
    return page.read_text(encoding="utf-8")


# --- the pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_ends_with_three_exercises_that_have_answers(page):
    exercises = text_of(page).partition("\n## Exercises\n")[2]
    assert re.findall(r"^(\d+)\. ", exercises, re.M) == ["1", "2", "3"]
    for i in 1, 2, 3:
        assert any(name.startswith(f"test_answer_{page.stem[0]}_{i}_") for name in globals())


def test_page_3_builds_tiny():
    source, page = text_of(TUTORIAL / "tiny.py"), text_of(PAGES[2])
    pieces = ast.parse(source).body[1:-1]  # without docstring and the command at the end
    assert len(pieces) > 10
    for piece in pieces:
        assert f"\n{ast.get_source_segment(source, piece)}\n" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_notebook_of_a_page_is_the_page(page):
    """Run `python docs/tutorial/notebooks.py` after changing a page."""
    assert text_of(notebooks.stored(page)) == notebooks.notebook(text_of(page))


def test_links_of_the_tutorial_work():
    for page in TUTORIAL.glob("*.md"):
        prose = re.sub(r"```.*?```", "", text_of(page), flags=re.S)
        for link in re.findall(r"\]\(([^)#]+)", prose):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_there_are_ten_questions_with_answers():
    for name in "questions.md", "answers.md":
        numbers = re.findall(r"^(\d+)\. ", text_of(TUTORIAL / name), re.M)
        assert numbers == [str(i) for i in range(1, 11)]


def test_tiny_agrees_with_the_library(rng):
    x, w, b = rng.normal(size=(4, 3)), rng.normal(size=(3, 2)), rng.normal(size=2)

    def f(x, w, b):
        return (np.square(np.tanh(x @ w + b) * b) - b * 2.0).sum()

    for ours, theirs in zip(tiny.grad(f, x, w, b), dn.grad(f, (0, 1, 2))(x, w, b), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    stacks = [rng.normal(size=(5, *p.shape)) for p in (x, w, b)]
    slopes, expected = tiny.jvp(f, (x, w, b), stacks)[1], dn.jvp(f, (x, w, b), stacks)[1]
    np.testing.assert_allclose(slopes, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", variance.THEORY)
def test_the_figure_of_page_4_measures_what_theory_says(name, rng):
    """Within eight or more standard errors of 300 estimates."""
    assert np.isclose(variance.measure(name, 32, rng), variance.THEORY[name](32), rtol=0.25)


# --- 1. from a difference quotient to dual numbers -----------------------------------------------


class Dual:
    """As page 1 has it, with a division."""

    def __init__(self, primal, tangent):
        self.primal, self.tangent = primal, tangent

    def __add__(self, other):
        return Dual(self.primal + other.primal, self.tangent + other.tangent)

    def __mul__(self, other):
        tangent = self.tangent * other.primal + self.primal * other.tangent
        return Dual(self.primal * other.primal, tangent)

    def __truediv__(self, other):  # the answer: with q = x / y, the tangent is (x' - q y') / y
        out = self.primal / other.primal
        return Dual(out, (self.tangent - out * other.tangent) / other.primal)


def test_answer_1_1_the_rule_of_division():
    x, one = Dual(2.0, 1.0), Dual(1.0, 0.0)
    out = x / (x * x + one)
    assert np.isclose(out.primal, 2 / 5) and np.isclose(out.tangent, (1 - 4) / 25)


def test_answer_1_2_a_central_difference_has_an_error_of_the_order_of_the_square():
    """(x + ε)³ − (x − ε)³ = 6x²ε + 2ε³: the error is ε², as the terms with ε² cancel."""
    for eps in 1e-1, 1e-2, 1e-3:
        assert np.isclose(((2 + eps) ** 3 - (2 - eps) ** 3) / (2 * eps) - 12, eps**2, rtol=1e-3)


def test_answer_1_3_a_tangent_is_a_speed():
    """20: x moves at speed 5, x·x moves 2x = 4 times as fast.  Tangents are linear in the seed."""
    x = Dual(2.0, 5.0)
    assert (x * x).tangent == 20.0


# --- 2. k tangents at once, and shapes -----------------------------------------------------------


def test_answer_2_1_the_tangent_of_a_product_by_x(rng):
    """(k, 4, 2), by the line `x_dot @ w`: all k at once, as `@` works on the last two axes."""
    x, w, x_dot = rng.normal(size=(4, 3)), rng.normal(size=(3, 2)), rng.normal(size=(5, 4, 3))
    z_dot = x_dot @ w
    assert z_dot.shape == (5, 4, 2)
    np.testing.assert_allclose(z_dot, dn.jvp(lambda x: x @ w, (x,), (x_dot,))[1])


def test_answer_2_2_the_mean_over_rows_is_over_axis_minus_2(rng):
    """`z_dot.mean(-2)`.  `z_dot.mean(0)` is the mean over directions, which nobody asked for."""
    z, z_dot = rng.normal(size=(4, 2)), rng.normal(size=(5, 4, 2))
    expected = dn.jvp(lambda z: z.mean(0), (z,), (z_dot,))[1]
    np.testing.assert_allclose(z_dot.mean(-2), expected)
    assert z_dot.mean(0).shape == (4, 2) != expected.shape


def test_answer_2_3_row_i_of_the_slopes_belongs_to_entry_i_of_x(rng):
    """Direction i moves xᵢ alone, so row i is column i of the Jacobian.  Here it is symmetric."""

    def f(x):
        return x / np.sqrt((x * x).sum())

    x = rng.normal(size=4)
    _, slopes = dn.jvp(f, (x,), (np.eye(4),))
    length = np.linalg.norm(x)
    np.testing.assert_allclose(slopes, np.eye(4) / length - np.outer(x, x) / length**3)
    np.testing.assert_allclose(slopes.T, dn.jacfwd(f)(x))


# --- 3. a rule is a linear map -------------------------------------------------------------------


def test_answer_3_1_a_rule_for_exp(monkeypatch):
    monkeypatch.setitem(tiny.RULES, np.exp, lambda out, x: (tiny.scale(x, out),))
    x, f = np.array([0.0, 1.0, 2.0]), lambda x: np.exp(x).sum()
    np.testing.assert_allclose(tiny.jvp(f, (x,), (np.eye(3),))[1], np.exp(x))
    np.testing.assert_allclose(tiny.grad(f, x)[0], np.exp(x))


def test_answer_3_2_reversing_is_its_own_transpose(rng):
    """Entry i goes to place n − 1 − i, and a cotangent goes back by the same way."""
    m = tiny.Map(lambda t: t[:, ::-1], lambda ct: ct[:, ::-1])
    t, ct = rng.normal(size=(1, 5)), rng.normal(size=(1, 5))
    assert np.isclose((ct * m(t)).sum(), (m.transpose(ct) * t).sum())


def test_answer_3_3_the_equation_of_inner_products_finds_a_wrong_transpose(rng):
    """`ct @ y` is right for a symmetric y alone; for any other the two sides differ."""
    y, t, ct = rng.normal(size=(3, 3)), rng.normal(size=(1, 2, 3)), rng.normal(size=(1, 2, 3))
    left = (ct * (t @ y)).sum()
    assert np.isclose(left, ((ct @ y.T) * t).sum())
    assert not np.isclose(left, ((ct @ y) * t).sum(), rtol=1e-7)


# --- 4. why a random direction is enough ---------------------------------------------------------


def test_answer_4_1_one_entry_at_a_time_is_unbiased_with_the_variance_of_signs(rng):
    """E[v vᵀ] = Σⱼ n eⱼeⱼᵀ / n = I.  |v|² is n, so the total variance is (n − 1) |∇f|².

    All n cases can be listed, so that this is no measurement.
    """
    gradient, n = rng.normal(size=6), 6
    v = np.sqrt(n) * np.eye(n)
    estimates = (v @ gradient)[:, None] * v
    np.testing.assert_allclose(estimates.mean(0), gradient)
    error = np.square(estimates - gradient).sum(1).mean()
    assert np.isclose(error, (n - 1) * gradient @ gradient)


def test_answer_4_2_the_best_factor_makes_an_estimate_that_is_biased():
    """E|λg − ∇f|² = (λ² (n + 2) − 2λ + 1) |∇f|², because E|g|² = (n + 2) |∇f|² and E g = ∇f.

    It is smallest at λ = 1 / (n + 2), where it is (n + 1) / (n + 2) |∇f|²: just below 1.
    The mean is λ ∇f, so the estimate is biased.
    """
    n, factors = 10, np.linspace(0, 1, 100_001)
    error = factors**2 * (n + 2) - 2 * factors + 1
    assert np.isclose(factors[error.argmin()], 1 / (n + 2), atol=1e-5)
    assert np.isclose(error.min(), (n + 1) / (n + 2))


def test_answer_4_3_orthogonal_directions_give_the_gradient_at_k_equal_n(rng):
    """The mean of dᵢvᵢ is Vᵀ V ∇f / n, and VᵀV = n I.  So it is ∇f, as the projection is."""
    n = 6
    gradient, v = rng.normal(size=n), np.sqrt(n) * np.linalg.qr(rng.normal(size=(n, n)))[0]
    d = v @ gradient
    np.testing.assert_allclose(d @ v / n, gradient)
    np.testing.assert_allclose(np.linalg.solve(v @ v.T, d) @ v, gradient)


# --- 5. weights or activities --------------------------------------------------------------------


def two_layers(rng, n):
    """Inputs, weights, the loss of each example from z, and δ, of n copies of one example."""
    x, target = rng.normal(size=(1, 4)).repeat(n, 0), rng.normal(size=(1, 3)).repeat(n, 0)
    w1, w2 = rng.normal(size=(4, 5)), rng.normal(size=(5, 3))

    def losses_from(z):
        return np.square(np.tanh(z) @ w2 - target).sum(-1)

    z = x @ w1
    return x, z, w2, target, losses_from, dn.grad(lambda z: losses_from(z).sum())(z)


def test_answer_5_1_one_direction_for_all_examples_is_unbiased_and_its_noise_stays(rng):
    """Unbiased, as each example's own estimate is.  But the estimates of all examples move alike,
    so that the noise of their mean does not fall with N."""

    def noise(n, own):
        x, z, _, _, losses_from, delta = two_layers(np.random.default_rng(7), n)
        u = rng.choice([-1.0, 1.0], (2_000, n if own else 1, 5)).repeat(1 if own else n, 1)
        d = dn.jvp(losses_from, (z,), (u,))[1]
        estimates = np.einsum("np,knq->kpq", x, d[:, :, None] * u) / n
        return estimates.mean(0), np.square(estimates - x.T @ delta / n).sum((1, 2)).mean()

    mean, one = noise(1, own=True)
    assert 0.5 < noise(16, own=False)[1] / one < 2
    assert 0.5 < 16 * noise(16, own=True)[1] / one < 2
    x, _, _, _, _, delta = two_layers(np.random.default_rng(7), 1)
    assert np.linalg.norm(mean - x.T @ delta) < 0.5 * np.linalg.norm(x.T @ delta)


def test_answer_5_2_directions_of_h_reach_delta_by_the_slope(rng):
    """d u estimates ∂L/∂h, and δ = ∂L/∂h · (1 − h²): unbiased, because a product with numbers
    that do not depend on u is linear."""
    _, z, w2, target, _, delta = two_layers(rng, 1)
    h = np.tanh(z)
    loss = lambda h: np.square(h @ w2 - target).sum(-1)  # noqa: E731
    # all directions √q eⱼ of exercise 1 of page 4 have the mean itself, without noise
    u = np.sqrt(5) * np.eye(5)[:, None, :]
    estimates = dn.jvp(loss, (h,), (u,))[1][:, :, None] * u * (1 - h * h)
    np.testing.assert_allclose(estimates.mean(0), delta, rtol=1e-6, atol=1e-9)


def test_answer_5_3_the_output_layer_needs_its_input_and_the_error(rng):
    """hᵀe / N with e = 2 (y − target), which is known after the forward pass."""
    x, z, w2, target, _, _ = two_layers(rng, 6)
    h = np.tanh(z)
    exact = dn.grad(lambda w2: np.square(h @ w2 - target).sum(-1).mean())(w2)
    np.testing.assert_allclose(h.T @ (2 * (h @ w2 - target)) / len(x), exact, rtol=1e-9, atol=1e-9)


# --- 6. feedback ---------------------------------------------------------------------------------


def test_answer_6_1_minus_the_matrix_climbs(rng):
    """The angle is 180°: every step of w1 goes up the slope, and the loss grows if w1 alone moves.

    (On the page w2 learns, too, and may still win.)
    """
    x, target = rng.normal(size=(8, 4)), rng.normal(size=(8, 3))
    w1, w2 = rng.normal(size=(4, 5)), rng.normal(size=(5, 3))
    e = np.tanh(x @ w1) @ w2 - target
    delta = (e @ -w2.T) * (1 - np.tanh(x @ w1) ** 2)
    moved = np.tanh(x @ (w1 - 1e-6 * x.T @ delta)) @ w2 - target
    assert np.square(moved).sum() > np.square(e).sum()


def test_answer_6_2_the_guess_that_is_delta_itself(rng):
    """d − ĝ·u is then 0 for every u.  But δ is what backpropagation computes: with it at hand no
    estimate is needed."""
    delta, u = rng.normal(size=5), rng.normal(size=(7, 5))
    left = u @ delta - u @ delta
    np.testing.assert_array_equal(delta + left[:, None] * u, np.tile(delta, (7, 1)))


def test_answer_6_3_between_0_and_2():
    """The variance is (q + 1) (1 − λ)² |δ|²: less than at λ = 0 if |1 − λ| is below 1."""
    factor = np.array([-0.1, 0.1, 1.0, 1.9, 2.1])
    assert ((1 - factor) ** 2 < 1).tolist() == [False, True, True, True, False]


# --- 7. local losses and replicas ----------------------------------------------------------------


def replicas_of(z, mix, head, target):
    """The replicas of page 7, with a map `mix` (P, P) of tokens before the head."""
    h = np.swapaxes(np.swapaxes(np.tanh(z), 1, 2) @ mix, 1, 2)
    still, tokens = dn.stop_gradient(h), h.shape[1]
    of = lambda average: np.square(average @ head - target).sum(-1)  # noqa: E731
    copies = [still.mean(1) + (h[:, p] - still[:, p]) / tokens for p in range(tokens)]
    return np.stack([of(copy) for copy in copies], axis=1)


def test_answer_7_1_each_replica_has_the_part_of_one_token(rng):
    """Values are equal, so the sum of the *values* is P times the loss.  But the tangent of L[p] is
    the part that token p has in the tangent of the loss, and parts add up to the whole."""
    z, head, target = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 2)), rng.normal(size=(2, 2))
    u = rng.normal(size=z.shape)
    of = lambda z: np.square(np.tanh(z).mean(1) @ head - target).sum(-1)  # noqa: E731
    loss, d = dn.jvp(of, (z,), (u,))
    values, parts = dn.jvp(lambda z: replicas_of(z, np.eye(3), head, target), (z,), (u,))
    np.testing.assert_allclose(values.sum(1), 3 * loss)
    np.testing.assert_allclose(parts.sum(1), d, atol=1e-9)


def test_answer_7_2_mixing_takes_token_0_to_every_replica(rng):
    """All of them: so a direction of token 0 gets the sum of all scalars, that of the one loss."""
    z, head, target = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 2)), rng.normal(size=(2, 2))
    u = np.zeros_like(z)
    u[:, 0] = rng.normal(size=(2, 4))
    for mix, reached in (np.eye(3), 1), (rng.normal(size=(3, 3)), 3):
        d = dn.jvp(lambda z, mix=mix: replicas_of(z, mix, head, target), (z,), (u,))[1]
        assert ((d != 0).sum(1) == reached).all()


def test_answer_7_3_a_thousand_replicas():
    """64 · 16 = 1,024, by the rule of page 7: P·G.  About as many times fewer numbers share a
    scalar, and the noise of page 5 is proportional to that number."""
    from dualnet.learning.independence import independence_of_each
    from dualnet.learning.task import Task
    from dualnet.models import LocalMixer
    from dualnet.nn import softmax_cross_entropy

    network = LocalMixer(width=32, patches=8, groups=16, depth=2).network((8, 8, 1), 10)
    last = independence_of_each(Task(network, softmax_cross_entropy), greedy=True)["block2"]
    assert last.tokens and 8**2 * last.groups == 1024


# --- 8. your own ---------------------------------------------------------------------------------


def test_answer_8_1_the_slope_is_twice_the_absolute_value():
    """2|x|.  At 0 `check_jvp` refuses it, although it is right: the slope has a kink there, so that
    the error of a difference quotient falls as ε and not as ε², and is too large to pass."""

    @dn.custom_jvp
    def signed_square(x):
        return np.abs(x) * x

    signed_square.defjvps(lambda t, out, x: t * (2.0 * np.abs(x)))
    dn.check_jvp(signed_square, (np.array([-2.0, 1.0, 3.0]),), order=2)
    with pytest.raises(dn.checking.DerivativeError, match="bends too much"):
        dn.check_jvp(signed_square, (np.array([-2.0, 0.0, 3.0]),))


def test_answer_8_2_a_layer_that_adds():
    """0, as for `Gate`: every number of the output depends on one number of the input."""

    class Shift(dn.nn.Layer):
        row_groups = 0

        def init(self, key, in_shape):
            return {"by": np.zeros(in_shape, np.float32)}, {}, in_shape

        def apply(self, params, state, x, context):
            return x + params["by"], state

    params = {"by": np.array([1.0, 2.0])}

    def f(params, x):
        return Shift().apply(params, {}, x, dn.nn.Context())[0]

    dn.check_jvp(f, (params, np.ones((3, 2))))
    dn.check_vjp(f, (params, np.ones((3, 2))))


def test_answer_8_3_a_rate_that_falls():
    """`step` counts from 1; `math.sqrt` of a Python number leaves float32 arrays as they are."""

    class Falling(dn.optim.Optimizer):
        def update_leaf(self, g, s, p, lr, step):
            return p - lr / math.sqrt(step) * g, s

    optimizer, p, g = Falling(), np.zeros(2, np.float32), np.ones(2, np.float32)
    state = optimizer.init(p)
    p, state = optimizer.update(g, state, p, lr=0.5)
    assert p.tolist() == [-0.5, -0.5]
    p, state = optimizer.update(g, state, p, lr=0.5)
    np.testing.assert_allclose(p, -0.5 - 0.5 / math.sqrt(2), rtol=1e-6)
