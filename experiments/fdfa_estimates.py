"""How the variance that a rule adds to a gradient depends on β, on the weights, and on the neurons.

Source: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
Momentum", Proposition 2, Propositions 5 and 6, Figures 4 and 5, Table 4.  The network has two
layers, as in the propositions, here 64-q-10 with one of the digits that ship with the package.

With a = ∂L/∂h of one example, an estimate of the Jacobian along u is ẏᵀu, and the error makes
(a·u) u of it, the forward gradient by u.  So when B is the Jacobian and one estimate enters it by
β, the gradient's variance is β² times that of `fg-a`: that is Proposition 2.  B itself remembers
all earlier estimates, and varies by Σ β²(1 - β)²ⁱ = β / (2 - β) of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import dualnet as dn
from dualnet import backends, data, tree
from dualnet.learning import (
    ActivityPerturbation,
    Backprop,
    Batch,
    ForwardDirectFeedback,
    LearnerState,
    Plan,
    Rule,
    Task,
    WeightPerturbation,
    estimate_gradient,
)
from dualnet.models.mlp import MLP
from dualnet.nn import Context, Layer, Sequential, softmax_cross_entropy
from dualnet.types import Array
from experiments.experiment import Experiment, Form, Settings, spread

BETAS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
WIDTHS = (16, 32, 64, 128, 256, 512, 1024)
WIDTH = 128
"""Hidden units where β varies."""
SMALL = 0.1
"""Slopes over β are fitted up to here, where β / (2 - β) is nearly β / 2."""
OUTPUTS_TOO = "fg-w, outputs too"
RULES: dict[str, Rule] = {
    "fg-w": WeightPerturbation(),
    OUTPUTS_TOO: WeightPerturbation(),
    "fg-a": ActivityPerturbation(sampler="normal", perturb="after"),
}
"""For `fg-w`, the propositions leave the output layer's weights where they are."""


@dataclass(frozen=True, eq=False)
class Fixed(Layer):
    """A linear layer whose weights are no parameters.

    Args:
        params: those of a `Linear`.
    """

    params: dict[str, Array]

    def init(self, key: dn.Key, in_shape: tuple[int, ...]) -> tuple[dict, dict, tuple[int, ...]]:
        return {}, {}, self.params["b"].shape

    def apply(self, params: dict, state: dict, x: Array, context: Context) -> tuple[Array, dict]:
        return x @ self.params["w"] + self.params["b"], state


class OneExample:
    """A network of two layers at its start, and an example: what all rows measure at.

    Args:
        digits: the data set.
        row: settings; it has directions of its own, so that no row's figure follows from another's.
        seed: of the weights, and the number of the example.
    """

    def __init__(self, digits: data.Dataset, row: Settings, seed: int):
        chosen = slice(seed, seed + 1)
        x = digits.pixels(digits.train_images[chosen], np.float32, "symmetric")
        network = MLP(width=row["width"], depth=1).network(digits.in_shape, 10)
        key = dn.Key(seed).fold_in("estimates")
        self.params, self.state, _ = network.init(key.fold_in("init"), digits.in_shape)
        if row["of"] == "fg-w":
            output = ("output", Fixed(self.params["output"]))
            network = Sequential((*network.layers[:-1], output))
            self.params = {**self.params, "output": {}}
        task = Task(network, softmax_cross_entropy)
        self.key = key.fold_in(f"{row['of']} {row.get('beta')}")
        self.plan = Plan.of(task, self.params, self.state, x)
        self.batch = Batch(x, digits.train_labels[chosen])

    def step(self, rule: Rule, rule_state: Any, number: int) -> Any:
        """Return the estimate of one step, which leaves the weights as they are."""
        learner = LearnerState(self.params, self.state, rule_state)
        key, backend = self.key.fold_in(number), backends.get("numpy")
        return estimate_gradient(rule, self.plan, learner, self.batch, key, backend)

    def exact(self) -> dict[str, Any]:
        """Return the gradient of backpropagation."""
        return self.step(Backprop(), {}, 0).gradients

    def jacobian(self) -> dict[str, Array]:
        """Return the feedback matrix to which `fdfa` tends here: the output layer's weights."""
        ((unit,), weights) = self.plan.units, self.params["output"]["w"]
        return {unit.after: weights.T}

    def theory(self, of: str, exact: dict[str, Any]) -> float:
        """Return the relative variance that `fg-a` adds to the hidden weights, or a form of `fg-w`.

        For normal directions Var[(∇·v) vᵢ] = |∇|² + ∇ᵢ².  A hidden weight's gradient is xᵢ aⱼ where
        unit j is on, so that the input cancels for `fg-a`.
        """
        if of.startswith("fg-w"):
            hidden = exact["hidden1"]["w"]
            squared = sum(float(np.square(g).sum()) for g in tree.leaves(exact))
            return hidden.size * squared / float(np.square(hidden).sum()) + 1
        a = self.params["output"]["w"] @ exact["output"]["b"]  # b's gradient is the error itself
        on = exact["hidden1"]["b"] != 0
        of_on, of_all = float(np.square(a[on]).sum()), float(np.square(a).sum())
        return int(on.sum()) * of_all / of_on + 1


