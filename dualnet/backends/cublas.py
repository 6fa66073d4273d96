"""Call the matrix products of cuBLAS directly, without CuPy.

CuPy's own calls refuse to run while a stream captures, although cuBLAS allows it.  With them, a
step that is recorded as a CUDA graph could have no product.  The arguments are those of NVIDIA's
documentation, and the library is the one that CuPy has loaded.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import cupy
import numpy as np

from dualnet.errors import BackendError
from dualnet.types import Array

R_32F, R_64F, R_16BF = 0, 1, 14
"""cuBLAS's numbers for types of data: float32, float64, bfloat16."""
COMPUTE_32F, COMPUTE_32F_FAST_TF32, COMPUTE_64F = 68, 77, 70
"""cuBLAS's numbers for the type in which products are summed, and for the rounding before."""

_ALGORITHM = -1  # let cuBLAS choose
_WORKSPACE_BYTES = 32 << 20
"""The size that NVIDIA advises for Hopper.  With a workspace of its own, cuBLAS allocates no memory
while a stream captures."""

_INT, _LONG, _POINTER = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
_ARGUMENTS: dict[str, tuple] = {  # of cuBLAS's functions, as types of ctypes
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
    """Call `cublasGemmEx` on the current stream.

    Args:
        arguments: all its arguments but the handle and the algorithm; pointers are integers.

    Raises:
        BackendError: cuBLAS refuses.
    """
    _call("cublasGemmEx", _ready(), *arguments, _ALGORITHM)


def gemm_strided_batched(*arguments: int) -> None:
    """Call `cublasGemmStridedBatchedEx` on the current stream; see `gemm`."""
    _call("cublasGemmStridedBatchedEx", _ready(), *arguments, _ALGORITHM)


def give_workspace(stream: int) -> None:
    """Give a stream a workspace of its own, for products beside those on other streams.

    All other streams share one workspace, so products on two of them must not overlap.

    Args:
        stream: the pointer to a stream that lives as long as the process.
    """
    _handle(cupy.cuda.runtime.getDevice()).give_workspace(stream)


class _Handle:
    """A handle of cuBLAS on one device, with its workspace and its stream."""

    def __init__(self) -> None:
        pointer = ctypes.c_void_p()
        _call("cublasCreate_v2", ctypes.byref(pointer))
        self.pointer = pointer
        self._workspace = cupy.empty((_WORKSPACE_BYTES,), np.uint8)
        self._own_workspaces: dict[int, Array] = {}
        self._stream: int | None = None

    def give_workspace(self, stream: int) -> None:
        """Keep a workspace for this stream alone."""
        self._stream = None  # a stream that has gone may have had the same pointer
        self._own_workspaces[stream] = cupy.empty((_WORKSPACE_BYTES,), np.uint8)

    def follow(self, stream: int) -> None:
        """Let cuBLAS work on this stream from now on."""
        if stream != self._stream:
            self._stream = None  # unknown until both calls have succeeded
            _call("cublasSetStream_v2", self.pointer, stream)
            # choosing a stream takes the workspace away, so it is given again
            workspace = self._own_workspaces.get(stream, self._workspace)
            _call("cublasSetWorkspace_v2", self.pointer, workspace.data.ptr, _WORKSPACE_BYTES)
            self._stream = stream


def _ready() -> Any:
    """Return the pointer of the current device's handle, set to the current stream."""
    handle = _handle(cupy.cuda.runtime.getDevice())
    handle.follow(cupy.cuda.get_current_stream().ptr)
    return handle.pointer


@functools.cache
def _handle(_device: int) -> _Handle:
    """Return the handle of a device, made at the first call."""
    return _Handle()


@functools.cache
def _library() -> ctypes.CDLL:
    """Load the cuBLAS library that CuPy uses, and declare the arguments of its functions."""
    cupy.cuda.get_cublas_handle()  # makes CuPy, which knows where the library is, load it
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
    """Call a function of cuBLAS and raise a BackendError unless it succeeds."""
    status = getattr(_library(), name)(*arguments)
    if status:
        raise BackendError(f"backend cupy: {name} of cuBLAS failed with status {status}")
