"""Cutting an epoch into batches, in an order that a key decides."""

from __future__ import annotations

import numpy as np

from dualnet.errors import UsageError
from dualnet.random import Key


def batches(n: int, batch_size: int, key: Key) -> list[np.ndarray]:
    """Shuffle the examples of one epoch and cut them into batches.

    Args:
        n: how many examples there are.
        batch_size: how many make a batch; the last one has what is left over.
        key: decides the order; take another for each epoch.

    Returns:
        int64 index arrays of shape (batch_size,), in which each of 0 ... n - 1 occurs once.

    Raises:
        UsageError: if `n` or `batch_size` is not a whole number above 0, or `key` is no `Key`.
    """
    for argument, number in (("n", n), ("batch_size", batch_size)):
        whole = isinstance(number, (int, np.integer)) and not isinstance(number, bool)
        if not whole or number < 1:
            raise UsageError(
                f"batches: {argument}: expected a whole number from 1 up, got {number!r}"
            )
    if not isinstance(key, Key):
        raise UsageError(f"batches: key: expected a Key, as in Key(0), got {key!r}")
    order = np.random.Generator(np.random.SFC64(key.bits)).permutation(n).astype(np.int64)
    return [order[start : start + batch_size] for start in range(0, n, batch_size)]
