"""Matrix products by cuBLAS: every layout against NumPy, nothing copied that BLAS can read, factors
rounded as asked for."""

import importlib
import importlib.util
import itertools
import re
from collections import Counter
from types import SimpleNamespace

import fake_arrays
import numpy as np
import pytest
from cupy_comparisons import (
    ALLOWED,
    BOTH,
    assert_as_on_host,
    assert_same,
    moved,
    moved_back,
    on,
)
from fake_cupy import is_stand_in
from learning_problems import EVERY_RULE, NETWORKS, problem

import dualnet as dn
from dualnet import tree
from dualnet.backends import MATMUL_PRECISIONS, overridable
from dualnet.backends.overridable import matmul, multiply_onto
from dualnet.checking.directions import random_directions
from dualnet.core.spaces import RankOne
from dualnet.data.enlarge import enlarged
from dualnet.errors import BackendError
from dualnet.learning.directions.algebra import inner_products
from dualnet.models import MLP
from dualnet.nn import Context, Linear, Sequential

HALF_UNIT = {"full": 0.0, "tf32": 2.0**-11, "bf16": 2.0**-8}
"""The largest relative error of a factor that is rounded to the nearest."""


def may_differ(rounded, backend):
    """Whether and how a device makes TF32 of float32 is its own affair; it may cut bits off."""
    return rounded == "tf32" and not is_stand_in(backend)


def largest_error(rounded, backend):
    """Of a factor."""
    return HALF_UNIT[rounded] * (2 if may_differ(rounded, backend) else 1)


@pytest.fixture
def products(cupy_backend):
    """The module under test, which can be imported while a CuPy is there."""
    return importlib.import_module("dualnet.backends.products")


@pytest.fixture
def happened(products, monkeypatch):
    """A Counter of cuBLAS `calls`, of operands that were `copied`, and of `new` arrays."""
    products.cublas._ready()  # its handle has an array of its own, once
    counts = Counter()

    def counting(kind, module, name, counts_as=lambda result, *_: True):
        function = getattr(module, name)

        def call(*arguments, **named):  # CuPy's own functions name some of them
            result = function(*arguments, **named)
            counts[kind] += counts_as(result, *arguments)
            return result

        monkeypatch.setattr(module, name, call)

    counting("calls", products.cublas, "gemm")
    counting("calls", products.cublas, "gemm_strided_batched")
    is_new = lambda result, a: result.data.ptr != a.data.ptr  # noqa: E731
    counting("copied", products.cupy, "ascontiguousarray", is_new)
    counting("new", products.cupy, "empty")
    return counts


@pytest.fixture
def rounding(products, cupy_backend, monkeypatch):
    """`rounding("bf16")` makes products so from then on."""

    def choose(name):
        for function, kernel in products.product_kernels(name).items():
            at = type(cupy_backend.asarray(0)), function
            monkeypatch.setitem(overridable._KERNELS, at, kernel)

    return choose


# --- layouts -------------------------------------------------------------------------------------


def swapped(a):
    return np.swapaxes(a, -1, -2)


