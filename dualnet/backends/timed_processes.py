"""Processes whose exchanges are timed: how long one waits for the others, and what comes after."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from dualnet import tree
from dualnet.backends.overridable import finish
from dualnet.backends.processes import Processes
from dualnet.tree import Tree


class TimedProcesses:
    """Processes that wait for one another before each exchange, so that waiting is told apart.

    A sum needs the numbers of all, so whoever comes early waits inside of it, and its duration
    alone would not say why.  Behind a barrier all begin at once.  The barrier itself, some
    microseconds, counts as waiting.

    Args:
        processes: those that exchange.
        clock: the time in seconds.

    Attributes:
        shares, statistics, rank, size, local_rank, bytes_given: see `Processes`.
        waiting: seconds so far in which this process has waited for others.
        exchanging: seconds so far in which it has exchanged numbers, and packed and added them.
    """

    def __init__(self, processes: Processes, clock: Callable[[], float] = time.perf_counter):
        self._processes, self.clock = processes, clock
        self.shares, self.rank, self.size = processes.shares, processes.rank, processes.size
        self.statistics, self.local_rank = processes.statistics, processes.local_rank
        self.waiting = self.exchanging = 0.0

    @property
    def bytes_given(self) -> int:
        return self._processes.bytes_given

    def part(self, items: range) -> range:
        return self._processes.part(items)

    def wait_for_all(self) -> None:
        self._processes.wait_for_all()

    def add(self, one: Tree) -> Tree:
        with self._timed(one):
            return self._processes.add(one)

    def of_first(self, one: Tree) -> Tree:
        with self._timed(one):
            return self._processes.of_first(one)

    def ending_together(self) -> AbstractContextManager:
        return self._processes.ending_together()

    def telling_of_errors(self) -> AbstractContextManager:
        return self._processes.telling_of_errors()

    @contextmanager
    def _timed(self, one: Tree) -> Iterator[None]:
        """Wait for all, once this one's numbers are computed; then count what the block takes."""
        finish(tree.leaves(one))
        came = self.clock()
        self._processes.wait_for_all()
        met = self.clock()
        yield
        self.waiting += met - came
        self.exchanging += self.clock() - met
