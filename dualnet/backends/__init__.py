"""Array backends: where arrays live, how random numbers are drawn, how work is spread.

Differentiable code never asks for a backend: it calls NumPy's functions, which dispatch on the
arrays they get.  A backend is needed only where arrays are made.  Each is a class with the
methods of `NumpyBackend`; `get` makes one by name.
"""

from __future__ import annotations

from dualnet.backends.numpy_backend import NumpyBackend
from dualnet.errors import BackendError, UsageError

NAMES = ("numpy", "cupy", "auto")

Backend = NumpyBackend
"""What a backend offers is written down once, in `NumpyBackend`."""


def get(name: str, threads: int = 1) -> Backend:
    """The backend called `name`.

    Args:
        name: `numpy`, `cupy` (a CUDA device), or `auto` (the best that works here).
        threads: how many threads share the work of a step.

    Raises:
        BackendError: it cannot be used here, and why.
    """
    if name not in NAMES:
        raise UsageError(f"backend: expected one of {', '.join(NAMES)}, got {name!r}")
    if name == "cupy":
        raise BackendError(
            "backend cupy: this version of dualnet has no CuPy backend yet; use --backend numpy"
        )
    return NumpyBackend(threads)
