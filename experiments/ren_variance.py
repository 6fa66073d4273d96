"""The variance of forward gradients of weights and activities, and what local losses do to it.

Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", Table 1 and Propositions 3
and 4, for one layer; groups of channels, output layers and units that are off: their published
code.  Variances of whole estimates are sums over the weights of the blocks, relative to the squared
length of the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import dualnet as dn
from dualnet import backends, tree
from dualnet.learning import (
    ActivityPerturbation,
    Backprop,
    Batch,
    GreedyActivityPerturbation,
    GreedyBackprop,
    GreedyWeightPerturbation,
    LearnerState,
    Plan,
    Rule,
    Task,
    WeightPerturbation,
    estimate_gradient,
    split_batch,
)
from dualnet.learning.backprop import segment_losses
from dualnet.learning.cut_pass import DrawAtSite
from dualnet.learning.directions.activities import ActivityDirections
from dualnet.learning.task import Shard
from dualnet.nn import Activation, Flatten, Layer, Linear, Sequential, softmax_cross_entropy, tanh
from dualnet.tree import Tree
from dualnet.types import Array, Shape, Stack
from experiments.experiment import Experiment, Form, Settings, spread
from experiments.steps import Images
from models.local_mixer import LocalMixer

UNITS = 16
"""q of the layer of Table 1; the images of 8 x 8 pixels are its p = 64."""
SIZES = (1, 4, 16, 64)

METHODS: dict[str, Rule] = {
    "FG-W, shared": WeightPerturbation(output_layers="exact"),
    "FG-W, independent": WeightPerturbation(
        sampler="rank-one", independent=True, output_layers="exact"
    ),
    "FG-A, shared": ActivityPerturbation(independent=False),
    "FG-A, independent": ActivityPerturbation(),
}
"""Rows of Table 1.  One layer is perturbed, as the read-out has its exact gradient."""

LOSSES = (
    ("one", "perturbed"),
    ("one", "exact"),
    ("replicated", "exact"),
    ("through-norms", "perturbed"),
    ("through-norms", "exact"),
)
"""Losses and output layers of `lg-fg-w`; the last is the published form."""


def settings(form: Form) -> list[Settings]:
    """Return the rows: methods of Table 1 by size of the batch, forms of `lg-fg-w`, the mask."""
    sizes = (4,) if form.quick else SIZES
    one_layer = {"dataset": "digits", "examples": 64, "estimates": 200}
    if form.quick:
        one_layer |= {"examples": 8, "estimates": 10}
    groups = (
        {"dataset": "digits", "width": 32, "groups": 4, "batch": 10, "estimates": 3}
        if form.quick
        else {"dataset": "mnist", "width": 512, "groups": 16, "batch": 100, "estimates": 40}
    )
    mask = (
        {"dataset": "digits", "width": 32, "groups": 4, "patches": 4, "batch": 4, "estimates": 3}
        if form.quick
        else {
            **{"dataset": "mnist", "width": 512, "groups": 16, "patches": 7},
            **{"batch": 8, "estimates": 16},
        }
    )
    return [
        *(
            {"part": "table 1", "method": method, "batch": batch, **one_layer}
            for method in METHODS
            for batch in sizes
        ),
        *(
            {"part": "groups", "losses": losses, "output_layers": output_layers, **groups}
            for losses, output_layers in LOSSES
        ),
        {"part": "mask", **mask},
    ]


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Return what a row found, means over seeds with their standard errors."""
    images = Images(row["dataset"], form, limit=1000)
    found = [MEASURES[row["part"]](row, images, seed) for seed in form.seeds]
    return {name: spread([of_seed[name] for of_seed in found]) for name in found[0]}


@dataclass(frozen=True)
class Start:
    """A network at its start.

    Args:
        network: all layers.
        in_shape: of an image.
        seed: of its weights, and of the directions of estimates.
    """

    network: Layer
    in_shape: Shape
    seed: int

    def __post_init__(self) -> None:
        key = dn.Key(self.seed).fold_in("ren-variance")
        params, state, _ = self.network.init(key.fold_in("init"), self.in_shape)
        task = Task(self.network, softmax_cross_entropy)
        inputs = np.zeros((1, *self.in_shape), np.float32)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "plan", Plan.of(task, params, state, inputs))
        object.__setattr__(self, "learner", LearnerState(params, state, {}))

    def gradients(self, rule: Rule, batch: Batch, draw: int = 0) -> dict[str, Array]:
        """Return an estimate by the parameters' paths; each draw has directions of its own."""
        key, backend = self.key.fold_in(draw), backends.get("numpy")
        done = estimate_gradient(rule, self.plan, self.learner, batch, key, backend)
        return dict(tree.items(done.gradients))


# --- Table 1 -------------------------------------------------------------------------------------


