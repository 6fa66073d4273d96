"""Array backends decide where arrays live, how random numbers are drawn, and how work is spread.

Differentiable code never asks for a backend.  It calls NumPy's functions, and these dispatch on the
arrays they get.  A backend is needed only where arrays are made.  Each backend is a class with the
methods of `Backend`; `get` makes one by its name.
"""

from __future__ import annotations

from dualnet.backends.numpy_backend import NumpyBackend
from dualnet.backends.protocol import Backend
from dualnet.console import say
from dualnet.errors import BackendError, UsageError
from dualnet.naming import assigned, named
from dualnet.options import require_choice

__all__ = ["MATMUL_PRECISIONS", "NAMES", "Backend", "NumpyBackend", "get"]

NAMES = ("numpy", "cupy", "auto")
"""The names that `get` knows; `auto` is one of the other two."""

MATMUL_PRECISIONS = ("full", "tf32", "bf16")
"""How the factors of large float32 matrix products may be rounded on CuPy: not at all, to the 11
significant bits of TF32, or to the 8 bits of bfloat16.  Sums are always in float32."""


def get(
    name: str, threads: int = 1, matmul_precision: str = "full", local_rank: int | None = None
) -> Backend:
    """Make the backend called `name`.

    Args:
        name: `numpy`, `cupy` (a CUDA device), or `auto`.  With `auto` a CUDA device is taken; where
            there is none, a message on standard error says so and NumPy is taken.
        threads: how many threads share the work of a step; more than one is for NumPy only.
        matmul_precision: one of `MATMUL_PRECISIONS`; those other than `full` are for CuPy only.
        local_rank: of several processes, the number of this one among those of its machine: it
            takes the CUDA device of this number, counted from the first one again where devices
            are fewer.  None for the device that is current.

    Raises:
        BackendError: the backend cannot be used here; the message says why.
        UsageError: there is no backend of this name, or an argument is of no use to it.

    Examples:
        >>> backend = dn.backends.get("numpy", threads=2)
        >>> backend.name, backend.threads
        ('numpy', 2)
        >>> dn.backends.get("numpy", matmul_precision="tf32")
        Traceback (most recent call last):
        dualnet.errors.UsageError: tf32 is of no use to backend='numpy'; it is for cupy
    """
    require_choice("", named("backend"), name, NAMES)
    require_choice("", "matmul_precision", matmul_precision, MATMUL_PRECISIONS)
    if name == "numpy":
        if matmul_precision != "full":
            raise UsageError(
                f"{named(matmul_precision)} is of no use to {assigned('backend', 'numpy')}; it "
                "is for cupy"
            )
        return NumpyBackend(threads)
    from dualnet.backends.cupy_backend import (
        CupyBackend,  # so that CuPy is imported only when it is used
    )

    if name == "cupy":
        return CupyBackend(threads, matmul_precision, local_rank)
    try:
        return CupyBackend(matmul_precision=matmul_precision, local_rank=local_rank)
    except BackendError as error:
        say(f"backend auto: NumPy it is, as {error}", aside=True)
        return NumpyBackend(threads)