def settings(form: Form) -> list[Settings]:
    """Return the rows: over β the single update and the moving average, then rules over width."""
    betas, widths, draws = ((1.0, 0.3), (16, 32), 8) if form.quick else (BETAS, WIDTHS, 250)
    return [
        *(
            {"over": "beta", "of": of, "beta": beta, "width": WIDTH, "draws": draws}
            for of in ("one update", "moving average")
            for beta in betas
        ),
        *(
            {"over": "size", "of": rule, "width": width, "draws": draws}
            for rule in RULES
            for width in widths
        ),
    ]


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Return the variance of the hidden weights' gradient over their squared exact gradient.

    Every estimate here has the exact gradient for its mean, so that a squared distance from it is a
    sample of the variance.
    """
    found, expected, weights = [], [], 0
    digits = data.load("digits", quiet=True)
    for seed in form.seeds:
        at = OneExample(digits, row, seed)
        exact = at.exact()
        squared = np.square(exact["hidden1"]["w"]).sum()
        far = [
            np.square(g["hidden1"]["w"] - exact["hidden1"]["w"]).sum() for g in estimates(at, row)
        ]
        found.append(float(np.mean(far) / squared))
        expected.append(share(row) * at.theory(row["of"], exact))
        weights = sum(p.size for p in tree.leaves(at.params))
    return {
        "variance": spread(found),
        "theory": float(np.mean(expected)),
        "weights": weights,
        "neurons": row["width"],
    }


def estimates(at: OneExample, row: Settings) -> Iterator[dict[str, Any]]:
    """Yield independent gradients, or for the moving average those of a long run of steps."""
    if row["over"] == "size":
        rule = RULES[row["of"]]
        yield from (at.step(rule, {}, i).gradients for i in range(row["draws"]))
        return
    rule, feedback = (
        ForwardDirectFeedback(sampler="normal", feedback_rate=row["beta"]),
        at.jacobian(),
    )
    if row["of"] == "one update":
        for i in range(row["draws"]):
            updated = at.step(rule, feedback, i).rule_state
            yield at.step(rule, updated, i).gradients
        return
    forgotten = round(3 / row["beta"])  # steps after which 0.3 % are missing of the variance
    for i in range(forgotten + max(row["draws"], forgotten)):
        done = at.step(rule, feedback, i)
        feedback = done.rule_state
        if i >= forgotten:
            yield done.gradients


def share(row: Settings) -> float:
    """Return what a row's variance is of its rule's; for `fdfa`, of that of `fg-a`."""
    if row["over"] == "size":
        return 1.0
    beta = row["beta"]
    return beta**2 if row["of"] == "one update" else beta / (2 - beta)


def series(rows: list[dict]) -> dict[str, tuple[list[float], list[dict]]]:
    """Return by what the rows are of: the β, the numbers of weights or of neurons, and results."""
    found: dict[str, tuple[list[float], list[dict]]] = {}
    for row in rows:
        of, results = row["settings"], row["results"]
        size = results["weights" if of["of"].startswith("fg-w") else "neurons"]
        places, all_results = found.setdefault(of["of"], ([], []))
        places.append(of["beta"] if of["over"] == "beta" else size)
        all_results.append(results)
    return found


def slope(places: list[float], results: list[dict]) -> float:
    """Return the slope of the least-squares line through variances, both axes logarithmic."""
    over_beta = max(places) <= 1
    chosen = [i for i, place in enumerate(places) if not over_beta or place <= SMALL]
    chosen = chosen if len(chosen) > 1 else list(range(len(places)))
    x = np.log([places[i] for i in chosen])
    y = np.log([results[i]["variance"]["mean"] for i in chosen])
    return float(np.polyfit(x, y, 1)[0])


PUBLISHED_SLOPES = {"one update": 2, "fg-w": 1, "fg-a": 1}
"""Propositions 2, 5 and 6."""
UNITS = {
    "one update": "β",
    "moving average": "β",
    "fg-w": "weights",
    OUTPUTS_TOO: "weights",
    "fg-a": "neurons",
}


def table(rows: list[dict]) -> str:
    """Return variances with theory, by what they are over, and the fitted slopes."""
    of_all = series(rows)
    parts = []
    for of, (places, results) in of_all.items():
        shown = [f"{place:g}" if UNITS[of] == "β" else f"{place:,}" for place in places]
        name = of if of in RULES else f"fdfa, {of}"
        parts.append(
            "\n".join(
                [
                    f"| {name}: {UNITS[of]} | {' | '.join(shown)} |",
                    f"| --- |{' --- |' * len(shown)}",
                    "| variance | "
                    + " | ".join(f"{r['variance']['mean']:.3g}" for r in results)
                    + " |",
                    "| theory | " + " | ".join(f"{r['theory']:.3g}" for r in results) + " |",
                ]
            )
        )
    lines = ["| slope of | over | published | here |", "| --- | --- | --- | --- |"]
    for of, (places, results) in of_all.items():
        name = f"`{of}`".replace(", outputs too`", "`, outputs too")
        name = name if of in RULES else f"`fdfa`, {of}"
        found = slope(places, results)
        lines.append(f"| {name} | {UNITS[of]} | {PUBLISHED_SLOPES.get(of, '')} | {found:.2f} |")
    return "\n\n".join([*parts, "\n".join(lines)])


def picture(rows: list[dict]) -> Any:
    """Draw variances over β and over sizes, with theory and slopes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    over_beta, over_size = figure.subplots(1, 2)
    panels = {"β": over_beta, "weights": over_size, "neurons": over_size}
    for color, (of, (places, results)) in zip(
        ("tab:blue", "tab:cyan", "tab:red", "tab:brown", "tab:orange"),
        series(rows).items(),
        strict=True,
    ):
        axes = panels[UNITS[of]]
        name = f"{of}, over {UNITS[of]}" if of in RULES else f"fdfa, {of}"
        axes.plot(places, [r["theory"] for r in results], color=color, linewidth=0.8)
        axes.errorbar(
            places,
            [r["variance"]["mean"] for r in results],
            [1.96 * (r["variance"]["error"] or 0.0) for r in results],
            linestyle="none",
            marker="o",
            markersize=4,
            capsize=2,
            color=color,
            label=f"{name}: slope {slope(places, results):.2f}",
        )
    over_beta.set_xlabel("β")
    over_size.set_xlabel("number of weights or of hidden neurons")
    over_beta.set_ylabel("added variance / |gradient|²")
    for axes in (over_beta, over_size):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.legend(fontsize="small", title="points measured, lines theory", title_fontsize="small")
    return figure


EXPERIMENT = Experiment(
    name="fdfa-estimates",
    shows="variance of fdfa over β, of fg-w over weights, of fg-a over neurons",
    source="Bacho and Chu, Propositions 2, 5 and 6, Figures 4 and 5",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    seeds=(0, 1, 2, 3, 4),
    quick_seeds=(0, 1),
    published={"slopes": PUBLISHED_SLOPES},
)