def one_layer(row: Settings, images: Images, seed: int) -> dict[str, float]:
    """Return the variance of a layer's weight, over directions and batches, and theory's.

    Batches are drawn from a few examples with replacement, so that V and S are known.  All are
    means over the weights, relative to S.
    """
    layers = (
        ("flatten", Flatten()),
        ("hidden", Linear(UNITS, bias=False)),
        ("tanh", Activation(tanh)),
        ("output", Linear(10)),
    )
    start = Start(Sequential(layers), images.in_shape, seed)
    of_examples = np.array(
        [
            start.gradients(Backprop(), images.batch(np.array([i])))["hidden/w"]
            for i in range(row["examples"])
        ],
        np.float64,
    )
    mean = of_examples.mean(0)
    variance, square = float(of_examples.var(0).mean()), float(np.square(mean).mean())
    rng = np.random.default_rng(seed)
    squares = []
    for draw in range(row["estimates"]):
        batch = images.batch(rng.integers(0, row["examples"], row["batch"]))
        estimate = start.gradients(METHODS[row["method"]], batch, draw)["hidden/w"]
        squares.append(np.square(estimate - mean).mean())
    p, q = mean.shape
    stated = {
        name: (a * variance / row["batch"] + b * square) / square
        for name, (a, b) in factors(row["method"], p, q, row["batch"]).items()
    }
    return {"measured": float(np.mean(squares)) / square, "V": variance / square, **stated}


def factors(method: str, p: int, q: int, batch: int) -> dict[str, tuple[float, float]]:
    """Return what V / N and S are multiplied by: as published, and for the directions used here.

    The published factors are for normal directions.  Those of single examples' weights are signs
    here, whose fourth moment is 1 instead of 3.
    """
    of_weights = method.startswith("FG-W")
    shared = method.endswith("shared")
    n = p * q if of_weights else q
    share = 1 if shared else batch
    signs = of_weights and not shared
    published = (n + 2, (n + 1) / share)
    return {"published": published, "theory": (n, (n - 1) / share) if signs else published}


# --- groups and output layers --------------------------------------------------------------------


def of_blocks(gradients: dict[str, Array]) -> Array:
    """Return the gradients of the blocks' weights as one row."""
    rows = [np.ravel(g) for path, g in gradients.items() if path.startswith("block")]
    return np.concatenate(rows).astype(np.float64)


def groups(row: Settings, images: Images, seed: int) -> dict[str, float]:
    """Return variance and bias of `lg-fg-w` on LocalMixer with one block, measured and exact."""
    network = LocalMixer(row["width"], 1, row["groups"], depth=1).network(images.in_shape, 10)
    start = Start(network, images.in_shape, seed)
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


# --- units that are off behind a residual sum ----------------------------------------------------


class Unmasked(ActivityDirections):
    """Directions that move units behind a residual sum even where their ReLU is off."""

    def drawer(self, shard: Shard) -> DrawAtSite:
        draw = super().drawer(shard)

        def drawn(path: str, visit: int, z: Array, slope: Array | None) -> Stack:
            return draw(path, visit, z, None if path.endswith("residual") else slope)

        return drawn


class WithoutMask(GreedyActivityPerturbation):
    """`lg-fg-a` without the mask of units that are off behind a residual sum."""

    def sample(self, *args: Any) -> ActivityDirections:
        drawn = super().sample(*args)
        return Unmasked(drawn.key, drawn.draw_array, drawn.k, drawn.shared)


def mask(row: Settings, images: Images, seed: int) -> dict[str, float]:
    """Return the variance of a block's last weights without the mask over that with it."""
    mixer = LocalMixer(row["width"], row["patches"], row["groups"], depth=4)
    start = Start(mixer.network(images.in_shape, 10), images.in_shape, seed)
    batch = images.batch(np.random.default_rng(seed).integers(0, len(images.labels), row["batch"]))
    found: list[dict[str, float]] = []
    exact = start.gradients(GreedyBackprop(), batch)
    paths = {block: f"block{block}/residual/block/groups/linear/w" for block in (2, 3, 4)}
    for rule in (GreedyActivityPerturbation(), WithoutMask()):
        squares = dict.fromkeys(paths, 0.0)
        for draw in range(row["estimates"]):
            estimate = start.gradients(rule, batch, draw)
            for block, path in paths.items():
                squares[block] += float(np.sum(np.square(estimate[path] - exact[path])))
        found.append(squares)
    masked, unmasked = found
    return {f"block {block}": unmasked[block] / masked[block] for block in paths}


MEASURES: dict[str, Callable[[Settings, Images, int], dict[str, float]]] = {
    "table 1": one_layer,
    "groups": groups,
    "mask": mask,
}


# --- table and picture ---------------------------------------------------------------------------


def of_part(rows: list[dict], part: str) -> list[dict]:
    """Return the rows of a part."""
    return [row for row in rows if row["settings"]["part"] == part]


