"""Draw the squared error of forward gradients against k: docs/figures/variance.svg.

Lines are the formulas of page 4 of the tutorial, dots are measured.
"""

from pathlib import Path
from typing import Any

import numpy as np

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


def measure(name: str, k: int, rng: np.random.Generator) -> float:
    """Return the mean of |g - grad|^2 / |grad|^2 over estimates from k directions each."""
    a, theta = np.linspace(-1, 1, N), np.ones(N)
    f = lambda theta: np.tanh(a * theta).sum()  # noqa: E731
    gradient, shape = dn.grad(f)(theta), (REPEATS, k, N)
    v = rng.choice([-1.0, 1.0], shape) if name == SIGNS else rng.normal(size=shape)
    d = dn.jvp(f, (theta,), (v.reshape(-1, N),))[1].reshape(REPEATS, k, 1)
    c = np.linalg.solve(v @ v.swapaxes(1, 2), d) if name == PROJECTION else d / k
    return np.square((c * v).sum(1) - gradient).sum(1).mean() / (gradient @ gradient)


def draw() -> Any:
    """Return the picture, a figure of matplotlib's."""
    import matplotlib.pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "dualnet", "font.size": 11}
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    rng = np.random.default_rng(0)
    k = np.geomspace(1, N - 0.5, 300)
    for (name, formula), color, mark in zip(
        THEORY.items(), ("#0072b2", "#d55e00", "#009e73"), "os^", strict=True
    ):
        axes.plot(k, formula(k), color=color, linewidth=1.2)
        measured = [measure(name, k, rng) for k in KS]
        axes.plot(KS, measured, mark, color=color, label=name, markersize=6)
    axes.axhline(1, color="gray", linewidth=0.8, linestyle="--")
    axes.text(1.05, 1.12, "the estimate 0", color="dimgray")
    axes.set(xscale="log", yscale="log", xlabel=f"k directions, of n = {N} parameters")
    axes.set_xticks(KS, map(str, KS))
    axes.minorticks_off()
    axes.set_ylabel("mean of |g − ∇f|² / |∇f|²")
    axes.legend(title="lines: theory, marks: measured", frameon=False, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    draw().savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None, "Creator": None})