LAYOUTS = {
    # name: shapes in memory, what is made of them, calls, copies
    "two matrices": ((3, 4), (4, 5), lambda x, y: (x, y), 1, 0),
    "both transposed": ((4, 3), (5, 4), lambda x, y: (x.T, y.T), 1, 0),
    "columns of a wider one": ((3, 9), (4, 7), lambda x, y: (x[:, 2:6], y[:, 1:6]), 1, 0),
    "every other row": ((6, 4), (8, 5), lambda x, y: (x[::2], y[::2]), 1, 0),
    "rows of a transposed one": ((4, 9), (4, 5), lambda x, y: (x.T[2:5], y), 1, 0),
    "a stack and a matrix": ((6, 3, 4), (4, 5), lambda x, y: (x, y), 1, 0),
    "a matrix and a stack": ((3, 4), (6, 4, 5), lambda x, y: (x, y), 1, 0),
    "a transposed matrix and a stack": ((4, 3), (6, 4, 5), lambda x, y: (x.T, y), 1, 0),
    "a stack of transposed ones": ((6, 4, 3), (6, 4, 5), lambda x, y: (swapped(x), y), 1, 0),
    "a repeated matrix": ((3, 4), (6, 4, 5), lambda x, y: (np.broadcast_to(x, (6, 3, 4)), y), 1, 0),
    "groups of channels": (
        *((30, 6, 4), (4, 6, 5)),
        lambda x, y: (np.swapaxes(x, 0, 1), np.swapaxes(y, 0, 1)),
        *(1, 0),
    ),
    "a second stack that leads last": (
        *((3, 4), (4, 5, 6)),
        lambda x, y: (x, np.moveaxis(y, -2, 0)),
        *(1, 0),
    ),
    "two axes that are one": ((2, 6, 3, 4), (2, 6, 4, 5), lambda x, y: (x, y), 1, 0),
    "k stacks and a stack": ((2, 6, 3, 4), (6, 4, 5), lambda x, y: (x, y), 2, 0),
    # written out, the repeated one would be six times the result
    "20 stacks of rows and a stack": ((20, 30, 1, 6), (30, 6, 2), lambda x, y: (x, y), 20, 0),
    "every pair": ((6, 1, 3, 4), (3, 4, 5), lambda x, y: (x, y), 3, 0),
    "many pairs": ((18, 1, 3, 4), (17, 4, 5), lambda x, y: (x, y), 17, 0),
    "axes of length 1": ((6, 1, 1, 4), (4, 1), lambda x, y: (x[:, :, ::3], y), 1, 0),
    "heads": (
        *((7, 5, 2, 4), (7, 5, 2, 4)),
        lambda x, y: (np.swapaxes(x, 1, 2), np.transpose(y, (0, 2, 3, 1))),
        *(2, 0),
    ),
    "vectors": ((4,), (4,), lambda x, y: (x, y), 1, 0),
    "a vector and a stack": ((4,), (6, 4, 5), lambda x, y: (x, y), 1, 0),
    "a stack and every other entry": ((6, 3, 4), (8,), lambda x, y: (x, y[::2]), 1, 0),
    "no directions": ((0, 3, 4), (4, 5), lambda x, y: (x, y), 0, 0),
    "no rows": ((6, 0, 4), (4, 5), lambda x, y: (x, y), 0, 0),
    "sums of nothing": ((6, 3, 0), (0, 5), lambda x, y: (x, y), 0, 0),
    "rows backwards": ((3, 4), (4, 5), lambda x, y: (x[::-1], y), 1, 1),
    "every other column": ((3, 8), (4, 9), lambda x, y: (x[:, ::2], y[:, ::2]), 1, 2),
    "windows that overlap": ((6,), (4, 5), lambda x, y: (windows(x), y), 1, 1),
    "a repeated row": ((4,), (4, 5), lambda x, y: (np.broadcast_to(x, (3, 4)), y), 1, 1),
    "a stack backwards": ((6, 3, 4), (6, 4, 5), lambda x, y: (x[::-1], y), 1, 1),
    "a stack that leads last": ((3, 4, 6), (4, 5), lambda x, y: (np.moveaxis(x, -1, 0), y), 1, 1),
    "many heads": ((18, 3, 17, 4), (18, 17, 4, 5), lambda x, y: (np.swapaxes(x, 1, 2), y), 1, 1),
    "20 stacks and a stack": ((20, 30, 6, 2), (30, 2, 6), lambda x, y: (x, y), 1, 1),
}


def windows(x):
    """Rows of 4 that begin one entry after the other."""
    view = importlib.import_module("cupy") if not isinstance(x, np.ndarray) else np
    return view.lib.stride_tricks.as_strided(x, (3, 4), 2 * x.strides)


def both_sides(made, shapes, dtype, backend, rng):
    """Arrays that are made alike of contiguous ones on the host and on the device."""
    here = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return made(*here), made(*moved(here, backend))


@BOTH
@pytest.mark.parametrize("name", LAYOUTS)
def test_what_blas_can_read_is_not_copied(name, dtype, cupy_backend, happened, rng):
    *shapes, made, calls, copied = LAYOUTS[name]
    here, there = both_sides(made, shapes, dtype, cupy_backend, rng)
    happened.clear()
    got = matmul(*there)
    assert happened == Counter(calls=calls, copied=copied, new=1)
    assert_same(got, np.matmul(*here), cupy_backend, ALLOWED[dtype], name)


def in_any_layout(shape, rng):
    """A shape in memory, and how to make of an array of that shape one of `shape`, whose axes lie
    in any order, with gaps, backwards, or repeated."""
    order = rng.permutation(len(shape))
    gaps = rng.integers(1, 3, len(shape))
    kinds = rng.choice(["plain", "plain", "gap", "backwards", "repeated"], len(shape))
    memory, key = [], []
    for axis in order:
        n, gap, kind = shape[axis], int(gaps[axis]), kinds[axis]
        if kind == "gap":
            memory.append(n * gap + 1)
            key.append(slice(1, 1 + n * gap, gap))
        else:
            memory.append(1 if kind == "repeated" and n else n)
            key.append(slice(None, None, -1 if kind == "backwards" else 1))
    back = tuple(int(axis) for axis in np.argsort(order))

    def made(a):
        view = np.transpose(a[tuple(key)], back)
        return view if view.shape == shape else np.broadcast_to(view, shape)

    return tuple(memory), made


