"""What it saves not to move units behind a residual sum whose ReLU is off.

Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 3.6.  Where a ReLU is
off, the gradient of its pre-activation is zero, and a direction that moves it is noise alone.  If
the ReLU follows a residual sum, the sum is the pre-activation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dualnet.learning import (
    ActivityPerturbation,
    Backprop,
    GreedyActivityPerturbation,
    GreedyBackprop,
    Plan,
    Rule,
)
from dualnet.learning.cut_pass import DrawAtSite
from dualnet.learning.directions.activities import ActivityDirections, DrawsActivities
from dualnet.learning.task import Shard
from dualnet.models.local_mixer import LocalMixer
from dualnet.models.resnet import ResNet18
from dualnet.nn import Layer, Residual
from dualnet.nn.network import walk
from dualnet.types import Array, Shape, Stack
from experiments.experiment import Experiment, Form, Settings, over_seeds
from experiments.start import Start
from experiments.steps import Images


@dataclass(frozen=True)
class Unmasked(ActivityDirections):
    """Directions that move units behind a residual sum even where their ReLU is off.

    Attributes:
        sums: the paths of the residual sums.
    """

    sums: frozenset[str] = frozenset()

    def drawer(self, shard: Shard) -> DrawAtSite:
        draw = super().drawer(shard)

        def drawn(path: str, visit: int, z: Array, slope: Array | None) -> Stack:
            return draw(path, visit, z, None if path in self.sums else slope)

        return drawn


class WithoutMask(DrawsActivities):
    """What rules share that perturb activities without this mask."""

    def sample(self, key: Any, plan: Plan, *others: Any) -> ActivityDirections:
        drawn = super().sample(key, plan, *others)
        layers = walk(plan.task.network, containers=True)
        sums = frozenset(path for path, layer in layers if isinstance(layer, Residual))
        return Unmasked(**vars(drawn), sums=sums)


class ActivityWithoutMask(WithoutMask, ActivityPerturbation):
    """`fg-a` without the mask of units that are off behind a residual sum."""


class GreedyWithoutMask(WithoutMask, GreedyActivityPerturbation):
    """`lg-fg-a` without the mask of units that are off behind a residual sum."""


RULES: dict[str, tuple[Rule, Rule, Rule]] = {
    "fg-a": (
        ActivityPerturbation(sampler="normal"),
        ActivityWithoutMask(sampler="normal"),
        Backprop(),
    ),
    "lg-fg-a": (
        GreedyActivityPerturbation(sampler="normal"),
        GreedyWithoutMask(sampler="normal"),
        GreedyBackprop(),
    ),
}
"""Rule → the rule, itself without the mask, and the one that has the exact gradient."""


def settings(form: Form) -> list[Settings]:
    """Return the rows: networks."""
    mixer = {"network": "LocalMixer", "rule": "lg-fg-a"}
    resnet = {"network": "ResNet18", "rule": "fg-a"}
    if form.quick:
        few = {"batch": 4, "estimates": 3}
        return [
            {"dataset": "digits", **mixer, "width": 32, "groups": 4, "patches": 4, **few},
            {"dataset": "digits", **resnet, "width": 4, **few},
        ]
    many = {"batch": 8, "estimates": 16}
    return [
        {"dataset": "mnist", **mixer, "width": 512, "groups": 16, "patches": 7, **many},
        {"dataset": "mnist", **resnet, "width": 64, **many},
    ]


def network(row: Settings, in_shape: Shape) -> tuple[Layer, dict[str, str]]:
    """Return the network of a row, and the last weights of its blocks, by the blocks' names."""
    if row["network"] == "LocalMixer":
        mixer = LocalMixer(
            width=row["width"], patches=row["patches"], groups=row["groups"], depth=4
        )
        blocks = {f"block {i}": f"block{i}/residual/block/groups/linear/w" for i in (2, 3, 4)}
        return mixer.network(in_shape, 10), blocks
    blocks = {f"stage {i}": f"stage{i}-block2/block/conv2/w" for i in (1, 2, 3, 4)}
    return ResNet18(width=row["width"], stem="large").network(in_shape, 10), blocks


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Return what a row found, means over seeds with their standard errors."""
    images = Images(row["dataset"], form, limit=1000)
    return over_seeds([ratios(row, images, seed) for seed in form.seeds])


def ratios(row: Settings, images: Images, seed: int) -> dict[str, float]:
    """Return the variance of blocks' last weights without the mask over that with it."""
    layers, blocks = network(row, images.in_shape)
    start = Start(layers, images.in_shape, seed, EXPERIMENT.name)
    batch = images.batch(np.random.default_rng(seed).integers(0, len(images.labels), row["batch"]))
    masked, unmasked, exact_rule = RULES[row["rule"]]
    exact = start.gradients(exact_rule, batch)
    found: list[dict[str, float]] = []
    for rule in (masked, unmasked):
        squares = dict.fromkeys(blocks, 0.0)
        for draw in range(row["estimates"]):
            estimate = start.gradients(rule, batch, draw)
            for block, path in blocks.items():
                squares[block] += float(np.sum(np.square(estimate[path] - exact[path])))
        found.append(squares)
    return {block: found[1][block] / found[0][block] for block in blocks}


def table(rows: list[dict]) -> str:
    """Return the ratios of each network's blocks."""
    lines = [
        "| network | rule | last weights of | variance without the mask over that with it |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        chosen = row["settings"]
        for block, ratio in row["results"].items():
            error = "" if ratio["error"] is None else f" ± {ratio['error']:.2f}"
            lines.append(
                f"| {chosen['network']} | `{chosen['rule']}` | {block} | "
                f"{ratio['mean']:.2f}{error} |"
            )
    return "\n".join(lines)


def picture(rows: list[dict]) -> Any:
    """Draw the ratios of each network's blocks as bars."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(3.6 * len(rows), 3.2), layout="constrained")
    for axes, row in zip(drawing.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
        blocks, ratios = list(row["results"]), list(row["results"].values())
        errors = [ratio["error"] or 0.0 for ratio in ratios]
        axes.bar(blocks, [ratio["mean"] for ratio in ratios], yerr=errors, capsize=3)
        axes.axhline(1.0, color="k", lw=0.8)
        axes.set_title(f"{row['settings']['network']}, {row['settings']['rule']}")
        axes.set_ylabel("variance without the mask over that with it")
    return drawing


EXPERIMENT = Experiment(
    name="ren-mask",
    shows="variance with and without directions for units that are off behind a residual sum",
    source="Ren et al. 2023, section 3.6",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    seeds=(0, 1, 2, 3, 4),
    quick_seeds=(0,),
)
