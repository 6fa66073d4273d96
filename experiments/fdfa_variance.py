"""The variance of each rule's gradient on the multilayer perceptrons of FDFA.

Source: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
Momentum", section 4.3, Table 4 and Figures 4 and 5.  All rules are compared at the same weights:
those at the start, and those after an epoch of backpropagation (for `lg-fg-a`, of its own local
losses), along which `dkp` and `fdfa` learned their feedback on the same batches.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.analysis import EXACT, Point, variance
from dualnet.learning import Rule
from dualnet.tree import Tree
from experiments.experiment import Experiment, Form, Settings
from experiments.steps import BATCH, Images, Learner, mlp, published_rule

GLOBAL = ("bp", "fg-w", "fg-a", "dfa", "dkp", "fdfa")
ALL = (*GLOBAL, "lg-fg-a")
HISTORIES = "fdfa, other directions before"
"""Where `fdfa` varies: over what it has learned its feedback from."""
PUBLISHED = {
    "bp": "0",
    "fg-w": "grows with the weights",
    "fg-a": "grows with the neurons",
    "dfa": "0",
    "fdfa": "falls as β²",
}
"""Table 4, in words: its cells are formulas."""


def settings(form: Form) -> list[Settings]:
    """Return the rows: a network and how many epochs it has learned."""
    if form.quick:
        sizes = {"dataset": "digits", "width": 16, "batches": 4, "histories": 2}
        return [{"layers": 2, "epochs": epochs, **sizes} for epochs in (0, 1)]
    sizes = {"dataset": "mnist", "width": 800, "batches": 40, "histories": 4}
    return [{"layers": layers, "epochs": epochs, **sizes} for layers in (2, 4) for epochs in (0, 1)]


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Return the parts of every rule's variance, relative to the mean square of the gradient."""
    (seed,) = form.seeds
    images = Images(row["dataset"], form)
    learner = learner_of(images, published_rule("bp"), row, seed)
    feedback = learned_feedback(learner, row)
    rules = {name: published_rule(name) for name in GLOBAL}
    found = {
        name: parts(learner, rule, feedback[name][0] if name in feedback else None, row)
        for name, rule in rules.items()
    }
    found[HISTORIES] = {"added": over_histories(learner, rules["fdfa"], feedback["fdfa"], row)}
    rule = published_rule("lg-fg-a")
    greedy = learner_of(images, EXACT[rule.locality], row, seed)
    for batch in greedy.batches(row["epochs"]):
        greedy.follow(greedy.estimate(batch))
    found["lg-fg-a"] = parts(greedy, rule, None, row)
    weights = sum(p.size for p in tree.leaves(learner.state.params))
    return {"rules": found, "weights": weights, "neurons": row["width"] * (row["layers"] - 1)}


def learner_of(images: Images, rule: Rule, row: Settings, seed: int) -> Learner:
    """Return a learner of the row's network at its start."""
    return Learner(images, rule, mlp(images, rule, row["width"], row["layers"]), seed)


def learned_feedback(learner: Learner, row: Settings) -> dict[str, list[Tree]]:
    """Let the learner learn, and return the feedback that rules learn beside it, by rule.

    For `fdfa` it is a list: each from directions of its own.
    """
    params = learner.state.params
    numbers = {"dkp": 1, "fdfa": row["histories"]}
    feedback = {
        name: [learner.feedback_of(published_rule(name), params)] * number
        for name, number in numbers.items()
    }
    for batch in learner.batches(row["epochs"]):
        for name, states in feedback.items():
            rule = published_rule(name)
            feedback[name] = [
                learner.estimate(batch, rule, state, history).rule_state
                for history, state in enumerate(states)
            ]
        learner.follow(learner.estimate(batch))
    return feedback


def parts(learner: Learner, rule: Rule, feedback: Tree | None, row: Settings) -> dict[str, float]:
    """Return total, data and added variance of all weights over the mean square of the gradient."""
    state = learner.state
    own = learner.feedback_of(rule, state.params) if feedback is None else feedback
    point = Point(rule, learner.plan, state._replace(rule_state=own), learner.backend)
    key, images = learner.key.fold_in("variance"), learner.images
    found = variance(point, images.inputs, images.labels, BATCH, key, row["batches"])[-1]
    squares = [square(point.exact(*batch, key)) for batch in some_batches(learner, row)]
    size = float(np.mean(squares))
    return {part: getattr(found, part) / size for part in ("total", "data", "added")}


