"""Cutting an epoch into batches, in an order that a key decides, and reading them ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from dualnet.errors import UsageError
from dualnet.random import Key

Chosen = TypeVar("Chosen")
Batch = TypeVar("Batch")

_AHEAD = 2


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


def read_ahead(
    read: Callable[[Chosen], Batch], order: Iterable[Chosen]
) -> Generator[Batch, None, None]:
    """Read batches in a thread of its own, two ahead of the one that is in use.

    It pays where reading waits, for a disk; what is in memory is read faster than handed over.

    Args:
        read: reads one batch; called in the thread, once for each of `order`, one at a time.
        order: what to read.

    Returns:
        Yields `read(chosen)` for each of `order`, in this order.  Closing it, as
        `contextlib.closing` does, ends the thread after the batch that it is at.

    Raises:
        Whatever `read` raises, when its batch is asked for.
    """
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1, "batches") as thread:
        try:
            for chosen in order:
                waiting.append(thread.submit(read, chosen))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for batch in waiting:
                batch.cancel()
