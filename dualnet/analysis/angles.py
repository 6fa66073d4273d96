"""The angle between an estimate and the exact gradient, or between an error and the true one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dualnet.analysis.point import Point
from dualnet.analysis.rows import Moments, ratio, require_at_least, sums_by_leaf
from dualnet.core.transforms import vjp
from dualnet.errors import UsageError
from dualnet.learning.direct_feedback import DirectErrors
from dualnet.learning.feedback import project_error
from dualnet.nn.context import Context
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array


@dataclass(frozen=True)
class Comparison:
    """An estimate g beside the exact gradient ∇.

    Attributes:
        layer: path of a leaf, or `total`.
        cosine: of the angle between them; NaN where one of them is 0.
        angle: the angle in degrees, the alignment angle of the papers on feedback.
        norm_ratio: |g| / |∇|; NaN where ∇ is 0.

    Examples:
        >>> *_, total = dn.analysis.compare({"w": np.array([3.0])}, {"w": np.array([-6.0])})
        >>> total
        Comparison(layer='total', cosine=-1.0, angle=180.0, norm_ratio=0.5)
    """

    layer: str
    cosine: float
    angle: float
    norm_ratio: float


def compare(estimate: Tree, exact: Tree) -> list[Comparison]:
    """Compare an estimate with the exact gradient: cosine, angle and norm ratio.

    Args:
        estimate, exact: trees of arrays of equal shapes.

    Returns:
        A row for each leaf, and `total`.

    Raises:
        TreeError: the trees differ in structure.

    Examples:
        >>> estimate = {"w": np.array([1.0, 1.0]), "b": np.array([0.0, 2.0])}
        >>> exact = {"w": np.array([2.0, 0.0]), "b": np.array([0.0, 1.0])}
        >>> for row in dn.analysis.compare(estimate, exact):
        ...     print(f"{row.layer}: {row.angle:.0f}°")
        w: 45°
        b: 0°
        total: 43°
    """

    def products(g: Array, e: Array) -> list[float]:
        g, e = g.astype(np.float64), e.astype(np.float64)
        return [float(np.vdot(g, e)), float(np.vdot(g, g)), float(np.vdot(e, e))]

    rows = []
    for layer, (inner, estimate_squared, exact_squared) in sums_by_leaf(
        products, estimate, exact
    ).items():
        cosine = ratio(inner, math.sqrt(estimate_squared) * math.sqrt(exact_squared))
        cosine = float(np.clip(cosine, -1.0, 1.0))
        norm_ratio = ratio(math.sqrt(estimate_squared), math.sqrt(exact_squared))
        rows.append(Comparison(layer, cosine, math.degrees(math.acos(cosine)), norm_ratio))
    return rows


def alignment(
    point: Point, inputs: Array, targets: Array, key: Key, draws: int = 1
) -> list[Comparison]:
    """Compare a rule's mean estimate over several draws with the exact gradient.

    Args:
        point: which rule, and where.
        inputs, targets: the batch, `(N, ...)`.
        key: all randomness; draws are independent.
        draws: how many; their mean shows a rule's bias rather than its noise.

    Returns:
        A row for each leaf of the parameters, and `total`.

    Raises:
        UsageError: draws is less than 1.

    Source: Bacho and Chu, "Low-Variance Forward Gradients using Direct Feedback Alignment and
    Momentum", section 4.4 and Figure 7.

    Examples:
        >>> from dualnet import analysis, learning, nn
        >>> x, y, backend = np.eye(8), np.ones((8, 1)), dn.backends.get("numpy")
        >>> task = learning.Task(nn.Linear(1, weights="zeros"), nn.mean_squared_error)
        >>> rule = learning.WeightPerturbation()
        >>> point = analysis.Point(rule, *rule.start(task, x, dn.Key(0)), backend)
        >>> one, many = (analysis.alignment(point, x, y, dn.Key(0), n)[-1] for n in (1, 500))
        >>> one.angle > 30.0, many.angle < 15.0
        (True, True)
    """
    require_at_least("alignment", "draws", draws, 1)
    estimates, exact = Moments(), Moments()
    for draw_key in key.split(draws):
        estimates = estimates.including(point.estimate(inputs, targets, draw_key))
        exact = exact.including(point.exact(inputs, targets, draw_key))
    return compare(estimates.mean, exact.mean)


def error_alignment(point: Point, inputs: Array, targets: Array, key: Key) -> list[Comparison]:
    """Compare the error e·B that a rule sends to each hidden activity with the true gradient.

    That is the loss's gradient by the activity; all examples of the batch are one vector.

    Args:
        point: a rule that sends its error straight to the activities: `dfa`, `dkp`, `fdfa`.
        inputs, targets: the batch, `(N, ...)`.
        key: what the network itself draws.

    Returns:
        A row for each site, in `layer` its path, and `total`.

    Raises:
        UsageError: the rule is none of these.

    Source: Lillicrap et al. 2016, "Random synaptic feedback weights support error backpropagation
    for deep learning" (the angle); Nøkland 2016, "Direct feedback alignment provides learning in
    deep neural networks" (feedback straight to the activities).

    Examples:
        >>> from dualnet import analysis, learning, nn
        >>> layers = {"hidden": nn.Linear(4), "tanh": nn.Activation(nn.tanh), "out": nn.Linear(2)}
        >>> network, x, y = nn.Sequential(layers), np.eye(3), np.ones((3, 2))
        >>> params, state, _ = network.init(dn.Key(0), (3,))
        >>> plan = learning.Plan.of(learning.Task(network, nn.mean_squared_error), params, state, x)
        >>> matrices, rule = {"tanh": params["out"]["w"].T}, learning.DirectFeedback()
        >>> learner = learning.LearnerState(params, state, matrices)  # B is exact here
        >>> point = analysis.Point(rule, plan, learner, dn.backends.get("numpy"))
        >>> round(analysis.error_alignment(point, x, y, dn.Key(0))[0].angle, 1)
        0.0
    """
    if not isinstance(point.rule, DirectErrors):
        raise UsageError(
            "error_alignment: rule: expected one that sends the output error to activities (dfa, "
            f"dkp, fdfa), got {type(point.rule).__name__}; `alignment` compares any rule's "
            "gradients"
        )

    task, (params, model_state, rule_state) = point.plan.task, point.learner
    matrices = point.rule.feedback.matrices(rule_state)

    def outputs_of(moved: dict[str, Array]) -> Array:
        tap = lambda path, h: h + moved[path] if path in moved else h  # noqa: E731
        context = Context(train=True, key=key.fold_in("network"), tap=tap, backend=point.backend)
        return task.network.apply(params, model_state, inputs, context)[0]

    nowhere = {
        path: np.zeros_like(b, shape=(len(inputs), *b.shape[1:])) for path, b in matrices.items()
    }
    outputs, pull = vjp(outputs_of, nowhere)
    losses, pull_loss = vjp(lambda y: task.loss(y, targets), outputs)
    (error,) = pull_loss(np.ones_like(losses))
    (exact,) = pull(error)
    return compare({path: project_error(error, b) for path, b in matrices.items()}, exact)
