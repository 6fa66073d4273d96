"""Interpolation, integration, differences, convolution, grids and polynomials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.check.table import Row, adder, uniform
from dualnet.core.arrays import asarray_like
from dualnet.core.tables.signals import interpolate

ROWS: list[Row] = []
row = adder(ROWS, "signals", jax=True)

_fn: Callable
_f: Callable
_KNOTS = np.array([0.0, 1.0, 2.5, 4.0])
_SHIFTS = np.array([[-3.0, -1.0, 0.0], [1.5, 3.2, 0.1]])  # apart from the knots, and outside too


def _like(constant: np.ndarray, x: Any) -> Any:
    return asarray_like(constant.astype(x.dtype), x)


def _rising(n: int) -> Callable:
    """Draw numbers whose distances lie between 0.5 and 1."""
    return lambda rng: np.cumsum(rng.uniform(0.5, 1.0, n))


# --- interpolation -------------------------------------------------------------------------------

for _note, _f in {
    "inside": lambda xp, x, fp: xp.interp(x, _like(_KNOTS, x), fp),
    "left and right": lambda xp, x, fp: xp.interp(
        x + _like(_SHIFTS, x), _like(_KNOTS, x), fp, left=-1.0, right=2.0
    ),
    "period": lambda xp, x, fp: xp.interp(x + _like(_SHIFTS, x), _like(_KNOTS, x), fp, period=4.7),
}.items():
    row(np.interp, _note, _f, uniform(1.1, 1.4, 2, 3), (4,))
row(
    np.interp,
    "by knots",
    lambda xp, x, k, f: xp.interp(x, k, f),
    uniform(1.1, 1.4, 3),
    _rising(4),
    (4,),
)
row(
    np.interp,
    "by what lies outside",
    lambda xp, f, a, b: xp.interp(_like(np.array([-1.0, 0.5, 7.0]), a), _like(_KNOTS, a), f, a, b),
    (4,),
    (),
    (),
    exact=True,
)
row(
    interpolate,
    "",
    lambda xp, x, k, f: interpolate(x, k, f),
    uniform(1.1, 1.4, 3),
    _rising(4),
    (4,),
    jax=False,
)

# --- integrals and differences -------------------------------------------------------------------

for _axis in (0, 1, -1):
    row(
        np.trapezoid,
        f"axis={_axis}",
        lambda xp, y, axis=_axis: xp.trapezoid(y, axis=axis),
        (2, 3),
        exact=True,
    )
    row(
        np.diff,
        f"prepend and append, axis={_axis}",
        lambda xp, x, a, axis=_axis: xp.diff(x, axis=axis, prepend=xp.zeros_like(x), append=a),
        (2, 3),
        (2, 3),
        exact=True,
    )
row(np.trapezoid, "dx", lambda xp, y, dx: xp.trapezoid(y, dx=dx), (2, 3), (), exact=True)
row(np.trapezoid, "x", lambda xp, y, x: xp.trapezoid(y, x, axis=0), (3, 2), (3,), exact=True)
row(np.trapezoid, "x of each", lambda xp, y, x: xp.trapezoid(y, x=x), (2, 3), (2, 3), exact=True)
row(np.diff, "append a number", lambda xp, x, a: xp.diff(x, 2, append=a), (2, 3), (), exact=True)
for _note, _f in {
    "": lambda xp, f: xp.gradient(f),
    "spacing": lambda xp, f: xp.gradient(f, 0.5),
    "spacings": lambda xp, f: list(xp.gradient(f, 0.5, 2.0)),
    "axis": lambda xp, f: xp.gradient(f, axis=1),
}.items():
    row(
        np.gradient,
        _note,
        lambda xp, f, g=_f: list(y) if isinstance(y := g(xp, f), (list, tuple)) else y,
        (3, 4),
        exact=True,
    )
row(
    np.gradient,
    "edge order 2",
    lambda xp, f: xp.gradient(f, 0.5, axis=0, edge_order=2),
    (4, 2),
    exact=True,
    jax=False,
)
row(
    np.gradient,
    "by the spacing",
    lambda xp, f, h: xp.gradient(f, h, axis=0),
    (3, 2),
    uniform(0.5, 2),
)
for _order in (1, 2):
    row(
        np.gradient,
        f"by coordinates, edge order {_order}",
        lambda xp, f, c, order=_order: xp.gradient(f, c, axis=-1, edge_order=order),
        (2, 4),
        _rising(4),
        jax=False,
    )
row(np.ediff1d, "", lambda xp, x: xp.ediff1d(x), (2, 3), exact=True)
row(np.ediff1d, "ends", lambda xp, x, a: xp.ediff1d(x, a, to_begin=a), (2, 3), (2,), exact=True)
row(np.unwrap, "", lambda xp, x: xp.unwrap(x), uniform(8, 8.5, 2, 3))
row(
    np.unwrap,
    "axis and period",
    lambda xp, x: xp.unwrap(x * _like(np.array([[1.0], [4.0], [-3.0]]), x), axis=0, period=2.0),
    uniform(1.05, 1.1, 3, 2),
)
if hasattr(np, "cumulative_sum"):
    for _include in (False, True):
        _note = "with 0" if _include else ""
        row(
            np.cumulative_sum,
            _note,
            lambda xp, x, include=_include: xp.cumulative_sum(x, axis=1, include_initial=include),
            (2, 3),
            exact=True,
        )
        row(
            np.cumulative_prod,
            _note,
            lambda xp, x, include=_include: xp.cumulative_prod(x, axis=0, include_initial=include),
            uniform(0.5, 1.5, 3, 2),
        )

# --- convolution ---------------------------------------------------------------------------------

for _fn in (np.convolve, np.correlate):
    for _mode in ("full", "same", "valid"):
        for _n, _m in ((5, 3), (2, 5), (4, 4), (4, 2)):
            row(
                _fn,
                f"{_mode}, {_n} with {_m}",
                lambda xp, a, v, fn=_fn, mode=_mode: getattr(xp, fn.__name__)(a, v, mode),
                (_n,),
                (_m,),
                exact=True,
            )
    row(_fn, "", lambda xp, a, v, fn=_fn: getattr(xp, fn.__name__)(a, v), (4,), (2,), exact=True)
_windows = np.lib.stride_tricks.sliding_window_view
for _note, _shape, _f in (
    ("", (5,), lambda xp, x: _windows(x, 2)),
    ("of two axes", (3, 4), lambda xp, x: _windows(x, (2, 3))),
    ("axis", (3, 2), lambda xp, x: _windows(x, 2, axis=0)),
):
    row(_windows, _note, _f, _shape, exact=True, jax=False)
for _fn in (np.fft.fftshift, np.fft.ifftshift):
    row(
        _fn,
        "",
        lambda xp, x, fn=_fn: getattr(xp.fft, fn.__name__)(x, axes=1),
        (2, 3),
        exact=True,
    )

# --- grids and polynomials -----------------------------------------------------------------------

for _indexing in ("xy", "ij"):
    for _sparse in (False, True):
        row(
            np.meshgrid,
            f"{_indexing}{', sparse' if _sparse else ''}",
            lambda xp, x, y, z, i=_indexing, s=_sparse: list(
                xp.meshgrid(x, y, z, indexing=i, sparse=s)
            ),
            (2,),
            (3,),
            (2,),
            exact=True,
        )
row(np.polyval, "", lambda xp, p, x: xp.polyval(p, x), (3,), (2, 3))
row(np.polyval, "of constants", lambda xp, x: xp.polyval(_like(_KNOTS, x), x), (2, 3))
for _note, _how in {
    "": {},
    "N": {"N": 4},
    "increasing": {"N": 5, "increasing": True},
}.items():
    row(np.vander, _note, lambda xp, x, how=_how: xp.vander(x, **how), (3,))
