"""The CuPy backend: arrays on a CUDA device.

Models, layers and learning rules are the same source as on NumPy: their calls of NumPy's functions
reach CuPy by the dispatch protocols.  What is particular to the device is here, in `kernels`, and
in the CUDA sources of the folder `cuda`.
"""

from __future__ import annotations

import ctypes
import math
import sys
import weakref
from collections.abc import Callable, Generator, Iterable
from typing import Any

import numpy as np

from dualnet.backends.overridable import exact_product, put_kernels
from dualnet.errors import BackendError, UsageError
from dualnet.random import Key

_RESIDENT_SHARE = 0.25
"""Of the free memory of the device, what one array of the data set may take for good."""

_DRAWS_PER_THREAD = 4


class CupyBackend:
    """Arrays in the memory of a CUDA device; the host only says what to do, and runs ahead.

    Random numbers are a function of key and index alone (Philox).  Signs and uniform numbers are
    the same on every device; normal ones to the rounding of its log and sine.  They are others
    than NumPy's.

    Args:
        threads: must be 1: the device spreads its work by itself.
        matmul_precision: how the factors of float32 matrix products may be rounded, so that
            they are faster: `full` (not at all), `tf32` (to 11 bits) or `bf16` (to 8).  Of products that
            are not `overridable.matrix_product` but CuPy's own, those of two matrices may round to
            11 bits under both.  The choice is one for the whole process: the last.

    Raises:
        BackendError: CuPy, a driver or a device is missing; says which.
        UsageError: more than one thread.
    """

    name = "cupy"
    read_every = 50

    def __init__(self, threads: int = 1, matmul_precision: str = "full"):
        if threads != 1:
            raise UsageError(
                f"--threads is of no use to --backend cupy, which takes a batch in one piece; got "
                f"{threads}"
            )
        self.threads = 1
        self._cupy = _imported()
        _require_device(self._cupy)
        _choose_precision(matmul_precision)
        from dualnet.backends import (  # all of which need CuPy
            graphs,
            kernels,  # noqa: F401, which fills KERNELS
            launching,
            optimizer_kernels,  # noqa: F401, too
            placeholders,
        )
        from dualnet.backends.products import product_kernels

        self._repeated, self._key_words = graphs.Repeated, placeholders.key_words
        self._draws = launching.Module("draws")
        self._recorded: weakref.WeakSet[Any] = weakref.WeakSet()
        put_kernels(self._cupy.ndarray, launching.KERNELS | product_kernels(matmul_precision))
        _require_products(self._cupy)
        self._moving = self._cupy.cuda.Stream(non_blocking=True)

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        """The array on the device."""
        return self._cupy.asarray(x, dtype)

    def to_host(self, x: Any) -> np.ndarray:
        """The array as a NumPy array; waits for it."""
        return self._cupy.asnumpy(x)

    def keep_on_device(self, x: Any) -> Any:
        """The array on the device if it leaves most of the free memory to others, else x."""
        free, _ = self._cupy.cuda.runtime.memGetInfo()
        return self.asarray(x[:]) if x.nbytes <= _RESIDENT_SHARE * free else x

    def prefetch(self, batches: Iterable[tuple]) -> Generator[tuple, None, None]:
        """Batches of arrays on the device, each moved while the one before it is in use."""

        def moved(batch: tuple) -> tuple[tuple, Any]:
            if all(isinstance(array, self._cupy.ndarray) for array in batch):
                return batch, None
            # the memory may be that of a batch which what was asked for so far still reads
            self._moving.wait_event(self._cupy.cuda.get_current_stream().record())
            with self._moving:
                return tuple(map(self.asarray, batch)), self._moving.record()

        def there(batch: tuple, done: Any) -> tuple:
            if done is not None:
                self._cupy.cuda.get_current_stream().wait_event(done)
            return batch

        before = None
        for batch in batches:
            after = moved(batch)
            if before is not None:
                yield there(*before)
            before = after
        if before is not None:
            yield there(*before)

    def map(self, f: Callable, items: Iterable) -> list:
        """`[f(x) for x in items]`."""
        return [f(x) for x in items]

    def normal(self, key: Key, shape: tuple[int, ...], dtype: Any, start: int = 0) -> Any:
        """Standard normal numbers; see `Backend.normal`."""
        return self._drawn("normal", key, shape, dtype, start)

    def signs(self, key: Key, shape: tuple[int, ...], dtype: Any, start: int = 0) -> Any:
        """Independent random signs, one from each random bit; see `Backend.signs`."""
        return self._drawn("signs", key, shape, dtype, start)

    def uniform(self, key: Key, shape: tuple[int, ...], dtype: Any, start: int = 0) -> Any:
        """Independent numbers, uniform in [0, 1); see `Backend.uniform`."""
        return self._drawn("uniform", key, shape, dtype, start)

    def synchronize(self) -> None:
        """Wait until everything asked for is done."""
        self._cupy.cuda.get_current_stream().synchronize()

    def memory(self) -> dict[str, int]:
        """Bytes that CuPy's memory pools hold, and those of them in use now.  Without a recorded
        step they hold the most that were in use at once, and what their blocks waste."""
        pools = [self._cupy.get_default_memory_pool(), *(f.pool for f in self._recorded)]
        return {
            "device_pool_bytes": sum(pool.total_bytes() for pool in pools),
            "device_used_bytes": sum(pool.used_bytes() for pool in pools),
        }

    def recorded(self, function: Callable) -> Callable:
        """The function, recorded as a CUDA graph when it has run often enough; see `Repeated`."""
        repeated = self._repeated(function)
        self._recorded.add(repeated)
        return repeated

    def _drawn(self, kind: str, key: Key, shape: tuple[int, ...], dtype: Any, start: int) -> Any:
        out = self._cupy.empty(shape, dtype)
        size = math.prod(shape)
        if size:
            quads = -(-(start + size) // _DRAWS_PER_THREAD) - start // _DRAWS_PER_THREAD
            words, later = self._key_words(key)
            numbers = (np.uint64(n) for n in (size, start, *words))
            self._draws.over(quads, kind, out.dtype, out, *numbers, later)
        return out


def _imported() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise BackendError(
            f"backend cupy: CuPy cannot be imported ({error}); {_fitting_extra()}; or use "
            "--backend numpy"
        ) from None
    return cupy


def _fitting_extra() -> str:
    """Which extra to install for the driver that is here."""
    major = (driver_version() or 0) // 1000
    if major < 12:
        return (
            "install the extra cuda12 or cuda13, whichever fits the driver (none was found here), "
            "as in pip install 'dualnet[cuda12]'"
        )
    extra = f"cuda{min(major, 13)}"
    return f"pip install 'dualnet[{extra}]', as the driver here supports CUDA {major}"


def driver_version() -> int | None:
    """1000 · major + 10 · minor of the newest CUDA that the driver supports; None without one."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        version = ctypes.c_int(0)
        failed = ctypes.CDLL(name).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed else version.value


def _require_device(cupy: Any) -> None:
    """Do on the device what every run does, so that whatever is missing is missed now."""
    try:
        count = cupy.cuda.runtime.getDeviceCount()
        if not count:
            raise RuntimeError("no CUDA device")
        square = cupy.ones((2, 2), np.float32)
        total = float((square @ square + square).sum())
    except Exception as error:  # the driver, a library that CuPy loads when first used, the device
        found = driver_version()
        driver = "none was found" if found is None else f"for CUDA {found // 1000} at most"
        raise BackendError(
            f"backend cupy: CuPy {cupy.__version__} cannot use a CUDA device here "
            f"({type(error).__name__}: {error}); it needs an NVIDIA driver ({driver}), a device "
            "and the CUDA libraries of the extra cuda12 or cuda13; or use --backend numpy"
        ) from error
    if total != 12.0:
        raise BackendError(f"backend cupy: the device computes {total} where 12 is right")


def _require_products(cupy: Any) -> None:
    """Multiply as training does: a cuBLAS that cannot is found out now."""
    square = cupy.ones((2, 2), np.float32)
    total = float(exact_product(square, square).sum())
    if total != 8.0:
        raise BackendError(f"backend cupy: cuBLAS computes {total} where 8 is right")


def _choose_precision(matmul_precision: str) -> None:
    """Whether CuPy's own float32 products may round their factors; CUPY_TF32 does not decide it.

    They know no bfloat16: who lets factors be rounded to 8 bits gets theirs rounded to 11.
    """
    from cupy._core import _routines_linalg as own

    kind = own.COMPUTE_TYPE_DEFAULT if matmul_precision == "full" else own.COMPUTE_TYPE_TF32
    own.set_compute_type(np.float32, kind)
