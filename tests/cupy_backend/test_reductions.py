"""Reductions over any axes: against NumPy, on arrays that reach every way to divide the work."""

import importlib
import itertools
import math

import fake_cuda
import numpy as np
import pytest
from cupy_comparisons import BOTH, moved

KINDS = ("sum", "mean", "max", "min", "argmax")


@pytest.fixture
def ours(cupy_backend):
    """The module under test, which imports CuPy."""
    return importlib.import_module("dualnet.backends.reductions")


def assert_as_numpy(kind, x, axes, ours, backend, keepdims=False, there=None):
    """Against NumPy in float64; sums relative to the sum of the magnitudes."""
    there = backend.asarray(x) if there is None else there
    got = backend.to_host(ours.reduce(kind, there, axes, keepdims))
    axis = axes if kind != "argmax" else axes[0] if len(axes) == 1 else None
    if kind in ("max", "min", "argmax"):
        expected = getattr(np, kind)(x, axis, keepdims=keepdims)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
        return
    exact = x.astype(np.float64) if x.dtype.kind == "f" else x.astype(np.int64)
    expected = getattr(np, kind)(exact, axis, keepdims=keepdims)
    assert got.shape == expected.shape
    assert got.dtype == (x.dtype if x.dtype.kind == "f" else np.int64)
    allowed = 0.0
    if x.dtype.kind == "f":
        chain = np.finfo(x.dtype).eps * 40  # the deepest tree here adds fewer times in a row
        allowed = chain * getattr(np, kind)(np.abs(exact), axis, keepdims=keepdims)
    assert (np.abs(got - expected) <= allowed).all()


SHAPES = [
    # rows
    ((7, 1), (1,)),
    ((9, 5), (1,)),
    ((513, 10), (1,)),
    ((33, 6), (1,)),
    ((100, 16), (1,)),
    ((65, 192), (1,)),
    ((3, 1001), (1,)),
    ((3, 1024), (1,)),
    ((2, 3, 4096), (2,)),
    ((2, 4098), (1,)),
    ((3, 5000, 4), (1, 2)),
    # rows of several parts
    ((70_000,), (0,)),
    ((2, 17_003), (1,)),
    ((3, 12_290), (1,)),
    # columns
    ((1, 8), (0,)),
    ((64, 3), (0,)),
    ((2, 6), (0,)),
    ((31, 64), (0,)),
    ((5, 9, 13), (1,)),
    ((40, 4, 8), (1,)),
    ((3, 50, 130), (1,)),
    ((4, 6, 500), (0,)),
    ((4, 5, 3, 2, 6), (1, 2)),
    ((2, 3, 5), (0, 1)),
    # columns of several parts
    ((3000, 12), (0,)),
    ((9001, 3), (0,)),
    ((2, 2500, 6), (1,)),
    ((40, 10, 10, 16), (0, 1, 2)),
    ((300, 130), (0,)),
    # axes that are no neighbors, axes of size 1, all axes, none
    ((4, 5, 6), (0, 2)),
    ((4, 5, 6, 7), (0, 2)),
    ((3, 1, 4, 1, 5), (0, 2)),
    ((1, 1, 6), (1,)),
    ((4, 5, 6), (0, 1, 2)),
    ((4, 5), ()),
    ((), ()),
]


