"""Kernels on the host: their threads wait for one another as those of a device do."""

import os

import cuda_on_cpu
import numpy as np
import pytest
from cuda_on_cpu import COMPILER, NO_COMPILER, Program

pytestmark = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)
TYPES = {
    **{"float": np.float32, "double": np.float64, "int": np.int32, "u32": np.uint32},
    **{"long long": np.int64},
}


def run(body, *arrays, real="float", blocks=1, threads=64, parameters="const REAL* x, REAL* out"):
    source = f"""
        typedef unsigned int u32;
        __device__ inline int number() {{ return blockIdx.x * blockDim.x + threadIdx.x; }}
        extern "C" __global__ void __launch_bounds__(1024) kernel({parameters}) {{ {body} }}
    """
    Program(source, (f"-DREAL={real}",)).launch("kernel", blocks, threads, arrays)


def lanes_from(x, source, width):
    """What each lane gets if it reads lane `source(lane)` of its part, or keeps its own."""
    lane = np.arange(width)
    at = source(lane)
    at = np.where((at >= 0) & (at < width), at, lane)
    return x.reshape(-1, width)[:, at].reshape(x.shape)


SHUFFLES = """
    int i = number();
    out[i] = __shfl_down_sync(-1u, x[i], 3, width);
    out[size + i] = __shfl_up_sync(-1u, x[i], 3, width);
    out[2 * size + i] = __shfl_xor_sync(-1u, x[i], width / 2, width);
    out[3 * size + i] = __shfl_sync(-1u, x[i], 37, width);
"""


