"""Time matrix products, draws and rounding on a CUDA device.  `python -m benchmarks.gpu_products`.

Results are checked first.  Each time is the median of 5 launches of a CUDA graph that holds the
work 10 times.  `due` is the time that operations and bytes take at 50.6 TFLOP/s in float32 and
371 in TF32, 3.0 TB/s and 2 us a launch; behind it stand the figures expected.
"""

# ruff: noqa: B023 (functions are called in the round of the loop that makes them)

import itertools
import statistics
import sys

import cupy
import numpy as np

import dualnet as dn
from dualnet import backends
from dualnet.backends import draws, launching, products

try:
    import torch
except ImportError:
    torch = None

BATCH, WIDTHS, KS, NUMBERS = 256, (784, 1024, 1024, 10), (1, 64), 1 << 26
FLOPS, TF32_FLOPS, BYTES, LAUNCH = 50.6e6, 371e6, 3.0e6, 2.0  # a microsecond
FEW = (
    ((16384, 1024), (1024, 10)),
    ((4096, 1024), (1024, 10)),
    ((256, 1024), (1024, 10)),
    ((128, 256), (256, 10)),
    ((256, 1024), (64, 1024, 10)),
    ((16384, 512), (512, 16)),
)
own_source = launching.source


def timed(work, times=10):
    """Microseconds of one `work()`."""
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream:
        work()  # compiles, and leaves the memory that it took to this stream
        stream.synchronize()
        stream.begin_capture()
        for _ in range(times):
            work()
        graph = stream.end_capture()
        graph.launch()
        samples = []
        for _ in range(5):
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record()
            graph.launch()
            end.record()
            end.synchronize()
            samples.append(1e3 * cupy.cuda.get_elapsed_time(begin, end) / times)
    return statistics.median(samples)


def timed_by_torch(work, times=10):
    """Microseconds of one `work()` by torch."""
    with torch.no_grad():
        work()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(times):
                work()
        samples = []
        for _ in range(6):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            samples.append(1e3 * begin.elapsed_time(end) / times)
    return statistics.median(samples[1:])


def normal(*shape):
    out = cupy.empty(shape, np.float32)
    draws.fill(out, draws.Draw("normal", dn.Key(len(shape)), shape, np.dtype(np.float32)))
    return out


def show(what, *cells):
    row = "".join(f"{c:>9.1f}" if isinstance(c, float) else f"{c!s:>9}" for c in cells)
    print(f"{what:<34}{row}", flush=True)


def worst(got, expected):
    """The largest error, as a share of the largest entry."""
    return float(abs(got - expected).max() / abs(expected).max())


# --- checks --------------------------------------------------------------------------------------


def check_draws():
    """Many draws are the single ones, bit for bit, at any start and place."""
    key, kinds, cases = dn.Key(3), ("normal", "uniform", "signs"), []
    for i in range(150):
        size, start, at = 1 + 37 * i, 5 * (i % 7), i % 5
        memory = cupy.full(size + 8, 99, np.float32)
        draw = draws.Draw(kinds[i % 3], key.fold_in(i), (size,), np.dtype(np.float32), start)
        cases.append((memory, at, draw))
    draws.fill_many([m[at : at + d.shape[0]] for m, at, d in cases], [d for *_, d in cases])
    for memory, at, d in cases:
        whole = cupy.full(d.start + d.shape[0], 99, np.float32)
        draws.fill(whole, draws.Draw(d.kind, d.key, whole.shape, whole.dtype))
        assert (memory[at : at + d.shape[0]] == whole[d.start :]).all(), d
        assert (memory[:at] == 99).all() and (memory[at + d.shape[0] :] == 99).all(), d
    x = normal(NUMBERS).astype(np.float64)
    moments = [float((x**n).mean()) for n in (1, 2, 4)]
    spread = 7 / NUMBERS**0.5
    assert all(abs(m - e) < 10 * spread for m, e in zip(moments, (0, 1, 3), strict=True)), moments


def check_products():
    """Few columns, and what is added; return in how many cases the bits are those of two steps."""
    same = cases = 0
    for precision in ("full", "tf32", "bf16"):
        kernels = products.product_kernels(precision)
        for shapes in (
            ((300, 1024), (1024, 10)),
            ((9000, 260), (260, 7)),
            ((100, 512), (6, 512, 16)),
            ((256, 784), (784, 1024)),
            ((256, 784), (5, 784, 1024)),
            ((4096, 1024), (1024, 1024)),
            ((64, 784), (784, 256)),
            ((1024, 64), (64, 10)),
        ):
            x, y = (normal(*s) for s in shapes)
            exact = cupy.matmul(x.astype(np.float64), y.astype(np.float64))
            product = cupy.full(exact.shape, np.nan, np.float32)
            kernels["matmul"](x, y, product)
            assert worst(product, exact) < {"full": 1e-5, "tf32": 2e-3, "bf16": 2e-2}[precision]
            out = normal(*exact.shape)
            expected = out + product
            kernels["multiply_onto"](x, y, out)
            assert worst(out, expected) < 1e-5, (precision, shapes)
            same, cases = same + bool((out == expected).all()), cases + 1
    return same, cases


# --- tables --------------------------------------------------------------------------------------


