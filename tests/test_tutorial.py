"""The tutorial: the answers to its exercises, and that its pages and `tiny.py` are the same.

`test_docs` runs the code of the pages, and compares what it prints with what they show.
"""

import ast
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import dualnet as dn

TUTORIAL = Path(__file__).parent.parent / "docs/tutorial"
sys.path.insert(0, str(TUTORIAL))  # for `import tiny`

import tiny  # noqa: E402

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
