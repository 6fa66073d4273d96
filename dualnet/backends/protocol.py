"""What a backend offers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol

import numpy as np

from dualnet.random import Key


class Backend(Protocol):
    """Where arrays live, how random numbers are drawn, how work is spread.

    Random numbers: a key names one endless sequence, and a draw returns its entries from `start`
    on.  So any part can be drawn on its own: a chunk of tangents, a shard of a batch, a block on
    another thread.  On one backend the sequence is always the same; across backends it is not,
    but has the same distribution.

    Attributes:
        name: as in `backends.NAMES`.
        threads: how many shards of a batch run at once.
        read_every: after how many training steps their losses are looked at.  Where the device
            works ahead of the host, every look makes the host wait.
    """

    name: str
    threads: int
    read_every: int

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        """The array on this backend."""
        ...

    def to_host(self, x: Any) -> np.ndarray:
        """The array as a NumPy array."""
        ...

    def keep_on_device(self, x: Any) -> Any:
        """The array on this backend if there is room to keep it there; else x itself.

        Args:
            x: a NumPy array, or what has `nbytes` and gives one for `x[:]`.
        """
        ...

    def prefetch(self, batches: Iterable[tuple]) -> Generator[tuple, None, None]:
        """Batches of arrays on this backend.

        Where they must be moved, each is while the one before it is in use; so one more is read
        than was given out, and what reading raises comes early.
        """
        ...

    def map(self, f: Callable, items: Iterable) -> list:
        """`[f(x) for x in items]`."""
        ...

    def recorded(self, function: Callable) -> Callable:
        """A pure function of arrays that is called again and again, in the quickest form.

        Args:
            function: `function(carried, batch, key, numbers) -> (carried, results)`: trees of
                arrays, a key and numbers by name.  What it carries from call to call keeps its
                shapes; of the numbers it makes multiples alone, for optimizers.

        Returns:
            A function of the same arguments.  The arrays of `carried` that it returns stay as
            they are until the call after the next.
        """
        ...

    def normal(self, key: Key, shape: tuple[int, ...], dtype: Any, start: int = 0) -> Any:
        """Standard normal numbers.

        Args:
            key: names the sequence.
            shape: of the result.
            dtype: float32 or float64; drawn in that precision.
            start: index of the first entry.
        """
        ...

    def signs(self, key: Key, shape: tuple[int, ...], dtype: Any, start: int = 0) -> Any:
        """Independent random signs, +1 or -1; arguments as `normal`."""
        ...

    def uniform(self, key: Key, shape: tuple[int, ...], dtype: Any, start: int = 0) -> Any:
        """Independent numbers, uniform in [0, 1); arguments as `normal`."""
        ...

    def synchronize(self) -> None:
        """Wait until everything asked for is done; timers need it."""
        ...

    def memory(self) -> dict[str, int]:
        """Figures of the device's memory in bytes, by name; empty where the host's is all."""
        ...
