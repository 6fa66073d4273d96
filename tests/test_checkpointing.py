"""`bp` with checkpoints: the gradient of `bp`, by less memory."""

import tracemalloc

import numpy as np
import pytest
from learning_problems import assert_close, problem

from dualnet import Key, tree
from dualnet.learning import Backprop, Batch, LearnerState, Plan, Task, split_batch
from dualnet.learning.checkpointing import parts_of
from dualnet.nn import (
    Activation,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalHead,
    MaxPool,
    Residual,
    Sequential,
    relu,
    softmax_cross_entropy,
)

BLOCK = Residual((("block", Sequential((("linear", Linear(4)), ("relu", Activation(relu))))),))
BEFORE_DROPOUT = (
    ("convolution", Conv2d(4, 3)),
    ("norm", BatchNorm()),
    ("relu", Activation(relu)),
    ("block", BLOCK),
    ("head", LocalHead(3)),
    ("pool", MaxPool(2)),
    ("flatten", Flatten()),
)
AFTER = (("hidden", Linear(6)), ("output", Linear(3)))


@pytest.mark.parametrize("dropout", [(), (("dropout", Dropout(0.5)),)])
def test_checkpoints_leave_gradient_and_state_as_they_are(dropout, rng, key):
    p = problem(rng, key, *BEFORE_DROPOUT, *dropout, *AFTER, in_shape=(6, 6, 2))
    plain, ours = (
        p.step(Backprop(checkpointing=checkpointing), key) for checkpointing in (False, True)
    )
    assert_close(ours.gradients, plain.gradients, 1e-12)
    assert ours.loss == plain.loss and ours.correct == plain.correct
    states = tree.leaves(ours.model_state), tree.leaves(plain.model_state)
    assert states[0] and all((a == b).all() for a, b in zip(*states, strict=True))
    assert [path for path, _ in tree.items(ours.gradients)] == [
        path for path, _ in tree.items(plain.gradients)
    ]


def test_a_chain_is_cut_into_as_many_parts_as_the_root_of_its_length():
    names = [str(i) for i in range(17)]
    parts = parts_of(Sequential(tuple((name, Flatten()) for name in names)))
    assert [len(part.layers) for part in parts] == [4, 4, 4, 5]
    assert [name for part in parts for name, _ in part.layers] == names


def test_checkpoints_take_a_fraction_of_the_memory():
    """64 hidden layers: eight of them at a time, and the inputs of eight parts."""
    hidden = [[(f"h{i}", Linear(32)), (f"relu{i}", Activation(relu))] for i in range(64)]
    network = Sequential((*(layer for pair in hidden for layer in pair), ("output", Linear(3))))
    params, state, _ = network.init(Key(0), (32,))
    batch = Batch(np.ones((512, 32), np.float32), np.zeros(512, np.int64))
    plan = Plan.of(Task(network, softmax_cross_entropy), params, state, batch.inputs)
    (shard,) = split_batch(batch, 1)

    def peak(rule):
        tracemalloc.start()
        try:
            rule.measure(plan, LearnerState(params, state, {}), None, shard)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(Backprop(checkpointing=True)) < 0.35 * peak(Backprop())
