"""Variance and bias of `lg-fg-w` by what a group's loss answers to, and by its output layers.

Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", published code: each group of
channels has a scalar of its own, and heads and read-out have their exact gradient.  Variances of
whole estimates are sums over the weights of the blocks, relative to the squared length of the
gradient.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import dualnet as dn
from dualnet import tree
from dualnet.learning import Batch, GreedyBackprop, GreedyWeightPerturbation, split_batch
from dualnet.learning.backprop import segment_losses
from dualnet.models.local_mixer import LocalMixer
from dualnet.tree import Tree
from dualnet.types import Array
from experiments.experiment import Experiment, Form, Settings, figure, over_seeds
from experiments.start import Start
from experiments.steps import Images

LOSSES = (
    ("one", "perturbed"),
    ("one", "exact"),
    ("replicated", "exact"),
    ("through-norms", "perturbed"),
    ("through-norms", "exact"),
)
"""Losses and output layers of `lg-fg-w`; the last is the published form."""


def settings(form: Form) -> list[Settings]:
    """Return the rows: losses and output layers."""
    sizes: Settings = (
        {"dataset": "digits", "width": 32, "groups": 4, "batch": 10, "estimates": 3}
        if form.quick
        else {"dataset": "mnist", "width": 512, "groups": 16, "batch": 100, "estimates": 40}
    )
    return [
        {"losses": losses, "output_layers": output_layers, **sizes}
        for losses, output_layers in LOSSES
    ]


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Return what a row found, means over seeds with their standard errors."""
    images = Images(row["dataset"], form, limit=1000)
    return over_seeds([at_start(row, images, seed) for seed in form.seeds])


def of_blocks(gradients: dict[str, Array]) -> Array:
    """Return the gradients of the blocks' weights as one row."""
    rows = [np.ravel(g) for path, g in gradients.items() if path.startswith("block")]
    return np.concatenate(rows).astype(np.float64)


def at_start(row: Settings, images: Images, seed: int) -> dict[str, float]:
    """Return variance and bias of `lg-fg-w` on LocalMixer with one block, measured and exact."""
    network = LocalMixer(width=row["width"], patches=1, groups=row["groups"], depth=1).network(
        images.in_shape, 10
    )
    start = Start(network, images.in_shape, seed, EXPERIMENT.name)
    batch = images.batch(np.random.default_rng(seed).integers(0, len(images.labels), row["batch"]))
    rule = GreedyWeightPerturbation(losses=row["losses"], output_layers=row["output_layers"])
    exact = of_blocks(start.gradients(GreedyBackprop(), batch))
    expected, variance = moments(start, rule, batch)
    square, head = exact @ exact, start.gradients(GreedyBackprop(), batch)["head1/linear/w"]
    squares, cosines = [], []
    for draw in range(row["estimates"]):
        estimate = start.gradients(rule, batch, draw)
        squares.append(np.sum(np.square(of_blocks(estimate) - expected)))
        cosines.append(cosine(estimate["head1/linear/w"], head))
    return {
        "measured": float(np.mean(squares) / square),
        "theory": variance / square,
        "bias": float(np.linalg.norm(expected - exact) / math.sqrt(square)),
        "cosine of the mean": cosine(expected, exact),
        "cosine of the head": float(np.mean(cosines)),
    }


def cosine(a: Array, b: Array) -> float:
    """Return the cosine of the angle between two arrays."""
    a, b = (np.ravel(each).astype(np.float64) for each in (a, b))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def moments(start: Start, rule: GreedyWeightPerturbation, batch: Batch) -> tuple[Array, float]:
    """Return mean and total variance of the estimate for the weights of a single block.

    A part of a parameter answers to the loss L of all groups or of one.  For normal directions, the
    mean of its entry i is ∂L/∂θ_i, and the variance is ‖∇L‖² + (∂L/∂θ_i)², with ∇L over all
    parameters that are perturbed.
    """
    plan, params = start.plan, start.learner.params
    (shard,) = split_batch(batch, 1)
    perturbed = {path for path, _ in tree.items(rule.perturbed(plan, params))}
    answers = plan.answers(params, rule.losses)

    def loss(params: Tree, group: int) -> Array:
        replicas = segment_losses(
            plan, params, start.learner.model_state, shard, shard.context, "greedy", replicas=True
        )[0][0]
        return np.sum(replicas[..., group]) / len(batch.inputs)

    of_groups = [
        {path: g.astype(np.float64) for path, g in tree.items(dn.grad(loss)(params, group))}
        for group in range(plan.heads("greedy")["head1"].groups)
    ]
    whole = {path: sum(g[path] for g in of_groups) for path in of_groups[0]}

    def squared_length(gradients: dict[str, Array]) -> float:
        return float(
            sum(np.sum(np.square(g)) for path, g in gradients.items() if path in perturbed)
        )

    mean: dict[str, Array] = {}
    variance = 0.0
    lengths = [squared_length(g) for g in of_groups]
    for path in whole:
        axis = answers.at(path).axis
        if axis is None:
            mean[path], own = whole[path], whole[path].size * squared_length(whole)
        else:
            parts = [np.split(g[path], len(of_groups), axis)[i] for i, g in enumerate(of_groups)]
            mean[path] = np.concatenate(parts, axis)
            own = sum(part.size * length for part, length in zip(parts, lengths, strict=True))
        if path.startswith("block"):
            variance += own + float(np.sum(np.square(mean[path])))
    return of_blocks(mean), variance


def table(rows: list[dict]) -> str:
    """Return variance and bias of each form."""
    lines = [
        "| `--losses` | `--output-layers` | variance over ‖g‖² | theory | bias over ‖g‖ | "
        "cosine of the mean | cosine of the head's gradient |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        found, chosen = row["results"], row["settings"]
        cells = [
            figure(found["measured"], errors=True),
            figure(found["theory"]),
            *(f"{found[name]['mean']:.3f}" for name in list(found)[2:]),
        ]
        lines.append(f"| {chosen['losses']} | {chosen['output_layers']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(rows: list[dict]) -> Any:
    """Draw the variance of each form as a bar."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(6, 4.5), layout="constrained")
    axes = drawing.subplots()
    labels = [f"{r['settings']['losses']},\n{r['settings']['output_layers']}" for r in rows]
    heights = [row["results"]["measured"]["mean"] for row in rows]
    theory = [row["results"]["theory"]["mean"] for row in rows]
    axes.bar(labels, heights, color="C0", label="measured")
    axes.plot(labels, theory, "kx", label="theory")
    axes.set(yscale="log", ylim=(0.1 * min(theory), 3 * max(theory)))
    axes.set_ylabel("variance over ‖g‖²")
    axes.tick_params(axis="x", labelsize="small")
    axes.legend(fontsize="small")
    return drawing


EXPERIMENT = Experiment(
    name="ren-losses",
    shows="variance and bias of lg-fg-w by the losses of groups and by its output layers",
    source="Ren et al. 2023, published code",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    seeds=(0, 1, 2, 3, 4),
    quick_seeds=(0,),
)
