"""How near forward gradients of k directions come to the gradient, in 64 dimensions.

Source: Flügel et al. 2024, "Beyond Backpropagation: Optimization with Multi-Tangent Forward
Gradients", section 4.1 and Figure 3: the cosine of the angle between the estimate and the gradient,
and their ratio of lengths, means over 1,000 seeds.  The gradient of the published code has 64 ones.
Beside it stands a gradient of normal numbers, drawn once: to a rank-one direction of 8 x 8 weights,
the ones, which are a matrix of rank one too, are a special case.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import dualnet as dn
from dualnet import backends
from dualnet.core.spaces import dense
from dualnet.learning import WEIGHT_AGGREGATIONS
from dualnet.learning.directions.samplers import sampler_of
from dualnet.types import Array
from experiments.experiment import Experiment, Form, Settings, spread

SHAPE = (8, 8)
N = math.prod(SHAPE)
COUNTS = (1, 2, 4, 8, 16, 32, 64)
AT = 16
"""The number of directions for the tables of all aggregations and samplers."""
SAMPLERS = (
    *("normal", "normal:unit", "rademacher", "basis", "varying:2", "orthonormal", "angle:45"),
    *("orthogonal", "orthogonal-lengths", "orthogonal-angle:45"),
    *("rank-one", "rank-one:4", "rank-one-normal"),
)
"""The published ones, then ours."""
GRADIENTS = {
    "ones": lambda backend: np.ones(SHAPE),
    "normal": lambda backend: backend.normal(dn.Key(0).fold_in("gradient"), SHAPE, np.float64),
}


def settings(form: Form) -> list[Settings]:
    """Return the rows: a gradient, a sampler and the number of directions."""
    counts = {"ones": (1, AT), "normal": (AT,)} if form.quick else {"ones": COUNTS, "normal": (AT,)}
    return [
        {"gradient": gradient, "n": N, "sampler": sampler, "k": k}
        for gradient, of_gradient in counts.items()
        for sampler in SAMPLERS
        for k in of_gradient
    ]


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Compare the estimate of every aggregation with the gradient, for each seed."""
    backend = backends.get(form.backend)
    exact = GRADIENTS[row["gradient"]](backend)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WEIGHT_AGGREGATIONS}
    for seed in form.seeds:
        v = directions(row["sampler"], dn.Key(seed).fold_in("quality"), row["k"])
        d, gram = v @ exact.ravel(), v @ v.T
        for name, aggregate in WEIGHT_AGGREGATIONS.items():
            estimate = aggregate(d, lambda gram=gram: gram, N) @ v
            found[name].append(compared(estimate, exact.ravel()))
    return {
        name: {
            "cosine": spread([cosine for cosine, _ in of_seeds]),
            "ratio": spread([ratio for _, ratio in of_seeds]),
        }
        for name, of_seeds in found.items()
    }


def directions(name: str, key: dn.Key, k: int) -> Array:
    """Return k directions of all weights, as a learning rule with this sampler mixes them."""
    sampler = sampler_of(name)
    drawn = sampler.draw(backends.get("numpy"), key, {"w": np.empty(SHAPE)}, 0, k)
    v = np.reshape(dense(drawn["w"]), (k, N))
    return v if sampler.mix is None else sampler.mix(v @ v.T, N) @ v


def compared(estimate: Array, exact: Array) -> tuple[float, float]:
    """Return an estimate's cosine to the gradient, 0 for an estimate of 0, and relative length."""
    length, of_exact = np.linalg.norm(estimate), np.linalg.norm(exact)
    cosine = np.sum(estimate * exact) / (length * of_exact) if length > 0 else 0.0
    return float(cosine), float(length / of_exact)


# --- theory --------------------------------------------------------------------------------------


def expected_length(k: int) -> float:
    """Return E[χ_k], the expected length of k independent standard normal numbers."""
    return math.sqrt(2) * math.exp(math.lgamma((k + 1) / 2) - math.lgamma(k / 2))


def onto_span(k: int, n: int) -> float:
    """Return the expected cosine of the projection onto k isotropic directions, or its ratio."""
    return expected_length(k) / expected_length(n)


def theory(sampler: str, aggregation: str, k: int, n: int = N) -> tuple[float, float] | None:
    """Return the expected cosine and ratio of lengths, where there is a formula.

    The span of k isotropic directions is a uniform subspace, so the projection's cosine, which is
    its ratio too, has the mean E[χ_k] / E[χ_n].  Of normal directions, the sum has the part
    a² = χ²_k along the gradient and a χ_{n-1} across it.  Its cosine a / sqrt(a² + χ²_{n-1}) has
    the mean E[χ_k] / E[χ_{n+k-1}].  Its length is the cosine times a² + χ²_{n-1}, which is
    independent of the cosine and has the mean n + k - 1.
    """
    isotropic = ("normal", "normal:unit", "angle:45", *(s for s in SAMPLERS if "orthog" in s))
    projected = onto_span(k, n)
    if aggregation == "projection" and (sampler in isotropic or sampler == "orthonormal"):
        return projected, projected
    if sampler == "normal" and aggregation in ("mean", "sum"):
        cosine = expected_length(k) / expected_length(n + k - 1)
        return cosine, cosine * (n + k - 1) / (k if aggregation == "mean" else 1)
    if sampler == "orthonormal" and aggregation in ("mean", "sum"):
        return projected, projected / (k if aggregation == "mean" else 1)
    return None


def published_ratio(k: int, n: int = N) -> float:
    """Return the published ratio of lengths of the mean of directions of length 1.

    Source: the published code's correction of lengths.
    """
    return math.sqrt(2 / (math.pi * n)) if k == 1 else math.sqrt((n + k) / (1 + k)) / n