@pytest.mark.parametrize(
    ("kind", "shape", "axes"),
    [
        (kind, shape, axes)
        for kind, (shape, axes) in itertools.product(KINDS, SHAPES)
        if kind != "argmax" or len(axes) in (1, len(shape))  # it takes one axis or all
    ],
    ids=str,
)
def test_any_axes(shape, axes, kind, ours, cupy_backend, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    for keepdims in (False, True):
        assert_as_numpy(kind, x, axes, ours, cupy_backend, keepdims)


def test_every_division_of_the_work_is_tested(ours):
    reached = set()
    for shape, axes in SHAPES:
        runs = ours.runs_of_axes(shape, axes)
        if len(runs) > 1:
            continue
        plan = ours.reduction_plan("sum", np.float32, shape, axes)
        *_, down = plan.sizes
        across = plan.sizes[-2] if plan.kernel == "columns" else 1
        units = plan.sizes[0]
        reached |= {
            (plan.kernel, f"width {plan.width}"),
            (plan.kernel, f"{'several' if plan.parts > 1 else 'one'} of M"),
            (plan.kernel, "whole blocks" if across * down == plan.threads else "parts of blocks"),
            (plan.kernel, "part of a warp" if across * down < 32 else "several warps"),
            (plan.kernel, "alone" if down == 1 else "shared"),
        }
        if units * across * down % plan.threads:
            reached.add((plan.kernel, "threads to spare"))
        if plan.kernel == "columns":
            reached.add(
                (plan.kernel, "several runs" if plan.b > across * plan.width else "one run")
            )
            if plan.b % (across * plan.width):
                reached.add((plan.kernel, "columns to spare"))
    both = [
        *("width 1", "width 2", "width 4", "several of M", "one of M", "whole blocks"),
        *("parts of blocks", "part of a warp", "several warps", "alone", "shared"),
        "threads to spare",
    ]
    expected = {(kernel, what) for kernel in ("rows", "columns") for what in both}
    expected |= {("columns", what) for what in ("several runs", "one run", "columns to spare")}
    assert expected <= reached, expected - reached


OTHER_DTYPES = (np.float64, np.int64, np.int32, np.bool_)
LEFT_TO_CUPY = {
    *itertools.product(("mean",), (np.int64, np.int32, np.bool_)),
    *itertools.product(("max", "min"), (np.int32, np.bool_)),
}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [pair for pair in itertools.product(KINDS, OTHER_DTYPES) if pair not in LEFT_TO_CUPY],
)
def test_other_dtypes(kind, dtype, ours, cupy_backend, rng):
    assert np.dtype(dtype).name in ours._SERVED[kind]
    for shape, axes in (
        ((40, 8), (1,)),
        ((9001, 4), (0,)),
        ((3, 12_292), (1,)),
        ((20, 8, 8), (1,)),
    ):
        x = (1e9 * rng.standard_normal(shape)).astype(np.int64) % 1000 - 500
        x = (x > 0) if dtype is np.bool_ else x.astype(dtype)
        assert_as_numpy(kind, x, axes, ours, cupy_backend)


@pytest.mark.parametrize("seed", range(40))
def test_every_entry_counts_once(seed, ours, cupy_backend, rng):
    """Sums of small integers are exact in float32."""
    size = int(10 ** rng.uniform(0, 5.5))
    ndim = int(rng.integers(1, 5))
    shape = tuple(int(n) for n in np.ceil(size ** rng.dirichlet(np.ones(ndim))))
    axes = tuple(axis for axis in range(ndim) if rng.random() < 0.6)
    x = rng.integers(-8, 9, shape).astype(np.float32)
    got = cupy_backend.to_host(ours.reduce("sum", cupy_backend.asarray(x), axes, False))
    np.testing.assert_array_equal(got, x.sum(axes), f"{shape}, {axes}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, axes", [((6, 40), (1,)), ((3, 12_292), (1,)), ((600, 12), (0,))])
def test_what_is_not_finite(shape, axes, kind, ours, cupy_backend, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    inf, nan = np.inf, np.nan
    cases = {}, {3: nan}, {7: nan, 30: nan}, {5: inf}, {0: -inf}, {1: inf, 9: -inf}
    for line, places in zip(np.moveaxis(x, axes[0], -1), cases, strict=False):
        for at, value in places.items():
            line[at] = value
    there = cupy_backend.asarray(x)
    got = cupy_backend.to_host(ours.reduce(kind, there, axes, False))
    with np.errstate(invalid="ignore"):
        expected = getattr(np, kind)(x, axes[0])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)
    x[...] = np.nan
    got = cupy_backend.to_host(ours.reduce(kind, cupy_backend.asarray(x), axes, False))
    np.testing.assert_array_equal(got, 0 if kind == "argmax" else np.nan)
    x[...] = -np.inf
    got = cupy_backend.to_host(ours.reduce(kind, cupy_backend.asarray(x), axes, False))
    np.testing.assert_array_equal(got, 0 if kind == "argmax" else -np.inf)


