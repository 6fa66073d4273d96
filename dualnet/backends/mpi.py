"""Several processes by MPI, the Message Passing Interface, which every cluster has.

Nothing is pickled: arrays go as their bytes, and what describes them as JSON.  Those of a device go
by way of the host's memory, which every MPI can read.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import time
from collections.abc import Iterator
from functools import cache, reduce
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.backends.farewells import Farewells
from dualnet.backends.overridable import back_from_host, to_host
from dualnet.backends.processes import Processes, part_of
from dualnet.console import code_of
from dualnet.errors import BackendError, UsageError
from dualnet.tree import Tree

FEW = 1 << 16
"""Up to so many bytes, each process gets the numbers of all others, and adds them up itself."""

PATIENCE = 5.0
"""For how many seconds a process that has met an error lets the first one speak of its own."""

PASSING_ON = 0.5
"""After how many seconds a process that has said its error ends all; mpiexec, which passes on what
processes say, drops at the end what it has not read yet."""


class MpiProcesses:
    """The processes that `mpiexec` has started.

    Few numbers are gathered, and every process adds them up in the order of the processes: the sum
    is then, bit for bit, that of one process with as many shards.  Many are added up by MPI on the
    way, so that none has to hold those of all others.

    While it waits, a process asks again and again whether the others have come, and does not sit in
    a call of the library: so Ctrl-C reaches it, and word of processes that have ended.

    Args:
        communicator: of `mpi4py`, with all processes.
        farewells: of the same processes.
        local_rank: the number of this process among those of its machine.
        shares, statistics: see `Processes`.

    Attributes:
        shares, statistics, rank, size, local_rank, bytes_given: see `Processes`.
    """

    def __init__(
        self,
        communicator: Any,
        farewells: Farewells,
        local_rank: int,
        shares: str = "batch",
        statistics: str = "process",
    ):
        self._communicator = communicator
        self._farewells = farewells
        self.shares = shares
        self.statistics = statistics
        self.rank: int = communicator.rank
        self.size: int = communicator.size
        self.local_rank: int | None = local_rank
        self.bytes_given = 0
        self._failed: int | None = None
        self._ends_all = False
        atexit.register(self._end_all_if_failed)

    def part(self, items: range) -> range:
        return part_of(items, self.rank, self.size)

    def wait_for_all(self) -> None:
        self._farewells.meet_again()
        self._wait(self._communicator.Ibarrier())

    def add(self, one: Tree) -> Tree:
        self._farewells.meet_again()
        leaves = _arrays_in(one)
        truths = any([leaf.dtype == bool for leaf in leaves])  # which MPI does not add up
        if truths or sum([leaf.nbytes for leaf in leaves]) <= FEW:
            return _put_back(one, reduce(_added, self._gathered(leaves)))
        return _put_back(one, self._reduced(leaves))

    def of_first(self, one: Tree) -> Tree:
        self._farewells.meet_again()
        leaves = _arrays_in(one)
        shapes = self._described(leaves)
        if len(shapes) != len(leaves):
            raise UsageError(
                f"processes: expected a tree of {len(shapes)} leaves as the first process has it, "
                f"got {len(leaves)} in process {self.rank}; give all processes the same settings"
            )
        if self.rank:
            leaves = [np.empty(shape, dtype) for dtype, shape in shapes]
        sent = _bytes_of(leaves)
        self._broadcast(sent)
        return _put_back(one, _arrays_from(sent, leaves))

    def _described(self, leaves: list[np.ndarray]) -> list[tuple[str, list[int]]]:
        """Return dtype and shape of each leaf of the first process."""
        text = json.dumps([[leaf.dtype.str, leaf.shape] for leaf in leaves]).encode()
        length = np.array(len(text))
        self._broadcast(length)
        sent = (
            np.frombuffer(text, np.uint8).copy() if self.rank == 0 else np.empty(length, np.uint8)
        )
        self._broadcast(sent)
        return json.loads(sent.tobytes())

    def _broadcast(self, numbers: np.ndarray) -> None:
        """Give the numbers of the first process to all others, which get them in place."""
        self.bytes_given += 0 if self.rank else numbers.nbytes
        self._wait(self._communicator.Ibcast(numbers))

    def _gathered(self, leaves: list[np.ndarray]) -> list[list[np.ndarray]]:
        """Return the leaves of every process."""
        sent = _bytes_of(leaves)
        received = np.empty((self.size, len(sent)), np.uint8)
        self.bytes_given += len(sent)
        self._wait(self._communicator.Iallgather(sent, received))
        return [_arrays_from(row, leaves) for row in received]

    def _reduced(self, leaves: list[np.ndarray]) -> list[np.ndarray]:
        """Return the sums of leaves over all processes, added up by MPI, a dtype at a time."""
        sums: list[np.ndarray] = list(leaves)
        # In the order of the tree, which all share; that of a set depends on the process.
        for dtype in dict.fromkeys([leaf.dtype for leaf in leaves]):
            which = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
            sent = np.concatenate([leaves[i].ravel() for i in which])
            received = np.empty_like(sent)
            self.bytes_given += sent.nbytes
            self._wait(self._communicator.Iallreduce(sent, received))
            ends = np.cumsum([leaves[i].size for i in which])[:-1]
            for i, part in zip(which, np.split(received, ends), strict=True):
                sums[i] = part.reshape(leaves[i].shape)
        return sums

    def _wait(self, request: Any) -> None:
        """Wait until all processes have come to the same exchange.

        Raises:
            DualnetError: one has ended or met an error before.
        """
        self._farewells.begin_exchange()
        while not request.Test():
            self._farewells.require_all()
            time.sleep(0)  # others may need the core

    @contextlib.contextmanager
    def ending_together(self) -> Iterator[None]:
        """End all processes if an error leaves the block, once this one has said why.

        Where all have met the same error, the first one says so, and writes what it has to, while
        the others hold their peace.
        """
        self._ends_all = True
        try:
            yield
        except Exception as error:
            self._failed = code_of(error)
            if self.rank:
                time.sleep(PATIENCE)
            raise

    @contextlib.contextmanager
    def telling_of_errors(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if not self._ends_all:  # else it ends the others once it has said why
                self._farewells.fail()
            raise

    def _end_all_if_failed(self) -> None:
        if self._failed is not None:
            time.sleep(PASSING_ON)
            self._communicator.Abort(self._failed)
            os._exit(self._failed)  # MPICH returns from there, while it ends the others


def _arrays_in(one: Tree) -> list[np.ndarray]:
    """Return the leaves of a tree as arrays on the host, but those that are None."""
    return to_host([leaf for leaf in tree.leaves(one) if leaf is not None])


def _put_back(one: Tree, arrays: list[np.ndarray]) -> Tree:
    """Return the tree with other numbers where its leaves are not None, each of the kind of its
    leaf: a number of Python's, which widens no array; an array of the host's; one of a device."""
    here = [leaf for leaf in tree.leaves(one) if leaf is not None]
    others = iter(back_from_host(arrays, here))

    def other(leaf: Any) -> Any:
        if leaf is None:
            return None
        found = next(others)
        return found if hasattr(leaf, "dtype") else found.item()

    return tree.map(other, one)


def _added(one: list[np.ndarray], other: list[np.ndarray]) -> list[np.ndarray]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _bytes_of(leaves: list[np.ndarray]) -> np.ndarray:
    """Return the bytes of arrays, one after the other."""
    return np.frombuffer(b"".join([leaf.tobytes() for leaf in leaves]), np.uint8).copy()


def _arrays_from(row: np.ndarray, like: list[np.ndarray]) -> list[np.ndarray]:
    """Return the arrays whose bytes these are, of the dtypes and shapes of some others."""
    arrays, at = [], 0
    for leaf in like:
        part = row[at : at + leaf.nbytes].tobytes()
        arrays.append(np.frombuffer(part, leaf.dtype).reshape(leaf.shape).copy())
        at += leaf.nbytes
    return arrays


@cache
def world(shares: str = "batch", statistics: str = "process") -> Processes:
    """Return all processes that `mpiexec` has started, of which this is one.

    Args:
        shares, statistics: see `Processes`.

    Raises:
        BackendError: mpi4py is not installed, or finds no MPI.
    """
    return MpiProcesses(*_all_of_mpi(), shares, statistics)


@cache
def _all_of_mpi() -> tuple[Any, Farewells, int]:
    """Return mpi4py's communicator of all processes, their farewells, and the number of this one
    among those of its machine."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: it finds no library
        raise BackendError(
            "processes mpi needs mpi4py and an MPI library, which pip install "
            f'"dualnet[mpi]" brings ({error}); then start it by mpiexec -n 4 dualnet train …'
        ) from error
    of_machine = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    return MPI.COMM_WORLD, Farewells(MPI.COMM_WORLD), of_machine.rank
