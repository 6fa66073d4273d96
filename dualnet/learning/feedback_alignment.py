"""`fa`, `ffa`: backpropagation in which every weight goes back as another matrix.

A layer's output depends on its weights and on its input.  By its weights it is differentiated as
it is, by its input as if its weights were B; the value is the layer's own.  Norms, activations
and everything without weights keep their derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dualnet import tree
from dualnet.backends import Backend
from dualnet.core.dual import primitive
from dualnet.core.engine import rule
from dualnet.core.transforms import is_constant, stop_gradient, vjp
from dualnet.learning.backprop import measure_by_reverse
from dualnet.learning.directions.activities import ActivityDirections
from dualnet.learning.plan import Plan, WeightedMap
from dualnet.learning.rule import Measurement, Rule
from dualnet.learning.task import LearnerState, Shard
from dualnet.nn.context import Around, Context
from dualnet.nn.initial import kaiming
from dualnet.nn.network import Layer
from dualnet.options import require_share
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array


@dataclass(frozen=True)
class FeedbackAlignment(Rule):
    """`fa`: B stays as drawn, from the distribution of the weights' start.

    Between linear layers the error of layer l is δ_l = (δ_{l+1} B_{l+1}ᵀ) ⊙ σ'(z_l), with B as
    `(p, q)` as the weights are, and the gradient of the weights is h_{l-1}ᵀ δ_l.

    Rule state: by the path of each layer with weights `{"w": B}`, B of the shape of these weights.

    Source: Lillicrap et al. 2016, "Random synaptic feedback weights support error
    backpropagation for deep learning"; local losses: Ren et al. 2023, "Scaling Forward Gradient
    With Local Losses", section 6.

    Examples:
        >>> layers = {"hidden": dn.nn.Linear(4), "output": dn.nn.Linear(2, weights="zeros")}
        >>> task = dn.learning.Task(dn.nn.Sequential(layers), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> rule, backend = dn.learning.FeedbackAlignment(), dn.backends.get("numpy")
        >>> start = rule.start(task, batch.inputs, dn.Key(0))
        >>> done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        >>> b = done.rule_state["output"]["w"]  # it stands for the output's weights, which are 0
        >>> error = np.array([[-0.5, 0.5], [0.5, -0.5], [0.5, -0.5]])  # softmax less the label
        >>> bool(np.allclose(done.gradients["hidden"]["w"], error @ b.T / 3))
        True
    """

    def init(self, key: Key, plan: Plan, params: Tree) -> Tree:
        super().init(key, plan, params)
        return {
            path: {"w": _redrawn(key.fold_in(path), tree.subtree(params, path)["w"])}
            for path in plan.weighted
        }

    def measure(
        self,
        plan: Plan,
        learner: LearnerState,
        directions: ActivityDirections | None,
        shard: Shard,
    ) -> Measurement:
        sums: dict[str, Any] = {}
        listen = self.listener(directions, shard, sums)
        around = backward_through(learner.rule_state, plan.weighted, listen)
        context = replace(shard.context, around=around)
        total, model_state = measure_by_reverse(plan, learner, shard, context, self.locality)
        return Measurement({**total, "feedback": sums}, model_state)

    def listener(self, directions: Any, shard: Shard, sums: dict[str, Any]) -> Listener | None:
        """Return what gets to see each layer with its B, and puts what it learns into `sums`.

        This rule learns nothing, so it returns None.
        """
        return None


@dataclass(frozen=True)
class LocalFeedbackAlignment(FeedbackAlignment):
    """`l-fa`: with the local heads' losses added.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 6.

    Examples:
        >>> head = dn.nn.LocalHead(2)
        >>> layers = {"hidden": dn.nn.Linear(4), "head": head, "output": dn.nn.Linear(2)}
        >>> task = dn.learning.Task(dn.nn.Sequential(layers), dn.nn.softmax_cross_entropy)
        >>> _, learner = dn.learning.LocalFeedbackAlignment().start(task, np.eye(3), dn.Key(0))
        >>> {path: b["w"].shape for path, b in learner.rule_state.items()}  # the head has a B, too
        {'hidden': (3, 4), 'head/linear': (4, 2), 'output': (4, 2)}
    """

    locality: ClassVar[str] = "local"


@dataclass(frozen=True)
class GreedyFeedbackAlignment(FeedbackAlignment):
    """`lg-fa`: every block answers to its local head alone.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 6.

    Raises:
        UsageError: `init` finds a local head that cannot cut the network where it is.

    Examples:
        >>> head = dn.nn.LocalHead(2, weights="zeros")
        >>> layers = {"hidden": dn.nn.Linear(4), "head": head, "output": dn.nn.Linear(2)}
        >>> task = dn.learning.Task(dn.nn.Sequential(layers), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> rule, backend = dn.learning.GreedyFeedbackAlignment(), dn.backends.get("numpy")
        >>> start = rule.start(task, batch.inputs, dn.Key(0))
        >>> done = dn.learning.estimate_gradient(rule, *start, batch, dn.Key(1), backend)
        >>> b = done.rule_state["head/linear"]["w"]  # nothing else reaches the hidden layer
        >>> error = np.array([[-0.5, 0.5], [0.5, -0.5], [0.5, -0.5]])  # of the head
        >>> bool(np.allclose(done.gradients["hidden"]["w"], error @ b.T / 3))
        True
    """

    locality: ClassVar[str] = "greedy"


@dataclass(frozen=True, kw_only=True)
class LearnedFeedbackAlignment(FeedbackAlignment):
    """`ffa`: every B learns its layer's weights, from the tangents of one linear map.

    A random direction u put into a layer's input moves its output by ẏ, the layer's jvp.  B is
    corrected by what it would have got wrong, ẏ - ẏ_B, pulled back to the weights at the input u:

        B ← B + rate · mean(uᵀ (ẏ - u B)) / (1 + sqrt(p/n))²

    for a linear layer with p inputs and n examples.  As E[uᵀ u] = I this tends to W, and its noise
    fades with the difference.  Only one layer's tangents are needed at a time, no weight is read
    out, and nothing is sent back but errors through B.

    Args:
        feedback_rate: rate, from 0 to 1.

    Rule state: as that of `FeedbackAlignment`.

    Raises:
        UsageError: an option is out of its range.

    Source: the extension that Bacho and Chu suggest in "Low-Variance Forward Gradients using
    Direct Feedback Alignment and Momentum", section 5.

    Examples:
        >>> layers = {"hidden": dn.nn.Linear(4), "output": dn.nn.Linear(2)}
        >>> task = dn.learning.Task(dn.nn.Sequential(layers), dn.nn.softmax_cross_entropy)
        >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
        >>> rule, backend = dn.learning.LearnedFeedbackAlignment(), dn.backends.get("numpy")
        >>> plan, learner = rule.start(task, batch.inputs, dn.Key(0))
        >>> for i in range(300):  # B learns, the weights stay
        ...     done = dn.learning.estimate_gradient(rule, plan, learner, batch, dn.Key(i), backend)
        ...     learner = learner._replace(rule_state=done.rule_state)
        >>> b, w = learner.rule_state["output"]["w"], learner.params["output"]["w"]
        >>> bool(np.abs(b - w).max() < 1e-6)
        True
    """

    feedback_rate: float = 0.5

    def __post_init__(self) -> None:
        require_share("ffa", "feedback_rate", self.feedback_rate)

    def sample(
        self, key: Key, plan: Plan, params: Tree, backend: Backend, n: int
    ) -> ActivityDirections:
        return ActivityDirections.by_name("rademacher", key, backend, 1)

    def listener(
        self, directions: ActivityDirections, shard: Shard, sums: dict[str, Any]
    ) -> Listener | None:
        draw = directions.drawer(shard)

        def listen(seen: LayerWithFeedback) -> None:
            path, apply, w, b, x = seen
            (u,) = draw(path, 1, x, None)
            by_b, pull = vjp(lambda w: apply(w, u), b)
            missed = apply(w, u) - by_b
            _, count = vjp(lambda w: apply(w, np.ones_like(u)), b)
            sums[path] = {"w": pull(missed)[0], "count": count(np.ones_like(missed))[0]}

        return listen

    def estimate(
        self, total: dict[str, Any], directions: ActivityDirections, learner: LearnerState, n: int
    ) -> tuple[Tree, Tree]:
        gradients, rule_state = super().estimate(total, directions, learner, n)

        def learn(path: str, b: Array) -> Array:
            if path not in total["feedback"]:  # a layer that was not applied as a child
                return b
            pull, count = total["feedback"][path]["w"], total["feedback"][path]["count"]
            count = np.where(count > 0, count, 1.0)  # a kernel's place that only padding meets
            inputs = b.size // b.shape[-1]
            caution = np.square(1.0 + np.sqrt(inputs / count))
            return b + (self.feedback_rate * pull / (count * caution)).astype(b.dtype)

        return gradients, {path: {"w": learn(path, b["w"])} for path, b in rule_state.items()}


class LayerWithFeedback(NamedTuple):
    """A layer as it is applied in a pass.

    Attributes:
        path: of the layer.
        apply: `apply(w, x)` is the layer's output at weights w, without its bias.
        weights: its own.
        feedback: B.
        inputs: what comes in, without tangents.
    """

    path: str
    apply: Callable[[Array, Array], Array]
    weights: Array
    feedback: Array
    inputs: Array


Listener = Callable[[LayerWithFeedback], None]
"""`listen(layer)`: sees every layer with feedback when it is applied."""


@primitive
def moving_with(y: Array, z: Array) -> Array:
    """Return y, which moves as y + z does: the value of the one, the derivatives of both."""
    return y


rule(moving_with, lambda t, out, y, z: t, lambda t, out, y, z: t)


def backward_through(
    feedback: Tree, weighted: Mapping[str, WeightedMap], listen: Listener | None
) -> Around:
    """Make the `around` that differentiates layers by their inputs as if their weights were B.

    Args:
        feedback: B of each layer with weights, by path.
        weighted: what these layers do by their weights alone, as in `Plan`.
        listen: sees them; None for nobody.
    """

    def around(
        path: str, layer: Layer, params: Tree, state: Tree, x: Array, context: Context
    ) -> tuple[Array, Tree]:
        if path not in feedback or (listen is None and is_constant(x)):
            return layer.apply(params, state, x, context)
        still, b = stop_gradient(x), feedback[path]["w"]

        def with_weights(w: Array, x: Array) -> Array:
            return weighted[path].apply(w, state, x, context)

        if listen is not None:
            listen(LayerWithFeedback(path, with_weights, stop_gradient(params["w"]), b, still))
        y, new_state = layer.apply(params, state, still, context)
        return (y if is_constant(x) else moving_with(y, with_weights(b, x))), new_state

    return around


def _redrawn(key: Key, w: Array) -> Array:
    """Draw Kaiming-uniform weights of the shape of w."""
    fan_in = max(1, w.size // w.shape[-1] // (w.shape[0] if w.ndim == 3 else 1))
    return np.asarray(kaiming(key, w.shape, fan_in).astype(w.dtype), like=w)
