"""What the stop-gradient does to contrastive learning by forward gradients.

Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 5 and Figure 4: the
contrastive loss along training with and without the stop-gradient, on CIFAR-10, there with a
LocalMixer of 256 channels in one group.  Here the mixer is smaller and sees 1,000 of the images.
"""

from __future__ import annotations

from typing import Any

from experiments.experiment import Experiment, Form, Settings
from experiments.training import drawable, trained

NETWORK = (
    "--objective contrastive --dataset cifar10 --model local-mixer --width 64 --patches 4 "
    "--depth 2 --batch-size 100 --limit-train 1000 --limit-test 2000 --epochs 10 "
    "--temperature 0.5 --lr 3e-3"
)
RULES = {"lg-bp": "", "lg-fg-a": "--sampler normal --tangents 4"}
STOPS = {"stop-gradient": "", "none": "--no-stop"}
AUGMENT = "--augment contrastive-large"


def settings(form: Form) -> list[Settings]:
    """Return the rows: flags of a rule, with and without the stop-gradient."""
    rules = ("lg-fg-a",) if form.quick else tuple(RULES)
    return [
        {"rule": rule, "stop": stop, "flags": " ".join(filter(None, flags))}
        for rule in rules
        for stop, more in STOPS.items()
        for flags in [(NETWORK, "--groups 1", AUGMENT, f"--rule {rule}", RULES[rule], more)]
    ]


def measure(row: Settings, form: Form) -> list[dict[str, Any]]:
    """Return the losses along training, and the accuracy of the linear read-out.

    The accuracy of a run that diverges is None.
    """
    return [
        {"train_loss": one["curves"]["train_loss"], "test_accuracy": one.get("test_accuracy")}
        for one in trained(row["flags"], form)
    ]


def table(rows: list[dict]) -> str:
    """Return the first and the last loss of every row, and the accuracy of the read-out."""
    lines = [
        "| `--rule` | stop-gradient | loss, first epoch | loss, last epoch | read-out |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        of, results = row["settings"], row["results"]
        first, last = (shown(loss) for loss in ends(results["train_loss"]))
        stop = "yes" if of["stop"] == "stop-gradient" else "no"
        name = " ".join(filter(None, (of["rule"], RULES[of["rule"]])))
        lines.append(
            f"| `{name}` | {stop} | {first} | {last} | {read_out(results['test_accuracy'])} |"
        )
    return "\n".join(lines)


def ends(losses: list[float | None]) -> tuple[float | None, float | None]:
    """Return the first and the last loss; None for one that is not there or not finite."""
    return (losses[0], losses[-1]) if losses else (None, None)


def shown(loss: float | None) -> str:
    """Return a loss as text."""
    return "diverged" if loss is None else f"{loss:.3f}"


def read_out(accuracy: float | None) -> str:
    """Return an accuracy as text."""
    return "diverged" if accuracy is None else f"{100 * accuracy:.1f} %"


def picture(rows: list[dict]) -> Any:
    """Draw the losses over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        of = row["settings"]
        losses = drawable(row["results"]["train_loss"])
        axes.plot(
            range(1, len(losses) + 1),
            losses,
            color=f"C{list(RULES).index(of['rule'])}",
            linestyle="-" if of["stop"] == "stop-gradient" else "--",
            label=f"{of['rule']}, {of['stop'].replace('none', 'no stop-gradient')}",
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel("contrastive loss")
    axes.legend(fontsize="small")
    return figure


EXPERIMENT = Experiment(
    name="ren-stop",
    shows="contrastive loss along training with and without the stop-gradient",
    source="Ren et al. 2023, Figure 4",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    each_seed=True,
)
