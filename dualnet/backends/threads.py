"""Threads that work comes to, also in a process that was forked; and how many cores there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor


def cores() -> int:
    """Return how many cores this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Threads:
    """A pool of threads, made when they are first needed.

    A fork copies the pool and none of its threads, so that work would wait for ever.  A process
    that was forked makes threads of its own.

    Args:
        count: how many threads there are at most.
    """

    def __init__(self, count: int):
        self._count = count
        self._pool = ThreadPoolExecutor(count)
        self._process = os.getpid()

    def map(self, f: Callable, items: Iterable) -> list:
        """Return `[f(x) for x in items]`, computed on the threads."""
        if self._process != os.getpid():
            self._pool, self._process = ThreadPoolExecutor(self._count), os.getpid()
        return list(self._pool.map(f, items))
