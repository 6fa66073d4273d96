"""Networks that learn step by step, for experiments that measure on the way.

What is not chosen is as in the recipes of FDFA: Adam at 1e-4, which falls by 5 % an epoch, batches
of 64, pixels from -1 to 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

import dualnet as dn
from dualnet import backends, data
from dualnet.learning import (
    RULES,
    Batch,
    Estimate,
    LearnerState,
    Plan,
    Rule,
    Task,
    estimate_gradient,
)
from dualnet.models.mlp import MLP
from dualnet.nn import Context, Layer, softmax_cross_entropy, with_local_heads
from dualnet.optim import Adam
from dualnet.training.recipes import find_recipe
from dualnet.tree import Tree
from dualnet.types import Array
from experiments.experiment import Form

RATE, FALL, BATCH = 1e-4, 0.95, 64
QUICK = 128
"""Images of the quick form."""


def published_rule(name: str) -> Rule:
    """Return a rule with the options of FDFA's recipes."""
    chosen = find_recipe(f"fdfa-mlp4-mnist-{name}").settings
    fields = [f.name for f in dataclasses.fields(RULES[name]) if f.name in chosen]
    return RULES[name](**{field: chosen[field] for field in fields})


class Images:
    """Training images as the network gets them, and their labels.

    Args:
        name: of the data set.
        form: says in which folder it is, and for a quick one to take only some of the images.
        limit: how many images the full form takes, the first ones; None for all.
    """

    def __init__(self, name: str, form: Form, limit: int | None = None):
        folder = None if data.SOURCES[name].kept == "package" else form.data_dir
        dataset = data.load(name, folder, limit_train=QUICK if form.quick else limit, quiet=True)
        self.dataset, self.in_shape = dataset, dataset.in_shape
        self.inputs = dataset.pixels(dataset.train_images[:], np.float32, "symmetric")
        self.labels = dataset.train_labels

    def batch(self, chosen: Array) -> Batch:
        """Return some of the images, by their numbers."""
        return Batch(self.inputs[chosen], self.labels[chosen])

    def test_batch(self, number: int) -> Batch:
        """Return the first test images, as the network gets them, and their labels."""
        images, labels = self.dataset.test_images[:number], self.dataset.test_labels[:number]
        return Batch(self.dataset.pixels(images, np.float32, "symmetric"), labels)

    def steps_in_an_epoch(self) -> int:
        """Return how many batches an epoch has."""
        return -(-len(self.labels) // BATCH)


def mlp(images: Images, rule: Rule, width: int, layers: int) -> Layer:
    """Return a network of so many layers with weights, with local heads if the rule has such."""
    network = MLP(width=width, depth=layers - 1).network(images.in_shape, 10)
    if rule.locality == "global":
        return network
    params, _, _ = network.init(dn.Key(0), images.in_shape)
    return with_local_heads(network, params, 10)


class Learner:
    """A network that learns by a rule, one step after the other.

    Args:
        images: what it learns.
        rule: how.
        network: the layers.
        seed: of everything random.
        rate: of Adam in the first epoch.

    Attributes:
        state: where learning stands.
        updates: how many updates there were.
    """

    def __init__(self, images: Images, rule: Rule, network: Layer, seed: int, rate: float = RATE):
        self.images, self.rule, self.rate = images, rule, rate
        self.backend = backends.get("numpy")
        self.key = dn.Key(seed).fold_in("steps")
        params, model_state, _ = network.init(self.key.fold_in("init"), images.in_shape)
        task = Task(network, softmax_cross_entropy)
        self.plan = Plan.of(task, params, model_state, images.inputs[:1])
        self.state = LearnerState(params, model_state, self.feedback_of(rule, params))
        self.opt_state, self.updates = Adam().init(params), 0

    def feedback_of(self, rule: Rule, params: Tree) -> Tree:
        """Return what a rule learns beside the weights, at the start."""
        return rule.init(self.key.fold_in("rule"), self.plan, params)

    def batches(self, epochs: int) -> Iterator[Batch]:
        """Yield the batches of so many epochs, each epoch in another order."""
        for epoch in range(epochs):
            key = self.key.fold_in("order").fold_in(epoch)
            for chosen in data.batches(len(self.images.labels), BATCH, key):
                yield self.images.batch(chosen)

    def estimate(
        self, batch: Batch, rule: Rule | None = None, rule_state: Tree = None, draw: int = 0
    ) -> Estimate:
        """Return the estimate of the present step, by its own rule or by another one.

        Each `draw` has directions of its own.
        """
        state = self.state
        if rule is not None:
            state = state._replace(rule_state=rule_state or {})
        key = self.key.fold_in("draws").fold_in(self.updates).fold_in(draw)
        return estimate_gradient(rule or self.rule, self.plan, state, batch, key, self.backend)

    def follow(self, done: Estimate, gradients: Tree | None = None) -> None:
        """Make an update by an estimate, or by other gradients in the place of its own."""
        epoch = self.updates // self.images.steps_in_an_epoch()
        params, self.opt_state = Adam().update(
            done.gradients if gradients is None else gradients,
            self.opt_state,
            self.state.params,
            self.rate * FALL**epoch,
        )
        self.state = LearnerState(params, done.model_state, done.rule_state)
        self.updates += 1

    def losses(self, chosen: Array) -> Array:
        """Return the losses of some of the images in evaluation mode."""
        inputs, labels = self.images.batch(chosen)
        return softmax_cross_entropy(self.outputs(inputs), labels)

    def outputs(self, inputs: Array) -> Array:
        """Return the network's outputs in evaluation mode."""
        params, model_state, _ = self.state
        return self.plan.task.network.apply(params, model_state, inputs, Context())[0]
