"""Compile CUDA sources, launch their kernels, and register kernels in the place of functions."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import cupy
import numpy as np
from numpy.typing import DTypeLike

from dualnet.types import Array

KERNELS: dict[str, Callable] = {}
"""Qualified name of an overridable function → the function that CuPy arrays get in its place."""

_REAL = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
"""Dtype → the C type for which REAL stands in the sources."""


def source(name: str) -> str:
    """Read the CUDA source `cuda/NAME.cu`."""
    return (files("dualnet.backends") / "cuda" / f"{name}.cu").read_text(encoding="utf-8")


class Module:
    """A source file, compiled when it is first used, once for each floating-point dtype.

    Args:
        name: the file's name in the folder `cuda`, without its suffix.
        threads: how many threads a block has; a power of 2.
        definitions: name of a constant that the source leaves open → its value.
    """

    def __init__(self, name: str, threads: int = 256, **definitions: int):
        self.name = name
        self.threads = threads
        self._definitions = definitions
        self._compiled: dict[str, Any] = {}

    def launch(self, kernel: str, dtype: DTypeLike, blocks: int, *arguments: Any) -> None:
        """Start a kernel; with 0 blocks, do nothing.

        Args:
            kernel: its name in the source.
            dtype: float32 or float64; the type for which REAL stands.
            blocks: how many blocks of threads to run.
            arguments: the kernel's arguments in order: contiguous CuPy arrays, None for a null
                pointer, and NumPy scalars of exactly the types that the kernel declares.
        """
        if not blocks:
            return
        real = _REAL[np.dtype(dtype)]
        if real not in self._compiled:
            constants = (f"-D{name}={value}" for name, value in self._definitions.items())
            options = ("--std=c++17", f"-DREAL={real}", f"-DTHREADS={self.threads}", *constants)
            self._compiled[real] = cupy.RawModule(code=source(self.name), options=options)
        self._compiled[real].get_function(kernel)((blocks,), (self.threads,), arguments)

    def over(self, size: int, kernel: str, dtype: DTypeLike, *arguments: Any) -> None:
        """Start a kernel with one thread for each of `size` numbers; see `launch`."""
        self.launch(kernel, dtype, -(-size // self.threads), *arguments)


def serves(*arrays: Array) -> bool:
    """Whether all of these are CuPy arrays of one dtype, float32 or float64."""
    dtypes = {a.dtype for a in arrays}
    on_device = all(isinstance(a, cupy.ndarray) for a in arrays)
    return on_device and len(dtypes) == 1 and dtypes.pop() in _REAL


def kernel_for(name: str) -> Callable:
    """Register a function to call in the place of the overridable function `name` (a decorator)."""

    def register(function: Callable) -> Callable:
        KERNELS[name] = function
        return function

    return register


def flat(*arrays: Array) -> list[Array]:
    """Return the arrays as contiguous ones, which the kernels can index flat."""
    return [cupy.ascontiguousarray(a) for a in arrays]
