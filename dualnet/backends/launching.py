"""How CUDA sources are compiled, their kernels launched, and put in the place of functions."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import cupy
import numpy as np

KERNELS: dict[str, Callable] = {}
"""Name of a overridable function → what CuPy arrays get in its place."""

_REAL = {"float32": "float", "float64": "double"}


def source(name: str) -> str:
    """The CUDA source `cuda/NAME.cu`."""
    return (files("dualnet.backends") / "cuda" / f"{name}.cu").read_text(encoding="utf-8")


class Module:
    """One source file, compiled when first used, once for each floating-point dtype.

    Args:
        name: of the file in `cuda`, without its suffix.
        threads: in a block; a power of 2.
    """

    def __init__(self, name: str, threads: int = 256):
        self.name = name
        self.threads = threads
        self._compiled: dict[str, Any] = {}

    def launch(self, kernel: str, dtype: Any, blocks: int, *arguments: Any) -> None:
        """Run a kernel, unless it has nothing to do.

        Args:
            kernel: its name in the source.
            dtype: float32 or float64, what REAL is.
            blocks: how many blocks of threads.
            arguments: CuPy arrays, contiguous, None for no array, and NumPy scalars of the very
                types it takes.
        """
        if not blocks:
            return
        real = _REAL[np.dtype(dtype).name]
        if real not in self._compiled:
            options = ("--std=c++17", f"-DREAL={real}", f"-DTHREADS={self.threads}")
            self._compiled[real] = cupy.RawModule(code=source(self.name), options=options)
        self._compiled[real].get_function(kernel)((blocks,), (self.threads,), arguments)

    def over(self, size: int, kernel: str, dtype: Any, *arguments: Any) -> None:
        """Run a kernel with one thread for each of `size` numbers."""
        self.launch(kernel, dtype, -(-size // self.threads), *arguments)


def serves(*arrays: Any) -> bool:
    """Whether these are CuPy arrays of one dtype that the sources are written for."""
    dtypes = {a.dtype for a in arrays}
    on_device = all(isinstance(a, cupy.ndarray) for a in arrays)
    return on_device and len(dtypes) == 1 and dtypes.pop().name in _REAL


def kernel_for(name: str) -> Callable:
    """Decorator: what to call in the place of the overridable function of that name."""

    def keep(function: Callable) -> Callable:
        KERNELS[name] = function
        return function

    return keep


def flat(*arrays: Any) -> list[Any]:
    """The arrays, contiguous."""
    return [cupy.ascontiguousarray(a) for a in arrays]
