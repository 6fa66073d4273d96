"""How many threads the matrix products of NumPy use: one, where they are small.

OpenBLAS lets all cores share a product from a quarter of a million multiplications on, and its
threads wait for one another without sleeping.  On a quiet machine each core that joins saves at
most the time of the product on one core.  Beside other busy processes a thread that waits for a
core holds up all others: a product of a million multiplications then took 125 ms on two threads
and 0.5 ms on one, one of 256 million 530 and 100 ms.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

try:
    from threadpoolctl import ThreadpoolController
except ImportError:  # it comes with the extra `threads`
    ThreadpoolController = None

SMALL = 1 << 23
"""Up to so many multiplications, a product takes less than half a millisecond on one core."""

_VARIABLES = ("OPENBLAS", "GOTO", "OMP", "MKL", "BLIS")
CHOSEN = any(f"{library}_NUM_THREADS" in os.environ for library in _VARIABLES)
"""Whether the user has said how many threads there are to be."""


def threads_for(multiplications: int) -> AbstractContextManager:
    """Return a context in which BLAS has one thread if its largest product is small.

    A number of threads that the user chose, by OPENBLAS_NUM_THREADS or its like, stays.

    Args:
        multiplications: of the largest product.
    """
    return nullcontext() if CHOSEN or multiplications > SMALL else one_thread()


class one_thread:
    """A context in which BLAS is held to one thread.

    It works with the OpenBLAS that NumPy's packages on PyPI contain, and with other libraries if
    threadpoolctl is installed.
    """

    def __enter__(self) -> None:
        self._before = []
        for threads_now, use in _libraries():
            self._before.append((use, threads_now()))
            use(1)

    def __exit__(self, *_: object) -> None:
        for use, count in self._before:
            use(count)


def threads_now() -> int | None:
    """Return how many threads BLAS has; None where nothing tells it."""
    counts = [count() for count, _ in _libraries()]
    return max(counts, default=None)


@functools.cache
def _libraries() -> list[tuple[Callable[[], int], Callable[[int], Any]]]:
    """List for each BLAS library in use how to ask for its number of threads, and how to set it."""
    numpy = Path(np.__file__).parent
    for folder in (numpy.with_name("numpy.libs"), numpy / ".dylibs"):
        for path in folder.glob("libscipy_openblas64_*"):
            of_numpy = ctypes.CDLL(str(path))  # the one that NumPy has loaded
            names = (f"scipy_openblas_{verb}_num_threads64_" for verb in ("get", "set"))
            get, use = (getattr(of_numpy, name, None) for name in names)
            if get and use:
                return [(get, use)]
    if ThreadpoolController is None:
        return []
    found = ThreadpoolController().lib_controllers
    return [(c.get_num_threads, c.set_num_threads) for c in found if c.user_api == "blas"]
