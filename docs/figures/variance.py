"""The squared error of forward gradients against k: docs/figures/variance.svg.

Lines are the formulas of page 4 of the tutorial, marks are measured.
"""

import numpy as np
from drawing import WIDTH, Drawing

import dualnet as dn

N, KS, REPEATS = 64, (1, 2, 4, 8, 16, 32, 48, 63), 300
NORMAL, SIGNS = "normal numbers, mean", "random signs, mean"
PROJECTION = "normal numbers, projection"
THEORY = {
    NORMAL: lambda k: (N + 1) / k,
    SIGNS: lambda k: (N - 1) / k,
    PROJECTION: lambda k: 1 - k / N,
}
"""Name -> E|g - grad|^2 / |grad|^2, as a function of k."""

LOOKS = {NORMAL: "primal", SIGNS: "tangent", PROJECTION: "back"}
LEFT, RIGHT, TOP, BOTTOM = 70, 580, 56, 424
ERRORS = (0.01, 0.1, 1, 10, 100)


def measure(name: str, k: int, rng: np.random.Generator) -> float:
    """Return the mean of |g - grad|^2 / |grad|^2 over estimates from k directions each."""
    a, theta = np.linspace(-1, 1, N), np.ones(N)
    f = lambda theta: np.tanh(a * theta).sum()  # noqa: E731
    gradient, shape = dn.grad(f)(theta), (REPEATS, k, N)
    v = rng.choice([-1.0, 1.0], shape) if name == SIGNS else rng.normal(size=shape)
    d = dn.jvp(f, (theta,), (v.reshape(-1, N),))[1].reshape(REPEATS, k, 1)
    c = np.linalg.solve(v @ v.swapaxes(1, 2), d) if name == PROJECTION else d / k
    return np.square((c * v).sum(1) - gradient).sum(1).mean() / (gradient @ gradient)


def across(k: float) -> float:
    """Return where k lies from left to right; the axis is logarithmic."""
    return LEFT + (RIGHT - LEFT) * np.log(k) / np.log(N)


def up(error: float) -> float:
    """Return where an error lies from top to bottom; the axis is logarithmic."""
    low, high = np.log(ERRORS[0]), np.log(ERRORS[-1])
    return BOTTOM - (BOTTOM - TOP) * (np.log(error) - low) / (high - low)


def draw() -> str:
    """Return the picture."""
    d = Drawing(
        "The squared error of a forward gradient against k",
        f"A plot for n = {N} parameters, with two logarithmic axes.  The error of the mean of k"
        f" directions falls as 1/k, from {N + 1} to about 1, with normal numbers as with random"
        " signs.  The error of the projection is 1 - k/n: it begins just below 1, and falls to"
        " nearly 0 where k comes near n.  The measured marks lie on the lines of the theory.",
        500,
    )
    d.text(16, 32, "mean of |g − ∇f|² / |∇f|²", "ink bold start")
    for error in ERRORS:
        d.line((LEFT, up(error)), (RIGHT, up(error)), look="pale")
        d.text(LEFT - 10, up(error) + 6, f"{error:g}", "ink end")
    for k in KS:
        d.line((across(k), BOTTOM), (across(k), BOTTOM + 6), look="soft")
        if k not in (48, 63):
            d.text(across(k), BOTTOM + 28, f"{k}")
    d.text(across(63), BOTTOM + 28, "63")
    d.line((LEFT, BOTTOM), (RIGHT, BOTTOM), look="soft")
    d.text(WIDTH / 2, BOTTOM + 58, f"k directions, of n = {N} parameters")
    d.line((LEFT, up(1)), (RIGHT, up(1)), look="soft dashed")
    d.text(LEFT + 8, up(1) - 10, "error of the estimate 0", "soft start")

    rng = np.random.default_rng(0)
    fine = KS[-1] ** (1 - np.linspace(1, 0, 80) ** 2)  # closest where the projection bends
    for i, (name, formula) in enumerate(THEORY.items()):
        look = LOOKS[name]
        d.line(*((across(k), up(formula(k))) for k in fine), look=look)
        for k in KS:
            d.mark(across(k), up(measure(name, k, rng)), look)
        d.mark(LEFT + 16, BOTTOM - 94 + 26 * i, look)
        d.text(LEFT + 32, BOTTOM - 88 + 26 * i, name, f"{look} start")
    d.text(LEFT + 8, BOTTOM - 10, "lines: theory, marks: measured", "soft start")
    return str(d)
