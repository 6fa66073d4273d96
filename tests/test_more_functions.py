"""Statistics, signals and rearranging: every keyword against NumPy, conventions, refusals, JAX.

`python -m dualnet.check` verifies the derivatives of one row for each way of calling a function;
here are the values, what happens at ties and knots, and combinations of keywords.
"""

import warnings

import numpy as np
import pytest
from peers import peer

import dualnet as dn
from dualnet import tree
from dualnet.check.operations import rearranging, signals, statistics
from dualnet.check.operations.statistics import METHODS
from dualnet.core.tables.signals import slide
from dualnet.errors import EscapedDualError, MissingRuleError

windows = np.lib.stride_tricks.sliding_window_view
WHICH = np.array([[0, 1, 2, 1], [2, 2, 0, 0], [1, 1, 1, 0]])
FREQUENCIES = np.array([1, 2, 1, 3, 1])


def same_value(f, *xs):
    """The primals are NumPy's, bit for bit, with their dtype; and all of them carry tangents."""
    expected = tree.leaves(listed(f(*xs)))
    out, _ = dn.jvp(lambda *ys: listed(f(*ys)), xs, tuple(map(np.ones_like, xs)))
    assert len(tree.leaves(out)) == len(expected)
    for got, wanted in zip(tree.leaves(out), expected, strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)


def listed(y):
    return list(y) if isinstance(y, tuple) else y


def verified(f, *xs, order=2):
    """Value, both modes and the second order."""
    same_value(f, *xs)
    dn.check_jvp(lambda *ys: listed(f(*ys)), xs, order=order)
    dn.check_vjp(lambda *ys: listed(f(*ys)), xs, order=order)


def apart(rng, *shape):
    """Numbers that differ by 0.8 at least, in random order."""
    n = int(np.prod(shape))
    return (rng.permutation(n) + rng.uniform(-0.1, 0.1, n)).reshape(shape)


# --- order statistics ----------------------------------------------------------------------------

