"""Word that processes leave when they end, so that no other one waits for them for ever.

All processes make the same exchanges in the same order.  One that ends, by whatever error and in
whatever program, tells all others how many it has made.  Who waits in a later exchange would wait
for ever, and gets an error instead.
"""

from __future__ import annotations

import atexit
import time
from typing import Any

import numpy as np

from dualnet.errors import DualnetError


class Farewells:
    """What this process knows of those that have ended.

    Args:
        communicator: of `mpi4py`, with all processes.
    """

    def __init__(self, communicator: Any):
        self._communicator = communicator.Dup()  # so that no other message is taken for a farewell
        self._exchanges = 0
        self._made_by: dict[int, int] = {}
        atexit.register(self._leave)

    def begin_exchange(self) -> None:
        """Count an exchange that this process has come to."""
        self._exchanges += 1

    def require_all(self) -> None:
        """Raise an error if a process has ended before the exchange that this one is in."""
        self._listen()
        for rank, made in self._made_by.items():
            if made < self._exchanges:
                raise DualnetError(
                    f"processes: process {rank} has ended, and process {self._communicator.rank} "
                    "waits for its part; what process "
                    f"{rank} said last tells why, or it was given other things to do"
                )

    def _listen(self) -> None:
        """Read what processes that have ended left."""
        while self._communicator.Iprobe():
            word = np.empty(2, np.int64)
            self._communicator.Recv(word)
            rank, made = word.tolist()
            self._made_by[rank] = made

    def _leave(self) -> None:
        """Leave word, and wait for that of all others, as MPI itself does at the end."""
        rank, size = self._communicator.rank, self._communicator.size
        word = np.array([rank, self._exchanges])
        sent = [self._communicator.Isend(word, other) for other in range(size) if other != rank]
        while len(self._made_by) < size - 1:
            self._listen()
            time.sleep(0.01)
        for request in sent:
            request.Wait()
