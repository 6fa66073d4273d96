"""The protocol of a backend: the methods that every backend has."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from dualnet.random import Key
from dualnet.types import Array, Shape


class Backend(Protocol):
    """Decides where arrays live, how random numbers are drawn, and how work is spread.

    A key names one endless sequence of random numbers, and a draw returns its entries from `start`
    on.  So any part of a sequence can be drawn on its own: a chunk of tangents, a shard of a batch,
    a block on another thread.  One backend always gives the same sequence for a key.  Two backends
    give different sequences of the same distribution.

    Attributes:
        name: a name in `backends.NAMES`.
        threads: how many shards of a batch run at once.
        device: which of how many devices it is, in words, where that was chosen for one of several
            processes; else "".
        read_every: how many training steps are made before their losses are read.  Where a device
            computes while the host goes on, each reading makes the host wait.

    Examples:
        >>> backend: dn.backends.Backend = dn.backends.get("numpy")
        >>> key = dn.Key(0)
        >>> whole = backend.normal(key, (6,), np.float64)
        >>> part = backend.normal(key, (2,), np.float64, start=4)  # of the same sequence
        >>> bool((part == whole[4:]).all())
        True
    """

    name: str
    threads: int
    device: str
    read_every: int

    def asarray(self, x: Any, dtype: DTypeLike | None = None) -> Array:
        """Return the array on this backend; an array that is there already is not copied."""
        ...

    def to_host(self, x: Array) -> np.ndarray:
        """Return the array as a NumPy array."""
        ...

    def keep_on_device(self, x: Array) -> Array:
        """Return the array on this backend if there is room to keep it there, and x itself if not.

        Args:
            x: a NumPy array, or an object that has `nbytes` and gives an array for `x[:]`.
        """
        ...

    def prefetch(self, batches: Iterable[tuple]) -> Generator[tuple, None, None]:
        """Yield batches of arrays on this backend, each as a tuple.

        Where batches must be moved to a device, each is moved while the one before it is in use.
        Then one more batch is read than was given out, so an error in reading is raised one batch
        early.
        """
        ...

    def map(self, f: Callable, items: Iterable) -> list:
        """Return `[f(x) for x in items]`; several items may be worked on at once."""
        ...

    def side_by_side(self, f: Callable, items: Iterable) -> list:
        """Return `[f(x) for x in items]`; a device may work on all items at once.

        Args:
            f: starts work on arrays that no other item's work writes to.  It may be called while a
                function is recorded.
            items: what to call it with.
        """
        ...

    def recorded(self, function: Callable, record: bool = True, what: str = "step") -> Callable:
        """Return the fastest form of a pure function of arrays that is called again and again.

        Args:
            function: `function(carried, batch, key, numbers) -> (carried, results)`.  `carried`,
                `batch` and `results` are trees of arrays, and `numbers` are numbers by name.  The
                shapes of `carried` do not change from call to call.  The function may do arithmetic
                with the numbers and hand them to optimizers; it does nothing else with them.
            record: whether a device may record the function and repeat the recording.  If not, the
                device computes each call by the same kernels.
            what: what the function is, for messages.

        Returns:
            A function of the same arguments.  The arrays of `carried` that it returns keep their
            values until the call after the next; `results` are arrays of their own.
        """
        ...

    def normal(self, key: Key, shape: Shape, dtype: DTypeLike, start: int = 0) -> Array:
        """Draw independent standard normal numbers.

        Args:
            key: names the sequence.
            shape: the shape of the result.
            dtype: float32 or float64; the numbers are drawn in this precision.
            start: the index in the sequence of the first entry.
        """
        ...

    def signs(self, key: Key, shape: Shape, dtype: DTypeLike, start: int = 0) -> Array:
        """Draw independent random signs, +1 or -1; the arguments are those of `normal`."""
        ...

    def uniform(self, key: Key, shape: Shape, dtype: DTypeLike, start: int = 0) -> Array:
        """Draw independent numbers, uniform in [0, 1); the arguments are those of `normal`."""
        ...

    def synchronize(self) -> None:
        """Wait until all work that was started is done.  Timers need this."""
        ...

    def memory(self) -> dict[str, int]:
        """Return figures of the device's memory in bytes, by name; none without a device."""
        ...