AXES = (None, 0, 1, -1, (0, 2), (2, 0), (0, 1, 2))


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_quantiles_along_all_axes(axis, keepdims, rng):
    x, how = apart(rng, 2, 3, 4), {"axis": axis, "keepdims": keepdims}
    verified(lambda x: np.median(x, **how), x)
    for q in (0.3, [0.15, 0.8], np.array([[0.4], [0.6]])):
        verified(lambda x, q=q: np.quantile(x, q, **how), x)
    verified(lambda x, q: np.percentile(x, q, **how), x, np.array([33.3, 71.7]))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_a_quantile(method, rng):
    x = apart(rng, 3, 5)
    for q in (0.07, 0.41, 0.5, 0.77, 0.96):
        verified(lambda x, q=q: np.quantile(x, q, axis=1, method=method), x)
        verified(lambda x, q=q: np.percentile(x, 100 * q, method=method), x)
    by_q = dn.jacfwd(lambda q: np.quantile(x, q, axis=0, method=method))(np.array(0.43))
    step = 1e-6
    high, low = (np.quantile(x, 0.43 + s, axis=0, method=method) for s in (step, -step))
    np.testing.assert_allclose(by_q, (high - low) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantiles_keep_their_dtype(dtype, rng):
    x = apart(rng, 3, 4).astype(dtype)
    for f in (np.median, np.nanmedian, lambda x: np.quantile(x, 0.3), np.ptp, np.nanstd, np.nanmax):
        same_value(f, x)
        gradient = dn.grad(f)(x)
        assert gradient.dtype == dtype


def test_weights_of_a_quantile(rng):
    x, w = apart(rng, 3, 4), rng.uniform(0.5, 2, (3, 4))
    how = {"method": "inverted_cdf"}
    verified(lambda x: np.quantile(x, 0.4, weights=w, **how), x)
    verified(lambda x: np.quantile(x, [0.2, 0.9], axis=1, weights=w[0], **how), x)


def test_the_median_of_an_even_count_is_half_of_each_and_equal_entries_keep_their_order():
    assert dn.grad(np.median)(np.array([4.0, 1.0, 2.0, 9.0])).tolist() == [0.5, 0, 0.5, 0]
    assert dn.grad(np.median)(np.array([2.0, 1.0, 2.0])).tolist() == [1, 0, 0]
    assert dn.grad(np.median)(np.array([2.0, 2.0, 2.0, 2.0])).tolist() == [0, 0.5, 0.5, 0]
    ties = np.array([2.0, 1.0, 2.0, 2.0])
    assert dn.grad(lambda x: np.quantile(x, 0.5, method="lower"))(ties).tolist() == [1, 0, 0, 0]


def test_the_slope_by_q_at_an_entry_is_that_of_the_interval_above():
    x = np.array([0.0, 1.0, 5.0])
    by_q = [dn.grad(lambda q: np.quantile(x, q))(np.array(q)) for q in (0.0, 0.25, 0.5, 1.0)]
    assert by_q == [2, 2, 8, 8]
    assert dn.grad(lambda q: np.quantile(x, q, method="hazen"))(np.array(0.05)) == 0  # its end


def test_a_quantile_of_nan_is_nan_and_so_are_its_slopes():
    x = np.array([1.0, np.nan, 3.0])
    assert np.isnan(dn.grad(np.median)(x)).any()
    assert dn.grad(np.nanmedian)(x).tolist() == [0.5, 0, 0.5]


def test_partition_and_ptp(rng):
    x = apart(rng, 3, 4)
    for axis in (None, 0, 1, -1):
        for kth in (1, (0, 2), -1):
            verified(lambda x, axis=axis, kth=kth: np.partition(x, kth, axis=axis), x)
        verified(lambda x, axis=axis: np.ptp(x, axis=axis), x)
    ties = np.array([2.0, 1.0, 2.0, 1.0])
    _, t = dn.jvp(lambda x: np.partition(x, 1), (ties,), (np.array([10.0, 20, 30, 40]),))
    assert t.tolist() == [20, 40, 10, 30]
    assert dn.grad(np.ptp)(ties).tolist() == [0.5, -0.5, 0.5, -0.5]


# --- averages and covariances --------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2), (2, 0)])
@pytest.mark.parametrize("returned", [False, True])
def test_average(axis, returned, rng):
    x, w = rng.normal(size=(2, 3, 4)), rng.uniform(0.5, 2, (2, 3, 4))
    how = {"axis": axis, "returned": returned}
    verified(lambda x, w: np.average(x, weights=w, **how), x, w)
    verified(lambda w: np.average(x, weights=w, keepdims=True, **how), w)
    if axis is not None:
        along = rng.uniform(0.5, 2, np.take(x.shape, axis))
        verified(lambda x, w: np.average(x, weights=w, **how), x, along)


def test_wrong_weights_are_refused_as_numpy_refuses_them():
    x = np.ones((2, 3))
    with pytest.raises(TypeError, match="Axis must be specified"):
        dn.grad(lambda x: np.average(x, weights=np.ones(3)))(x)
    with pytest.raises(ValueError, match="Shape of weights must be consistent"):
        dn.jacfwd(lambda x: np.average(x, 0, np.ones(3)))(x)
    with pytest.raises(ZeroDivisionError, match="sum to zero"):
        dn.grad(lambda w: np.average(np.ones(2), weights=w))(np.array([1.0, -1.0]))


@pytest.mark.parametrize("rowvar", [True, False])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"bias": True},
        {"ddof": 2},
        {"fweights": FREQUENCIES},
        {"aweights": np.arange(1.0, 6.0)},
        {"aweights": np.arange(1.0, 6.0), "fweights": FREQUENCIES, "ddof": 1},
    ],
    ids=str,
)
def test_cov(rowvar, how, rng):
    x, y = rng.normal(size=(3, 5)), rng.normal(size=(2, 5))
    if not rowvar:
        x, y = x.T, y.T
    verified(lambda x: np.cov(x, rowvar=rowvar, **how), x)
    verified(lambda x, y: np.cov(x, y, rowvar=rowvar, **how), x, y)
    verified(lambda y: np.cov(x, y=y, rowvar=rowvar, **how), y)


def test_cov_by_its_weights_and_of_single_precision(rng):
    x = rng.normal(size=(2, 5))
    verified(lambda w: np.cov(x, aweights=w), rng.uniform(0.5, 2, 5))
    same_value(np.cov, x.astype(np.float32))  # NumPy's is double
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning, match="Degrees of freedom"):
        dn.jvp(np.cov, (x[:, :1],), (x[:, :1],))
    with pytest.raises(TypeError, match="fweights must be integer"):
        dn.jvp(lambda x: np.cov(x, fweights=np.full(5, 0.5)), (x,), (x,))