def random_operands(rng):
    """Shapes that can be multiplied, stretched against each other at random."""
    batch = tuple(rng.integers(0, 4, rng.integers(0, 4))) if rng.random() < 0.1 else ()
    batch = batch or tuple(rng.integers(1, 4, rng.integers(0, 4)))
    m, n, p = rng.integers(0 if rng.random() < 0.1 else 1, 5, 3)
    shapes = []
    for matrix in ((m, n), (n, p)):
        lead = [1 if rng.random() < 0.3 else size for size in batch[rng.integers(0, 4) :]]
        shapes.append((*lead, *matrix))
    if rng.random() < 0.1:
        shapes[0] = (n,)
    if rng.random() < 0.1:
        shapes[1] = (n,)
    return [tuple(map(int, shape)) for shape in shapes]


@pytest.mark.parametrize("rounded", MATMUL_PRECISIONS)
@BOTH
def test_any_layout(dtype, rounded, cupy_backend, rounding, rng):
    rounding(rounded)
    for _ in range(200):
        laid = [in_any_layout(shape, rng) for shape in random_operands(rng)]
        here = [rng.standard_normal(memory).astype(dtype) for memory, _ in laid]
        there = [make(cupy_backend.asarray(a)) for a, (_, make) in zip(here, laid, strict=True)]
        x, y = (make(a) for a, (_, make) in zip(here, laid, strict=True))
        expected = np.matmul(x, y)
        memory, make = in_any_layout(expected.shape, rng)
        outs = [cupy_backend.asarray(np.full(memory, 7, dtype))]
        out = make(outs[0])
        writable = 0 not in [s for s, n in zip(out.strides, out.shape, strict=True) if n > 1]
        for got in (matmul(*there), matmul(*there, out) if writable else None):
            if got is None:
                continue
            bound = (
                (1 + largest_error(rounded, cupy_backend)) ** 2 - 1 if dtype == np.float32 else 0.0
            )
            allowed = bound * np.matmul(np.abs(x), np.abs(y)) + 20 * ALLOWED[dtype]
            assert got.shape == expected.shape and got.dtype == dtype
            what = f"{x.shape} {x.strides} @ {y.shape} {y.strides} into {out.strides}"
            assert np.all(np.abs(cupy_backend.to_host(got) - expected) <= allowed), what
        if writable:
            assert got is out
            fill = cupy_backend.to_host(outs[0])
            assert (fill == 7).sum() >= fill.size - expected.size  # nothing else was written


# --- where results go ----------------------------------------------------------------------------

OUTS = {
    # name: shape in memory, the view of it that is written, whether it is written at once
    "contiguous": ((6, 3, 5), lambda a: a, True),
    "columns of a wider one": ((6, 3, 9), lambda a: a[..., 2:7], True),
    "groups of channels": ((3, 6, 5), lambda a: np.swapaxes(a, 0, 1), True),
    "transposed": ((6, 5, 3), swapped, True),
    "backwards": ((6, 3, 5), lambda a: a[:, ::-1], False),
    "every other column": ((6, 3, 10), lambda a: a[..., ::2], False),
}


@pytest.mark.parametrize("transposed", (False, True))
@pytest.mark.parametrize("name", OUTS)
def test_a_result_is_put_where_it_belongs(name, transposed, cupy_backend, happened, rng):
    memory, view, at_once = OUTS[name]
    x, y = rng.standard_normal((6, 4, 3)), rng.standard_normal((5, 4))
    x, y = (swapped(x), y.T) if transposed else (swapped(x).copy(), y.T.copy())
    whole = np.full(memory, 7.0)
    np.matmul(x, y, out=view(whole))
    there = cupy_backend.asarray(np.full(memory, 7.0))
    x, y = cupy_backend.asarray(x), cupy_backend.asarray(y)
    out = view(there)
    assert matmul(x, y, out) is out
    assert happened == Counter(calls=1, new=0 if at_once else 1)
    assert_same(there, whole, cupy_backend, 1e-12)


@pytest.mark.parametrize("rounded", MATMUL_PRECISIONS)
@pytest.mark.parametrize("side", (0, 1))
def test_nothing_is_written_over_before_it_is_read(side, rounded, cupy_backend, rounding, rng):
    rounding(rounded)
    x, y = rng.standard_normal((2, 6, 4, 4))
    for read, written in ((slice(6), slice(6)), (slice(6), slice(2, 8)), (slice(2, 8), slice(6))):
        a = cupy_backend.asarray(np.concatenate([x, x[:2]]))
        factors = [cupy_backend.asarray(y)] * 2
        factors[side] = a[read]
        expected = np.matmul(*map(cupy_backend.to_host, factors))
        matmul(*factors, a[written])
        assert_same(a[written], expected, cupy_backend, 1e-12)