# --- table and picture ---------------------------------------------------------------------------

FIGURE = {
    "projection": ("normal", "projection"),
    "mean": ("normal", "mean"),
    "sum": ("normal", "sum"),
    "mean, unit": ("normal:unit", "mean"),
    "sum, unit": ("normal:unit", "sum"),
}
"""The lines of Figure 3: label → sampler and aggregation."""

Found = dict[tuple[str, str, int], dict[str, dict]]
"""Gradient, sampler, k → aggregation → figures."""


def found_in(rows: list[dict]) -> Found:
    """Return the results by gradient, sampler and k."""
    return {
        (row["settings"]["gradient"], row["settings"]["sampler"], row["settings"]["k"]): row[
            "results"
        ]
        for row in rows
    }


def counts_in(found: Found) -> list[int]:
    """Return the numbers of directions that were measured."""
    return sorted({k for *_, k in found})


def table(rows: list[dict]) -> str:
    """Return three tables: Figure 3 beside theory, all aggregations, all samplers."""
    found = found_in(rows)
    counts = counts_in(found)
    parts = []
    for figure, place in (("cosine", 0), ("ratio", 1)):
        lines = [
            f"| {figure} | {' | '.join(f'k = {k}' for k in counts)} |",
            f"| --- |{' --- |' * len(counts)}",
        ]
        for label, (sampler, aggregation) in FIGURE.items():
            ours = [found["ones", sampler, k][aggregation][figure]["mean"] for k in counts]
            lines.append(f"| {label} | {' | '.join(f'{x:.3f}' for x in ours)} |")
            known = [theory(sampler, aggregation, k) for k in counts]
            if None not in known:
                of_theory = " | ".join(f"{both[place]:.3f}" for both in known if both)
                lines.append(f"| {label}, theory | {of_theory} |")
            if figure == "ratio" and sampler == "normal:unit":
                by = [1 if aggregation == "mean" else k for k in counts]
                shown = " | ".join(
                    f"{published_ratio(k) * b:.3f}" for k, b in zip(counts, by, strict=True)
                )
                lines.append(f"| {label}, published formula | {shown} |")
        parts.append("\n".join(lines))
    lines = [f"| aggregation, k = {AT} | cosine | ratio |", "| --- | --- | --- |"]
    for aggregation, figures in found["ones", "normal", AT].items():
        cosine, ratio = (figures[name]["mean"] for name in ("cosine", "ratio"))
        lines.append(f"| `{aggregation}` | {cosine:.3f} | {ratio:.3f} |")
    parts.append("\n".join(lines))
    heads = [f"{a}, {g}" for g in GRADIENTS for a in ("mean", "projection")]
    lines = [f"| cosine, k = {AT} | {' | '.join(heads)} |", f"| --- |{' --- |' * len(heads)}"]
    for sampler in SAMPLERS:
        cells = [
            f"{found[g, sampler, AT][a]['cosine']['mean']:.3f}"
            for g in GRADIENTS
            for a in ("mean", "projection")
        ]
        lines.append(f"| `{sampler}` | {' | '.join(cells)} |")
    parts.append("\n".join(lines))
    return "\n\n".join(parts)


def picture(rows: list[dict]) -> Any:
    """Draw Figure 3 with theory, and beside it all aggregations and all samplers."""
    from matplotlib.figure import Figure

    found = found_in(rows)
    counts = counts_in(found)
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    (cosines, ratios), (aggregations, samplers) = figure.subplots(2, 2)
    for axes, name, place in ((cosines, "cosine", 0), (ratios, "ratio", 1)):
        for i, (label, (sampler, aggregation)) in enumerate(FIGURE.items()):
            means = [found["ones", sampler, k][aggregation][name]["mean"] for k in counts]
            # Lines of equal cosines lie on one another, so each has dashes of its own.
            dashes = "-" if i == 0 else (2 * i, (3, 5))
            axes.plot(counts, means, linestyle=dashes, color=f"C{i}", label=label)
            known = [theory(sampler, aggregation, k) for k in counts]
            if None not in known:
                expected = [both[place] for both in known if both]
                axes.plot(counts, expected, "kx", label="theory" if i == 0 else None)
    shown = {
        **{(aggregations, a): ("ones", "normal", a) for a in WEIGHT_AGGREGATIONS},
        **{(samplers, sampler): ("ones", sampler, "projection") for sampler in SAMPLERS},
    }
    for i, ((axes, label), (gradient, sampler, aggregation)) in enumerate(shown.items()):
        means = [found[gradient, sampler, k][aggregation]["cosine"]["mean"] for k in counts]
        look = {"color": f"C{i % 10}", "marker": ".o^sv"[i % 5], "markersize": 4}
        axes.plot(counts, means, label=label, **look)
    titles = {
        cosines: "cosine to the gradient (Figure 3)",
        ratios: "length over that of the gradient (Figure 3)",
        aggregations: "cosine of every aggregation, normal directions",
        samplers: "cosine of projections, every sampler",
    }
    for axes, title in titles.items():
        axes.set_title(title, fontsize="medium")
        axes.set_xscale("log", base=2)
        axes.set_xlabel("k")
        axes.legend(fontsize="x-small")
    ratios.set_yscale("log")
    return figure


EXPERIMENT = Experiment(
    name="frog-quality",
    shows="cosine and length of every aggregation and sampler, k = 1 to 64 in 64 dimensions",
    source="Flügel et al. 2024, Figure 3",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    seeds=tuple(range(1000)),
    quick_seeds=(0, 1, 2),
    published={
        "seeds": 1000,
        "ratio of the mean of unit directions": {str(k): published_ratio(k) for k in COUNTS},
    },
)
