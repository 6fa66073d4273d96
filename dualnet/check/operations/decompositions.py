"""Eigenvalues, singular values, QR, pseudoinverses, least squares and norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.check.table import Draw, Row, adder, distinct, invertible, uniform
from dualnet.core.dual import primal_of
from dualnet.core.tables import decompositions, elementwise, equal_values, inverses, norms

ROWS: list[Row] = []
row = adder(ROWS, "linear algebra", jax=True)

_fn: Callable

# --- decompositions ------------------------------------------------------------------------------


def _spread(*shape: int) -> Draw:
    """Matrices whose singular values are far from one another and from 0."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        u, s, vh = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
        s = 1.0 + np.arange(s.shape[-1])[::-1] + rng.uniform(-0.2, 0.2, s.shape)
        return (u * s[..., None, :]) @ vh

    return draw


def _symmetric(*shape: int) -> Draw:
    """Symmetric matrices whose eigenvalues, of both signs, are far from one another and from 0."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        q, _ = np.linalg.qr(rng.normal(size=shape))
        n = shape[-1]
        w = (np.arange(n) + 1.0) * (-1) ** np.arange(n) + rng.uniform(-0.2, 0.2, shape[:-1])
        return (q * w[..., None, :]) @ np.swapaxes(q, -1, -2)

    return draw


def _even(xp: Any, x: Any) -> Any:
    return (x + xp.swapaxes(x, -1, -2)) / 2


def _by_vector(w: Any, v: Any) -> tuple:
    """Return eigenvalues and, for each, v vᵀ of its vector v.

    The sign of v is a convention of the routine, which may differ between backends, between dtypes
    and between two points; the product does not depend on it and says all else about v.
    """
    return w, _products(v, v)


def _by_pair(u: Any, s: Any, vh: Any) -> tuple:
    """Return singular values and, for each pair of vectors u and v, u uᵀ and u vᵀ.

    The sign of u is a convention, as in `_by_vector`, and v has the sign that fits.
    """
    n = s.shape[-1]  # the vectors behind have no value
    return _products(u, u), s, _products(u[..., :n], vh[..., :n, :].swapaxes(-1, -2))


def _products(a: Any, b: Any) -> Any:
    """Multiply each column of a by the same column of b, as a matrix."""
    return a[..., :, None, :] * b[..., None, :, :]


for _s in ((3, 3), (2, 3, 3)):
    for _triangle in ("L", "U"):
        row(
            np.linalg.eigh,
            f"{_s}, {_triangle}",
            lambda xp, x, triangle=_triangle: _by_vector(*xp.linalg.eigh(x, triangle)),
            _symmetric(*_s),
            jax=False,  # JAX symmetrizes first, NumPy reads one triangle
        )
        row(
            np.linalg.eigvalsh,
            f"{_s}, {_triangle}",
            lambda xp, x, triangle=_triangle: xp.linalg.eigvalsh(x, triangle),
            _symmetric(*_s),
            jax=False,
        )
    row(
        np.linalg.eigh,
        f"{_s}, symmetrized",
        lambda xp, x: _by_vector(*xp.linalg.eigh(_even(xp, x))),
        _symmetric(*_s),
    )
    row(
        np.linalg.eigh,
        f"{_s}, function of a matrix",
        lambda xp, x: _matrix_function(xp, *xp.linalg.eigh(_even(xp, x))),
        _symmetric(*_s),
    )
    row(
        np.linalg.eigvalsh,
        f"{_s}, symmetrized",
        lambda xp, x: xp.linalg.eigvalsh(_even(xp, x)),
        _symmetric(*_s),
    )


def _of_real_spectrum(*shape: int) -> Draw:
    """Matrices that are not symmetric, whose eigenvalues are real and far from one another."""
    symmetric = _symmetric(*shape)

    def draw(rng: np.random.Generator) -> np.ndarray:
        v = np.eye(shape[-1]) + rng.uniform(-0.2, 0.2, shape)
        return v @ symmetric(rng) @ np.linalg.inv(v)

    return draw


def _sorted(xp: Any, w: Any, v: Any) -> tuple:
    """Sort real eigenvalues and their vectors, whose order is another in each precision."""
    w, v = w.real, v.real  # from version 2.5 on, NumPy's own are complex
    order = xp.argsort(w, -1)
    return xp.take_along_axis(w, order, -1), xp.take_along_axis(v, order[..., None, :], -1)


for _s in ((3, 3), (2, 3, 3)):
    row(
        np.linalg.eig,
        f"{_s}",
        lambda xp, x: _by_vector(*_sorted(xp, *xp.linalg.eig(x))),
        _of_real_spectrum(*_s),
        jax=False,  # JAX returns complex numbers
    )
    row(
        np.linalg.eigvals,
        f"{_s}",
        lambda xp, x: xp.sort(xp.linalg.eigvals(x).real, -1),
        _of_real_spectrum(*_s),
        jax=False,
    )


def _matrix_function(xp: Any, w: Any, v: Any) -> Any:
    return (v * xp.tanh(w)[..., None, :]) @ xp.swapaxes(v, -1, -2)


for _s in ((3, 3), (4, 2), (2, 4), (2, 3, 2), (2, 2, 3)):
    row(
        np.linalg.svd,
        f"{_s}",
        lambda xp, x: _by_pair(*xp.linalg.svd(x, full_matrices=False)),
        _spread(*_s),
    )
    row(
        np.linalg.svd,
        f"{_s}, function of a matrix",
        lambda xp, x: _of_singular_values(xp, *xp.linalg.svd(x, full_matrices=False)),
        _spread(*_s),
    )
    row(
        np.linalg.svd,
        f"{_s}, values",
        lambda xp, x: xp.linalg.svd(x, compute_uv=False),
        _spread(*_s),
    )
    row(np.linalg.svdvals, f"{_s}", lambda xp, x: xp.linalg.svdvals(x), _spread(*_s))
    row(
        np.linalg.qr,
        f"{_s}",
        lambda xp, x: tuple(xp.linalg.qr(x)),
        _spread(*_s),
        jax=_s[-1] <= _s[-2],  # JAX has no rule for wide matrices
    )
    row(
        np.linalg.qr,
        f"{_s}, r",
        lambda xp, x: xp.linalg.qr(x, mode="r"),
        _spread(*_s),
        jax=_s[-1] <= _s[-2],
    )
    row(np.linalg.pinv, f"{_s}", lambda xp, x: xp.linalg.pinv(x), _spread(*_s))


def _of_singular_values(xp: Any, u: Any, s: Any, vh: Any) -> Any:
    return (u * xp.tanh(s)[..., None, :]) @ vh


row(
    np.linalg.qr,
    "complete",
    lambda xp, x: tuple(xp.linalg.qr(x, "complete")),
    _spread(2, 3),
    jax=False,
)
row(np.linalg.svd, "square", lambda xp, x: _by_pair(*xp.linalg.svd(x)), _spread(3, 3))
row(
    np.linalg.svd,
    "hermitian",
    lambda xp, x: _by_pair(*xp.linalg.svd(x, hermitian=True)),
    _symmetric(3, 3),
    jax=False,
)
row(
    np.linalg.svd,
    "hermitian, values",
    lambda xp, x: xp.linalg.svd(x, compute_uv=False, hermitian=True),
    _symmetric(3, 3),
    jax=False,
)
row(
    np.linalg.pinv,
    "hermitian",
    lambda xp, x: xp.linalg.pinv(x, hermitian=True),
    _symmetric(3, 3),
    jax=False,
)
for _name in ("rcond", "rtol"):
    row(
        np.linalg.pinv,
        f"{_name}, drops a value",
        lambda xp, x, name=_name: xp.linalg.pinv(x, **{name: 0.5}),
        _spread(2, 3, 4),
        jax=False,  # it takes what is dropped for 0
    )
for _s, _r in (((4, 2), (4,)), ((4, 2), (4, 3)), ((2, 3), (2, 2)), ((3, 3), (3,))):
    row(
        np.linalg.lstsq,
        f"{_s}{_r}",
        lambda xp, a, b: tuple(
            result for i, result in enumerate(xp.linalg.lstsq(a, b)) if i != 2 and result.size
        ),
        _spread(*_s),
        _r,
        jax=False,  # its residuals of square systems are not empty
    )
    row(
        np.linalg.lstsq,
        f"{_s}{_r}, solution",
        lambda xp, a, b: xp.linalg.lstsq(a, b)[0],
        _spread(*_s),
        _r,
    )

# --- norms ---------------------------------------------------------------------------------------

_ord: float | str | None
for _ord in (None, 1, 2, 3, 2.5, 0.5, -1, -2.5, np.inf, -np.inf):
    row(
        np.linalg.norm,
        f"ord={_ord}",
        lambda xp, x, ord=_ord: xp.linalg.norm(x, ord),
        distinct(4),
    )
    row(
        np.linalg.norm,
        f"ord={_ord}, axis=0",
        lambda xp, x, ord=_ord: xp.linalg.norm(x, ord=ord, axis=0),
        distinct(3, 2),
    )
    row(
        np.linalg.norm,
        f"ord={_ord}, axis=-1, keepdims",
        lambda xp, x, ord=_ord: xp.linalg.norm(x, ord=ord, axis=-1, keepdims=True),
        distinct(2, 3),
    )
    row(
        np.linalg.vector_norm,
        f"ord={_ord or 'default'}",
        lambda xp, x, how={"ord": _ord} if _ord else {}: xp.linalg.vector_norm(
            x, axis=(-1, 0), **how
        ),
        distinct(2, 2, 3),
    )
row(
    np.linalg.vector_norm,
    "keepdims",
    lambda xp, x: xp.linalg.vector_norm(x, keepdims=True),
    distinct(2, 3),
)
row(np.linalg.norm, "of a matrix", lambda xp, x: xp.linalg.norm(x), (2, 3))
row(np.linalg.norm, "of a matrix, keepdims", lambda xp, x: xp.linalg.norm(x, keepdims=True), (2, 3))
row(np.linalg.norm, "fro", lambda xp, x: xp.linalg.norm(x, "fro", (0, -1)), (2, 3, 2))
row(np.linalg.norm, "of rank 3", lambda xp, x: xp.linalg.norm(x), (2, 3, 2), jax=False)
for _ord in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf):
    _draw = _spread(2, 3) if _ord in ("nuc", 2, -2) else distinct(2, 3)
    row(np.linalg.norm, f"matrix, {_ord}", lambda xp, x, ord=_ord: xp.linalg.norm(x, ord), _draw)
    row(
        np.linalg.norm,
        f"matrix, {_ord}, axes",
        lambda xp, x, ord=_ord: xp.linalg.norm(xp.moveaxis(x, 1, 0), ord, (2, 0), keepdims=True),
        _spread(2, 3, 2) if _ord in ("nuc", 2, -2) else distinct(2, 3, 2),
    )
    row(
        np.linalg.matrix_norm,
        f"{_ord}",
        lambda xp, x, ord=_ord: xp.linalg.matrix_norm(x, ord=ord),
        _draw,
    )
    row(
        np.linalg.matrix_norm,
        f"{_ord}, keepdims",
        lambda xp, x, ord=_ord: xp.linalg.matrix_norm(x, ord=ord, keepdims=True),
        _draw,
    )
for _p in (None, 2, -2, 1, -1, np.inf, -np.inf, "fro", "nuc"):
    row(
        np.linalg.cond,
        f"p={_p}",
        lambda xp, x, p=_p: xp.linalg.cond(x, p),
        _symmetric(3, 3) if _p in (None, 2, -2, "nuc") else invertible(3, 3),
        jax=_p != "nuc",
    )

# --- the functions of the package that the rules are made of -------------------------------------

for _fn, _name, _f, _draw in (
    (decompositions._thin, "svd", lambda x: _by_pair(*np.linalg.svd(x, False)), _spread(3, 2)),
    (decompositions.values_of_svd, "svdvals", np.linalg.svdvals, _spread(3, 2)),
    (decompositions.singular_values, "norm", lambda x: np.linalg.norm(x, "nuc"), _spread(3, 2)),
    (decompositions._reduced_qr, "qr", lambda x: tuple(np.linalg.qr(x)), _spread(3, 2)),
    (inverses._det_by_inverse, "det", np.linalg.det, invertible(3, 3)),
    (inverses._pseudoinverse, "pinv", np.linalg.pinv, _spread(3, 2)),
    (
        inverses._least_squares,
        "lstsq",
        lambda x: np.linalg.lstsq(x, x[:, 0] ** 2)[0],
        _spread(3, 2),
    ),
    (norms._power_norm, "norm", np.linalg.norm, uniform(0.5, 2, 3)),
):
    row(_fn, f"in {_name}", lambda _xp, x, f=_f: f(x), _draw, jax=False)
row(
    elementwise.valued,
    "",
    lambda _xp, x: elementwise.valued(x + x, 2 * primal_of(x)),
    (3,),
    exact=True,
    jax=False,
)
for _fn in (equal_values.times_nonzero, equal_values.times_nan):
    row(
        _fn,
        "",
        lambda _xp, x, fn=_fn: fn(x, np.full_like(primal_of(x), 2.0)),
        (3,),
        exact=True,
        jax=False,
    )
