"""The evaluation of a network on the test images of a data set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dualnet.backends import Backend
from dualnet.backends.processes import ALONE, Processes
from dualnet.data import Dataset
from dualnet.learning import correct
from dualnet.nn import Layer
from dualnet.training.objective import Objective, TrainedNetwork
from dualnet.training.state import Carried
from dualnet.tree import Tree
from dualnet.types import Array, Shape

_BATCH = 1000
_PIXELS = _BATCH * 32 * 32


@dataclass(frozen=True)
class Evaluation:
    """Judges a network by loss and accuracy on all test images.

    Attributes:
        network: a layer, usually a `Sequential`.
        objective: how the network's answers are judged.
        dataset: the examples.
        prepare: turns images as they are in the data set into what the network gets.
        backend: runs the work.
        graph: whether a device may record the work on a batch, and repeat the recording.
        processes: that share the test images.
    """

    network: Layer
    objective: Objective
    dataset: Dataset
    prepare: Callable[[Array], Array]
    backend: Backend
    graph: bool
    processes: Processes = ALONE

    def __call__(self, at: Carried) -> tuple[float, float]:
        """Return mean loss (in nats) and accuracy of the network `at` a state, in evaluation mode.

        Where targets are real, there is no accuracy: it is NaN.  The host waits for a device only
        once, after all batches.
        """
        n = len(self.dataset.test_images)
        at_once = batch_that_fits(self.dataset.in_shape)
        judged = []
        for start in self.processes.part(range(0, n, at_once)):
            part = slice(start, start + at_once)
            images = self.backend.asarray(self.dataset.test_images[part])
            labels = self.backend.asarray(self.dataset.test_labels[part])
            batch = (at.params, at.model_state, at.readout, images, labels)
            judged.append(self._judge_batch((), batch, None, {})[1])
        on_host = [self.backend.to_host(np.stack(x)).tolist() for x in zip(*judged, strict=True)]
        losses, hits = on_host or ([], [])  # more processes than batches
        total = 0.0
        for loss in losses:
            total += loss  # by `sum`, Python would add with another rounding from version 3.12 on
        total, right = map(float, self.processes.add((total, sum(hits))))
        return total / n, right / n if self.objective.classifies else math.nan

    @cached_property
    def _judge_batch(self) -> Callable:
        """Return the sum of the losses and the number of hits of a batch; see `Backend.recorded`.

        Nothing is carried from batch to batch.
        """

        def judge(_carried: Tree, batch: tuple, _key: None, _numbers: dict) -> tuple[Tree, tuple]:
            params, model_state, readout, images, labels = batch
            trained = TrainedNetwork(self.network, params, model_state)
            logits = self.objective.logits(readout, trained, self.prepare(images))
            losses = self.objective.test_losses(logits, labels)
            hits = correct(logits, labels)
            return (), (losses.sum(), np.asarray(hits, like=losses))

        return self.backend.recorded(judge, self.graph, "evaluation")


def batch_that_fits(in_shape: Shape) -> int:
    """Return how many examples an evaluation takes at a time: fewer if they are large."""
    return max(1, min(_BATCH, _PIXELS // math.prod(in_shape[:-1])))