def test_corrcoef(rng):
    x, y = rng.normal(size=(3, 5)), rng.normal(size=5)
    verified(np.corrcoef, x)
    verified(lambda x, y: np.corrcoef(x, y=y), x, y)
    verified(lambda x: np.corrcoef(x, rowvar=False), x[:, :2])


def test_the_second_derivative_of_a_perfect_correlation_is_not_clipped():
    hessian = lambda f: dn.jacfwd(dn.grad(f))  # noqa: E731

    def plain(x):
        a, b = x - x.mean(), y - y.mean()
        return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())

    beyond = 0
    for seed in range(40):  # so that some quotients are rounded to more than 1
        y = np.random.default_rng(seed).normal(size=4)
        x = 2 * y + 1
        got = hessian(lambda x: np.corrcoef(x, y)[0, 1])(x)  # noqa: B023
        assert np.abs(got).max() > 1e-3
        np.testing.assert_allclose(got, hessian(plain)(x), rtol=1e-9, atol=1e-9)
        c, d = np.cov(x, y), np.sqrt(np.diag(np.cov(x, y)))
        beyond += c[0, 1] / d[0] / d[1] > 1
    assert beyond > 0


# --- without NaN ---------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions_without_nan(axis, keepdims, rng):
    x = apart(rng, 3, 4) / 4 + 1
    known = np.ones((3, 4), bool)
    known[0, 1] = known[2, 2] = False
    how = {"axis": axis, "keepdims": keepdims}
    for fn in (np.nansum, np.nanmean, np.nanprod, np.nanmax, np.nanmin, np.nanmedian):
        verified(lambda x, fn=fn: fn(np.where(known, x, np.nan), **how), x)
    for fn in (np.nanvar, np.nanstd):
        for ddof in ({}, {"ddof": 1}, {"correction": 1}):
            verified(lambda x, fn=fn, d=ddof: fn(np.where(known, x, np.nan), **how, **d), x)
    verified(lambda x: np.nanquantile(np.where(known, x, np.nan), [0.3, 0.9], **how), x)
    verified(lambda x, q: np.nanpercentile(np.where(known, x, np.nan), q, **how), x, np.array(63.0))


def test_nan_gets_no_tangent_and_ties_share():
    x = np.array([3.0, np.nan, 3.0, -np.inf])
    assert dn.grad(np.nanmax)(x).tolist() == [0.5, 0, 0.5, 0]
    assert dn.grad(np.nanmin)(np.array([-np.inf, np.nan])).tolist() == [1, 0]
    assert dn.grad(np.nansum)(x[:3]).tolist() == [1, 0, 1]
    assert dn.grad(np.nanmean)(x[:3]).tolist() == [0.5, 0, 0.5]
    assert dn.jacfwd(np.nancumsum)(x[:3])[-1].tolist() == [1, 0, 1]
    assert dn.grad(np.nanstd)(np.array([2.0, np.nan, 2.0])).tolist() == [0, 0, 0]


def test_nothing_but_nan_is_nan():
    x = np.array([[np.nan, np.nan], [1.0, 2.0]])
    for fn in (np.nanmean, np.nanstd, np.nanmedian, np.nanmax):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out, t = dn.jvp(lambda x, fn=fn: fn(x, axis=1), (x,), (np.ones((2, 2)),))
        assert np.isnan(out[0]) and not np.isnan(out[1]) and not np.isnan(t[1])


# --- signals and grids ---------------------------------------------------------------------------

KNOTS = np.array([0.0, 1.0, 2.5, 4.0])


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_interp(shape, rng):
    x, values = rng.uniform(1.1, 2.4, shape), rng.normal(size=4)
    verified(np.interp, x, KNOTS, values)
    wide = rng.choice([-1.0, 0.3, 1.3, 2.8, 4.3], shape) + rng.uniform(0, 0.5, shape)
    verified(lambda x, a, b: np.interp(x, KNOTS, values, a, b), wide, np.array(1.0), np.array(2.0))
    verified(lambda x: np.interp(x, KNOTS.tolist(), values.tolist(), left=-1, right=3), wide)
    verified(lambda x, k, v: np.interp(x, k, v, period=4.9), x, KNOTS, values)
    verified(lambda x, v: np.interp(x, xp=KNOTS, fp=v), x, values)