def table_of_products():
    full, tf32 = (products.product_kernels(p) for p in ("full", "tf32"))
    show(
        "products of the MLP, us", "due", "full", "adds", "torch", "due tf", "tf32", "adds", "torch"
    )
    for k in KS:
        for i, (n, p) in enumerate(itertools.pairwise(WIDTHS)):
            for x, y, what in (
                (normal(k * BATCH, n), normal(n, p), f"{k}*{BATCH} x {n} @ {n} x {p}"),
                (normal(BATCH, n), normal(k, n, p), f"{BATCH} x {n} @ {k} of {n} x {p}"),
            ):
                if not i and x.shape[0] != BATCH:
                    continue  # images have no tangents
                out = cupy.zeros((*y.shape[:-2], x.shape[0], p), np.float32)
                moved = 4 * (x.size + y.size + out.size) / BYTES
                count = 2 * out.size * n
                cells = []
                for kernels, rate in ((full, FLOPS), (tf32, TF32_FLOPS)):
                    cells.append(max(moved, count / rate) + LAUNCH)
                    cells.append(timed(lambda f=kernels["matmul"]: f(x, y, out)))
                    cells.append(timed(lambda f=kernels["multiply_onto"]: f(x, y, out)))
                    cells.append("-")
                    if torch and torch.cuda.is_available():
                        torch.backends.cuda.matmul.allow_tf32 = kernels is tf32
                        tx, ty = (torch.randn(a.shape, device="cuda") for a in (x, y))
                        cells[-1] = timed_by_torch(lambda: torch.matmul(tx, ty))
                show(what, *cells)


def table_of_few_columns():
    by_cublas = products.product_kernels("full")["matmul"]
    show("few columns, us", "due", "cuBLAS", "1 row", "4 rows", "unroll 2", "128 thr")
    fits, rows_from = products._has_few_columns, products._FOUR_ROWS_FROM
    kernel = products._FEW_COLUMNS
    for shapes in FEW:
        x, y = (normal(*s) for s in shapes)
        out = cupy.matmul(x, y)
        cells = [4 * (x.size + y.size + out.size) / BYTES + LAUNCH]
        products._has_few_columns = lambda *_: False
        cells.append(timed(lambda: by_cublas(x, y, out)))
        products._has_few_columns = fits
        for four, unroll, threads in ((0, 1, 256), (1, 1, 256), (1, 2, 256), (1, 1, 128)):
            text = own_source("products").replace("#pragma unroll 1", f"#pragma unroll {unroll}")
            launching.source = lambda _, text=text: text
            kernel.threads, kernel._compiled = threads, compiled.setdefault((unroll, threads), {})
            products._FOUR_ROWS_FROM = 1 if four else 1 << 40
            cells.append(timed(lambda: by_cublas(x, y, out)))
        launching.source, products._FOUR_ROWS_FROM = own_source, rows_from
        kernel.threads, kernel._compiled = 256, compiled[1, 256]
        show(" @ ".join(map(str, shapes)), *cells)


compiled = {}


def table_of_draws():
    show(f"draws, {NUMBERS} float32, us", "due", "expected", "1 round", "2", "4", "8", "torch")
    out = cupy.empty(NUMBERS, np.float32)
    module = draws._DRAWS
    versions = {rounds: {} for rounds in (1, 2, 4, 8)}
    leaves = [s for n, p in itertools.pairwise(WIDTHS) for s in ((n, p), (p,))]
    cases = [
        (kind, [(NUMBERS,)], e) for kind, e in (("normal", 115), ("uniform", 95), ("signs", 95))
    ]
    cases += [("normal", [(k, *s) for s in leaves], 2 + 205 * k // 64) for k in KS]
    for kind, shapes, expected in cases:
        many = [draws.Draw(kind, dn.Key(i), s, out.dtype) for i, s in enumerate(shapes)]
        outs = [out] if len(many) == 1 else [cupy.empty(s, np.float32) for s in shapes]
        cells = [4 * sum(o.size for o in outs) / BYTES + LAUNCH, expected]
        for rounds, versions_compiled in versions.items():
            text = own_source("draws").replace("ROUNDS = 2;", f"ROUNDS = {rounds};")
            launching.source = lambda _, text=text: text
            draws._ROUNDS, module._compiled = rounds, versions_compiled
            cells.append(timed(lambda: draws.fill_many(outs, many)))
        launching.source, draws._ROUNDS, module._compiled = own_source, 2, versions[2]
        cells.append("-")
        if torch and torch.cuda.is_available() and kind == "normal":
            there = [torch.empty(o.shape, device="cuda") for o in outs]
            cells[-1] = timed_by_torch(lambda: [t.normal_() for t in there])
        name = kind if len(many) == 1 else f"{kind}, leaves of the MLP, k = {shapes[0][0]}"
        show(name, *cells)
        if len(many) > 1:
            alone = timed(lambda: [draws.fill(o, d) for o, d in zip(outs, many, strict=False)])
            show(f"  in {len(many)} launches", "", "", "", alone)


def table_of_rounding():
    show("rounding to bfloat16, us", "due", "measured")
    for size in (NUMBERS, 1 << 20):
        x = cupy.full(size, 1.5, np.float32)
        show(f"{size} numbers", 6 * size / BYTES + LAUNCH, timed(lambda: products._to_bfloat16(x)))


if __name__ == "__main__":
    backends.get("cupy")
    check_draws()
    print("draws are right; bits of added products equal in", *check_products(), file=sys.stderr)
    table_of_products()
    table_of_few_columns()
    table_of_draws()
    table_of_rounding()
