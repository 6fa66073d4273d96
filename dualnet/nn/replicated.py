"""One loss for every token and group of channels: equal values, each with a derivative of its own.

A local head reads features averaged over the tokens p of x `(N, P, C)`.  Its loss L depends on all
tokens and channels; the replica L[p, g] has the same value, but only group g of token p may
move it.  So a perturbation of one part of x answers to a scalar that the others do not disturb.
With e the derivative of L by the averaged features,

    dL[n, p, g] = ⟨e[n, g], dx[n, p, g]⟩ / P

and the replicas' derivatives add up to that of L.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dualnet.core.transforms import stop_gradient, vjp
from dualnet.errors import UsageError
from dualnet.types import Array

Loss = Callable[[Array], Array]
"""`loss(features)`: `(N, C)` to `(N,)`, where features of one example move no other's loss."""


def average(x: Array) -> Array:
    """Average x over all axes between batch and channels: `(N, ..., C)` to `(N, C)`.

    Args:
        x: float array of two axes or more.

    Returns:
        `(N, C)`; x itself if there are no axes between.

    Examples:
        >>> dn.nn.average(np.arange(8.0).reshape(1, 2, 2, 2)).tolist()  # of 0 2 4 6, and of 1 3 5 7
        [[3.0, 4.0]]
    """
    between = tuple(range(1, x.ndim - 1))
    return np.mean(x, axis=between) if between else x


def replicated(loss: Loss, x: Array, groups: int = 1) -> Array:
    """Return the replicas of a loss; features and loss are computed once, however many there are.

    First derivatives by x are those of the replicas.  What the loss itself closes over (the weights
    of a head) moves each replica by 1 / (P·groups) of what it moves the loss, so that the sum over
    replicas keeps its scale.  Second derivatives are not those of the replicas, because e is a
    constant.

    Args:
        loss: of the averaged features, `(N, C)` to `(N,)`.
        x: `(N, *T, C)`; T are the axes of tokens, P in all, and may be none.
        groups: G, runs of C / G neighboring channels.

    Returns:
        `(N, P, groups)`.

    Raises:
        UsageError: groups does not divide the channels.

    Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", section 4 and Fig. 3; the
    fused form of Fig. 5.

    Examples:
        >>> loss = lambda features: (features * np.array([1.0, 10.0])).sum(axis=-1)
        >>> x = np.array([[[1.0, 2.0], [3.0, 4.0]]])  # one example of two tokens; averaged: 2 and 3
        >>> dn.nn.replicated(loss, x, groups=2).tolist()
        [[[32.0, 32.0], [32.0, 32.0]]]
        >>> of_first = lambda x: dn.nn.replicated(loss, x, groups=2)[0, 0, 0]
        >>> dn.grad(of_first)(x).tolist()  # the first channel of the first token alone moves it
        [[[0.5, 0.0], [0.0, 0.0]]]
    """
    parts = _by_token_and_group("replicated", x, groups)
    still = average(stop_gradient(x))
    value, pull = vjp(loss, still)
    (error,) = stop_gradient(pull(np.ones_like(stop_gradient(value))))
    n, tokens, _, width = parts.shape
    error = np.reshape(error, (n, 1, groups, width))
    moved = parts - stop_gradient(parts)  # zeros that have the tangent of x
    shares = np.sum(moved * error, axis=-1) / tokens
    rest = stop_gradient(value)
    own = (value - rest) / (tokens * groups)
    return np.reshape(rest + own, (n, 1, 1)) + shares


def replicated_by_copies(loss: Loss, x: Array, groups: int = 1) -> Array:
    """Return the replicas of a loss by their definition, as a reference for `replicated`.

    Every replica gets a copy of x in which all but one part is under a stop-gradient, which takes
    P·groups times the work and memory of the fused form.

    Args:
        loss, x, groups: as for `replicated`.

    Returns:
        `(N, P, groups)`.

    Raises:
        UsageError: as `replicated`.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(5, 3, 4))
        >>> loss = lambda features: np.square(features).sum(axis=-1)
        >>> replicas = dn.nn.replicated_by_copies(loss, x, groups=2)
        >>> replicas.shape, bool(np.allclose(replicas, dn.nn.replicated(loss, x, groups=2)))
        ((5, 3, 2), True)
    """
    parts = _by_token_and_group("replicated_by_copies", x, groups)
    n, tokens, _, width = parts.shape
    still = stop_gradient(parts)
    replicas = np.arange(tokens * groups, like=x)
    ours = np.reshape(np.equal(replicas[:, None], replicas), (-1, 1, tokens, groups, 1))
    copies = np.where(ours, parts, still)  # (P·G, N, P, G, C/G)
    features = np.reshape(np.mean(copies, axis=2), (tokens * groups, n, groups * width))
    losses = []
    for copy in features:
        fixed = loss(stop_gradient(copy))  # only what the loss closes over moves it
        losses.append(
            loss(copy)
            - fixed
            + stop_gradient(fixed) * (1 - 1 / len(features))
            + fixed / len(features)
        )
    return np.reshape(np.stack(losses, axis=-1), (n, tokens, groups))


def _by_token_and_group(function: str, x: Array, groups: int) -> Array:
    """Return x `(N, *T, C)` as `(N, P, groups, C / groups)`."""
    if x.ndim < 2 or groups < 1 or x.shape[-1] % groups:
        raise UsageError(
            f"{function}: expected x (N, ..., C) and a number of groups that divides C, got "
            f"{x.shape} and {groups}"
        )
    n, *tokens, channels = x.shape
    return np.reshape(x, (n, math.prod(tokens), groups, channels // groups))