def test_interp_at_knots_and_outside():
    values = np.array([0.0, 1.0, 7.0, 4.0])
    by_x = lambda x: dn.grad(lambda x: np.interp(x, KNOTS, values))(np.array(x))  # noqa: E731
    assert [by_x(x) for x in (-1.0, 0.0, 1.0, 2.5, 4.0, 5.0)] == [0, 1, 4, -2, -2, 0]
    by_values = dn.jacfwd(lambda v: np.interp(np.array([-1.0, 4.0, 9.0]), KNOTS, v))(values)
    assert by_values.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]
    by_values = dn.grad(lambda v: np.interp(1.0, [0.0, 1.0, 1.0], v))(values[:3])
    assert by_values.tolist() == [0, 0, 1]
    assert dn.grad(lambda v: np.interp(7.0, [2.0], v))(np.array([3.0])).tolist() == [1]
    same_value(lambda v: np.interp(KNOTS, KNOTS, v), np.array([1.0, np.inf, 2.0, -np.inf]))
    with pytest.raises(ValueError, match="period"):
        dn.grad(lambda x: np.interp(x, KNOTS, values, period=0))(np.array(1.0))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_trapezoid_gradient_and_diff(axis, rng):
    y = rng.normal(size=(3, 4, 5))
    n = y.shape[axis]
    rising = np.cumsum(rng.uniform(0.5, 1, n))
    verified(lambda y, dx: np.trapezoid(y, dx=dx, axis=axis), y, np.array(0.3))
    verified(lambda y, x: np.trapezoid(y, x, axis=axis), y, rising)
    verified(lambda y, x: np.trapezoid(y, x=x, axis=axis), y, rng.normal(size=y.shape))
    for order in (1, 2):
        how = {"axis": axis, "edge_order": order}
        verified(lambda y, h: np.gradient(y, h, **how), y, np.array(0.7))  # noqa: B023
        verified(lambda y, c: np.gradient(y, c, **how), y, rising)  # noqa: B023
        same_value(lambda y: np.gradient(y, np.arange(n) * 0.5, **how), y)  # noqa: B023
        verified(lambda c: np.gradient(y, c, **how), np.arange(n) * 1.0)  # noqa: B023
    end = rng.normal(size=[2 if a == axis % 3 else m for a, m in enumerate(y.shape)])
    for n in (1, 2):
        verified(lambda y, a: np.diff(y, n, axis, a, append=0.0), y, end)  # noqa: B023
        verified(lambda a: np.diff(y, n=n, axis=axis, prepend=a), np.array(1.0))  # noqa: B023


def test_gradient_by_all_axes(rng):
    y = rng.normal(size=(3, 4))
    verified(np.gradient, y)
    verified(
        lambda y, h: np.gradient(y, h, np.array([0.0, 1, 3, 4]), edge_order=2), y, np.array(2.0)
    )
    with pytest.raises(TypeError, match="invalid number of arguments"):
        dn.grad(lambda y: np.gradient(y, 1.0, 2.0, 3.0)[0].sum())(y)
    with pytest.raises(ValueError, match="too small"):
        dn.jacfwd(lambda y: np.gradient(y, edge_order=2))(np.ones(2))


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(
    ("n", "m"), [(5, 3), (3, 5), (4, 4), (6, 2), (2, 6), (1, 4), (4, 1), (3, 6), (1, 1)]
)
def test_convolve_and_correlate(mode, n, m, rng):
    a, v = rng.normal(size=n), rng.normal(size=m)
    for fn in (np.convolve, np.correlate):
        verified(lambda a, v, fn=fn: fn(a, v, mode), a, v)
        verified(lambda v, fn=fn: fn(a, v, mode=mode), v)
        verified(lambda a, fn=fn: fn(a, v, mode=mode), a)


