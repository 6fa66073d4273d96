"""A stand-in for the library cuBLAS: products read from and written to addresses.

As BLAS has it, matrices are stored column after column, with `ld` entries from one column to the
next.  What cuBLAS refuses or leaves undefined is an AssertionError here.  `calls` keeps the names
of the functions called.  `tests/cupy_backend/test_fake_cupy.py` holds the constants against CuPy's.
"""

import ctypes

import numpy as np

CUBLAS_OP_N, CUBLAS_OP_T = 0, 1
CUBLAS_COMPUTE_32F = 68
CUBLAS_COMPUTE_64F = 70
CUBLAS_COMPUTE_32F_FAST_TF32 = 77
CUBLAS_GEMM_DEFAULT = -1
CUDA_R_32F, CUDA_R_64F, CUDA_R_16BF = 0, 1, 14  # of `cupy.cuda.runtime`

HANDLE = 4711
calls = []
chosen = {"stream": 0, "workspace": None}


def cublasCreate_v2(pointer):
    pointer._obj.value = HANDLE


def cublasSetStream_v2(handle, stream):
    assert handle.value == HANDLE
    chosen.update(stream=stream, workspace=None)


def cublasSetWorkspace_v2(handle, workspace, size):
    assert handle.value == HANDLE and workspace and size >= 1 << 22
    chosen.update(workspace=getattr(workspace, "value", workspace))


_STORED = {CUDA_R_32F: np.float32, CUDA_R_64F: np.float64, CUDA_R_16BF: np.uint16}
_COMBINATIONS = {  # types of factors and result, and how it may be computed
    (CUDA_R_32F, CUDA_R_32F): {CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32},
    (CUDA_R_16BF, CUDA_R_32F): {CUBLAS_COMPUTE_32F},
    (CUDA_R_64F, CUDA_R_64F): {CUBLAS_COMPUTE_64F},
}
_LARGEST_INT = 2**31 - 1


def cublasGemmEx(
    handle, transa, transb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype, ldc,
    computeType, algo,
):  # fmt: skip
    calls.append("gemmEx")
    sizes, coefficients = (m, n, k), (alpha, beta)
    a, b, c = (A, Atype, lda, 0), (B, Btype, ldb, 0), (C, Ctype, ldc, 0)
    _multiply(handle, transa, transb, sizes, coefficients, a, b, c, 1, computeType, algo)


def cublasGemmStridedBatchedEx(
    handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb, strideB, beta,
    C, Ctype, ldc, strideC, batchCount, computeType, algo,
):  # fmt: skip
    calls.append("gemmStridedBatchedEx")
    sizes, coefficients = (m, n, k), (alpha, beta)
    a, b, c = (A, Atype, lda, strideA), (B, Btype, ldb, strideB), (C, Ctype, ldc, strideC)
    _multiply(handle, transa, transb, sizes, coefficients, a, b, c, batchCount, computeType, algo)


def _multiply(handle, transa, transb, sizes, coefficients, a, b, c, count, compute, algo):
    assert getattr(handle, "value", handle) == HANDLE and algo == CUBLAS_GEMM_DEFAULT
    assert {transa, transb} <= {CUBLAS_OP_N, CUBLAS_OP_T}
    assert a[1] == b[1] and compute in _COMBINATIONS.get((a[1], c[1]), ())
    m, n, k = sizes
    for number in (m, n, k, count, a[2], b[2], c[2]):
        assert type(number) is int and 0 <= number <= _LARGEST_INT
    stored_a = _stored(*a, *((k, m) if transa else (m, k)), count)
    stored_b = _stored(*b, *((n, k) if transb else (k, n)), count)
    result = _stored(*c, m, n, count)
    assert _is_apart(result), "results overlap one another"
    for factor in (stored_a, stored_b):
        assert not np.shares_memory(result, factor), "a result overlaps a factor"
    left = _values(stored_a, a[1], compute)
    right = _values(stored_b, b[1], compute)
    left = np.swapaxes(left, 1, 2) if transa else left
    right = np.swapaxes(right, 1, 2) if transb else right
    kind = ctypes.c_double if compute == CUBLAS_COMPUTE_64F else ctypes.c_float
    alpha, beta = (kind.from_address(pointer).value for pointer in coefficients)
    product = alpha * np.matmul(left, right)
    result[...] = product + beta * result if beta else product  # where beta is 0, C is not read


def _stored(pointer, kind, ld, step, rows, columns, count):
    """A view `(count, rows, columns)` of memory."""
    dtype = np.dtype(_STORED[kind])
    assert ld >= max(1, rows), "leading dimension too small"
    assert step >= 0 and pointer and pointer % dtype.itemsize == 0
    if not (count and rows and columns):
        return np.empty((count, rows, columns), dtype)
    entries = (count - 1) * step + (columns - 1) * ld + rows
    buffer = (ctypes.c_char * (entries * dtype.itemsize)).from_address(pointer)
    strides = tuple(dtype.itemsize * n for n in (step, 1, ld))
    flat = np.frombuffer(buffer, dtype)
    return np.lib.stride_tricks.as_strided(flat, (count, rows, columns), strides)


def _is_apart(matrices):
    """Whether each entry has an address of its own."""
    axes = sorted(zip(matrices.strides, matrices.shape, strict=True))
    reach, nested = 0, True
    for step, n in axes:
        nested &= n == 1 or step > reach
        reach += (n - 1) * step
    if nested:
        return True
    at = np.zeros(matrices.shape, np.int64)
    for axis, (n, step) in enumerate(zip(matrices.shape, matrices.strides, strict=True)):
        at += (np.arange(n) * step).reshape(-1, *(1,) * (2 - axis))
    return len(np.unique(at)) == at.size


def _values(stored, kind, compute):
    """The numbers that are multiplied."""
    if kind == CUDA_R_16BF:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if compute != CUBLAS_COMPUTE_32F_FAST_TF32:
        return stored
    return tf32(stored)


def tf32(x):
    """float32 numbers rounded to 11 significant bits, ties to even."""
    bits = x.copy().view(np.uint32)
    rounded = (bits + np.uint32(0xFFF) + (bits >> 13 & 1)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), rounded.view(np.float32), x)
