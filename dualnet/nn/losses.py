"""Losses, one value for each example: `(N, ...)` and targets to `(N,)`.

Each is one fused rule: the value and the derivative share the softmax or the difference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dualnet.backends.overridable import overridable
from dualnet.core import linear
from dualnet.core.dual import primitive
from dualnet.core.engine import linearizer
from dualnet.errors import UsageError
from dualnet.options import Options
from dualnet.types import Array, Linearized

_UNSIGNED = {
    np.dtype(f"{order}{kind}{size}"): f"{order}u{size}"
    for order in "<>"
    for kind in "iu"
    for size in (1, 2, 4, 8)
}
"""The dtype of integers → that of the same bytes without a sign."""

LossFunction = Callable[[Array, Array], Array]
"""`loss(outputs, targets)`: one value for each example, `(N,)`."""


class Loss(Options, ABC):
    """A loss function that looks beyond an example's own outputs, and says so here.

    Attributes:
        needs_whole_batch: whether the values need all outputs of a batch, which is then not split.
        couples_examples: whether an example's outputs also move the losses of others.
        stops_gradients: whether the derivative leaves out a part of what moves the values.

    Examples:
        >>> class OfBatch(dn.nn.Loss):
        ...     couples_examples = True
        ...     def __call__(self, outputs, targets):
        ...         return np.square(outputs.mean(axis=0) - targets).sum(axis=-1)
        >>> OfBatch()(np.array([[1.0], [3.0]]), np.array([[2.0], [0.0]])).tolist()
        [0.0, 4.0]
        >>> OfBatch().couples_examples, dn.nn.Loss.of(dn.nn.softmax_cross_entropy).couples_examples
        (True, False)
    """

    needs_whole_batch: bool = False
    couples_examples: bool = False
    stops_gradients: bool = False

    @abstractmethod
    def __call__(self, outputs: Array, targets: Array) -> Array:
        """Return the losses `(N,)` of outputs `(N, ...)` and targets `(N, ...)`."""

    @staticmethod
    def of(function: LossFunction) -> Loss:
        """Return a loss as it is, and a plain function with the defaults of `Loss`."""
        return function if isinstance(function, Loss) else _LossByExample(function)


@dataclass(frozen=True)
class _LossByExample(Loss):
    """A plain function as a `Loss`: each value is of its own example alone."""

    function: LossFunction

    def __call__(self, outputs: Array, targets: Array) -> Array:
        return self.function(outputs, targets)


@primitive
def softmax_cross_entropy(logits: Array, labels: Array) -> Array:
    """Return -log softmax(logits)[label] for each example, in nats.

    Args:
        logits: `(N, classes)`, float.
        labels: `(N,)`, integers in [0, classes).

    Returns:
        `(N,)`, of the dtype of logits.  On a device, where the host would have to wait to see
        labels, the loss of one that is out of range is NaN.

    Raises:
        UsageError: labels are no integers, too many or too few, or out of range.

    Source: Bridle 1990, "Probabilistic Interpretation of Feedforward Classification Network
    Outputs".

    Examples:
        >>> losses = dn.nn.softmax_cross_entropy(np.zeros((2, 4)), np.array([0, 3]))
        >>> np.exp(losses).round(6).tolist()  # each of 4 classes has the probability 1/4
        [4.0, 4.0]
        >>> error = dn.grad(lambda z: dn.nn.softmax_cross_entropy(z, np.array([1])).sum())
        >>> error(np.zeros((1, 2))).tolist()  # softmax less the label
        [[0.5, -0.5]]
    """
    _require_labels(logits, labels)
    return _losses(logits, labels)


def _require_labels(logits: Array, labels: Array) -> None:
    kind = getattr(getattr(labels, "dtype", None), "kind", " ")
    if kind not in "iu" or getattr(logits, "ndim", 0) != 2 or labels.shape != logits.shape[:1]:
        logits, labels = (
            f"{x.dtype}{x.shape}" if hasattr(x, "dtype") else type(x).__name__
            for x in (logits, labels)
        )
        raise UsageError(
            "softmax_cross_entropy: expected logits (N, classes) and integer labels (N,), got "
            f"{logits} and {labels}"
        )
    if isinstance(labels, np.ndarray) and len(labels):
        # Without their sign, negative numbers are large ones: one pass sees both.
        largest = np.maximum.reduce(np.asarray(labels).view(_UNSIGNED[labels.dtype]))
        if largest >= logits.shape[1]:
            wrong = int(np.flatnonzero((labels < 0) | (labels >= logits.shape[1]))[0])
            raise UsageError(
                f"softmax_cross_entropy: expected labels from 0 to {logits.shape[1] - 1} for "
                f"logits (N, {logits.shape[1]}), got {labels[wrong]} for example {wrong}"
            )


def _cross_entropy_parts(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Return the losses, and the log-probabilities `(N, classes)`."""
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    log_p = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    examples = np.arange(len(labels), like=labels)
    if isinstance(labels, np.ndarray):
        return -log_p[examples, labels], log_p
    known = np.logical_and(np.greater_equal(labels, 0), np.less(labels, logits.shape[-1]))
    losses = -log_p[examples, np.where(known, labels, 0)]
    return np.where(known, losses, np.nan), log_p


