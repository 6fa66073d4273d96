"""The CuPy backend: arrays on a CUDA device.

Models, layers and learning rules have the same source as on NumPy: their calls of NumPy's functions
reach CuPy by the dispatch protocols.  All code that is particular to the device is in this folder:
here, in the modules that this one imports, and in the CUDA sources of the folder `cuda`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dualnet.backends.overridable import exact_matmul, put_kernels
from dualnet.errors import BackendError, UsageError
from dualnet.naming import assigned, named
from dualnet.random import Key
from dualnet.types import Array, Shape

_KEPT_SHARE = 0.25
"""The share of the device's free memory that one array of a data set may take for a whole run."""


class CupyBackend:
    """Keeps arrays in the memory of a CUDA device.

    The host only starts work on the device, and goes on before the work is done.

    Random numbers depend on key and index alone (Philox).  Signs and uniform numbers are the same
    on every device, and normal numbers are the same up to rounding.  None of them are equal to
    those of the NumPy backend.

    Args:
        threads: must be 1, because the device spreads its work by itself.
        matmul_precision: how the factors of float32 matrix products may be rounded, so that
            products are faster: `full` (not at all), `tf32` (to 11 bits) or `bf16` (to 8 bits).
            `overridable.matmul` rounds so.  Products of two matrices by CuPy's own
            functions may round to 11 bits under `tf32` and under `bf16`.  The last backend that is
            made decides for the whole process.
        local_rank: see `backends.get`.

    Raises:
        BackendError: CuPy, a driver or a device is missing; the message says which.
        UsageError: more than one thread is asked for.
    """

    name = "cupy"
    read_every = 50

    def __init__(
        self, threads: int = 1, matmul_precision: str = "full", local_rank: int | None = None
    ):
        if threads != 1:
            raise UsageError(
                f"{named('threads')} is of no use to {assigned('backend', 'cupy')}, which takes a "
                f"batch in one piece; got {threads}"
            )
        self.threads = 1
        self._cupy = _import_cupy()
        self.device = _require_device(self._cupy, local_rank)
        _choose_precision(matmul_precision)
        from dualnet.backends import (  # here, because all of them import CuPy
            cublas,
            draws,
            graphs,
            host_copies,
            kernels,  # noqa: F401 (its import registers kernels)
            launching,
            lazy,
            norm_kernels,  # noqa: F401 (likewise)
            recorded_calls,
        )
        from dualnet.backends.convolutions import convolution_kernels
        from dualnet.backends.products import product_kernels

        self._graphs, self._draws, self._lazy = graphs, draws, lazy
        self._give_workspace = cublas.give_workspace
        own = launching.KERNELS | product_kernels(matmul_precision)
        own |= convolution_kernels(matmul_precision)
        put_kernels(self._cupy.ndarray, own)
        writing = {"multiply_onto"}
        on_lazy = {name: lazy.with_plain_arrays(k, name in writing) for name, k in own.items()}
        put_kernels(lazy.LazyArray, on_lazy)
        put_kernels(self._cupy.ndarray, {"call_recorded": recorded_calls.call})
        copies = (host_copies.to_host, host_copies.finish, host_copies.back_from_host)
        for kind in (self._cupy.ndarray, lazy.LazyArray):
            put_kernels(kind, {f.__name__: f for f in copies})
        _require_products(self._cupy)
        self._moving = self._cupy.cuda.Stream(non_blocking=True)
        self._lanes: list[Any] = []
        self._process = os.getpid()

    def asarray(self, x: Any, dtype: DTypeLike | None = None) -> Array:
        """Return the array on the device; one that is there already is not copied."""
        if isinstance(x, self._lazy.LazyArray):
            return x if dtype is None else x.astype(dtype, copy=False)
        self._require_own_process()
        array = self._cupy.asarray(x, dtype)
        return self._lazy.known(array) if self._lazy.is_running() else array

    def to_host(self, x: Array) -> np.ndarray:
        """Wait until the array is computed, and copy it to a NumPy array."""
        return self._cupy.asnumpy(x)

    def keep_on_device(self, x: Array) -> Array:
        """Return the array on the device if a quarter of the free memory is enough; else x."""
        free, _ = self._cupy.cuda.runtime.memGetInfo()
        return self.asarray(x[:]) if x.nbytes <= _KEPT_SHARE * free else x

    def prefetch(self, batches: Iterable[tuple]) -> Generator[tuple, None, None]:
        """Yield batches on the device; each is moved while the one before it is in use."""

        def start_copy(batch: tuple) -> tuple[tuple, Any]:
            """Return the batch on the device and the event that its copy is done, if any."""
            if all(isinstance(array, self._cupy.ndarray) for array in batch):
                return batch, None
            # the copy may get memory of an earlier batch, which work started before still reads
            self._moving.wait_event(self._cupy.cuda.get_current_stream().record())
            with self._moving:
                return tuple(map(self.asarray, batch)), self._moving.record()

        def wait_for_copy(batch: tuple, done: Any) -> tuple:
            """Return the batch; work that is started from now on waits until its copy is done."""
            if done is not None:
                self._cupy.cuda.get_current_stream().wait_event(done)
            return batch

        before = None
        for batch in batches:
            after = start_copy(batch)
            if before is not None:
                yield wait_for_copy(*before)
            before = after
        if before is not None:
            yield wait_for_copy(*before)

    def map(self, f: Callable, items: Iterable) -> list:
        """Return `[f(x) for x in items]`, one after the other."""
        return [f(x) for x in items]

    def side_by_side(self, f: Callable, items: Iterable) -> list:
        """Return `[f(x) for x in items]`, where each call starts its work on a stream of its own.

        These streams begin when the current stream has done what it was asked for until now, and
        the current stream waits for all of them.  So arrays may go in and come out, also while the
        current stream captures: a graph then has a branch for each item.  Results that are
        still to be computed entry by entry come out so, and then few kernels do so for all items.
        """
        self._lazy.compute_all()  # two items may need it
        here = self._cupy.cuda.get_current_stream()
        begin = here.record()
        results: list[Any] = []
        lanes: list[Any] = []

        def join() -> None:
            for lane in lanes:
                here.wait_event(lane.record())

        try:
            for x in items:
                lanes.append(self._lane(len(lanes)))
                lanes[-1].wait_event(begin)
                with lanes[-1], self._lazy.lane():
                    results.append(self._lazy.reduced(f(x)))
        except BaseException:
            with suppress(Exception):  # a capture that has failed cannot be joined
                join()
            raise
        join()
        return results

    def _lane(self, number: int) -> Any:
        """Return the stream of an item in `side_by_side`, made when it is first needed."""
        if number == len(self._lanes):
            self._lanes.append(self._cupy.cuda.Stream(non_blocking=True))
            self._give_workspace(self._lanes[number].ptr)
        return self._lanes[number]

    def normal(self, key: Key, shape: Shape, dtype: DTypeLike, start: int = 0) -> Array:
        """Draw independent standard normal numbers; see `Backend.normal`."""
        return self._draw("normal", key, shape, dtype, start)

    def signs(self, key: Key, shape: Shape, dtype: DTypeLike, start: int = 0) -> Array:
        """Draw random signs, +1 or -1, one from each random bit; see `Backend.signs`."""
        return self._draw("signs", key, shape, dtype, start)

    def uniform(self, key: Key, shape: Shape, dtype: DTypeLike, start: int = 0) -> Array:
        """Draw independent numbers, uniform in [0, 1); see `Backend.uniform`."""
        return self._draw("uniform", key, shape, dtype, start)

    def synchronize(self) -> None:
        """Wait until all work that was started is done."""
        self._cupy.cuda.get_current_stream().synchronize()

    def memory(self) -> dict[str, int]:
        """Return how many bytes CuPy's memory pools hold, and how many of them are in use now.

        Pools keep what they once took.  So without a recorded step, they hold the most bytes that
        were in use at once, plus what is wasted by dividing memory into blocks.
        """
        pools = [self._cupy.get_default_memory_pool(), *(f.pool for f in self._graphs.RECORDED)]
        return {
            "device_pool_bytes": sum(pool.total_bytes() for pool in pools),
            "device_used_bytes": sum(pool.used_bytes() for pool in pools),
        }

    def recorded(self, function: Callable, record: bool = True, what: str = "step") -> Callable:
        """Record the function as CUDA graphs once it ran often enough; see `graphs.Recorded`."""
        if record:
            return self._graphs.Recorded(function, what)
        return functools.partial(self._graphs.plain, function)

    def _draw(self, kind: str, key: Key, shape: Shape, dtype: DTypeLike, start: int) -> Array:
        """Draw into a new array by the kernel in `cuda/draws.cu`."""
        self._require_own_process()
        out = self._cupy.empty(shape, dtype)
        draw = self._draws.Draw(kind, key, out.shape, out.dtype, start)
        if self._lazy.is_running():
            return self._lazy.drawn(out, draw)
        self._draws.fill(out, draw)
        return out

    def _require_own_process(self) -> None:
        """Raise a BackendError in a process that was forked."""
        if self._process != os.getpid():
            raise BackendError(
                "backend cupy: CUDA does not survive a fork; start the process by "
                "multiprocessing.get_context('spawn') and make the backend there"
            )