def test_the_first_of_equal_entries(ours, cupy_backend, rng):
    for shape, axes in (((50, 1000), (1,)), ((1000, 50), (0,)), ((300, 4), (0, 1)), ((9, 4), (1,))):
        x = rng.integers(0, 3, shape).astype(np.float32)
        assert_as_numpy("argmax", x, axes, ours, cupy_backend)


@BOTH
@pytest.mark.parametrize("shape, axes", [((1_000_000,), (0,)), ((250_000, 4), (0,))], ids=str)
def test_sums_that_cancel_are_accurate(shape, axes, dtype, ours, cupy_backend, rng):
    x = (rng.random(shape) + 1).astype(dtype)
    x[::2] *= -1
    assert_as_numpy("sum", x, axes, ours, cupy_backend)


def test_sums_have_the_same_bits_in_every_run(ours, cupy_backend, rng):
    for shape, axes in (((100_003,), (0,)), ((5000, 12), (0,)), ((40, 1000), (1,))):
        x = cupy_backend.asarray(rng.standard_normal(shape).astype(np.float32))
        runs = [cupy_backend.to_host(ours.reduce("sum", x, axes, False)) for _ in range(3)]
        assert len({run.tobytes() for run in runs}) == 1


def test_many_entries_are_counted_in_64_bits(ours, cupy_backend, rng, monkeypatch):
    monkeypatch.setattr(ours, "_MANY", 100)
    ours.reduction_plan.cache_clear()
    try:
        for kind in ("sum", "argmax"):
            for shape, axes in (((30_000, 4), (0,)), ((4, 40), (1,))):
                x = rng.standard_normal(shape).astype(np.float32)
                assert ours.reduction_plan(kind, x.dtype, shape, axes).index == "i64"
                assert_as_numpy(kind, x, axes, ours, cupy_backend)
    finally:
        ours.reduction_plan.cache_clear()


# --- layouts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (1, 2, 0)], ids=str)
def test_transposed_axes_are_read_as_they_lie(order, kind, ours, cupy_backend, rng, monkeypatch):
    x = rng.standard_normal((6, 1, 5, 8)[:3]).astype(np.float32)
    there = cupy_backend.asarray(x).transpose(order)
    here = x.transpose(order)
    monkeypatch.setattr(ours, "flat", lambda *arrays: list(arrays))
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2)):
        if kind != "argmax" or len(axes) == 1:
            for keepdims in (False, True):
                assert_as_numpy(kind, here, axes, ours, cupy_backend, keepdims, there)


@pytest.mark.parametrize("kind", KINDS)
def test_views(kind, ours, cupy_backend, rng):
    x = rng.standard_normal((40, 24)).astype(np.float32)
    there = cupy_backend.asarray(x)
    for view in (
        lambda a: a[:, ::2],
        lambda a: a[::-1],
        lambda a: a[3:, 1:9],
        lambda a: a.T,
        lambda a: np.broadcast_to(a[:1], (5, 24)),
        lambda a: a.ravel()[1:],  # of a place that a device cannot read several numbers from
        lambda a: a.ravel()[2:],
        lambda a: a.ravel()[1:-3].reshape(-1, 4),
    ):
        here = view(x)
        for axes in ((0,), (here.ndim - 1,), tuple(range(here.ndim))):
            assert_as_numpy(kind, here, axes, ours, cupy_backend, there=view(there))


def test_what_has_no_entries(ours, cupy_backend):
    for shape, axes in (((0,), (0,)), ((3, 0), (1,)), ((0, 6), (0,)), ((2, 0, 3), (1,))):
        there = cupy_backend.asarray(np.zeros(shape, np.float32))
        kept = tuple(n for axis, n in enumerate(shape) if axis not in axes)
        for kind, expected in (("sum", 0), ("mean", np.nan)):
            got = cupy_backend.to_host(ours.reduce(kind, there, axes, False))
            np.testing.assert_array_equal(got, np.full(kept, expected))
        for kind in ("max", "min", "argmax"):
            with pytest.raises(ValueError, match=f"{kind} of no entries: the shape is"):
                ours.reduce(kind, there, axes, False)
    for shape, axes in (((0, 3), (1,)), ((3, 0), (0,)), ((2, 3, 0), (1,)), ((0, 3, 4), (1,))):
        for kind in KINDS:
            x = np.zeros(shape, np.float32)
            assert_as_numpy(kind, x, axes, ours, cupy_backend)


