"""Small problems on which the tests of learning rules take steps, and what they measure there."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

import dualnet as dn
from dualnet import tree
from dualnet.backends import NumpyBackend
from dualnet.core.spaces import dense
from dualnet.learning import (
    ActivityDifferences,
    ActivityPerturbation,
    Backprop,
    Batch,
    ControlVariate,
    DirectFeedback,
    DirectKolenPollack,
    FeedbackAlignment,
    FiniteDifferences,
    ForwardDirectFeedback,
    GreedyActivityPerturbation,
    GreedyBackprop,
    GreedyFeedbackAlignment,
    GreedyWeightPerturbation,
    LearnedFeedbackAlignment,
    LearnerState,
    LocalBackprop,
    LocalFeedbackAlignment,
    Plan,
    Shard,
    Task,
    WeightPerturbation,
    estimate_gradient,
)
from dualnet.nn import (
    Activation,
    AverageTokens,
    BatchNorm,
    Context,
    Conv2d,
    Flatten,
    GroupedLinear,
    GroupNorm,
    LayerNorm,
    Linear,
    LocalHead,
    Positions,
    Residual,
    Sequential,
    mixer_block,
    relu,
    softmax_cross_entropy,
    tanh,
    transformer_block,
)

BACKEND = NumpyBackend()

EVERY_RULE = [
    Backprop(),
    Backprop(checkpointing=True),
    LocalBackprop(),
    GreedyBackprop(),
    FeedbackAlignment(),
    LocalFeedbackAlignment(),
    GreedyFeedbackAlignment(),
    LearnedFeedbackAlignment(),
    DirectFeedback(),
    DirectFeedback(feedback_tokens="shared", feedback_error="own"),
    DirectKolenPollack(feedback_decay=0.1),
    ForwardDirectFeedback(tangents=2, feedback_rate=0.1),
    WeightPerturbation(tangents=8),
    WeightPerturbation(tangents=8, sampler="rademacher", aggregate="projection"),
    WeightPerturbation(tangents=8, sampler="rank-one"),
    WeightPerturbation(tangents=8, sampler="orthogonal"),
    WeightPerturbation(tangents=3, sampler="rank-one", independent=True),
    WeightPerturbation(tangents=2, output_layers="exact"),
    GreedyWeightPerturbation(tangents=8, sampler="rank-one-normal"),
    GreedyWeightPerturbation(losses="through-norms", output_layers="perturbed"),
    FiniteDifferences(tangents=3),
    ActivityPerturbation(tangents=3),
    ActivityPerturbation(tangents=3, sampler="rademacher", perturb="after"),
    ActivityPerturbation(tangents=3, aggregate="projection"),
    ActivityPerturbation(tangents=2, output_layers="perturbed"),
    GreedyActivityPerturbation(tangents=3),
    GreedyActivityPerturbation(losses="one"),
    ActivityDifferences(tangents=3),
    ControlVariate(tangents=2, feedback_rate=0.1),
    ControlVariate(tangents=3, guess="dfa", aggregate="projection"),
    ControlVariate(guess="last", feedback_rate=0.5),
]
"""At least one of each, with options that show."""


@dataclass(frozen=True)
class Problem:
    """A task, where it stands, and a batch."""

    task: Task
    params: Any
    state: Any
    x: np.ndarray
    labels: np.ndarray

    @cached_property
    def plan(self):
        return Plan.of(self.task, self.params, self.state, self.x)

    @property
    def batch(self):
        return Batch(self.x, self.labels)

    def learner(self, rule_state):
        return LearnerState(self.params, self.state, rule_state)

    def rule_state(self, rule):
        """What the rule learns, at a point where nothing is zero any more."""
        start = dn.Key(1)
        drawn = rule.init(start, self.plan, self.params)
        return tree.map_with_path(
            lambda path, b: b + 0.3 * BACKEND.normal(start.fold_in(path), b.shape, b.dtype), drawn
        )

    def step(self, rule, key, backend=BACKEND, shards=1, rule_state=None):
        rule_state = self.rule_state(rule) if rule_state is None else rule_state
        learner = self.learner(rule_state)
        return estimate_gradient(rule, self.plan, learner, self.batch, key, backend, shards)

    def exact(self):
        """The gradient by dn.grad of the mean loss, without any of `dualnet.learning`'s rules."""

        def mean_loss(p):
            shard = Shard(self.x, self.labels)
            losses, _ = self.task.losses(p, self.state, shard, Context(train=True))
            return losses.mean()

        return dn.grad(mean_loss)(self.params)

    def repeated(self, times):
        """Every example so many times: the same mean loss, and as many draws for each example."""
        return replace(
            self, x=np.repeat(self.x, times, axis=0), labels=np.repeat(self.labels, times, axis=0)
        )