@pytest.mark.parametrize("width", (1, 2, 8, 32))
@pytest.mark.parametrize("real", TYPES)
def test_shuffles(real, width, rng):
    x = (rng.standard_normal(2 * 96) * 1e9).astype(np.int64).astype(TYPES[real])
    out = np.zeros((4, x.size), x.dtype)
    parameters = "const REAL* x, REAL* out, int size, int width"
    numbers = np.int32(x.size), np.int32(width)
    run(SHUFFLES, x, out, *numbers, real=real, blocks=2, threads=96, parameters=parameters)
    lane = np.arange(width)
    sources = lane + 3, lane - 3, lane ^ (width // 2), np.full_like(lane, 37 % width)
    for got, at in zip(out, sources, strict=True):
        at = np.where((at >= 0) & (at < width), at, lane)  # no such lane: one's own value
        np.testing.assert_array_equal(got, x.reshape(-1, width)[:, at].ravel())


SUM_BY_SHUFFLES = """
    REAL value = x[number()];
    for (int by = 16; by; by /= 2) value += __shfl_xor_sync(0xffffffff, value, by);
"""


def test_a_shuffle_reads_no_value_of_the_next(rng):
    x = rng.integers(0, 100, 128).astype(np.float32)
    out = np.zeros_like(x)
    run(SUM_BY_SHUFFLES + "out[number()] = value;", x, out, blocks=2)
    np.testing.assert_array_equal(out, np.repeat(x.reshape(-1, 32).sum(1), 32))


def test_a_warp_may_shuffle_while_another_waits_for_the_block(rng):
    x = rng.integers(0, 100, 64).astype(np.float32)
    out = np.zeros_like(x)
    body = f"""
        __shared__ REAL room[64];
        room[threadIdx.x] = 0;
        if (threadIdx.x < 32) {{ {SUM_BY_SHUFFLES} room[threadIdx.x] = value; }}
        __syncthreads();
        out[threadIdx.x] = room[threadIdx.x ^ 63];
    """
    run(body, x, out)
    np.testing.assert_array_equal(out, np.repeat([0, x[:32].sum()], 32))


def test_a_warp_waits_for_itself():
    out = np.zeros(64, np.float32)
    body = """
        __shared__ float room[64];
        room[threadIdx.x] = threadIdx.x;
        __syncwarp();
        out[threadIdx.x] = room[threadIdx.x ^ 31];
    """
    run(body, out, parameters="float* out")
    np.testing.assert_array_equal(out, np.arange(64) ^ 31)


def test_threads_that_have_ended_do_not_hold_up_the_block():
    out = np.zeros(64, np.float32)
    run(
        "if (number() % 2) return; __syncthreads(); out[number()] = 1;",
        out,
        parameters="float* out",
    )
    np.testing.assert_array_equal(out, np.arange(64) % 2 == 0)


ENDED = "a thread ended while its warp waits"


@pytest.mark.parametrize(
    "body, threads, why",
    [
        ("if (number() != 5) __syncwarp();", 64, ENDED),
        ("if (number() != 31) __syncwarp();", 64, ENDED),
        ("if (number()) out[0] = __shfl_sync(-1u, 1.0f, 0);", 64, ENDED),
        ("__syncwarp();", 40, ENDED),
        ("__syncwarp(0xffff);", 64, "less than a whole warp"),
        ("out[0] = __shfl_xor_sync(-1u, 1.0f, 16, 8);", 64, "leaves its part"),
        ("out[0] = __shfl_sync(-1u, 1.0f, 0, 12);", 64, "power of 2"),
        ("if (number() % 2) __syncwarp(); else __syncthreads();", 64, "never come"),
    ],
)
def test_waiting_for_nobody_is_an_error(body, threads, why):
    out = np.zeros(64, np.float32)
    for _ in range(2):  # the second time with new threads
        with pytest.raises(AssertionError, match=f"kernel: .*{why}"):
            run(body, out, threads=threads, parameters="float* out")


def test_short_vectors(rng):
    x = rng.standard_normal(512).astype(np.float32)
    out = np.zeros(512, np.float32)
    body = """
        float4 a = __ldg((const float4*)x + number());
        float2 b = make_float2(max(a.x, a.y), min(a.z, a.w));
        ((float4*)out)[number()] = make_float4(b.x, b.y, a.x, max(a.y, 0.0f));
    """
    run(body, x, out, blocks=2)
    a = x.reshape(-1, 4)
    expected = [np.maximum(*a.T[:2]), np.minimum(*a.T[2:]), a[:, 0], np.maximum(a[:, 1], 0)]
    np.testing.assert_array_equal(out.reshape(-1, 4), np.stack(expected, 1))


def test_of_a_number_and_nan_min_and_max_are_the_number():
    x = np.array([np.nan, 1], np.float32)
    out = np.zeros(4, np.float32)
    pairs = ("min(x[0], x[1])", "min(x[1], x[0])", "max(x[0], x[1])", "max(x[1], x[0])")
    body = "".join(f"out[{i}] = {pair};" for i, pair in enumerate(pairs))
    run(body, x, out, threads=1)
    np.testing.assert_array_equal(out, 1)


def test_what_no_session_uses_goes(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_ON_CPU_FOLDER")
    old, new = tmp_path / "version" / "old.so", tmp_path / "version" / "new.so"
    old.parent.mkdir()
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    cuda_on_cpu.keep_in(tmp_path)
    assert new.exists() and not old.exists()
    assert os.environ["CUDA_ON_CPU_FOLDER"] == str(tmp_path)


def test_a_kernel_is_compiled_once_and_kept_while_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_ON_CPU_FOLDER", str(tmp_path))
    compiled = []
    real = cuda_on_cpu._compile
    monkeypatch.setattr(cuda_on_cpu, "_compile", lambda *what: (compiled.append(what), real(*what)))
    monkeypatch.setattr(cuda_on_cpu.ctypes, "CDLL", lambda *_: None)  # it is there already
    cuda_on_cpu._compiled_header.cache_clear()
    try:
        first = cuda_on_cpu._library("// one kernel")
        os.utime(first, (0, 0))
        assert cuda_on_cpu._library("// one kernel") == first and first.stat().st_mtime > 0
        assert first.is_relative_to(tmp_path) and len(compiled) == 3  # the header, threads, and it
        assert cuda_on_cpu._library("// another one") != first and len(compiled) == 4
    finally:
        cuda_on_cpu._compiled_header.cache_clear()
