"""Processes that train one network together: each measures a part, and the sums are shared.

A learning rule is a map over shards and a sum (`learning/rule.py`).  Where the shards are in
several processes, that sum is the only thing that goes between them.  `ALONE` is the usual case,
one process; `backends/mpi.py` has several.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from dualnet.tree import Tree

SHARES = ("batch", "tangents")
"""What processes share: the examples of each batch, all of whose directions every process takes; or
the directions, along which every process takes the whole batch."""

STATISTICS = ("process", "all")
"""Of whose examples batch norm takes its statistics, where the batch is shared: of each process's
own, or of those of all."""


class Processes(Protocol):
    """All processes of a training, as one of them sees them.

    Every method but `part` is called by all of them, in the same order.

    Attributes:
        shares: what each has a part of, one of `SHARES`.
        statistics: of whose examples batch norm takes its statistics, one of `STATISTICS`.
        rank: the number of this process, from 0; the first one writes and reports.
        size: how many there are.
        local_rank: the number of this process among those of its machine, from 0, by which it takes
            a device of its own; None for a process alone.
        bytes_given: how many bytes this process has given to the others so far.
    """

    shares: str
    statistics: str
    rank: int
    size: int
    local_rank: int | None

    @property
    def bytes_given(self) -> int: ...

    def part(self, items: range) -> range:
        """Return the items of this process: consecutive ones, as many as the others have or one
        less; none for some, where there are fewer items than processes."""
        ...

    def wait_for_all(self) -> None:
        """Return once all processes have come here."""
        ...

    def add(self, one: Tree) -> Tree:
        """Return the sum over all processes of trees of the same structure and shapes.

        All processes get the same bits, where their own arrays are: on the host or on a device.
        """
        ...

    def of_first(self, one: Tree) -> Tree:
        """Return the tree of the first process; that of this one has as many leaves."""
        ...

    def ending_together(self) -> AbstractContextManager:
        """Return a context in which an error of one process ends all of them.

        The others may wait for it, and would wait for ever.
        """
        ...

    def telling_of_errors(self) -> AbstractContextManager:
        """Return a context of which the others are told if an error leaves it.

        Those that wait for this process then get an error, too.
        """
        ...


class Alone:
    """One process, which has nobody to share with."""

    shares = "batch"
    statistics = "process"
    rank = 0
    size = 1
    local_rank: int | None = None
    bytes_given = 0

    def part(self, items: range) -> range:
        return items

    def wait_for_all(self) -> None:
        pass

    def add(self, one: Tree) -> Tree:
        return one

    def of_first(self, one: Tree) -> Tree:
        return one

    def ending_together(self) -> AbstractContextManager:
        return nullcontext()

    def telling_of_errors(self) -> AbstractContextManager:
        return nullcontext()


ALONE: Processes = Alone()
"""The processes of a training that has one."""


def part_of(items: range, rank: int, size: int) -> range:
    """Return the items of one process; see `Processes.part`."""
    first, after = (len(items) * i // size for i in (rank, rank + 1))
    return items[first:after]
