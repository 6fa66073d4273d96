"""What the fused rules should give, written with elementary functions, however slow.

The table compares each fused function with its reference here, in value, jvp and vjp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dualnet.core.arrays import arange_like

Pair = tuple[int, int]
Sides = tuple[Pair, Pair]


def relu(x: Any) -> Any:
    return np.where(x > 0, x, 0.0)


def sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def gelu(x: Any) -> Any:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def softmax(x: Any, axis: int = -1) -> Any:
    e = np.exp(x)
    return e / np.sum(e, axis=axis, keepdims=True)


def normalize(x: Any, axes: tuple[int, ...], epsilon: float = 1e-5) -> Any:
    centered = x - np.mean(x, axis=axes, keepdims=True)
    variance = np.mean(np.square(centered), axis=axes, keepdims=True)
    return centered / np.sqrt(variance + epsilon)


def softmax_cross_entropy(logits: Any, labels: Any) -> Any:
    return -np.log(softmax(logits)[arange_like(len(labels), labels), labels])


def info_nce(projections: Any, temperature: float, passed: Callable[[Any], Any]) -> Any:
    """Pair by pair; `passed` is what becomes of the projections that answer."""
    n = len(projections) // 2
    unit = [f / np.sqrt(np.sum(f * f)) for f in projections]
    losses = []
    for i in range(2 * n):
        others = range(n, 2 * n) if i < n else range(n)
        scores = [np.sum(unit[i] * passed(unit[j])) / temperature for j in others]
        total = sum(np.exp(score) for score in scores)
        losses.append(np.log(total) - scores[i % n])
    return np.stack(losses)


def mean_squared_error(outputs: Any, targets: Any) -> Any:
    return np.mean(np.square(outputs - targets), axis=tuple(range(1, outputs.ndim)))


def conv2d(
    x: Any, w: Any, stride: Pair = (1, 1), padding: Sides = ((0, 0), (0, 0)), groups: int = 1
) -> Any:
    """A sum over the pixels of the window."""
    parts = []
    for own_x, own_w in zip(
        np.split(x, groups, axis=-1), np.split(w, groups, axis=-1), strict=True
    ):
        pixels = _shifted(own_x, w.shape[:2], stride, padding, 0.0)
        products = [pixel @ own_w[at] for at, pixel in pixels]
        parts.append(sum(products[1:], products[0]))
    return np.concatenate(parts, axis=-1)


def max_pool(x: Any, window: Pair, stride: Pair, padding: Sides = ((0, 0), (0, 0))) -> Any:
    pixels = _shifted(x, window, stride, padding, -np.inf)
    return np.max(np.stack([pixel for _, pixel in pixels]), axis=0)


def average_pool(x: Any, window: Pair, stride: Pair, padding: Sides = ((0, 0), (0, 0))) -> Any:
    pixels = _shifted(x, window, stride, padding, 0.0)
    return np.mean(np.stack([pixel for _, pixel in pixels]), axis=0)


def adaptive_average_pool(x: Any, rows: int, columns: int) -> Any:
    _, h, w, _ = x.shape
    cells = [
        [
            np.mean(
                x[
                    :,
                    i * h // rows : -(-(i + 1) * h // rows),
                    j * w // columns : -(-(j + 1) * w // columns),
                ],
                axis=(1, 2),
            )
            for j in range(columns)
        ]
        for i in range(rows)
    ]
    return np.stack([np.stack(row, axis=1) for row in cells], axis=1)


def attention(params: Any, x: Any, heads: int) -> Any:
    """Head by head."""

    def linear(name: str, x: Any) -> Any:
        return x @ params[name]["w"] + params[name]["b"]

    width = x.shape[-1] // heads
    gathered = []
    for h in range(heads):
        own = slice(h * width, (h + 1) * width)
        q, k, v = (linear(name, x)[..., own] for name in ("query", "key", "value"))
        scores = np.einsum("nic,njc->nij", q, k) / math.sqrt(width)
        gathered.append(np.einsum("nij,njc->nic", softmax(scores), v))
    return linear("output", np.concatenate(gathered, axis=-1))


def _shifted(
    x: Any, window: Pair, stride: Pair, padding: Sides, value: float
) -> Iterator[tuple[Pair, Any]]:
    """For each pixel of the window its place in it and, for all windows, what it sees."""
    x = np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=value)
    (kh, kw), (down, across) = window, stride
    height, width = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    for a in range(kh):
        for b in range(kw):
            yield (a, b), x[:, a : a + height : down, b : b + width : across]
