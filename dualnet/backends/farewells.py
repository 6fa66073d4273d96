"""Word that processes leave when they end, so that no other one waits for them for ever.

All processes make the same exchanges in the same order.  One that ends, by whatever error and in
whatever program, tells all others how many it has made.  Who waits in a later exchange would wait
for ever, and gets an error instead.

A program may catch the error of a run and begin another one.  So a process leaves word of an error,
too, and goes on only if all others have met one after as many exchanges.
"""

from __future__ import annotations

import atexit
import time
from typing import Any

import numpy as np

from dualnet.errors import DualnetError


class Farewells:
    """What this process knows of those that have ended, or met an error.

    Args:
        communicator: of `mpi4py`, with all processes.
    """

    def __init__(self, communicator: Any):
        self._communicator = communicator.Dup()  # so that no other message is taken for a farewell
        self._exchanges = 0
        self._has_failed = False
        self._ended: dict[int, int] = {}
        self._failed: dict[int, int] = {}
        self._sent: list[tuple[Any, np.ndarray]] = []
        atexit.register(self._leave)

    def begin_exchange(self) -> None:
        """Count an exchange that this process has come to."""
        self._exchanges += 1

    def require_all(self) -> None:
        """Raise an error if a process has ended or failed before the exchange that this one is
        in."""
        self._listen()
        for which, what in ((self._ended, "has ended"), (self._failed, "has met an error")):
            for rank, made in which.items():
                if made < self._exchanges:
                    raise DualnetError(
                        f"processes: process {rank} {what}, and process {self._communicator.rank} "
                        f"waits for its part; what process {rank} said last tells why, or it was "
                        "given other things to do"
                    )

    def fail(self) -> None:
        """Leave word that this process has met an error, once until they meet again."""
        if not self._has_failed:
            self._has_failed = True
            self._say(ended=False)

    def meet_again(self) -> None:
        """Do nothing, unless this process has met an error: then wait for the others' word.

        It comes before an exchange, which would be taken for one that another process is still in.

        Raises:
            DualnetError: not all have met an error after as many exchanges.
        """
        if not self._has_failed:
            return
        while len(self._failed | self._ended) < self._communicator.size - 1:
            self._listen()
            time.sleep(0.01)
        if self._ended or any(made != self._exchanges for made in self._failed.values()):
            raise DualnetError(
                f"processes: process {self._communicator.rank} has met an error that not all "
                "others have met, so they cannot go on together; start them again"
            )
        self._failed.clear()
        self._has_failed = False

    def _listen(self) -> None:
        """Read what processes that have ended or failed left."""
        while self._communicator.Iprobe():
            word = np.empty(3, np.int64)
            self._communicator.Recv(word)
            rank, made, ended = word.tolist()
            (self._ended if ended else self._failed)[rank] = made

    def _say(self, ended: bool) -> None:
        """Tell all others how many exchanges this process has made."""
        rank, size = self._communicator.rank, self._communicator.size
        word = np.array([rank, self._exchanges, ended], np.int64)
        others = [other for other in range(size) if other != rank]
        # MPI reads the word later, so it is kept.
        self._sent += [(self._communicator.Isend(word, other), word) for other in others]

    def _leave(self) -> None:
        """Leave word, and wait for that of all others, as MPI itself does at the end."""
        self._say(ended=True)
        while len(self._ended) < self._communicator.size - 1:
            self._listen()
            time.sleep(0.01)
        for request, _ in self._sent:
            request.Wait()
