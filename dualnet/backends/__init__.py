"""Array backends: where arrays live, how random numbers are drawn, how work is spread.

Differentiable code never asks for a backend: it calls NumPy's functions, which dispatch on the
arrays they get.  A backend is needed only where arrays are made.  Each is a class with the
methods of `Backend`; `get` makes one by name.
"""

from __future__ import annotations

import sys

from dualnet.backends.numpy_backend import NumpyBackend
from dualnet.backends.protocol import Backend
from dualnet.errors import BackendError, UsageError

__all__ = ["NAMES", "Backend", "NumpyBackend", "get"]

NAMES = ("numpy", "cupy", "auto")


def get(name: str, threads: int = 1, tf32: bool = False) -> Backend:
    """The backend called `name`.

    Args:
        name: `numpy`, `cupy` (a CUDA device), or `auto`: a CUDA device, or NumPy where there is
            none, which is said on standard error.
        threads: how many threads share the work of a step; more than one is for NumPy.
        tf32: float32 matrix products of lower precision; for CuPy.

    Raises:
        BackendError: it cannot be used here, and why.
        UsageError: there is none of that name, or an argument is of no use to it.
    """
    if name not in NAMES:
        raise UsageError(f"backend: expected one of {', '.join(NAMES)}, got {name!r}")
    if name == "numpy":
        if tf32:
            raise UsageError("--tf32 is of no use to --backend numpy; it is for cupy")
        return NumpyBackend(threads)
    from dualnet.backends.cupy_backend import CupyBackend  # CuPy is imported only when asked for

    if name == "cupy":
        return CupyBackend(threads, tf32)
    try:
        return CupyBackend(tf32=tf32)
    except BackendError as error:
        print(f"backend auto: NumPy it is, as {error}", file=sys.stderr)
        return NumpyBackend(threads)