def test_a_result_that_repeats_one_place_is_not_left_to_chance(cupy_backend, happened, rng):
    x, y = rng.standard_normal((6, 3, 4)), rng.standard_normal((4, 5))
    there = moved((x, y), cupy_backend)
    row = cupy_backend.asarray(np.zeros((1, 3, 5)))
    out = importlib.import_module("cupy").lib.stride_tricks.as_strided(
        row, (6, 3, 5), (0, *row.strides[1:])
    )
    matmul(*there, out)
    assert happened["new"] == 1


# --- few columns ---------------------------------------------------------------------------------

FEW = {
    # name: shapes in memory, what is made of them
    "a matrix": ((33, 300), (300, 10), lambda x, y: (x, y)),
    "two columns": ((3, 256), (256, 2), lambda x, y: (x, y)),
    "sixteen columns, one row": ((1, 512), (512, 16), lambda x, y: (x, y)),
    "nine columns": ((5, 516), (516, 9), lambda x, y: (x, y)),
    "transposed": ((5, 1028), (10, 1028), lambda x, y: (x, y.T)),
    "parts of wider ones": ((9, 600), (300, 30), lambda x, y: (x[::2, 8:308], y[:, 3::4])),
    "a stack and a matrix": ((3, 9, 260), (260, 10), lambda x, y: (x, y)),
    "a matrix and a stack": ((9, 260), (3, 260, 10), lambda x, y: (x, y)),
    "two stacks": ((3, 2, 9, 260), (3, 2, 260, 5), lambda x, y: (x, y)),
    "a stack in another order": ((9, 3, 260), (3, 260, 5), lambda x, y: (np.swapaxes(x, 0, 1), y)),
}


@pytest.fixture
def few_columns(products, monkeypatch, request):
    """Launches of the kernel, which are counted; `four_rows` as a parameter of the test."""
    launched = []
    launch = products._FEW_COLUMNS.launch
    monkeypatch.setattr(products._FEW_COLUMNS, "threads", 64 if request.param else 128)
    monkeypatch.setattr(products._FEW_COLUMNS, "_compiled", {})
    monkeypatch.setattr(products, "_FOUR_ROWS_FROM", 1 if request.param else 1 << 30)
    monkeypatch.setattr(
        products._FEW_COLUMNS, "launch", lambda *a: (launched.append(a[-2]), launch(*a))
    )
    return launched


@pytest.mark.parametrize("few_columns", (False, True), ids=("row", "four rows"), indirect=True)
@pytest.mark.parametrize("name", FEW)
def test_few_columns(name, few_columns, cupy_backend, happened, rng):
    *shapes, made = FEW[name]
    here, there = both_sides(made, shapes, np.float32, cupy_backend, rng)
    happened.clear()
    got = matmul(*there)
    assert len(few_columns) == 1 and happened == Counter(new=1)
    product = np.matmul(*(a.astype(np.float64) for a in here))
    allowed = 1e-6 * np.matmul(*map(np.abs, here))
    assert np.all(np.abs(cupy_backend.to_host(got) - product) <= allowed), name
    before = rng.standard_normal((*product.shape[:-1], 23)).astype(np.float32)
    whole = cupy_backend.asarray(before)
    out = whole[..., 2 : 2 + product.shape[-1]]
    assert multiply_onto(*there, out) is out and len(few_columns) == 2
    before[..., 2 : 2 + product.shape[-1]] += cupy_backend.to_host(got)
    np.testing.assert_array_equal(cupy_backend.to_host(whole), before)


@pytest.mark.parametrize("few_columns", (True,), indirect=True)
def test_few_columns_are_summed_alike(few_columns, products, cupy_backend, monkeypatch, rng):
    """A row's sums do not depend on how many rows there are, nor on the columns beside."""
    x, y = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((9, 700 * 4), (700 * 4, 16))
    )
    x, y = moved((x[:, :1100].copy(), y[:1100].copy()), cupy_backend)
    whole = cupy_backend.to_host(matmul(x, y))
    for columns in (2, 4, 7, 8, 10, 12, 13):
        for most in (1, 1 << 30):
            monkeypatch.setattr(products, "_FOUR_ROWS_FROM", most)
            got = cupy_backend.to_host(matmul(x[2:7], y[:, :columns]))
            np.testing.assert_array_equal(got, whole[2:7, :columns])
    assert set(few_columns) == {0, 1}


