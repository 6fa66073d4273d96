"""The contrastive loss: a view finds the other one of its image among those of the whole batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dualnet.core.transforms import stop_gradient
from dualnet.errors import UsageError
from dualnet.naming import named
from dualnet.nn.losses import Loss, softmax_cross_entropy
from dualnet.options import require_choice
from dualnet.types import Array

NEGATIVES = ("one-view", "both-views")
"""Which views of other images a view is told apart from: those of the other kind, or all."""

_NEVER = -1e9
"""A logit whose share of a softmax is 0."""


@dataclass(frozen=True, kw_only=True)
class InfoNCE(Loss):
    """-log softmax_j(⟨f_i, f'_j⟩ / τ)_i with f, f' the projections of two views, of length 1.

    Every view of every image asks in turn, and the N views of the other kind answer.  With
    `both-views` those of its own kind answer too, except for itself, so that there are 2N - 2
    negatives.  That is NT-Xent, the loss of SimCLR and of the published code of Ren et al.

    With a stop-gradient on what answers, a projection moves its own example's loss alone, as
    forward gradients of activities need it; without one, every loss depends on the whole batch.

    It is called with projections `(2N, D)`, those of first views and then, in the same order,
    those of second views, and with targets, which it does not look at.  It returns losses `(2N,)`.

    Args:
        temperature: τ, above 0.
        stop: whether there is the stop-gradient.
        negatives: `one-view` or `both-views`.

    Losses are in nats.

    Raises:
        UsageError: an option is out of its range, or projections are not of an even number of
            views.

    Sources: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding",
    Eq. 4; two views: Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual
    Representations", section 2.1 and Eq. 1; stop-gradient: Ren et al. 2023, "Scaling Forward
    Gradient With Local Losses", section 5 and Fig. 4.

    Examples:
        >>> first, second = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[2.0, 0.0], [0.0, 3.0]])
        >>> views = np.concatenate([first, second])  # two views of each of two images
        >>> losses = dn.nn.InfoNCE(temperature=1.0)(views, np.zeros(4))
        >>> np.exp(-losses).round(4).tolist()  # e / (e + 1), as ⟨f, f'⟩ is 1 for one image, else 0
        [0.7311, 0.7311, 0.7311, 0.7311]
    """

    temperature: float = 0.1
    stop: bool = True
    negatives: str = "one-view"

    needs_whole_batch = True

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise UsageError(
                f"InfoNCE: {named('temperature')}: expected a number above 0, "
                f"got {self.temperature}"
            )
        require_choice("InfoNCE", named("negatives"), self.negatives, NEGATIVES)
        object.__setattr__(self, "couples_examples", not self.stop)
        object.__setattr__(self, "stops_gradients", self.stop)

    def __call__(self, projections: Array, targets: Array) -> Array:
        if projections.ndim != 2 or len(projections) % 2 or not len(projections):
            raise UsageError(
                "InfoNCE: expected projections (2N, D) of first and of second views, got "
                f"{projections.shape}"
            )
        n = len(projections) // 2
        asking = normalized(projections)
        answering = stop_gradient(asking) if self.stop else asking
        first = self._losses(asking[:n], answering[n:], answering[:n])
        second = self._losses(asking[n:], answering[:n], answering[n:])
        return np.concatenate((first, second))

    def _losses(self, asking: Array, others: Array, alike: Array) -> Array:
        """Return the losses of views `(N, D)` among those of the other and of their own kind."""
        n = len(asking)
        own = np.arange(n, like=asking)
        logits = asking @ np.swapaxes(others, 0, 1) / self.temperature
        if self.negatives == "both-views":
            among_alike = asking @ np.swapaxes(alike, 0, 1) / self.temperature
            itself = np.equal(own[:, None], own)
            logits = np.concatenate((logits, np.where(itself, _NEVER, among_alike)), axis=1)
        return softmax_cross_entropy(logits, own)


def normalized(x: Array) -> Array:
    """Scale rows to length 1; a row of zeros stays zero, and its derivative is zero.

    Such rows occur: a small crop may be all background, and layer norm makes zeros of that.
    """
    squares = np.sum(x * x, axis=-1, keepdims=True)
    live = np.greater(squares, 0)
    return np.where(live, x / np.sqrt(np.where(live, squares, 1)), 0)