def device_memory() -> tuple[int, int]:
    """Return how many bytes of the device's memory are free, and how many it has."""
    free, total = _import_cupy().cuda.runtime.memGetInfo()
    return free, total


def _import_cupy() -> ModuleType:
    """Import CuPy, or raise a BackendError that says how to install it."""
    try:
        import cupy
    except ImportError as error:
        raise BackendError(
            f"backend cupy: CuPy cannot be imported ({error}); {_fitting_extra()}; or use "
            f"{assigned('backend', 'numpy')}"
        ) from None
    return cupy


def _fitting_extra() -> str:
    """Say which extra to install for this machine's driver."""
    major = (driver_version() or 0) // 1000
    if major < 12:
        return (
            "install the extra cuda12 or cuda13, whichever fits the driver (none was found here), "
            "as in pip install 'dualnet[cuda12]'"
        )
    extra = f"cuda{min(major, 13)}"
    return f"pip install 'dualnet[{extra}]', as the driver here supports CUDA {major}"


def driver_version() -> int | None:
    """Return 1000 · major + 10 · minor of the newest CUDA that the driver supports.

    It is None where there is no driver.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        version = ctypes.c_int(0)
        failed = ctypes.CDLL(name).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed else version.value


def _require_device(cupy: ModuleType, local_rank: int | None) -> str:
    """Raise a BackendError unless the device can compute.

    It does on the device what every run does, so that what is missing shows now and not later.

    Args:
        cupy: the module.
        local_rank: chooses the device, before anything else takes memory on another one; None for
            the current one.

    Returns:
        Which device `local_rank` has chosen, in words; "" if there is none.
    """
    device = ""
    try:
        count = cupy.cuda.runtime.getDeviceCount()
        if not count:
            raise RuntimeError("no CUDA device")
        if local_rank is not None:
            device = f"CUDA device {local_rank % count} of {count}"
            cupy.cuda.Device(local_rank % count).use()
        square = cupy.ones((2, 2), np.float32)
        total = float((square @ square + square).sum())
    except Exception as error:  # of the driver, the device, or a library that CuPy loads
        found = driver_version()
        driver = "none was found" if found is None else f"for CUDA {found // 1000} at most"
        raise BackendError(
            f"backend cupy: CuPy {cupy.__version__} cannot use {device or 'a CUDA device'} here "
            f"({type(error).__name__}: {error}); it needs an NVIDIA driver ({driver}), a device "
            "and the CUDA libraries of the extra cuda12 or cuda13; or use "
            f"{assigned('backend', 'numpy')}"
        ) from error
    if total != 12.0:
        raise BackendError(f"backend cupy: the device computes {total} where 12 is right")
    return device


def _require_products(cupy: ModuleType) -> None:
    """Raise a BackendError unless cuBLAS can multiply matrices as training does."""
    square = cupy.ones((2, 2), np.float32)
    total = float(exact_matmul(square, square).sum())
    if total != 8.0:
        raise BackendError(f"backend cupy: cuBLAS computes {total} where 8 is right")


def _choose_precision(matmul_precision: str) -> None:
    """Set whether CuPy's own float32 products may round their factors, whatever CUPY_TF32 says.

    CuPy's products cannot round to bfloat16.  Where rounding to 8 bits is allowed, they round to
    the 11 bits of TF32.
    """
    from cupy._core import _routines_linalg as own

    kind = own.COMPUTE_TYPE_DEFAULT if matmul_precision == "full" else own.COMPUTE_TYPE_TF32
    own.set_compute_type(np.float32, kind)
