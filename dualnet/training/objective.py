"""What a network is trained for: to name the class of an image, or to tell two views of it apart
from the views of other images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from dualnet.backends.processes import ALONE, Processes
from dualnet.core.derivatives import value_and_grad
from dualnet.errors import UsageError
from dualnet.learning import Task, correct
from dualnet.naming import assigned
from dualnet.nn import (
    InfoNCE,
    Layer,
    Linear,
    LocalHead,
    Sequential,
    mean_squared_error,
    normalize,
    softmax_cross_entropy,
)
from dualnet.nn.context import Context
from dualnet.nn.replicated import average
from dualnet.optim import Adam
from dualnet.options import require_count
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array

READOUT_LR = 1e-2
"""Base learning rate of the read-out of `Contrastive`."""


class TrainedNetwork(NamedTuple):
    """A network with the parameters and the state that it has at one moment.

    Attributes:
        network: a layer, usually a `Sequential`.
        params, model_state: trees, as the network's `init` makes them.
    """

    network: Layer
    params: Tree
    model_state: Tree

    def outputs(self, x: Array) -> Array:
        """Return the network's outputs in evaluation mode; x `(n, *in_shape)`."""
        return self.network.apply(self.params, self.model_state, x, Context())[0]


class StepNumbers(NamedTuple):
    """The numbers on which an update of parameters depends.

    Attributes:
        lr_factor: what the schedule multiplies a base learning rate by.
        step: the number of the step, from 1.
    """

    lr_factor: float
    step: int


class Objective(Protocol):
    """See the head of this file.

    A read-out is what the objective learns beside the network: a tree of its parameters and of its
    optimizer's state, {} if it learns nothing.

    Attributes:
        min_batch: how many images a batch must have for its loss to say anything.
        views_per_image: how many inputs of the network a step makes of each image.
        classifies: whether targets are classes, so that there is an accuracy.
    """

    min_batch: ClassVar[int]
    views_per_image: ClassVar[int]
    classifies: ClassVar[bool]

    @property
    def loss(self) -> Callable[[Array, Array], Array]:
        """The loss of the network's outputs, and of those of local heads."""
        ...

    def network(self, build: Callable[[int], Layer], classes: int) -> Layer:
        """Return the network that a model's `build(outputs)` makes, as the objective needs it."""
        ...

    def view_keys(self, key: Key) -> tuple[Key, ...]:
        """Return the key of the random changes of each view, `views_per_image` keys."""
        ...

    def combine(self, views: list[Array], labels: Array) -> tuple[Array, Array]:
        """Return the inputs and the targets of a step.

        Args:
            views: for each of `view_keys` the batch's images as the network gets them, `(n, …)`.
            labels: `(n,)`, the classes of the images.

        Returns:
            Inputs and targets, each of length n · views_per_image.
        """
        ...

    def init_readout(self, key: Key, trained: TrainedNetwork, x: Array, classes: int) -> Tree:
        """Return the read-out before the first step; x `(1, *in_shape)` is an input."""
        ...

    def learn_readout(
        self, readout: Tree, trained: TrainedNetwork, x: Array, labels: Array, now: StepNumbers
    ) -> tuple[Tree, Any]:
        """Update the read-out on the inputs of a step.

        Args:
            readout: as `init_readout` or the last step returned it.
            trained: the network before the step.
            x, labels: inputs and targets of the step.
            now: factor of the readout's own learning rate, and number of the step.

        Returns:
            The new read-out; and how many of x the old one classified correctly, None if the
            network's own outputs are the answer.
        """
        ...

    def logits(self, readout: Tree, trained: TrainedNetwork, x: Array) -> Array:
        """Return the numbers `(n, classes)` by which accuracy and test loss are judged."""
        ...

    def test_losses(self, logits: Array, targets: Array) -> Array:
        """Return the test loss of each example, `(n,)`, for what `logits` has returned."""
        ...


