"""Norms, softmax and cross-entropy on a device: µs, beside what was foreseen and the least possible.

PYTHONPATH=. python bench_norm.py        (torch is measured beside, where it is installed)

Each time is the median of a recorded graph launched alone, with a cache that holds other things.
The floor reads each input once and writes each output once, at 3.0 TB/s.
"""

import itertools
import time

import cupy as cp
import numpy as np

from dualnet import Key, backends
from dualnet.nn import normalization_kernels as nk
from dualnet.nn.activations import _softmax_along, _tangent_of_softmax_along
from dualnet.nn.losses import _losses_and_errors

BACKEND = backends.get("cupy")
from dualnet.backends import norm_kernels as ours  # noqa: E402

RATE = 3.0e12
LAUNCH = 2.0  # µs, of a kernel in a graph
SECONDS = 36.0
START = time.perf_counter()
LAST, FIRST = (-1,), (-2,)
NORMS = [  # what the networks have at batch 128; rows are normalized over LAST, columns over FIRST
    ("ResNet18 1", (128 * 32 * 32, 64), FIRST),
    ("ResNet18 2", (128 * 16 * 16, 128), FIRST),
    ("ResNet18 3", (128 * 8 * 8, 256), FIRST),
    ("ResNet18 4", (128 * 4 * 4, 512), FIRST),
    ("LeNet5", (128 * 28 * 28, 6), FIRST),
    ("ViT", (128 * 65, 256), LAST),
    ("MLPMixer", (128 * 64, 512), LAST),
    ("LocalMixer patches", (128 * 64, 48), LAST),
    ("LocalMixer tokens", (128 * 512, 64), LAST),
    ("LocalMixer groups", (128 * 64 * 16, 32), LAST),
    ("LocalMixer L", (128 * 64, 2048), LAST),
    ("LocalMixer M/1/16", (128, 512), LAST),
    ("group norm, 8 of 64", (128, 16 * 16, 8, 8), (-3, -1)),
]


def normal(*shape):
    return BACKEND.normal(Key(len(shape)).fold_in(shape[0]), shape, np.float32)


def median(f, wait, clear, repeats):
    times = []
    for _ in range(repeats):
        clear()
        times.append(wait(f))
    return float(np.median(times))


def microseconds(f, *arguments, repeats=11):
    """The median time of f(*arguments), recorded."""
    stream, pool = cp.cuda.Stream(non_blocking=True), cp.cuda.MemoryPool()
    start, end = cp.cuda.Event(), cp.cuda.Event()
    cold = cp.zeros(1 << 24, np.float32)  # 64 MiB, more than the cache keeps
    with cp.cuda.using_allocator(pool.malloc), stream:
        f(*arguments)
        stream.synchronize()
        stream.begin_capture()
        kept = f(*arguments)
        graph = stream.end_capture()

        def once(graph):
            start.record()
            graph.launch()
            end.record()
            end.synchronize()
            return cp.cuda.get_elapsed_time(start, end) * 1e3

        done = median(graph, once, lambda: cold.fill(0), repeats)
    del kept
    return done


def poison():
    """What a kernel does not write is not right by chance."""
    blocks = [cp.full(1 << n, np.nan, np.float32) for n in range(8, 26)]
    del blocks


def check():
    """Against float64 on the host, on smaller arrays of the same kinds; and the same twice."""
    worst = 0.0
    for _, shape, axes in NORMS:
        shape = (min(shape[0], 3000), *shape[1:])
        x, t = normal(*shape) + 3, normal(3, *shape)
        poison()
        y, s = nk.normalized(x, axes, 1e-5)
        by, _ = nk.normalized_by(x, *nk.moments(x, axes), axes, 1e-5)
        out, again = nk.tangent(t, y, s, axes), nk.tangent(t, y, s, axes)
        assert (out == again).all(), shape
        exact_y, exact_s = nk.normalized(cp.asnumpy(x).astype(float), axes, 1e-5)
        exact = nk.tangent(cp.asnumpy(t).astype(float), exact_y, exact_s, axes)
        pairs = (y, exact_y), (by, exact_y), (out, exact)
        worst = max(worst, *(np.abs(cp.asnumpy(a) - b).max() for a, b in pairs))
        assert worst < 2e-5, (shape, worst)
    for shape in ((700, 65), (40, 9001), (2000, 10)):
        x, t = 5 * normal(*shape), normal(3, *shape)
        labels = np.arange(shape[0]) % shape[1]
        poison()
        p = _softmax_along(x, -1)
        u = _tangent_of_softmax_along(t, p, -1)
        losses, errors = _losses_and_errors(x, cp.asarray(labels))
        e = np.exp(cp.asnumpy(x).astype(float))
        e /= e.sum(-1, keepdims=True)
        pt, at = e * cp.asnumpy(t), (np.arange(shape[0]), labels)
        target = np.zeros(shape)
        target[at] = 1
        tangents = pt - e * pt.sum(-1, keepdims=True)
        pairs = (p, e), (u, tangents), (losses, -np.log(e[at])), (errors, e - target)
        worst = max(worst, *(np.abs(cp.asnumpy(a) - b).max() for a, b in pairs))
        assert worst < 2e-5, (shape, worst)
    return worst


