"""A stand-in for CuPy 14 without a device: as strict about host and device, and it counts.

Its arrays are those of `fake_arrays`; its streams, graphs and memory those of `fake_cuda`, which
also counts and records.  Kernels are compiled for the host (`cuda_on_cpu`), and the library that
multiplies has a stand-in of its own (`fake_cublas`).
`tests/cupy_backend/test_fake_cupy.py` holds them against CuPy where that is installed.
"""

import contextlib
import importlib
import sys
import types

import fake_cublas
import fake_cuda
import numpy as np
from cuda_on_cpu import program
from fake_arrays import done, done_in_place, inside, ndarray


def is_stand_in(backend):
    """Whether it computes here, and not on a device."""
    return type(backend.asarray(0)) is ndarray


def asarray(x, dtype=None):
    if isinstance(x, ndarray):
        return x if dtype is None or x.dtype == dtype else x.astype(dtype)
    fake_cuda.count("to_device")
    fake_cuda.use_memory()
    fake_cuda.streams.current[-1].moved += 1
    return ndarray(np.array(x, dtype))


def asnumpy(x):
    return x.get() if isinstance(x, ndarray) else np.asarray(x)


class RawModule:
    """Kernels on the host's processor."""

    def __init__(self, *, code, options=()):
        self._program = program(code, tuple(options))

    def get_function(self, name):
        def run(grid, block, arguments):
            assert len(grid) == len(block) == 1
            held = [inside(a) for a in arguments]
            done_in_place(lambda: self._program.launch(name, grid[0], block[0], held))

        return run


def _on_arrays(function):
    def on_arrays(*args, **kwargs):
        fake_cuda.use_memory()
        return done(
            lambda: function(*map(inside, args), **{k: inside(v) for k, v in kwargs.items()})
        )

    return on_arrays


def _copyto(there, here):
    assert there.dtype == here.dtype and there.shape == here.shape
    done_in_place(lambda: np.copyto(inside(there), inside(here)))


def _empty(shape, dtype):
    """What is not set by a kernel must not be right by chance."""
    fake_cuda.use_memory()
    array = done(lambda: np.full(shape, 99, dtype))
    if fake_cuda.recorder.tape is not None:  # no kernel sets it now, and it may become an index
        inside(array)[...] = 0
    return array


def modules():
    """What `sys.modules` holds where CuPy is installed, as far as dualnet looks."""
    cupy = types.ModuleType("cupy")
    cupy.__path__ = []
    cupy.__version__ = "14.fake"
    cupy.ndarray, cupy.RawModule, cupy.asarray, cupy.asnumpy = ndarray, RawModule, asarray, asnumpy
    cupy.empty = _empty
    cupy.empty_like = lambda x: cupy.empty(x.shape, x.dtype)
    cupy.copyto = _copyto
    for name in ("zeros", "ones", "ascontiguousarray", "where", "broadcast_to"):
        setattr(cupy, name, _on_arrays(getattr(np, name)))
    cupy.may_share_memory = lambda a, b: np.may_share_memory(inside(a), inside(b))
    cupy.linalg = types.SimpleNamespace(eigh=np.linalg.eigh)  # which asks the array
    tricks = types.SimpleNamespace(as_strided=_on_arrays(np.lib.stride_tricks.as_strided))
    cupy.lib = types.SimpleNamespace(stride_tricks=tricks)
    runtime = types.SimpleNamespace(
        memGetInfo=lambda: fake_cuda.use_memory() or (1 << 30, 1 << 31),
        getDevice=lambda: fake_cuda.devices.current,
        getDeviceCount=lambda: fake_cuda.devices.count,
        CUDARuntimeError=fake_cuda.CUDARuntimeError,
    )
    cupy.cuda = types.SimpleNamespace(
        runtime=runtime,
        get_current_stream=lambda: fake_cuda.streams.current[-1],
        get_cublas_handle=lambda: fake_cublas.HANDLE,
        Device=fake_cuda.Device,
        Stream=fake_cuda.Stream,
        MemoryPool=fake_cuda.MemoryPool,
        Memory=lambda size: size,
        MemoryPointer=lambda memory, offset: (memory, offset),
        using_allocator=fake_cuda.using_allocator,
        memory=types.SimpleNamespace(OutOfMemoryError=fake_cuda.OutOfMemoryError),
    )
    cupy.get_default_memory_pool = lambda: fake_cuda.DEFAULT_POOL
    core = types.ModuleType("cupy._core")
    products = types.ModuleType("cupy._core._routines_linalg")
    products.COMPUTE_TYPE_DEFAULT, products.COMPUTE_TYPE_TF32 = "default", "tf32"
    products.chosen = []
    products.set_compute_type = lambda dtype, kind: products.chosen.append((dtype, kind))
    core._routines_linalg = products
    return {"cupy": cupy, "cupy._core": core, "cupy._core._routines_linalg": products}


def _cublas():
    """The library, called on the stream that it was told of; recorded if that captures."""

    def on_stream(function):
        def call(*arguments):
            assert fake_cublas.chosen["stream"] == fake_cuda.streams.current[-1].ptr
            assert fake_cublas.chosen["workspace"]
            done_in_place(lambda: function(*arguments))

        return call

    names = ("cublasGemmEx", "cublasGemmStridedBatchedEx")
    products = {name: on_stream(getattr(fake_cublas, name)) for name in names}
    return types.SimpleNamespace(**{**vars(fake_cublas), **products})


_OURS = tuple(
    f"dualnet.backends.{name}"
    for name in (
        *("blocks", "computing", "convolutions", "cublas", "cupy_backend", "draws", "fused"),
        *("fused_text", "graphs", "host_copies", "kernels", "launching", "lazy", "lazy_array"),
        *("lazy_functions", "norm_kernels", "placeholders", "products", "recorded_calls"),
        *("reductions",),
    )
)


@contextlib.contextmanager
def installed():
    """`import cupy` means this, and dualnet's modules that import it are imported anew."""
    import dualnet.backends as package
    from dualnet.backends import overridable

    theirs = modules()
    before = {name: sys.modules.pop(name, None) for name in (*theirs, *_OURS)}
    kernels = dict(overridable._KERNELS)
    attributes = {name: package.__dict__.pop(name.rpartition(".")[2], None) for name in _OURS}
    sys.modules.update(theirs)
    importlib.import_module("dualnet.backends.cublas")._library = _cublas
    try:
        yield sys.modules["cupy"]
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
        for name, module in attributes.items():
            package.__dict__.pop(name.rpartition(".")[2], None)
            if module is not None:
                setattr(package, name.rpartition(".")[2], module)
        overridable._KERNELS.clear()
        overridable._KERNELS.update(kernels)