def test_grids_and_polynomials(rng):
    a, b, c = rng.normal(size=2), rng.normal(size=3), rng.normal(size=4)
    for how in ({}, {"indexing": "ij"}, {"sparse": True}, {"sparse": True, "indexing": "ij"}):
        verified(lambda a, b, c: np.meshgrid(a, b, c, **how), a, b, c)  # noqa: B023
        verified(lambda a: np.meshgrid(a, 2.0, [1.0, 2.0], **how), a)  # noqa: B023
        verified(lambda a: np.meshgrid(a, **how), a)  # noqa: B023
    with pytest.raises(ValueError, match="indexing"):
        dn.jacfwd(lambda a: np.meshgrid(a, a, indexing="yx"))(a)
    verified(np.polyval, c, rng.normal(size=(2, 3)))
    verified(lambda p: np.polyval(p, 2.0), c)
    verified(lambda x: np.polyval(np.poly1d([1.0, 2.0]), x), b)
    with pytest.raises(TypeError, match="poly1d"):
        dn.jacfwd(lambda p: np.polyval(p, np.poly1d([1.0])))(c)
    for n in (None, 1, 2, 5):
        for increasing in (False, True):
            verified(lambda x: np.vander(x, n, increasing), b)  # noqa: B023
    assert dn.jacfwd(lambda x: np.vander(x, 3))(np.zeros(1)).ravel().tolist() == [0, 1, 0]


def test_the_rest_of_the_signals(rng):
    y = rng.normal(size=(3, 4))
    verified(lambda x: windows(x, 3), y[0])
    verified(lambda x: windows(x, (2, 3)), y)
    verified(lambda x: windows(x, window_shape=2, axis=0), y)
    verified(lambda y, e: np.ediff1d(y, to_end=e, to_begin=[1.0, 2.0]), y, np.ones(2))
    phases = 4.0 * np.arange(12).reshape(3, 4) + rng.uniform(-0.1, 0.1, (3, 4))
    verified(np.unwrap, phases)
    verified(lambda y: np.unwrap(y, axis=0, period=3.0), phases)
    verified(lambda y: np.fft.fftshift(y, axes=1), y)
    if hasattr(np, "cumulative_sum"):
        verified(lambda y: np.cumulative_sum(y, axis=0, include_initial=True), y)
        verified(lambda y: np.cumulative_prod(y, axis=1), y)
        with pytest.raises(ValueError, match="axis"):
            dn.jacfwd(np.cumulative_sum)(y)


# --- rearranging ---------------------------------------------------------------------------------


def test_select_choose_and_piecewise(rng):
    x, y, s = apart(rng, 3, 4) - 5.3, rng.normal(size=4), np.array(0.7)
    verified(lambda x, y, s: np.select([x > 2, x[:1] > 0], [x * x, y], default=s), x, y, s)
    verified(lambda x: np.select([x > 0], [x]), x)
    same_value(lambda x: np.select([x > 0], [x], 1), x.astype(np.float32))
    with pytest.raises(TypeError, match="booleans"):
        dn.jacfwd(lambda x: np.select([np.ones((3, 4))], [x]))(x)
    verified(lambda x, y, s: np.choose(WHICH, [x, y, s]), x, y, s)
    verified(lambda x: np.choose(WHICH + 1, (x, 2 * x), mode="clip"), x)
    verified(lambda x: np.choose(WHICH, x), x)
    verified(lambda x: np.piecewise(x, [x < 0, x >= 0], [np.square, np.sin]), x)
    verified(lambda x: np.piecewise(x, [x < 0, x < 3], [lambda z, a: z * a, 3.0, 1.0], 2.0), x)
    verified(lambda x: np.piecewise(x, [x > 0, x > 3], [np.square, lambda z: 2 * z]), x)
    verified(lambda x: np.piecewise(x, x > 0, [np.square, 0]), x[0])
    verified(lambda s: np.piecewise(s, s > 0, [np.square, 0]), s)
    with pytest.raises(ValueError, match="shape of x"):
        dn.jacfwd(lambda x: np.piecewise(x, [np.ones(3, bool)], [np.square]))(x)


