"""What a network is trained for: to name the class, or to tell two views of an image apart from
others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from dualnet.core.derivatives import value_and_grad
from dualnet.errors import UsageError
from dualnet.learning import correct
from dualnet.nn import InfoNCE, Layer, Linear, LocalHead, Sequential, softmax_cross_entropy
from dualnet.nn.network import Context
from dualnet.nn.replicated import average
from dualnet.optim import Adam
from dualnet.random import Key
from dualnet.tree import Tree

View = Callable[[Key], Any]
"""`view(key)`: the batch's images as the network gets them, changed at random."""
READOUT_LR = 1e-2


class Objective(Protocol):
    """See the head of this file.  `readout` is what it learns beside the network: a tree of its
    parameters and of its optimizer's memories, {} if it learns nothing.

    Attributes:
        fewest: images that a batch must have for its loss to say anything.
        views: inputs that `batch` makes of each image.
    """

    fewest: ClassVar[int]
    views: ClassVar[int]

    @property
    def loss(self) -> Callable[[Any, Any], Any]:
        """Of the network's outputs, and of local heads."""
        ...

    def network(self, build: Callable[[int], Layer], classes: int) -> Layer:
        """The network that a model's `build(outputs)` makes, as the objective needs it."""
        ...

    def init(
        self, key: Key, network: Layer, params: Tree, state: Tree, x: Any, classes: int
    ) -> Tree:
        """`readout` at the start; x `(1, *in_shape)`."""
        ...

    def batch(self, view: View, labels: Any, key: Key) -> tuple[Any, Any]:
        """Inputs and targets of a step."""
        ...

    def read(
        self,
        readout: Tree,
        network: Layer,
        params: Tree,
        state: Tree,
        x: Any,
        labels: Any,
        lr: float,
        count: int,
    ) -> tuple[Tree, Any]:
        """`readout` after a step on the inputs x, the step `count` (from 1) and with lr a factor of
        its own learning rate; and how many of x it named right before, None if the network's
        outputs are the answer."""
        ...

    def logits(self, readout: Tree, network: Layer, params: Tree, state: Tree, x: Any) -> Any:
        """`(n, classes)`, by which accuracy and test loss are judged."""
        ...


@dataclass(frozen=True)
class Supervised:
    """Softmax cross-entropy of the outputs and the label."""

    fewest: ClassVar[int] = 1
    views: ClassVar[int] = 1

    @property
    def loss(self) -> Callable[[Any, Any], Any]:
        return softmax_cross_entropy

    def network(self, build: Callable[[int], Layer], classes: int) -> Layer:
        return build(classes)

    def init(
        self, key: Key, network: Layer, params: Tree, state: Tree, x: Any, classes: int
    ) -> Tree:
        return {}

    def batch(self, view: View, labels: Any, key: Key) -> tuple[Any, Any]:
        return view(key), labels

    def read(
        self,
        readout: Tree,
        network: Layer,
        params: Tree,
        state: Tree,
        x: Any,
        labels: Any,
        lr: float,
        count: int,
    ) -> tuple[Tree, Any]:
        return readout, None

    def logits(self, readout: Tree, network: Layer, params: Tree, state: Tree, x: Any) -> Any:
        return network.apply(params, state, x, Context())[0]


@dataclass(frozen=True)
class Contrastive:
    """InfoNCE between two views of each image; a linear read-out names the class.

    The network's last layer and its local heads are projections.  The read-out learns the class
    from what goes into the last layer, by the exact gradient of its own cross-entropy, and nothing
    that it learns reaches the network.

    Args:
        projection: D, numbers of a projection.
        temperature: τ of `InfoNCE`.
        stop: whether the view that answers is under a stop-gradient.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 5; Chen et al.
    2020, "A Simple Framework for Contrastive Learning of Visual Representations".
    """

    projection: int = 128
    temperature: float = 0.1
    stop: bool = True

    fewest: ClassVar[int] = 2  # one is told apart from the others
    views: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.projection < 1:
            raise UsageError(f"contrastive: projection must be at least 1, got {self.projection}")
        InfoNCE(self.temperature)

    @property
    def loss(self) -> Callable[[Any, Any], Any]:
        return InfoNCE(self.temperature, self.stop)

    def network(self, build: Callable[[int], Layer], classes: int) -> Layer:
        return _with_projections(build(self.projection))

    def init(
        self, key: Key, network: Layer, params: Tree, state: Tree, x: Any, classes: int
    ) -> Tree:
        features = self._features(network, params, state, x)
        weights = {
            "w": np.zeros_like(features, shape=(features.shape[1], classes)),
            "b": np.zeros_like(features, shape=(classes,)),
        }
        return {"params": weights, "memories": Adam().memories(weights)}

    def batch(self, view: View, labels: Any, key: Key) -> tuple[Any, Any]:
        views = [view(key.fold_in(i)) for i in ("first", "second")]
        return np.concatenate(views), np.concatenate([labels, labels])

    def read(
        self,
        readout: Tree,
        network: Layer,
        params: Tree,
        state: Tree,
        x: Any,
        labels: Any,
        lr: float,
        count: int,
    ) -> tuple[Tree, Any]:
        features = self._features(network, params, state, x)

        def loss(weights: Tree) -> tuple[Any, Any]:
            logits = features @ weights["w"] + weights["b"]
            return softmax_cross_entropy(logits, labels).mean(), logits

        (_, logits), gradients = value_and_grad(loss, has_aux=True)(readout["params"])
        weights, memories = Adam().apply(
            gradients, readout["memories"], readout["params"], READOUT_LR * lr, count
        )
        return {"params": weights, "memories": memories}, correct(logits, labels)

    def logits(self, readout: Tree, network: Layer, params: Tree, state: Tree, x: Any) -> Any:
        features = self._features(network, params, state, x)
        return features @ readout["params"]["w"] + readout["params"]["b"]

    def _features(self, network: Layer, params: Tree, state: Tree, x: Any) -> Any:
        """What goes into the last layer, `(n, C)`, as evaluation computes it."""
        assert isinstance(network, Sequential)  # `_with_projections` made sure
        return average(Sequential(network.layers[:-1]).apply(params, state, x, Context())[0])


OBJECTIVES: dict[str, type[Objective]] = {"supervised": Supervised, "contrastive": Contrastive}


def _with_projections(network: Layer) -> Sequential:
    """The network whose last layer and local heads start at random: projections of zeros have no
    direction, and so nothing to be told apart by."""
    if not isinstance(network, Sequential) or not isinstance(network.layers[-1][1], Linear):
        raise UsageError(
            "contrastive: the network must be a Sequential that ends in a Linear, its projection"
        )
    return Sequential(tuple((name, _started(layer)) for name, layer in network.layers))


def _started(layer: Layer) -> Layer:
    if isinstance(layer, (Linear, LocalHead)) and layer.weights == "zeros":
        return replace(layer, weights="kaiming")
    return layer