@pytest.mark.parametrize("few_columns", (True,), indirect=True)
def test_what_the_kernel_of_few_columns_cannot_read(few_columns, cupy_backend, rng):
    x, y = (rng.standard_normal(n).astype(np.float32) for n in (2800, 3000))
    for made in (
        lambda x, y: (x[:2727].reshape(9, 303), y[:2727].reshape(303, 9)),  # not all rows aligned
        lambda x, y: (x[1:2701].reshape(9, 300), y[:2700].reshape(300, 9)),  # none of them
        lambda x, y: (x[:2600].reshape(260, 10).T, y[:2600].reshape(260, 10)),  # columns
        lambda x, y: (x[:2268].reshape(9, 252), y[:2268].reshape(252, 9)),  # short sums
        lambda x, y: (x[:2600].reshape(10, 260), y[:260].reshape(260, 1)),  # one column
    ):
        here, there = made(x, y), made(*moved((x, y), cupy_backend))
        assert_same(matmul(*there), np.matmul(*here), cupy_backend, ALLOWED[np.float32])
    assert not few_columns


# --- products that add ---------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_product_is_added_where_it_is_written(name, dtype, cupy_backend, happened, rng):
    *shapes, made, calls, copied = LAYOUTS[name]
    here, there = both_sides(made, shapes, dtype, cupy_backend, rng)
    product = np.matmul(*here)
    if not product.ndim:
        return  # a number, which is no array on the host
    before = rng.standard_normal(product.shape).astype(dtype)
    out = cupy_backend.asarray(before)
    happened.clear()
    assert multiply_onto(*there, out) is out
    assert happened == Counter(calls=calls, copied=copied)
    assert_same(out, before + product, cupy_backend, 2 * ALLOWED[dtype], name)


@pytest.mark.parametrize("rounded", MATMUL_PRECISIONS)
@BOTH
def test_any_layout_is_added_to(dtype, rounded, cupy_backend, rounding, rng):
    """Bit for bit what a product and an addition give, on the stand-in, which adds as they do."""
    rounding(rounded)
    for _ in range(200):
        shapes = random_operands(rng)
        if len(shapes[0]) == len(shapes[1]) == 1:
            continue
        laid = [in_any_layout(shape, rng) for shape in shapes]
        here = [rng.standard_normal(memory).astype(dtype) for memory, _ in laid]
        there = [make(cupy_backend.asarray(a)) for a, (_, make) in zip(here, laid, strict=True)]
        product = cupy_backend.to_host(matmul(*there))
        memory, make = in_any_layout(product.shape, rng)
        before = rng.standard_normal(memory).astype(dtype)
        whole = cupy_backend.asarray(before)
        out = make(whole)
        steps = zip(out.strides, out.shape, strict=True)
        if out.size and 0 in [step for step, n in steps if n > 1]:
            with pytest.raises(ValueError, match="entries have places of their own, got shape"):
                multiply_onto(*there, out)
            continue
        assert multiply_onto(*there, out) is out
        expected = before.copy()
        view = make(expected)
        view.flags.writeable = True
        view += product
        allowed = 0.0 if is_stand_in(cupy_backend) else 100 * ALLOWED[dtype]
        assert_same(whole, expected, cupy_backend, allowed)  # and nothing else was written


@pytest.mark.parametrize("side", (0, 1))
def test_what_overlaps_a_factor_is_added_to_afterwards(side, cupy_backend, rng):
    x, y = rng.standard_normal((2, 6, 4, 4))
    a = cupy_backend.asarray(np.concatenate([x, x[:2]]))
    factors = [cupy_backend.asarray(y)] * 2
    factors[side] = a[:6]
    here = list(map(cupy_backend.to_host, factors))
    expected = cupy_backend.to_host(a[2:]) + np.matmul(*here)
    multiply_onto(*factors, a[2:])
    assert_same(a[2:], expected, cupy_backend, 1e-12)


def test_what_cannot_be_added_is_left_to_the_library(cupy_backend):
    """It adds integers, stretches the product, and refuses other shapes."""
    ones = cupy_backend.asarray(np.ones((2, 3, 3), np.int64))
    multiply_onto(ones[0], ones[1], ones[0])
    np.testing.assert_array_equal(cupy_backend.to_host(ones[0]), 4)
    reals = cupy_backend.asarray(np.ones((2, 3, 3)))
    multiply_onto(reals[0], reals[1], reals)
    np.testing.assert_array_equal(cupy_backend.to_host(reals), 4)
    with pytest.raises(ValueError):
        multiply_onto(reals[0], reals[1], cupy_backend.asarray(np.ones((3, 4))))
    host = np.ones((3, 3))
    assert multiply_onto(host, host, host) is host and (host == 4).all()