def test_picking_inserting_and_trimming(rng):
    x, v = rng.normal(size=(3, 4)), rng.normal(size=4)
    condition = np.array([True, False, True])
    for axis in (None, 0, 1, -1):
        verified(lambda x, axis=axis: np.compress(condition, x, axis=axis), x)
    verified(lambda x: np.extract(WHICH > 0, x), x)
    verified(lambda x: np.resize(x, (5, 4)), x)
    verified(lambda x, s: np.insert(x, 1, s), x, np.array(2.0))
    verified(lambda x, v: np.insert(x, 1, v, axis=0), x, v)
    verified(lambda x, v: np.insert(x, [0, 2], v, axis=1), x, rng.normal(size=(3, 2)))
    verified(lambda x: np.insert(x, [1, 1, 3], 2.5), x)
    verified(lambda v: np.insert(x, slice(0, 2), v, axis=0), rng.normal(size=(2, 4)))
    same_value(lambda x: np.insert(x, 0, np.array(2.0)), x.astype(np.float32))
    ends = np.array([0.0, 0, 1, 0, 1, 0])
    for trim in ("fb", "f", "B"):
        verified(lambda x, trim=trim: np.trim_zeros(x * ends, trim), rng.uniform(1, 2, 6))
    assert dn.jvp(np.trim_zeros, (np.zeros(3),), (np.ones(3),))[1].shape == (0,)


def test_axes_blocks_and_lanes(rng):
    x = rng.normal(size=(2, 3, 4))
    for axis in (0, 1, 2, -1):
        for start in (0, 1, 3, -1):
            verified(lambda x: np.rollaxis(x, axis, start), x)  # noqa: B023
        verified(lambda x: np.apply_along_axis(lambda r: r.sum() * r[0], axis, x), x)  # noqa: B023
        verified(lambda x: np.apply_along_axis(np.outer, axis, x, np.ones(2)), x)  # noqa: B023
    if hasattr(np, "unstack"):
        verified(lambda x: np.unstack(x, axis=-1), x)
    verified(lambda x: np.apply_over_axes(np.sum, x, [0, 2]), x)
    m, v = x[0], x[0, 0]
    verified(lambda a, b: np.block([[a, b], [b, a * a]]), m, m + 1)
    verified(lambda v: np.block([v, 2.0, v * v]), v)
    verified(lambda v, m: np.block([[v], [m]]), v, m)
    verified(lambda m: np.block([[[m]], [[m]]]), m)
    verified(np.block, m)
    with pytest.raises(ValueError, match="nested equally deep"):
        dn.jacfwd(lambda v: np.block([[v], v]))(v)


@pytest.mark.parametrize(
    "width", [0, 1, (1, 2), ((1, 0), (2, 3)), ((4, 5), (2, 9)), {1: (1, 2)}, {-1: 2, 0: 1}], ids=str
)
def test_pad_in_every_mode(width, rng):
    x = apart(rng, 2, 3)
    if isinstance(width, dict) and not rearranging.PAD_TAKES_A_DICT:
        pytest.skip("np.pad takes a dict from NumPy 2.2 on; install that")
    for mode in ("constant", "edge", "reflect", "symmetric", "wrap", "maximum", "minimum"):
        verified(lambda x, mode=mode: np.pad(x, width, mode), x)
    for mode in ("maximum", "minimum", "mean", "median"):
        for length in (None, 1, 2, (1, 2)):
            verified(lambda x, m=mode, n=length: np.pad(x, width, m, stat_length=n), x)
    for mode in ("reflect", "symmetric"):
        verified(lambda x, mode=mode: np.pad(x, width, mode, reflect_type="odd"), x)
        verified(lambda x, mode=mode: np.pad(x[:1], width, mode, reflect_type="odd"), x)
    verified(lambda x: np.pad(x, width, "linear_ramp", end_values=(1.0, -2.0)), x)
    verified(lambda x, c: np.pad(x, width, constant_values=c), x, np.array(2.0))
    verified(lambda x: np.pad(x, width, constant_values=((1, 2),)), x)


def test_pad_by_several_constants_and_with_nothing_defined(rng):
    x = rng.normal(size=(2, 3))
    verified(lambda x, c: np.pad(x, 1, constant_values=((c, 1.0), (2.0, c * c))), x, np.array(0.5))
    out, t = dn.jvp(lambda x: np.pad(x, 1, "empty"), (x,), (x,))
    assert out.shape == t.shape == (4, 5) and np.array_equal(t[1:-1, 1:-1], x)


