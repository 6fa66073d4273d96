"""What the number of groups does to a LocalMixer.

Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 4 and the ablation of
groups.  More groups mean fewer weights in the last layer of a block, which costs something under
exact gradients, and more local losses, which make forward gradients less noisy.  Here the mixer is
small and sees 5,000 images of CIFAR-10.
"""

from __future__ import annotations

from typing import Any

from dualnet.learning import GreedyActivityPerturbation, GreedyBackprop, Rule
from experiments import ren_sites
from experiments.experiment import Experiment, Form, Settings
from experiments.steps import Images

RULES: dict[str, Rule] = {
    "lg-bp": GreedyBackprop(),
    "lg-fg-a": GreedyActivityPerturbation(sampler="normal"),
}
GROUPS = (1, 4, 16)


def settings(form: Form) -> list[Settings]:
    """Return the rows: a rule and the number of groups."""
    groups = (1, 4) if form.quick else GROUPS
    return [
        {"rule": rule, "groups": number, **ren_sites.sizes(form)}
        for rule in RULES
        for number in groups
    ]


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Return what a row's rule learns, and the variance that it adds."""
    (seed,) = form.seeds
    images, rule = Images(row["dataset"], form, row["images"]), RULES[row["rule"]]
    return ren_sites.learned(images, rule, ren_sites.mixer(row, images, rule), row, seed)


def table(rows: list[dict]) -> str:
    """Return variance, loss and accuracy by rule and number of groups."""
    return "\n".join(ren_sites.lines_of(rows, {"rule": "rule", "groups": "groups"}))


def picture(rows: list[dict]) -> Any:
    """Draw variance, loss and accuracy over the number of groups."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    shown = {
        "added": "added variance / mean |gradient|²",
        "loss": "training loss",
        "test_accuracy": "test accuracy",
    }
    for axes, (name, label) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        for rule in RULES:
            of_rule = [row for row in rows if row["settings"]["rule"] == rule]
            places = [row["settings"]["groups"] for row in of_rule]
            axes.plot(places, [row["results"][name] for row in of_rule], "o-", label=rule)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("groups")
        axes.set_ylabel(label)
        axes.legend(fontsize="small")
    return figure


EXPERIMENT = Experiment(
    name="ren-groups",
    shows="variance, loss and accuracy of LocalMixers by the number of groups",
    source="Ren et al. 2023, ablation of groups",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
)
