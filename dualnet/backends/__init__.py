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

__all__ = ["NAMES", "PRODUCTS", "Backend", "NumpyBackend", "get"]

NAMES = ("numpy", "cupy", "auto")

PRODUCTS = ("full", "tf32", "bf16")
"""How the factors of large float32 matrix products may be rounded, on CuPy: not at all, to the 11
significant bits of TF32, or to the 8 of bfloat16.  Sums are in float32 always."""


def get(name: str, threads: int = 1, products: str = "full") -> Backend:
    """The backend called `name`.

    Args:
        name: `numpy`, `cupy` (a CUDA device), or `auto`: a CUDA device, or NumPy where there is
            none, which is said on standard error.
        threads: how many threads share the work of a step; more than one is for NumPy.
        products: one of `PRODUCTS`; other than `full` is for CuPy.

    Raises:
        BackendError: it cannot be used here, and why.
        UsageError: there is none of that name, or an argument is of no use to it.
    """
    if name not in NAMES:
        raise UsageError(f"backend: expected one of {', '.join(NAMES)}, got {name!r}")
    if products not in PRODUCTS:
        raise UsageError(f"products: expected one of {', '.join(PRODUCTS)}, got {products!r}")
    if name == "numpy":
        if products != "full":
            raise UsageError(f"--{products} is of no use to --backend numpy; it is for cupy")
        return NumpyBackend(threads)
    from dualnet.backends.cupy_backend import CupyBackend  # CuPy is imported only when asked for

    if name == "cupy":
        return CupyBackend(threads, products)
    try:
        return CupyBackend(products=products)
    except BackendError as error:
        print(f"backend auto: NumPy it is, as {error}", file=sys.stderr)
        return NumpyBackend(threads)