@overridable
def _losses(logits: Array, labels: Array) -> Array:
    """Return the losses alone."""
    return _cross_entropy_parts(logits, labels)[0]


@overridable
def _losses_and_errors(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Return the losses, and their derivatives `(N, classes)` by the logits."""
    losses, log_p = _cross_entropy_parts(logits, labels)
    classes = np.arange(logits.shape[-1], like=labels)
    target = np.equal(labels[:, None], classes).astype(logits.dtype)
    return losses, np.exp(log_p) - target


@linearizer(softmax_cross_entropy)
def _softmax_cross_entropy(logits: Array, labels: Array) -> Linearized:
    _require_labels(logits, labels)
    out, error = _losses_and_errors(logits, labels)
    return out, lambda t: linear.sum(linear.scale(t, error), (-1,))


@primitive
def mean_squared_error(outputs: Array, targets: Array) -> Array:
    """Return the mean over an example's entries of (output - target)².

    Args:
        outputs: `(N, ...)`, float.
        targets: the same shape; of the same dtype too, or the result has the wider one.

    Returns:
        `(N,)`.

    Raises:
        UsageError: the shapes differ, or have no axis of examples.

    Examples:
        >>> targets = np.array([[1.0, 0.0], [3.0, 1.0]])
        >>> dn.nn.mean_squared_error(np.zeros((2, 2)), targets).tolist()  # (1 + 0) / 2, (9 + 1) / 2
        [0.5, 5.0]
    """
    return _squared_error_parts(outputs, targets)[0]


def _squared_error_parts(outputs: Array, targets: Array) -> tuple[Array, Array, tuple[int, ...]]:
    """Return the losses, the differences, and the axes of one example."""
    if outputs.shape != targets.shape or outputs.ndim < 1:
        raise UsageError(
            "mean_squared_error: expected outputs and targets of one shape (N, ...), got "
            f"{outputs.shape} and {targets.shape}"
        )
    difference = outputs - targets
    axes = tuple(range(1 - outputs.ndim, 0))
    return np.mean(difference * difference, axis=axes), difference, axes


@linearizer(mean_squared_error)
def _mean_squared_error(outputs: Array, targets: Array) -> Linearized:
    out, difference, axes = _squared_error_parts(outputs, targets)
    factor = difference * (2.0 * outputs.shape[0] / outputs.size)
    return out, (
        lambda t: linear.sum(linear.scale(t, factor), axes),
        lambda t: linear.sum(linear.scale(t, -factor), axes),
    )
