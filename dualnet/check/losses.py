"""Losses, each against its formula."""

from __future__ import annotations

import numpy as np

from dualnet.check import references
from dualnet.check.table import Row, adder
from dualnet.core.beside import beside
from dualnet.nn import mean_squared_error, softmax_cross_entropy

ROWS: list[Row] = []
row = adder(ROWS, "losses")

LABELS = np.array([2, 0, 3, 3])

for _note, _labels in (("", LABELS), ("unsigned labels", LABELS.astype(np.uint8))):
    row(
        softmax_cross_entropy,
        _note,
        lambda _xp, logits, labels=_labels: softmax_cross_entropy(logits, beside(labels, logits)),
        (4, 5),
        composed=lambda _xp, logits: references.softmax_cross_entropy(
            logits, beside(LABELS, logits)
        ),
    )
for _shape in ((3,), (4, 2), (2, 3, 2)):
    row(
        mean_squared_error,
        f"{_shape}",
        lambda _xp, outputs, targets: mean_squared_error(outputs, targets),
        _shape,
        _shape,
        composed=lambda _xp, outputs, targets: references.mean_squared_error(outputs, targets),
        exact=True,
    )