@dataclass(frozen=True)
class Supervised:
    """Softmax cross-entropy of the outputs and the label."""

    min_batch: ClassVar[int] = 1
    views_per_image: ClassVar[int] = 1
    classifies: ClassVar[bool] = True

    @property
    def loss(self) -> Callable[[Array, Array], Array]:
        return softmax_cross_entropy

    def network(self, build: Callable[[int], Layer], classes: int) -> Layer:
        return build(classes)

    def view_keys(self, key: Key) -> tuple[Key, ...]:
        return (key,)

    def combine(self, views: list[Array], labels: Array) -> tuple[Array, Array]:
        (x,) = views
        return x, labels

    def init_readout(self, key: Key, trained: TrainedNetwork, x: Array, classes: int) -> Tree:
        return {}

    def learn_readout(
        self, readout: Tree, trained: TrainedNetwork, x: Array, labels: Array, now: StepNumbers
    ) -> tuple[Tree, Any]:
        return readout, None

    def logits(self, readout: Tree, trained: TrainedNetwork, x: Array) -> Array:
        return trained.outputs(x)

    def test_losses(self, logits: Array, targets: Array) -> Array:
        return softmax_cross_entropy(logits, targets)


@dataclass(frozen=True)
class Regression(Supervised):
    """Mean squared error of the outputs and real targets."""

    classifies: ClassVar[bool] = False

    @property
    def loss(self) -> Callable[[Array, Array], Array]:
        return mean_squared_error

    def combine(self, views: list[Array], labels: Array) -> tuple[Array, Array]:
        (x,) = views
        return x, labels.astype(x.dtype)  # targets in float64 would widen what is learned

    def test_losses(self, logits: Array, targets: Array) -> Array:
        # In float32, an error that is small beside the target would be rounded away.
        return mean_squared_error(logits.astype(np.float64), targets.astype(np.float64))


@dataclass(frozen=True)
class Contrastive:
    """InfoNCE between two views of each image; a linear read-out names the class.

    The network's last layer and its local heads are projections.  The read-out learns the class
    from what goes into the last layer, by the exact gradient of its own cross-entropy, and nothing
    that it learns reaches the network.

    Args:
        projection: D, how many numbers a projection has.
        temperature: τ of `InfoNCE`.
        stop: whether the view that answers is under a stop-gradient.
        negatives: from which views of other images a view is told apart, see `InfoNCE`.
        readout_norm: whether the read-out gets its features through a layer norm.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 5, and their
    published code, which has `both-views` and the norm; Chen et al. 2020, "A Simple Framework for
    Contrastive Learning of Visual Representations".
    """

    projection: int = 128
    temperature: float = 0.1
    stop: bool = True
    negatives: str = "one-view"
    readout_norm: bool = False

    min_batch: ClassVar[int] = 2  # an image is told apart from the others
    views_per_image: ClassVar[int] = 2
    classifies: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_count("contrastive", "projection", self.projection)
        _ = self.loss  # which refuses what it cannot do

    @property
    def loss(self) -> Callable[[Array, Array], Array]:
        return InfoNCE(temperature=self.temperature, stop=self.stop, negatives=self.negatives)

    def network(self, build: Callable[[int], Layer], classes: int) -> Layer:
        return _with_projections(build(self.projection))

    def view_keys(self, key: Key) -> tuple[Key, ...]:
        return key.fold_in("first"), key.fold_in("second")

    def combine(self, views: list[Array], labels: Array) -> tuple[Array, Array]:
        return np.concatenate(views), np.concatenate([labels for _ in views])

    def init_readout(self, key: Key, trained: TrainedNetwork, x: Array, classes: int) -> Tree:
        features = self._features(trained, x)
        weights = {
            "w": np.zeros_like(features, shape=(features.shape[1], classes)),
            "b": np.zeros_like(features, shape=(classes,)),
        }
        return {"params": weights, "opt_state": Adam().init_opt_state(weights)}

    def learn_readout(
        self, readout: Tree, trained: TrainedNetwork, x: Array, labels: Array, now: StepNumbers
    ) -> tuple[Tree, Any]:
        features = self._features(trained, x)

        def loss(weights: Tree) -> tuple[Array, Array]:
            logits = features @ weights["w"] + weights["b"]
            return softmax_cross_entropy(logits, labels).mean(), logits

        (_, logits), gradients = value_and_grad(loss, has_aux=True)(readout["params"])
        lr = READOUT_LR * now.lr_factor
        weights, opt_state = Adam().apply(
            gradients, readout["opt_state"], readout["params"], lr, now.step
        )
        return {"params": weights, "opt_state": opt_state}, correct(logits, labels)

    def logits(self, readout: Tree, trained: TrainedNetwork, x: Array) -> Array:
        return self._features(trained, x) @ readout["params"]["w"] + readout["params"]["b"]

    def test_losses(self, logits: Array, targets: Array) -> Array:
        return softmax_cross_entropy(logits, targets)

    def _features(self, trained: TrainedNetwork, x: Array) -> Array:
        """Return what the read-out gets: what goes into the last layer in evaluation mode."""
        assert isinstance(trained.network, Sequential)  # `_with_projections` made sure
        body = Sequential(trained.network.layers[:-1])
        features = average(trained._replace(network=body).outputs(x))
        return normalize(features, (-1,)) if self.readout_norm else features