@pytest.mark.parametrize(
    ("spec", "left", "right"),
    [
        ("ij,jk->ik", (2, 1), (3, 4)),
        ("ij,jk->ik", (2, 3), (1, 4)),
        ("ij,ij", (1, 3), (2, 1)),
        ("...i,...i->...", (1, 4, 3), (2, 1, 3)),
        ("kj,jk", (1, 1), (3, 4)),
        ("ii,i->i", (1, 1), (3,)),
        ("ij,kj->k", (1, 1), (1, 3)),
    ],
)
def test_einsum_with_axes_that_stretch(spec, left, right, rng):
    x, y = rng.normal(size=left), rng.normal(size=right)
    verified(lambda x, y: np.einsum(spec, x, y), x, y)
    verified(lambda y: np.einsum(spec, x, y, optimize=True), y)


def test_einsum_by_lists_of_axes(rng):
    x, y, z = rng.normal(size=(2, 3)), rng.normal(size=(3, 4)), rng.normal(size=(2, 3, 3))
    verified(lambda x, y: np.einsum(x, [0, 1], y, [1, 2], [2, 0]), x, y)
    verified(lambda x, y: np.einsum(x, [0, 27], y, [27, 2]), x, y)
    verified(lambda x: np.einsum(x, [3, 1]), x)
    verified(lambda z: np.einsum(z, [Ellipsis, 0, 0], [0, Ellipsis]), z)
    verified(lambda y: np.einsum(x, [0, 1], y, [1, 2]), y)


# --- duals by keyword and in nested lists --------------------------------------------------------


def test_duals_by_keyword_reach_only_rules_that_take_them():
    x = np.ones(3)
    with pytest.raises(MissingRuleError, match="by position"):
        dn.grad(lambda x: np.kron(np.ones(2), b=x).sum())(x)


def test_a_dual_that_escaped_is_refused_by_keyword_too():
    kept = []
    dn.jvp(lambda x: (kept.append(x), x)[1], (np.ones(3),), (np.ones(3),))
    with pytest.raises(EscapedDualError):
        np.average(np.ones(3), weights=kept[0])
    with pytest.raises(EscapedDualError):
        np.block([[kept[0]]])


def test_nested_derivatives_are_not_confused():
    """In the inner derivative the outer variable is a constant, as the head of `dual.py` says."""
    grid, x = np.array([0.0, 1.0, 3.0]), np.array(0.4)

    def f(x):
        inner = dn.grad(lambda y: np.interp(y, grid, np.stack([x, x * x, x])))(np.array(0.5))
        return x * inner  # x (x² - x)

    assert np.isclose(dn.grad(f)(x), 3 * x**2 - 2 * x)


def test_the_map_behind_convolution_is_transposed_by_itself(rng):
    kernel = rng.normal(size=3)
    t, ct = rng.normal(size=(2, 7)), rng.normal(size=(2, 5))
    there, back = slide(t, kernel), slide.transpose(ct, (7,), kernel)
    assert np.isclose((there * ct).sum(), (t * back).sum())


# --- against JAX ---------------------------------------------------------------------------------

IN_JAX = [r for r in (*statistics.ROWS, *signals.ROWS, *rearranging.ROWS) if r.jax]


@pytest.mark.parametrize("row", IN_JAX[::4], ids=lambda row: row.name)
def test_the_second_derivative_is_that_of_jax(row, rng):
    jax = peer("jax")
    with jax.enable_x64(True):
        xs = row.arrays(rng)
        vs = tuple(rng.normal(size=np.shape(x)) for x in xs)

        def theirs(*a):
            return jax.jvp(lambda *b: row.f(jax.numpy, *b), a, vs)[1]

        expected = jax.tree.leaves(jax.jvp(theirs, xs, vs))
        got = tree.leaves(list(dn.jvp(lambda *a: dn.jvp(row, a, vs)[1], xs, vs)))
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


KEYWORDS = {
    "pad": lambda x: np.pad(array=x, pad_width=1),
    "block": lambda x: np.block(arrays=[x, x]),
    "trapezoid": lambda x: np.trapezoid(y=x),
    "interp": lambda x: np.interp(x=x, xp=[0.0, 1.0, 2.0], fp=[1.0, 2.0, 4.0]),
    "polyval": lambda x: np.polyval(p=x, x=2.0),
    "select": lambda x: np.select(condlist=[np.arange(4) > 1], choicelist=[x]),
}


@pytest.mark.parametrize("name", KEYWORDS)
def test_functions_that_pass_duals_on_take_all_by_keyword(name):
    dn.check_jvp(KEYWORDS[name], (np.array([0.3, 1.2, 0.7, 1.9]),))