def over_histories(
    learner: Learner, rule: Rule, histories: list[Tree], row: Settings
) -> float | None:
    """Return the relative variance over feedback that was learned from other directions.

    Before the first step there is none.
    """
    if row["epochs"] == 0:
        return None
    added, squares = [], []
    for batch in some_batches(learner, row):
        gradients = [learner.estimate(batch, rule, state).gradients for state in histories]
        count = len(gradients)
        mean = tree.map(lambda *g: sum(g) / len(g), *gradients)
        far = [square(tree.map(np.subtract, g, mean)) for g in gradients]
        added.append(sum(far) / (count - 1))
        squares.append(square(learner.estimate(batch).gradients))
    return float(np.mean(added) / np.mean(squares))


def some_batches(learner: Learner, row: Settings) -> list[Any]:
    """Return the first batches of a training, of as many epochs as that takes."""
    return list(itertools.islice(learner.batches(row["batches"]), row["batches"]))


def square(gradient: Tree) -> float:
    """Return the squared length of a gradient."""
    return sum(float(np.square(g, dtype=np.float64).sum()) for g in tree.leaves(gradient))


def table(rows: list[dict]) -> str:
    """Return added variances by rule, and the total of each beside what comes from the data."""
    heads = [
        f"{of['layers']} layers, {'at the start' if not of['epochs'] else 'after an epoch'}"
        for of in (row["settings"] for row in rows)
    ]
    lines = [
        f"| added variance | published | {' | '.join(heads)} |",
        f"| --- | --- |{' --- |' * len(rows)}",
    ]
    for name in (*ALL[:-1], HISTORIES, ALL[-1]):
        cells = [shown(row["results"]["rules"][name]["added"]) for row in rows]
        label = f"`{name}`" if name in ALL else f"`fdfa`{name.removeprefix('fdfa')}"
        lines.append(f"| {label} | {PUBLISHED.get(name, '')} | {' | '.join(cells)} |")
    # What comes from the data is the same for all rules with the same losses.
    for exact, name in (("bp", "bp"), ("lg-bp", "lg-fg-a")):
        cells = [shown(row["results"]["rules"][name]["data"]) for row in rows]
        lines.append(f"| of the data, `{exact}` | | {' | '.join(cells)} |")
    for what in ("weights", "neurons"):
        cells = [f"{row['results'][what]:,}" for row in rows]
        lines.append(f"| {what} | | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(variance: float | None) -> str:
    """Return a relative variance as text."""
    return "" if variance is None else f"{variance:.3g}"


def picture(rows: list[dict]) -> Any:
    """Draw the variance that each rule adds beside that of the data."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots()
    names = ["fg-w", "fg-a", "lg-fg-a", HISTORIES]
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        of, found = row["settings"], row["results"]["rules"]
        added = [found[name]["added"] for name in names]
        when = "start" if of["epochs"] == 0 else "after an epoch"
        places = np.arange(len(names)) + (i - (len(rows) - 1) / 2) * width
        bars = axes.bar(
            places,
            [value or 0.0 for value in added],
            width,
            label=f"{of['layers']} layers, {when}",
        )
        color = bars.patches[0].get_facecolor()
        axes.axhline(found["bp"]["data"], color=color, linewidth=1.0, linestyle="--")
    axes.set_yscale("log")
    labels = ["fdfa, from its\nlearned feedback" if n == HISTORIES else n for n in names]
    axes.set_xticks(range(len(names)), labels)
    axes.set_ylabel("added variance / mean |gradient|²")
    axes.legend(fontsize="small", title="dashed: variance of the data", title_fontsize="small")
    return figure


EXPERIMENT = Experiment(
    name="fdfa-variance",
    shows="the variance that each rule adds to the gradients of multilayer perceptrons",
    source="Bacho and Chu, Table 4, Figures 4 and 5",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    published=PUBLISHED,
)
