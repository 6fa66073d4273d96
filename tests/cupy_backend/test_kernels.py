"""Every CUDA source compiles for the devices that matter, by NVIDIA's own compiler."""

import ctypes
import importlib.util
import os
from importlib.resources import files
from pathlib import Path

import pytest
from peers import REQUIRED

SOURCES = sorted(
    path.name
    for path in (files("dualnet.backends") / "cuda").iterdir()
    if path.name.endswith(".cu")
)


@pytest.fixture(scope="module")
def nvrtc():
    """The library of NVIDIA's runtime compiler, which needs no device."""
    for package in ("nvidia.cuda_nvrtc", "nvidia.cu13"):
        try:
            spec = importlib.util.find_spec(package)
        except ImportError:
            continue
        for folder in spec.submodule_search_locations or () if spec else ():
            for library in sorted(Path(folder).glob("lib/libnvrtc.so.*")):
                return ctypes.CDLL(str(library))
    for name in ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    assert not os.environ.get(REQUIRED), "NVRTC is required, and not here"
    pytest.skip("NVRTC is not here; pip install nvidia-cuda-nvrtc-cu12 brings it")


def compiled(nvrtc, text, options):
    """The compiler's log where it refuses a source, else None."""
    program = ctypes.c_void_p()
    assert not nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"", 0, None, None)
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), array)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return log.value.decode() if failed or log.value else None


DEFINITIONS = {  # source → values of the constants that it leaves open
    "rows.cu": (
        {"LANES": 1, "VECTORS": 1, "WIDTH": 1},
        {"LANES": 8, "VECTORS": 2, "WIDTH": 2},
        {"LANES": 32, "VECTORS": 7, "WIDTH": 2},
        {"LANES": 256, "VECTORS": 3, "WIDTH": 1},
        {"LANES": 256, "VECTORS": 0, "WIDTH": 2},
    ),
    "columns.cu": ({"WIDTH": 1, "BATCH": 4}, {"WIDTH": 2, "BATCH": 4}),
}
VARIANTS = [(name, values) for name in SOURCES for values in DEFINITIONS.get(name, ({},))]


@pytest.mark.parametrize("arch", ("sm_80", "sm_90"))
@pytest.mark.parametrize("real", ("float", "double"))
@pytest.mark.parametrize("name, values", VARIANTS, ids=str)
def test_it_compiles_without_a_warning(name, values, real, arch, nvrtc):
    text = (files("dualnet.backends") / "cuda" / name).read_text(encoding="utf-8")
    definitions = {"REAL": real, "THREADS": 256, **values}
    options = (
        "--std=c++17",
        f"--gpu-architecture={arch}",
        *(f"-D{name}={value}" for name, value in definitions.items()),
    )
    assert compiled(nvrtc, text, options) is None


@pytest.mark.parametrize("arch", ("sm_80", "sm_90"))
@pytest.mark.parametrize("threads", (64, 128))
@pytest.mark.parametrize("tensor", (0, 1))
def test_convolution_compiles_as_it_is_used(tensor, threads, arch, nvrtc):
    text = (files("dualnet.backends") / "cuda" / "convolution.cu").read_text(encoding="utf-8")
    macros = ("-DREAL=float", f"-DTHREADS={threads}", f"-DTENSOR={tensor}")
    assert compiled(nvrtc, text, ("--std=c++17", *macros, f"--gpu-architecture={arch}")) is None


def test_a_mistake_is_seen(nvrtc):
    assert "error" in compiled(nvrtc, "__global__ void f() { undeclared(); }", ())


def test_one_kernel_alone_adds_in_an_order_that_is_left_open():
    """As `docs/scale.md` says; processes that share a run depend on it."""
    folder = files("dualnet.backends") / "cuda"
    kernels = [kernel for name in SOURCES for kernel in (folder / name).read_text().split("extern")]
    (found,) = [kernel for kernel in kernels if "atomic" in kernel]
    assert "void scatter(" in found