# --- what is left to CuPy ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kinds", [(np.int64, np.int64), (np.float32, np.float64), (np.float16, np.float16)], ids=str
)
def test_other_numbers_are_left_to_cupy(kinds, cupy_backend, happened, rng):
    x, y = (rng.integers(-9, 9, (3, 3)).astype(kind) for kind in kinds)
    assert_as_on_host(matmul, (x, y), cupy_backend, 1e-12)
    assert happened["calls"] == 0


@pytest.mark.parametrize(
    "shapes", [((3, 4), (3, 4)), ((2, 3, 4), (3, 4, 5)), ((), (3,)), ((3,), (4, 3))], ids=str
)
def test_errors_are_those_of_the_library(shapes, cupy_backend):
    there = [cupy_backend.asarray(np.ones(shape)) for shape in shapes]
    with pytest.raises(ValueError):
        matmul(*there)
    fits = [cupy_backend.asarray(np.ones(shape)) for shape in ((3, 4), (4, 5), (3, 4))]
    with pytest.raises(ValueError):
        matmul(*fits)
    with pytest.raises(TypeError):
        matmul(fits[0], np.ones((4, 5)))


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_large_product_of_a_step_is_cupys_own(name, rule, stand_in, rng, key, monkeypatch):
    ours = fake_arrays.ndarray.__array_ufunc__

    def watched(self, ufunc, method, *inputs, **kwargs):
        arrays = all(type(x) is fake_arrays.ndarray and x.dtype == np.float32 for x in inputs)
        if ufunc is np.matmul and arrays:
            assert max(x.ndim for x in inputs) < 3, [x.shape for x in inputs]
        return ours(self, ufunc, method, *inputs, **kwargs)

    in_shape, layers = NETWORKS[name]
    p = on(stand_in, problem(rng, key, *layers, in_shape=in_shape, dtype=np.float32))
    rule_state = rule.init(key, p.plan, p.params)
    monkeypatch.setattr(fake_arrays.ndarray, "__array_ufunc__", watched)
    p.step(rule, key, stand_in, rule_state=rule_state)


# --- rounding ------------------------------------------------------------------------------------


def nearest_bfloat16(x):
    """The bfloat16 nearest to each float32, ties to even, by arithmetic in float64."""
    with np.errstate(invalid="ignore"):  # of some NaN
        x = x.astype(np.float64)
        _, exponent = np.frexp(x)
        unit = np.ldexp(1.0, np.maximum(exponent - 8, -133))  # below 2^-126 they are evenly spaced
        rounded = np.rint(x / unit) * unit
    return np.where(np.abs(rounded) >= 2.0**128, np.copysign(np.inf, x), rounded)


