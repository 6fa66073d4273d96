"""cuBLAS's products of matrices, called without CuPy.

CuPy's own calls refuse to run while a stream captures, which cuBLAS itself allows; a step recorded
as a CUDA graph could have no product.  The arguments are those of NVIDIA's documentation, the
library is the one that CuPy has loaded.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import cupy
import numpy as np

from dualnet.errors import BackendError

R_32F, R_64F, R_16BF = 0, 1, 14
"""Types of data."""
COMPUTE_32F, COMPUTE_32F_FAST_TF32, COMPUTE_64F = 68, 77, 70
"""What products are summed in, and how factors may be rounded before."""

_ALGORITHM = -1  # cuBLAS's choice
_WORKSPACE_BYTES = 32 << 20
"""As NVIDIA advises for Hopper.  With a workspace of its own cuBLAS takes no memory while a stream
captures."""

_INT, _LONG, _POINTER = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
_ARGUMENTS: dict[str, tuple] = {
    "cublasCreate_v2": (_POINTER,),
    "cublasSetStream_v2": (_POINTER, _POINTER),
    "cublasSetWorkspace_v2": (_POINTER, _POINTER, ctypes.c_size_t),
    "cublasGemmEx": (
        *(_POINTER, _INT, _INT, _INT, _INT, _INT, _POINTER),
        *(_POINTER, _INT, _INT, _POINTER, _INT, _INT, _POINTER),
        *(_POINTER, _INT, _INT, _INT, _INT),
    ),
    "cublasGemmStridedBatchedEx": (
        *(_POINTER, _INT, _INT, _INT, _INT, _INT, _POINTER),
        *(_POINTER, _INT, _INT, _LONG, _POINTER, _INT, _INT, _LONG, _POINTER),
        *(_POINTER, _INT, _INT, _LONG, _INT, _INT, _INT),
    ),
}


def gemm(*arguments: int) -> None:
    """`cublasGemmEx` on the current stream: all its arguments but the handle and the algorithm,
    pointers as integers."""
    _call("cublasGemmEx", _ready(), *arguments, _ALGORITHM)


def gemm_strided_batched(*arguments: int) -> None:
    """`cublasGemmStridedBatchedEx`; see `gemm`."""
    _call("cublasGemmStridedBatchedEx", _ready(), *arguments, _ALGORITHM)


class _Handle:
    """cuBLAS's memory of where it works, on one device."""

    def __init__(self) -> None:
        pointer = ctypes.c_void_p()
        _call("cublasCreate_v2", ctypes.byref(pointer))
        self.pointer = pointer
        self._workspace = cupy.empty((_WORKSPACE_BYTES,), np.uint8)
        self._stream: int | None = None

    def follow(self, stream: int) -> None:
        """Work on a stream from now on."""
        if stream != self._stream:
            self._stream = None  # until both are done
            _call("cublasSetStream_v2", self.pointer, stream)
            # to choose a stream is to lose the workspace
            _call("cublasSetWorkspace_v2", self.pointer, self._workspace.data.ptr, _WORKSPACE_BYTES)
            self._stream = stream


def _ready() -> Any:
    """A handle on the current device and stream."""
    handle = _handle(cupy.cuda.runtime.getDevice())
    handle.follow(cupy.cuda.get_current_stream().ptr)
    return handle.pointer


@functools.cache
def _handle(_device: int) -> _Handle:
    return _Handle()


@functools.cache
def _library() -> Any:
    cupy.cuda.get_cublas_handle()  # CuPy knows where the library is, and loads it
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    name = f"cublas64_{major}.dll" if sys.platform == "win32" else f"libcublas.so.{major}"
    try:
        library = ctypes.CDLL(name)
        for function, arguments in _ARGUMENTS.items():
            getattr(library, function).argtypes = arguments
    except (OSError, AttributeError) as error:
        raise BackendError(f"backend cupy: cuBLAS ({name}) cannot be used: {error}") from None
    return library


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_library(), name)(*arguments)
    if status:
        raise BackendError(f"backend cupy: {name} of cuBLAS failed with status {status}")
