"""The last part of the tour: one step of a learning rule, as the rule itself makes it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dualnet import backends, tree
from dualnet.analysis import EXACT, compare
from dualnet.core.spaces import dense
from dualnet.learning import (
    RULES,
    Estimate,
    LearnerState,
    Plan,
    Rule,
    Shard,
    WeightPerturbation,
    estimate_gradient,
)
from dualnet.random import Key
from dualnet.tour.facts import Fact, facts_of, functions_of
from dualnet.tour.ideas import IDEAS, PAGES
from dualnet.tour.layout import ends, formula, joined, labeled, number, paragraph, title
from dualnet.tour.subject import Learning
from dualnet.tour.watch import watch
from dualnet.types import Array

LEARNING_RATE = 0.005
"""The step of gradient descent: parameters minus the rate times the gradient."""

WITH_A_FUNCTION = ("bp", "fg-w", "wp")
"""Rules that need the parameters of a function alone, and no layers."""


class Step(NamedTuple):
    """One step of a rule.

    Attributes:
        params: before the step, by path.
        estimate, exact: gradients by path: that of the rule, and that of reverse mode.
        after: the parameters after the step, by path.
        facts: what the rule drew and found.
        loss, loss_after: of the network.
    """

    params: dict[str, Array]
    estimate: dict[str, Array]
    exact: dict[str, Array]
    after: dict[str, Array]
    facts: list[Fact]
    loss: float
    loss_after: float

    @property
    def product(self) -> float:
        """The inner product of the two gradients."""
        return sum(float((g * self.exact[path]).sum()) for path, g in self.estimate.items())

    @property
    def cosine(self) -> float:
        """The cosine of the angle between the two gradients; NaN if one is zero or not finite."""
        return compare(self.estimate, self.exact)[-1].cosine


def drawn(shown: Learning, key: Key) -> dict[str, Array]:
    """Return the direction of all parameters that `fg-w` draws, by path."""
    rule, backend = WeightPerturbation(), backends.get("numpy")
    directions = rule.sample(key.fold_in("step"), _plan(shown), shown.params, backend, 1)
    (tangents,) = directions.passes(1, Shard(*shown.batch))
    return {path: dense(t)[0] for path, t in tree.items(tangents)}


def take_step(name: str, shown: Learning, key: Key) -> Step:
    """Let a rule estimate the gradient on one example, look on, and take the step."""
    rule = RULES[name]()
    learner, known = _learner(rule, shown, key), drawn(shown, key)
    with watch(*functions_of(rule)) as calls:
        found = _estimate(rule, shown, learner, key)
    baseline = EXACT[rule.locality]
    exact = _estimate(baseline, shown, _learner(baseline, shown, key), key)
    after = tree.map(lambda p, g: p - LEARNING_RATE * g, shown.params, found.gradients)
    then = _estimate(baseline, shown, LearnerState(after, shown.state, {}), key)
    return Step(
        params=dict(tree.items(shown.params)),
        estimate=dict(tree.items(found.gradients)),
        exact=dict(tree.items(exact.gradients)),
        after=dict(tree.items(after)),
        facts=list(facts_of(rule, calls, learner.rule_state, found.rule_state, shown, known)),
        loss=float(found.loss),
        loss_after=float(then.loss),
    )


def _plan(shown: Learning) -> Plan:
    return Plan.of(shown.task, shown.params, shown.state, shown.batch.inputs)


def _learner(rule: Rule, shown: Learning, key: Key) -> LearnerState:
    state = rule.init(key.fold_in("rule"), _plan(shown), shown.params)
    return LearnerState(shown.params, shown.state, state)


def _estimate(rule: Rule, shown: Learning, learner: LearnerState, key: Key) -> Estimate:
    backend = backends.get("numpy")
    return estimate_gradient(rule, _plan(shown), learner, shown.batch, key.fold_in("step"), backend)


def step_part(name: str, shown: Learning, step: Step, width: int) -> list[str]:
    """Write the part about one step of a rule."""
    exact = {
        "global": "the gradient of the loss, as in part 2",
        "local": "the gradient of the sum of both losses",
        "greedy": "the gradient of the loss that the parameter answers to",
    }[RULES[name].locality]
    parts = [
        title(f"3. One step of the rule {name}", width),
        paragraph(IDEAS[name], width),
        [""],
    ]
    for fact in step.facts:
        parts.append(formula(fact.text, width))
        parts.append([] if fact.array is None else labeled("", fact.array, width))
    parts += [
        [""] if step.facts else [],
        paragraph(
            f"""So every parameter gets an estimate of its gradient. Below it stands what is exact:
            {exact}, by reverse mode. "after" is the parameter after the step, which is its value
            minus {LEARNING_RATE:g} times the estimate.""",
            width,
        ),
        [""],
    ]
    for path, p in step.params.items():
        parts += [
            ends(shown.label(path), f"{p.shape}", width),
            labeled("estimate", step.estimate[path], width),
            labeled("exact", step.exact[path], width),
            labeled("after", step.after[path], width),
        ]
    return [*joined(parts), "", *paragraph(_summary(name, step), width)]


def _summary(name: str, step: Step) -> str:
    """Say how good the estimate is, and what the step has brought."""
    which = "zero" if np.isfinite(step.product) else "not finite"
    angle = f"One of the two gradients is {which}, so there is no angle between them."
    if np.isfinite(step.cosine):
        angle = f"""The cosine of the angle between estimate and exact gradient is
            {number(step.cosine)}; it is 1 for the same direction, and 0 for a right angle."""
    change = ""
    if RULES[name].locality == "global":
        change = f"""A short step changes it by about -{LEARNING_RATE:g} times the inner product of
            estimate and exact gradient: -{LEARNING_RATE:g} * {number(step.product)} =
            {number(-LEARNING_RATE * step.product)}."""
    return f"""{angle} The loss was {number(step.loss)}; after the step it is
        {number(step.loss_after)}. {change} Why this works, or how well, is on {PAGES[name]} of
        docs/tutorial."""