OBJECTIVES: dict[str, type[Objective]] = {
    "supervised": Supervised,
    "regression": Regression,
    "contrastive": Contrastive,
}
"""The objectives by the name that the command line gives them."""


def require_whole_batches(
    objective: Objective,
    task: Task,
    trained: TrainedNetwork,
    x: Array,
    images: int,
    batch_size: int,
    processes: Processes = ALONE,
) -> None:
    """Refuse a last batch from which nothing could be learned at the end of an epoch.

    That is a batch in which the objective has too little to tell apart, or of which a process has
    too few examples for batch norm.  Of its own alone, it needs two, as it refuses what has no
    variance; of those of all, one.

    Args:
        objective, task, trained: what is learned.
        x: an input, `(1, *in_shape)`.
        images: how many there are to train on.
        batch_size: how many of them make a batch.
        processes: that share a batch, or its directions.

    Raises:
        UsageError: the last batch is such a one.
    """
    last = images % batch_size or batch_size
    if last < objective.min_batch:
        raise UsageError(
            f"{assigned('batch_size', batch_size)} leaves a last batch of {last} of {images} "
            f"images, and the {type(objective).__name__.lower()} loss tells {objective.min_batch} "
            "or more apart"
        )
    parts = processes.size if processes.shares == "batch" else 1
    if last // parts > 1 or not task.couples_examples:
        return
    if processes.statistics == "all" and parts > 1:
        if last >= parts:
            return
        raise UsageError(
            f"{assigned('batch_size', batch_size)} leaves a last batch of {last} of {images} "
            f"images, and none to some of {parts} processes, of all of which batch norm takes its "
            f"statistics; use another batch size, or {assigned('statistics', 'process')}"
        )
    inputs, _ = objective.combine([x] * objective.views_per_image, np.zeros(1))
    context = Context(train=True, key=Key(0))
    try:
        trained.network.apply(trained.params, trained.model_state, inputs, context)
    except UsageError as error:
        whole = f"one of {images} images"
        shared = f"{last} of {images} images, and one to each of some processes"
        raise UsageError(
            f"{assigned('batch_size', batch_size)} leaves a last batch of "
            f"{whole if parts == 1 else shared}: {error}"
        ) from None


def _with_projections(network: Layer) -> Sequential:
    """Let the last layer and the local heads of a network start at random.

    Projections of zeros have no direction, so that nothing could be told apart by them.  They start
    as in the published code of Ren et al.

    Raises:
        UsageError: the network is no `Sequential` that ends in a `Linear`.
    """
    if not isinstance(network, Sequential) or not isinstance(network.layers[-1][1], Linear):
        raise UsageError(
            "contrastive: the network must be a Sequential that ends in a Linear, its projection"
        )
    return Sequential(tuple((name, _started_at_random(layer)) for name, layer in network.layers))


def _started_at_random(layer: Layer) -> Layer:
    """Return a layer, with random weights if it is a projection whose weights start at zero."""
    if isinstance(layer, (Linear, LocalHead)) and layer.weights == "zeros":
        return replace(layer, weights="scaled-normal")
    return layer
