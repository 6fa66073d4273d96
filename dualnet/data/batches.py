"""Cut an epoch into batches, in an order that a key decides, and read batches ahead."""

from __future__ import annotations

import os
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
"""How many batches are read ahead."""


def batches(n: int, batch_size: int, key: Key) -> list[np.ndarray]:
    """Shuffle the examples of one epoch and cut them into batches.

    Args:
        n: how many examples there are.
        batch_size: how many examples a batch has; the last batch has those that are left over.
        key: decides the order; take another key for each epoch.

    Returns:
        int64 index arrays of shape (batch_size,), in which each of 0 ... n - 1 occurs once.

    Raises:
        UsageError: `n` or `batch_size` is not a whole number above 0, or `key` is no `Key`.

    Examples:
        >>> order = dn.data.batches(10, 4, dn.Key(0))
        >>> [len(chosen) for chosen in order], sorted(np.concatenate(order).tolist())
        ([4, 4, 2], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
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
    """Read batches in a separate thread, two ahead of the one that is in use.

    This pays where reading waits for a disk.  From memory, a batch is read faster than it is handed
    over between threads.

    Args:
        read: reads one batch.  The thread calls it once for each item of `order`, one at a time.
        order: the arguments of `read`.

    Yields:
        `read(chosen)` for each item of `order`, in this order.  Closing the generator, as
        `contextlib.closing` does, ends the thread after the batch that it is reading.

    Raises:
        Whatever `read` raises; it is raised when its batch is asked for.
    """
    waiting: deque[tuple[Chosen, Future[Batch]]] = deque()
    process = os.getpid()

    def first() -> Batch:
        chosen, batch = waiting.popleft()
        forked = os.getpid() != process  # and no thread came along
        return read(chosen) if forked else batch.result()

    with ThreadPoolExecutor(1, "batches") as thread:
        try:
            for chosen in order:
                waiting.append((chosen, thread.submit(read, chosen)))
                if len(waiting) > _AHEAD:
                    yield first()
            while waiting:
                yield first()
        finally:
            for _, batch in waiting:
                batch.cancel()