MLP = (
    ("hidden1", Linear(5)),
    ("relu1", Activation(relu)),
    ("hidden2", Linear(4)),
    # Not ReLU again: now and then all of four units would be off, and nothing be tested.
    ("tanh2", Activation(tanh)),
    ("output", Linear(3)),
)

WITH_HEADS = (
    ("hidden1", Linear(5)),
    ("norm1", LayerNorm()),
    ("relu1", Activation(relu)),
    ("head1", LocalHead(3)),
    ("hidden2", Linear(4)),
    ("tanh2", Activation(tanh)),
    ("hidden3", Linear(4)),
    ("head2", LocalHead(3)),
    ("tanh3", Activation(tanh)),
    ("output", Linear(3)),
)

WITH_GROUPS = (
    ("first", Linear(6)),
    ("all", LayerNorm(bias=False)),
    ("grouped", GroupedLinear(4, groups=2)),
    ("norm", LayerNorm(groups=2)),
    ("positions", Positions()),
    ("head", LocalHead(3, groups=2)),
    ("mean", AverageTokens()),
    ("output", Linear(3)),
)
"""The first layer's parameters answer to all groups, those behind the first norm to their own."""

WITH_BATCH_NORM = (
    ("hidden", Linear(5)),
    ("block", Sequential((("norm", BatchNorm()), ("tanh", Activation(tanh))))),
    ("output", Linear(3)),
)


def block(*layers):
    return Sequential(tuple((str(i), layer) for i, layer in enumerate(layers)))


NETWORKS = {
    "mlp": ((6,), MLP),
    "convolution, group norm, residual": (
        (4, 4, 2),
        (
            ("first", block(Conv2d(4, 2), GroupNorm(2), Activation(relu))),
            (
                "residual",
                Residual((("block", block(Conv2d(4, 2, padding=((0, 1), (0, 1))), LayerNorm())),)),
            ),
            ("after", Activation(tanh)),
            ("pool", Conv2d(3, 2, stride=2)),
            ("flatten", Flatten()),
            ("output", Linear(3)),
        ),
    ),
    "mixer": (
        # Of 3 tokens or 8 channels the norms would magnify some directions so much that a mean
        # of as many draws as a test can take says nothing.
        (8, 4),
        (
            ("first", block(Linear(16), LayerNorm(gain=False, bias=False), Activation(relu))),
            ("block", mixer_block(tokens=8, channels=16, groups=2)),
            ("mean", AverageTokens()),
            ("output", Linear(3)),
        ),
    ),
    "attention": (
        (3, 4),
        (
            ("block", transformer_block(width=4, heads=2, mlp_width=3)),
            ("mean", AverageTokens()),
            ("output", Linear(3)),
        ),
    ),
}
"""name → shape of an example, layers"""


def problem(rng, key, *layers, n=4, in_shape=(6,), dtype=np.float64):
    """A classification problem; without layers that of `MLP`."""
    task = Task(Sequential(layers or MLP), softmax_cross_entropy)
    initial, state, (classes,) = task.network.init(key, in_shape)

    def draw(_):
        # Biases and heads start at 0, gains at 1, where a mistake about them would not show.
        params = tree.map(lambda p: (p + 0.1 * rng.standard_normal(p.shape)).astype(dtype), initial)
        x = rng.standard_normal((n, *in_shape)).astype(dtype)
        return Problem(task, params, state, x, rng.integers(0, classes, n))

    return drawn_until(lambda p: every_relu_is_on(task.network, p.params, state, p.x, key), draw)