def of_torch(shape, axes):
    """The times of torch's norm and of its backward, as text."""
    try:
        import torch
    except ImportError:
        return ""
    x, g = (torch.randn(shape, device="cuda", requires_grad=need) for need in (True, False))
    if axes == FIRST:
        one = torch.ones(shape[1], device="cuda")
        f = lambda: torch.nn.functional.batch_norm(x, None, None, one, one, True)  # noqa: E731
    else:
        f = lambda: torch.nn.functional.layer_norm(x, shape[-1:])  # noqa: E731
    cold = torch.zeros(1 << 24, device="cuda")
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def once(h):
        start.record()
        h()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3

    y = f()
    backward = lambda: torch.autograd.grad(y, x, g, retain_graph=True)  # noqa: E731
    done = [median(h, once, cold.zero_, 11) for h in (f, backward)]
    return f"{done[0]:7.0f} {done[1]:4.0f}"


def entry(measured, foreseen, least):
    return f"{measured:8.1f} ({foreseen:3.0f}) {least:5.1f}"


def networks():
    print(f"{'':20}{'normalized':>20}{'tangent, k = 1':>20}{'k = 8':>20}   torch's f, b")
    for name, shape, axes in NORMS:
        pass_us = 4e6 * np.prod(shape) / RATE  # to read or write one array
        x = normal(*shape)
        y, s = nk.normalized(x, axes, 1e-5)
        rows = axes == LAST
        launches = LAUNCH if rows else 3 * LAUNCH
        # columns: x, t and y are read twice; y for all directions at once
        foreseen = (2 if rows else 3) * pass_us + launches
        line = entry(microseconds(nk.normalized, x, axes, 1e-5), foreseen, 2 * pass_us)
        for k in (1, 8):
            t = normal(k, *shape)
            least = (2 * k + 1) * pass_us
            foreseen = (least if rows else (3 * k + 2) * pass_us) + launches
            line += entry(microseconds(nk.tangent, t, y, s, axes), foreseen, least)
            del t
        peer = of_torch(shape, axes) if len(shape) == 2 else ""
        print(f"{name:20}{line}{peer}", flush=True)
    x = normal(128, 4, 65, 65)
    pass_us = 4e6 * x.size / RATE
    p = _softmax_along(x, -1)
    line = entry(microseconds(_softmax_along, x, -1), 2.4 * pass_us + LAUNCH, 2 * pass_us)
    for k in (1, 8):
        least = (2 * k + 1) * pass_us
        t = normal(k, *x.shape)
        line += entry(
            microseconds(_tangent_of_softmax_along, t, p, -1), 1.2 * least + LAUNCH, least
        )
    print(f"{'softmax of ViT':20}{line}")
    for rows in (128, 128 * 64 * 16):
        x, labels = normal(rows, 10), cp.zeros(rows, np.int64)
        least = rows * (2 * 40 + 12) / RATE * 1e6
        line = entry(microseconds(_losses_and_errors, x, labels), 1.2 * least + LAUNCH, least)
        print(f"{f'cross-entropy {rows}':20}{line}", flush=True)


def lanes_of_rows():
    """Other numbers of threads for a row and for a block: normalized/tangent, or softmax."""
    kept = ours._row_division, ours._ROW_THREADS
    for n, rows in ((32, 131072), (64, 65536), (256, 8320), (512, 8192), (65, 33280)):
        x = normal(rows, n)
        y, s = nk.normalized(x, LAST, 1e-5)
        width = 4 if n % 4 == 0 else 1
        line = f"rows of {n}, ours {kept[0](n, width)[0]}; lanes x threads:"
        for lanes, threads in itertools.product((2, 4, 8, 16, 32), (128, 256)):
            each = -(-n // width // lanes)
            if each * width > 32 or lanes > n // width or (threads == 128 and n in (64, 256)):
                continue
            if time.perf_counter() - START > SECONDS - 8:
                break
            ours._row_division = lambda n, width, found=(lanes, each): found
            ours._ROW_THREADS = threads
            ours._row_module.cache_clear()
            if n == 65:
                line += f" {lanes}x{threads} {microseconds(_softmax_along, x, -1):.1f}"
                continue
            one = microseconds(nk.normalized, x, LAST, 1e-5)
            other = microseconds(nk.tangent, x[None], y, s, LAST)
            line += f" {lanes}x{threads} {one:.1f}/{other:.1f}"
        print(line, flush=True)
    ours._row_division, ours._ROW_THREADS = kept
    ours._row_module.cache_clear()


def batches_of_columns():
    """Other numbers of rows read at once, and of blocks: normalized/tangent."""
    for shape in ((131072, 64), (2048, 512)):
        x = normal(*shape)
        y, s = nk.normalized(x, FIRST, 1e-5)
        line = f"columns {shape}; batch x blocks per 132:"
        for batch, blocks in itertools.product((2, 4, 8), (2, 4, 8)):
            if time.perf_counter() - START > SECONDS:
                break
            ours._BATCH, ours._BLOCKS = batch, 132 * blocks
            ours._column_module.cache_clear()
            one = microseconds(nk.normalized, x, FIRST, 1e-5)
            other = microseconds(nk.tangent, x[None], y, s, FIRST)
            line += f" {batch}x{blocks} {one:.0f}/{other:.0f}"
        print(line, flush=True)


def main():
    print(f"right: off by at most {check():.1e}; {time.perf_counter() - START:.0f} s so far")
    print("µs measured (foreseen) floor")
    networks()
    lanes_of_rows()
    batches_of_columns()
    print(f"{time.perf_counter() - START:.0f} s")


if __name__ == "__main__":
    main()
