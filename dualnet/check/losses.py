"""Losses, each against its formula."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualnet.check import references
from dualnet.check.table import Row, adder, constant
from dualnet.core.transforms import stop_gradient
from dualnet.nn import (
    InfoNCE,
    average,
    mean_squared_error,
    replicated,
    replicated_by_copies,
    softmax_cross_entropy,
)

ROWS: list[Row] = []
row = adder(ROWS, "losses")

LABELS = np.array([2, 0, 3, 3])


def _with_value_times(n: int, loss: Any) -> Any:
    """Return n times the loss, with the derivative of one."""
    return loss + (n - 1) * stop_gradient(loss)


def _head_loss(features: Any, weights: Any) -> Any:
    logits = features @ weights
    return softmax_cross_entropy(logits, constant(LABELS[1::2], logits))


for _note, _labels in (("", LABELS), ("unsigned labels", LABELS.astype(np.uint8))):
    row(
        softmax_cross_entropy,
        _note,
        lambda _xp, logits, labels=_labels: softmax_cross_entropy(logits, constant(labels, logits)),
        (4, 5),
        composed=lambda xp, logits: references.softmax_cross_entropy(
            xp, logits, constant(LABELS, logits)
        ),
    )
for _shape in ((3,), (4, 2), (2, 3, 2)):
    row(
        mean_squared_error,
        f"{_shape}",
        lambda _xp, outputs, targets: mean_squared_error(outputs, targets),
        _shape,
        _shape,
        composed=lambda xp, outputs, targets: references.mean_squared_error(xp, outputs, targets),
        exact=True,
    )
row(
    "InfoNCE",
    "",
    lambda _xp, f: InfoNCE(temperature=0.5, stop=False)(f, None),
    (6, 4),
    composed=lambda xp, f: references.info_nce(xp, f, 0.5, lambda answering: answering),
)
row(
    "InfoNCE",
    "stop-gradient",
    lambda _xp, f: InfoNCE(temperature=0.5)(f, None),
    (6, 4),
    composed=lambda xp, f: references.info_nce(
        xp, f, 0.5, lambda answering: references.stopped(xp, answering)
    ),
    decreed=True,
)
for _form, _tokens in (("tokens", 3), ("no tokens", 1)):
    row(
        replicated,
        _form,
        lambda _xp, x, w: replicated(lambda f: _head_loss(f, w), x, 2),
        (2, _tokens, 4) if _tokens > 1 else (2, 4),
        (4, 5),
        composed=lambda _xp, x, w: replicated_by_copies(lambda f: _head_loss(f, w), x, 2),
        decreed=True,
    )
row(
    replicated_by_copies,
    "",
    lambda _xp, x, w: replicated_by_copies(lambda f: _head_loss(f, w), x, 2).sum((1, 2)),
    (2, 3, 4),
    (4, 5),
    composed=lambda _xp, x, w: _with_value_times(6, _head_loss(average(x), w)),
    decreed=True,
)
row(average, "", lambda _xp, x: average(x), (2, 3, 2, 4), composed=lambda _xp, x: x.mean((1, 2)))