def drawn_until(good, draw):
    """The first that is good of `draw(0)`, `draw(1)`, …"""
    for i in range(100):
        if good(drawn := draw(i)):
            return drawn
    raise AssertionError("none of 100 draws will do")


def layers_and_inputs(network, params, state, x, key=None):
    """Every layer of a network in training, with what comes into it."""
    seen = []

    def around(path, layer, params, state, x, context):
        seen.append((layer, x))
        return layer.apply(params, state, x, context)

    network.apply(params, state, x, Context(train=True, key=key, around=around))
    return seen


def is_relu(layer):
    return isinstance(layer, Activation) and layer.function is relu


def every_relu_is_on(network, params, state, x, key=None):
    """Whether each ReLU lets something through.

    Of a few units now and then all are off for all examples, and most derivatives are 0.
    """
    seen = layers_and_inputs(network, params, state, x, key)
    return all(np.any(z > 0) for layer, z in seen if is_relu(layer))


def bounded(rng, *shape):
    """Inputs without heavy tails, nor any near 0: no few of them make most of a variance."""
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape)


def flat(t):
    """All numbers of a tree of arrays, one after the other."""
    return np.concatenate([np.ravel(leaf) for leaf in tree.leaves(t)])


def distance(a, b):
    """How far a is from b, relative to b."""
    a, b = flat(a), flat(b)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def assert_close(a, b, tolerance, what=""):
    error = distance(a, b)
    assert error <= tolerance, f"{what}: relative error {error:.1e}, allowed {tolerance:.0e}"


def largest_sum(f, primals, tangents):
    """The largest Σ |∂f_n/∂x v| over all entries x: by this, rounding errors of a jvp are small."""
    jacobians = dn.jacfwd(f, range(len(primals)))(*primals)
    of_each = [
        np.abs(t.reshape(len(t), -1)) @ np.abs(j.reshape(len(j), -1)).T
        for t, j in zip(tangents, jacobians, strict=True)
    ]
    return np.max(sum(of_each))


def directions_of(p, rule, key):
    """The independent directions that `fg-w` draws as rows over all parameters."""
    drawn = rule.sample(key, p.plan, p.params, BACKEND, len(p.x)).draw(0, rule.tangents)
    rows = [np.reshape(dense(t), (rule.tangents, -1)) for t in tree.leaves(drawn)]
    return np.concatenate(rows, axis=1)


def estimates(p, rule, key, steps, first=0, rule_state=None):
    """Independent gradients as rows."""
    rule_state = p.rule_state(rule) if rule_state is None else rule_state
    keys = (key.fold_in(first + i) for i in range(steps))
    return np.array([flat(p.step(rule, k, rule_state=rule_state).gradients) for k in keys])


def assert_unbiased(p, rule, key, steps, exact=None):
    """The mean of independent gradients is `exact`, or the gradient itself, within 7 standard
    errors: each component, and as the last the part along `exact`.

    Where the random network makes them noisy, up to eight times as many steps are done.  Of 7,000
    components, which a run of the suite has, one lies further off in 1 of 100,000 runs if all had
    100 steps, and in 1 of a million with 200.
    """
    exact = flat(p.exact() if exact is None else exact)
    rows = estimates(p, rule, key, steps)
    while too_noisy(rows, exact) and len(rows) < 8 * steps:
        rows = np.concatenate([rows, estimates(p, rule, key, len(rows), first=len(rows))])
    assert not too_noisy(rows, exact), "too few draws to see a bias"
    unit = exact / np.linalg.norm(exact)
    rows, exact = np.column_stack([rows, rows @ unit]), np.append(exact, unit @ exact)
    mean, error = rows.mean(0), standard_error(rows)
    off = np.abs(mean - exact) - 7 * error
    worst = int(np.argmax(off))
    assert np.all(off <= 1e-12), (
        f"component {worst} of {len(unit)}: mean {mean[worst]:.5f}, exact {exact[worst]:.5f}, "
        f"standard error {error[worst]:.5f}"
    )


def too_noisy(rows, exact):
    """Whether the mean's error is a quarter of what it should be, or more."""
    return np.linalg.norm(standard_error(rows)) >= 0.25 * np.linalg.norm(exact)


def standard_error(rows):
    return rows.std(0, ddof=1) / math.sqrt(len(rows))