def test_rounding_to_bfloat16(products, cupy_backend, rng):
    bits = rng.integers(0, 2**32, 4096, dtype=np.uint32)
    ties = bits[:1024] & 0xFFFF0000 | 0x8000
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-45], np.float32)
    hidden = np.array([0x7F800001, 0xFF80FFFF], np.uint32)  # NaN by their lower halves alone
    x = np.concatenate([bits, ties, ties - 1, ties + 1, special.view(np.uint32), hidden])
    x = x.astype(np.uint32).view(np.float32)
    kept = cupy_backend.to_host(products._to_bfloat16(cupy_backend.asarray(x)))
    assert kept.dtype == np.uint16
    got = (kept.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(got, np.where(np.isnan(x), np.nan, nearest_bfloat16(x)))
    assert np.array_equal(np.signbit(got), np.signbit(x))


def test_rounding_of_any_size_from_any_place(products, cupy_backend, rng):
    x = rng.standard_normal(2100).astype(np.float32)
    there = cupy_backend.asarray(x)
    for size in (*range(10), 1023, 1024, 1025, 2050):
        for start in range(5):
            part = slice(start, start + size)
            kept = cupy_backend.to_host(products._to_bfloat16(there[part]))
            got = (kept.astype(np.uint32) << 16).view(np.float32)
            np.testing.assert_array_equal(got, nearest_bfloat16(x[part]))


def test_rounding_keeps_the_order_of_axes(products, cupy_backend, happened, rng):
    x = rng.standard_normal((3, 4, 5, 6)).astype(np.float32)
    for axes in itertools.permutations(range(4)):
        there = np.transpose(cupy_backend.asarray(x), axes)
        rounded = products._to_bfloat16(there)
        assert rounded.shape == there.shape
        assert [2 * step for step in rounded.strides] == list(there.strides)
        got = (cupy_backend.to_host(rounded).astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(got, nearest_bfloat16(np.transpose(x, axes)))
    assert not happened["copied"]


def test_what_is_repeated_is_rounded_once(products, cupy_backend, happened, rng):
    x, y = (rng.standard_normal(s).astype(np.float32) for s in ((3, 4), (6, 4, 5)))
    there = np.broadcast_to(cupy_backend.asarray(x), (6, 3, 4)), cupy_backend.asarray(y)
    got = products.product_kernels("bf16")["matmul"](*there)
    assert happened == Counter(calls=1, new=3)  # two rounded factors and the result
    expected = np.matmul(nearest_bfloat16(x), nearest_bfloat16(y)).astype(np.float32)
    assert_same(got, expected, cupy_backend, 1e-6)


@pytest.mark.parametrize("rounded", MATMUL_PRECISIONS)
def test_factors_are_rounded_as_asked_for(rounded, cupy_backend, rounding):
    """1 + 2^-8, 1 + 2^-12 and 1 + 2^-16 need 9, 13 and 17 bits."""
    rounding(rounded)
    x = np.array([[1 + 2.0**-8, 0], [0, 1 + 2.0**-12], [1 + 2.0**-16, 0]], np.float32)
    identity = np.identity(2, np.float32)
    expected = {
        "full": x,
        "tf32": np.array([[1 + 2.0**-8, 0], [0, 1], [1, 0]], np.float32),
        "bf16": np.array([[1, 0], [0, 1], [1, 0]], np.float32),
    }
    for dtype in (np.float32, np.float64):
        got = matmul(*moved((x.astype(dtype), identity.astype(dtype)), cupy_backend))
        due = expected[rounded] if dtype == np.float32 else x
        if may_differ(rounded, cupy_backend):
            np.testing.assert_allclose(cupy_backend.to_host(got), x, rtol=2.0**-10)
        else:
            np.testing.assert_array_equal(cupy_backend.to_host(got), due.astype(dtype))


def test_sums_are_in_float32(cupy_backend, rounding):
    """257 needs 9 bits, and is no bfloat16."""
    rounding("bf16")
    ones = cupy_backend.asarray(np.ones((2, 257), np.float32))
    got = cupy_backend.to_host(matmul(ones, ones.T))
    assert got.dtype == np.float32 and (got == 257).all()


def test_a_product_with_a_vector_is_not_rounded(cupy_backend, rounding, rng):
    rounding("bf16")
    x, y = rng.standard_normal((5, 4)).astype(np.float32), rng.standard_normal(4).astype(np.float32)
    assert_as_on_host(matmul, (x, y), cupy_backend, ALLOWED[np.float32])


def test_exact_matmuls_are_not_rounded(cupy_backend, rounding, happened, rng):
    """Inner products of directions, dense and of rank one, and images made larger."""
    rounding("bf16")
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((6, 7), (7, 5)))
    for dtype in (np.float32, np.float64):
        factors = x, y.astype(dtype)
        assert_as_on_host(overridable.exact_matmul, factors, cupy_backend, ALLOWED[dtype])
    assert happened["calls"] == 2  # both by the library, which a recorded step may call
    dense = rng.standard_normal((4, 5, 6)).astype(np.float32)
    factors = [rng.standard_normal((4, n)).astype(np.float32) for n in (5, 6)]
    for t, there in (
        (dense, cupy_backend.asarray(dense)),
        (RankOne(*factors), RankOne(*moved(factors, cupy_backend))),
    ):
        got = inner_products(there, there)
        assert_same(got, inner_products(t, t), cupy_backend, 10 * ALLOWED[np.float32])
    images = rng.random((2, 5, 4, 3)).astype(np.float32)
    assert_as_on_host(enlarged, (images,), cupy_backend, 1e-5, 9)


# --- the library ----------------------------------------------------------------------------------


def test_what_the_library_refuses_is_an_error(products, monkeypatch):
    failing = SimpleNamespace(cublasSetStream_v2=lambda *_: 13)
    monkeypatch.setattr(products.cublas, "_library", lambda: failing)
    with pytest.raises(BackendError, match="cublasSetStream_v2 of cuBLAS failed with status 13"):
        products.cublas._call("cublasSetStream_v2", 0, 0)


@pytest.mark.parametrize(
    "platform, version, name",
    [
        ("linux", 12090, "libcublas.so.12"),
        ("linux", 13000, "libcublas.so.13"),
        ("win32", 13000, "cublas64_13.dll"),
    ],
)
def test_the_library_is_that_of_the_runtime(platform, version, name, cupy_backend):
    """Loaded as it is where there is one: its name, the types of its arguments."""
    fresh = importlib.util.find_spec("dualnet.backends.cublas")
    cublas = importlib.util.module_from_spec(fresh)
    fresh.loader.exec_module(cublas)
    loaded = []

    def library(name):
        loaded.append(name)
        return SimpleNamespace(**{function: SimpleNamespace() for function in cublas._ARGUMENTS})

    runtime = cublas.cupy.cuda.runtime
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "runtimeGetVersion", lambda: version, raising=False)
        patch.setattr(cublas.sys, "platform", platform)
        patch.setattr(cublas.ctypes, "CDLL", library)
        found = cublas._library()
        assert loaded == [name]
        assert found.cublasGemmEx.argtypes == cublas._ARGUMENTS["cublasGemmEx"]
        cublas._library.cache_clear()
        patch.setattr(cublas.ctypes, "CDLL", lambda name: SimpleNamespace())
        with pytest.raises(BackendError, match=rf"cuBLAS \({re.escape(name)}\) cannot be used: "):
            cublas._library()