# --- the plan ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, axes, runs",
    [
        ((2, 3, 4), (1, 2), [(1, 2)]),
        ((2, 3, 4), (0, 2), [(2,), (0,)]),
        ((2, 1, 4), (0, 2), [(0, 2)]),
        ((2, 1, 4), (0, 1), [(0, 1)]),
        ((2, 3, 4, 5, 6), (0, 1, 4, 3), [(3, 4), (0, 1)]),
        ((2, 3), (), []),
    ],
    ids=str,
)
def test_runs_of_axes(shape, axes, runs, ours):
    assert ours.runs_of_axes(shape, axes) == runs


def test_axes_apart_have_no_plan(ours):
    with pytest.raises(
        ValueError, match=r"the axes \(0, 2\) of shape \(2, 3, 4\) are no neighbors"
    ):
        ours.reduction_plan("sum", np.float32, (2, 3, 4), (0, 2))


def test_no_thread_adds_many_numbers_in_a_row(ours):
    for shape, axes in (((512, 1 << 22, 64), (1,)), ((2000, 1 << 22), (1,)), ((1 << 40,), (0,))):
        plan = ours.reduction_plan("sum", np.float32, shape, axes)
        length = int(plan.sizes[-3] if plan.kernel == "rows" else plan.sizes[-4])
        step = int(plan.sizes[-1]) * (plan.width if plan.kernel == "rows" else 1)
        assert length <= 512 * step
        assert plan.parts == -(-plan.m // length)


# --- entries that are made on the way ------------------------------------------------------------

PRODUCT = """
__device__ inline void entries(PARAMETERS, INDEX i, VALUE (&of)[WIDTH]) {
    Pack<float, WIDTH> x = *(const Pack<float, WIDTH>*)(a + i), stored;
    for (int w = 0; w < WIDTH; ++w) of[w] = stored.of[w] = x.of[w] * b[i + w] + c;
    *(Pack<float, WIDTH>*)(out_too + i) = stored;
}
"""


@pytest.mark.parametrize("kind", ("sum", "max"))
@pytest.mark.parametrize("shape, axes", [((50, 24), (1,)), ((9000, 6), (0,)), ((5, 7, 9), (1,))])
def test_entries_that_are_made_on_the_way(shape, axes, kind, ours, cupy_backend, rng):
    cupy = importlib.import_module("cupy")
    a, b = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    plan = ours.reduction_plan(kind, np.float32, shape, axes)
    names = "const float* a, const float* b, float c, float* out_too", "a, b, c, out_too"
    code = ours.source_with(PRODUCT, *names)
    module = cupy.RawModule(code=code, options=(*ours.options(plan), "--fmad=false"))
    made, out = cupy.empty(shape, np.float32), cupy.empty(plan.shape, plan.result_dtype)
    ours.launch(plan, module, (*moved((a, b), cupy_backend), np.float32(2), made), out, 3)
    entries = a * b + np.float32(2)
    np.testing.assert_array_equal(cupy_backend.to_host(made), entries)
    if kind == "max":
        np.testing.assert_array_equal(cupy_backend.to_host(out), entries.max(axes))
    else:
        expected = entries.sum(axes, np.float64) / 3
        np.testing.assert_allclose(cupy_backend.to_host(out), expected, rtol=1e-5, atol=1e-3)


COUNTED = """
__device__ inline void entries(PARAMETERS, INDEX i, VALUE (&of)[WIDTH]) {
    for (int w = 0; w < WIDTH; ++w) of[w] = 1;
    if (i < 0 || i + WIDTH > size || i % WIDTH)
        *outside = 1;
    else
        for (int w = 0; w < WIDTH; ++w) atomicAdd(seen + i + w, 1);
}
"""


def test_no_entry_outside_is_read_and_none_inside_is_left_out(ours, cupy_backend):
    cupy = importlib.import_module("cupy")
    for shape, axes in SHAPES:
        if len(ours.runs_of_axes(shape, axes)) > 1:
            continue
        plan = ours.reduction_plan("sum", np.float32, shape, axes)
        names = "int size, int* outside, int* seen", "size, outside, seen"
        module = cupy.RawModule(code=ours.source_with(COUNTED, *names), options=ours.options(plan))
        outside, seen = cupy.zeros(1, np.int32), cupy.zeros(shape, np.int32)
        out = cupy.empty(plan.shape, plan.result_dtype)
        ours.launch(plan, module, (np.int32(math.prod(shape)), outside, seen), out)
        assert not cupy_backend.to_host(outside).any(), (shape, axes)
        assert (cupy_backend.to_host(seen) >= 1).all(), (shape, axes)
        np.testing.assert_array_equal(cupy_backend.to_host(out), plan.m)


# --- NumPy's functions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function, more",
    [
        (function, more)
        for function in (np.sum, np.mean, np.max, np.amax, np.min, np.amin)
        for more in ({}, {"axis": -1}, {"axis": (0, -1)}, {"axis": 1, "keepdims": True})
    ]
    + [(np.argmax, more) for more in ({}, {"axis": -2}, {"axis": 0, "keepdims": True})]
    + [(np.sum, {"dtype": np.float32}), (np.sum, {"axis": ()})],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_they_take_what_numpy_takes(function, more, ours, cupy_backend, rng):
    x = rng.integers(-9, 9, (4, 5, 6)).astype(np.float32)
    expected = np.asarray(function(x, **more))
    for got in (
        ours.NUMPY_REDUCTIONS[function](cupy_backend.asarray(x), **more),
        ours.NUMPY_REDUCTIONS[function](cupy_backend.asarray(x), *list(more.values())[:1])
        if list(more) == ["axis"]
        else None,
    ):
        if got is not None:
            got = cupy_backend.to_host(got)
            assert got.shape == expected.shape and got.dtype == expected.dtype
            np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "name, dtype, more",
    [
        ("sum", np.float32, {"where": True}),
        ("sum", np.float32, {"initial": 0.0}),
        ("sum", np.float32, {"dtype": np.float64}),
        ("sum", np.float32, {"out": 1}),
        ("sum", np.float32, {"keepdims": np._NoValue}),
        ("sum", np.float16, {}),
        ("sum", np.complex64, {}),
        ("mean", np.int64, {}),
        ("max", np.bool_, {}),
        ("argmax", np.float32, {"axis": (0,)}),
        ("max", np.float32, {"axis": 1}),
        ("argmax", np.float32, {"axis": 1}),
    ],
    ids=str,
)
def test_the_rest_is_left_to_cupy(name, dtype, more, ours, cupy_backend):
    shape = (3, 0) if more == {"axis": 1} else (3, 4)
    kernel = ours.NUMPY_REDUCTIONS[getattr(np, name)]
    assert kernel(cupy_backend.asarray(np.zeros(shape, dtype)), **more) is NotImplemented
    assert kernel(np.zeros(shape, dtype), **more) is NotImplemented


def test_an_axis_that_is_not_there_is_an_error(ours, cupy_backend):
    x = cupy_backend.asarray(np.zeros((2, 3), np.float32))
    with pytest.raises(np.exceptions.AxisError):
        ours.NUMPY_REDUCTIONS[np.sum](x, 2)
    with pytest.raises(ValueError, match="repeated axis"):
        ours.NUMPY_REDUCTIONS[np.sum](x, (0, -2))


def test_nothing_is_moved_and_nobody_waits(ours, stand_in):
    """So a recording may have them."""
    x = stand_in.asarray(np.ones((300, 5, 40), np.float32))
    with fake_cuda.counted() as happened:
        for axes in ((0,), (2,), (0, 2), (0, 1, 2)):
            assert math.prod(ours.reduce("mean", x.transpose(1, 0, 2), axes, True).shape)
    assert not happened