def table(rows: list[dict]) -> str:
    """Return Table 1 beside theory, the forms of `lg-fg-w`, and the mask."""
    first = of_part(rows, "table 1")
    sizes = sorted({row["settings"]["batch"] for row in first})
    lines = [
        f"| variance of a weight over S | {' | '.join(f'N = {n}' for n in sizes)} |",
        f"| --- |{' --- |' * len(sizes)}",
    ]
    for method in METHODS:
        results = [row["results"] for row in first if row["settings"]["method"] == method]
        shown = {"": "measured", ", theory for signs": "theory", ", published": "published"}
        if results[0]["theory"] == results[0]["published"]:
            del shown[", theory for signs"]
        for label, name in shown.items():
            cells = [figure(found[name], errors=name == "measured") for found in results]
            lines.append(f"| {method}{label} | {' | '.join(cells)} |")
    parts = ["\n".join(lines)]
    lines = [
        "| `--losses` | `--output-layers` | variance over ‖g‖² | theory | bias over ‖g‖ | "
        "cosine of the mean | cosine of the head's gradient |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in of_part(rows, "groups"):
        found, chosen = row["results"], row["settings"]
        cells = [
            figure(found["measured"], errors=True),
            figure(found["theory"]),
            *(f"{found[name]['mean']:.3f}" for name in list(found)[2:]),
        ]
        lines.append(f"| {chosen['losses']} | {chosen['output_layers']} | {' | '.join(cells)} |")
    parts.append("\n".join(lines))
    (row,) = of_part(rows, "mask")
    ratios = [f"{ratio['mean']:.2f}" for ratio in row["results"].values()]
    lines = [
        f"| last weights of | {' | '.join(row['results'])} |",
        f"| --- |{' --- |' * len(ratios)}",
        f"| variance without the mask over that with it | {' | '.join(ratios)} |",
    ]
    parts.append("\n".join(lines))
    return "\n\n".join(parts)


def figure(found: dict, errors: bool = False) -> str:
    """Return a number with three digits, and its standard error where there is one."""
    error = found["error"] if errors else None
    return short(found["mean"]) + ("" if error is None else f" ± {short(error)}")


def short(x: float) -> str:
    """Return a number with three significant digits, large ones with commas."""
    if x == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(x))))
    return f"{round(x, 2 - math.floor(math.log10(abs(x)))):,.{digits}f}"


def picture(rows: list[dict]) -> Any:
    """Draw Table 1 over the size of the batch, and the forms of `lg-fg-w` as bars."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(11, 4.5), layout="constrained")
    by_size, forms = drawing.subplots(1, 2)
    for i, method in enumerate(METHODS):
        of_method = [row for row in of_part(rows, "table 1") if row["settings"]["method"] == method]
        sizes = [row["settings"]["batch"] for row in of_method]
        means = {
            name: [row["results"][name]["mean"] for row in of_method]
            for name in ("measured", "theory")
        }
        by_size.plot(sizes, means["theory"], color=f"C{i}", label=None if i else "theory (lines)")
        by_size.plot(sizes, means["measured"], "o", color=f"C{i}", label=method)
    by_size.set(yscale="log", xlabel="N, examples of a batch", ylim=(1, 3e5))
    by_size.set_xscale("log", base=2)
    by_size.set_title("variance of a weight over S (Table 1)", fontsize="medium")
    by_size.legend(fontsize="x-small", loc="upper right")
    bars = of_part(rows, "groups")
    labels = [f"{r['settings']['losses']},\n{r['settings']['output_layers']}" for r in bars]
    heights = [row["results"]["measured"]["mean"] for row in bars]
    theory = [row["results"]["theory"]["mean"] for row in bars]
    forms.bar(labels, heights, color="C0", label="measured")
    forms.plot(labels, theory, "kx", label="theory")
    forms.set(yscale="log", ylim=(0.1 * min(theory), 3 * max(theory)))
    forms.tick_params(axis="x", labelsize="x-small")
    forms.set_title("variance of lg-fg-w over ‖g‖², M/1/16", fontsize="medium")
    forms.legend(fontsize="x-small")
    return drawing


EXPERIMENT = Experiment(
    name="ren-variance",
    shows="variance of forward gradients of weights and activities, groups, exact output layers",
    source="Ren et al. 2023, Table 1, Propositions 3 and 4",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
    seeds=(0, 1, 2, 3, 4),
    quick_seeds=(0,),
    published={
        "FG-W, shared": "(pq+2)/N V + (pq+1) S",
        "FG-W, independent": "(pq+2)/N V + (pq+1)/N S",
        "FG-A, shared": "(q+2)/N V + (q+1) S",
        "FG-A, independent": "(q+2)/N V + (q+1)/N S",
    },
)