def test_sizes_that_the_library_cannot_count_are_left_to_cupy(products, cupy_backend):
    one = cupy_backend.asarray(np.ones((1, 1), np.float32))
    wide = np.broadcast_to(one, (1, 2**31))
    assert products._result_shapes(one, wide, None) is None
    assert products._result_shapes(one, np.broadcast_to(one, (2**31, 1, 1)), None) is None
    assert products._result_shapes(one, np.broadcast_to(one, (1, 2**31 - 1)), None) is not None


# --- how far rounding moves derivatives ----------------------------------------------------------


def derivatives(network, params, state, tangents, x):
    """The sum of the outputs: its derivative along the tangents, and its gradient."""

    def outputs(params):
        return network.apply(params, state, x, Context())[0].sum()

    return dn.jvp(outputs, (params,), (tangents,))[1], dn.grad(outputs)(params)


def drawn(network, n, features, k, rng, key):
    """The arguments of `derivatives`, of k tangents and n examples."""
    params, state, _ = network.init(key, (features,))
    tangents = tree.map(lambda t: t.astype(np.float32), random_directions(key, params, k))
    return params, state, tangents, rng.standard_normal((n, features)).astype(np.float32)


DEPTH = 3


@pytest.mark.parametrize("rounded", ("tf32", "bf16"))
def test_derivatives_are_as_round_as_their_factors(rounded, cupy_backend, rounding, rng, key):
    """Of linear layers, each sum's terms have at most two factors a layer, each rounded once: so
    the error is at most (1 + u)^(2 DEPTH) - 1 of the same sum of absolute values."""
    network = Sequential(tuple((f"linear{i}", Linear(16, bias=False)) for i in range(DEPTH)))
    here = drawn(network, 9, 12, 4, rng, key)
    exact, sizes = derivatives(network, *here), derivatives(network, *tree.map(np.abs, here))
    rounding(rounded)
    got = moved_back(derivatives(network, *moved(here, cupy_backend)), cupy_backend)
    bound = (1 + largest_error(rounded, cupy_backend)) ** (2 * DEPTH) - 1
    for g, e, size in zip(*map(tree.leaves, (got, exact, sizes)), strict=True):
        assert np.all(np.abs(g - e) <= bound * size + 1e-5 * size)
        if not may_differ(rounded, cupy_backend):  # they are rounded
            assert np.abs(g - e).max() > HALF_UNIT[rounded] / 16 * np.abs(e).max()


@pytest.mark.parametrize("rounded", ("tf32", "bf16"))
@pytest.mark.parametrize("activation", ("tanh", "relu"))
def test_derivatives_of_a_network(activation, rounded, cupy_backend, rounding, rng, key, worst):
    """Seen as long vectors: a smooth network's err by less than if all factors were off the same
    way.  Of ReLUs so small a share changes sides, each of which is an error of its full size: the
    vector's is at most the root of that share."""
    network = MLP(width=64, depth=DEPTH - 1, activation=activation).network((64,), 10)
    here = drawn(network, 128, 64, 64, rng, key)
    exact = derivatives(network, *here)
    rounding(rounded)
    got = moved_back(derivatives(network, *moved(here, cupy_backend)), cupy_backend)
    same_way = 2 * DEPTH * largest_error(rounded, cupy_backend)
    for what, g, e in zip(("jvp", "gradient"), got, exact, strict=True):
        g, e = (np.concatenate([np.ravel(leaf) for leaf in tree.leaves(t)]) for t in (g, e))
        error = np.linalg.norm(g - e) / np.linalg.norm(e)
        worst(f"{rounded} {what} against full precision, {activation}", error, f"{DEPTH} layers")
        assert error < (same_way if activation == "tanh" else same_way**0.5)
        if not may_differ(rounded, cupy_backend):  # they are rounded
            assert error > HALF_UNIT[rounded] / 16
