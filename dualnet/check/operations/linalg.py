"""Products, einsum, linear systems, decompositions and norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.check.table import (
    Draw,
    Row,
    adder,
    constant,
    distinct,
    given,
    invertible,
    named,
    positive_definite,
)

ROWS: list[Row] = []
row = adder(ROWS, "linear algebra", jax=True)
_THREE = np.array([1.0, 2.0, 3.0])

_fn: Callable

# --- products ------------------------------------------------------------------------------------

for _s, _r in (
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((3,), (2, 3, 4)),
    ((2, 3, 4), (4,)),
    ((2, 2, 3), (3, 4)),
    ((2, 3), (4, 3, 2)),
    ((3, 2, 2), (3, 2, 2)),
    ((2, 1, 3, 4), (3, 4, 2)),
    ((1, 2, 3), (4, 3, 2)),
    ((4, 2, 3), (1, 3, 2)),
):
    row(np.matmul, f"{_s}{_r}", named(np.matmul), _s, _r, exact=True)
    if 1 not in (_s + _r)[: max(len(_s), len(_r))]:
        _t = _r if len(_r) < 2 else (*_r[:-2], _s[-1], _r[-1])
        row(np.dot, f"{_s}{_t}", named(np.dot), _s, _t, exact=True)
    _u = (*_r[:-1], _s[-1])
    row(np.inner, f"{_s}{_u}", named(np.inner), _s, _u, exact=True)
for _fn in (np.dot, np.inner):
    row(_fn, "number first", named(_fn), (), (2, 3), exact=True)
    row(_fn, "number second", named(_fn), (2, 3), (), exact=True)
row(np.vdot, "", named(np.vdot), (3,), (3,), exact=True)
row(np.vdot, "matrices", named(np.vdot), (2, 3), (2, 3), exact=True)
row(np.outer, "", named(np.outer), (2,), (3,), exact=True)
row(np.outer, "matrices", named(np.outer), (2, 2), (3, 1), exact=True)
row(np.linalg.outer, "", lambda xp, x, y: xp.linalg.outer(x, y), (2,), (3,), exact=True)
row(np.kron, "", named(np.kron), (2, 2), (3, 2), exact=True)
row(np.kron, "rank 1 and 2", named(np.kron), (2,), (2, 3), exact=True)
row(np.kron, "rank 3 and 1", named(np.kron), (2, 1, 2), (3,), exact=True)

for _s, _r, _axes in (
    ((2, 3, 4), (3, 4, 2), 2),
    ((2, 3), (3, 2), 1),
    ((2, 3), (2,), 0),
    ((2, 3), (3, 2), (1, 0)),
    ((2, 3, 4), (4, 2, 3), ([0, 2], [1, 0])),
    ((2, 3, 4), (4, 2, 3), ((-2, 0), (-1, 1))),
    ((2, 3), (2, 3), (0, 0)),
):
    row(
        np.tensordot,
        f"axes={_axes}",
        lambda xp, x, y, axes=_axes: xp.tensordot(x, y, axes),
        _s,
        _r,
        exact=True,
    )
row(np.tensordot, "", lambda xp, x, y: xp.tensordot(x, y, axes=1), (2, 3), (3,), exact=True)

for _spec, *_shapes in (
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ba,bc", (2, 3), (2, 4)),
    ("ij , jk -> ki", (2, 3), (3, 4)),
    ("...ij,...jk->...ik", (2, 2, 3), (3, 4)),
    ("...ij,...jk", (2, 3), (4, 3, 2)),
    ("...i,i->...", (2, 3, 4), (4,)),
    ("...,...->...", (2, 3), (3,)),
    ("i...,i->...", (3, 2), (3,)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("ii,i->i", (3, 3), (3,)),
    ("iij,jk->ik", (3, 3, 2), (2, 3)),
    ("ij->ji", (2, 3)),
    ("ij->", (2, 3)),
    ("ij->j", (2, 3)),
    ("ij", (2, 3)),
    ("ba", (2, 3)),
    ("i->i", (3,)),
    ("i,j->ij", (2,), (3,)),
    ("ij,kl->il", (2, 3), (2, 3)),
    ("i,i->", (3,), (3,)),
    (",i->i", (), (3,)),
    ("ij,jk,kl->il", (2, 3), (3, 2), (2, 3)),
    ("ij,ij,ij->i", (2, 3), (2, 3), (2, 3)),
    ("i,j,k->ijk", (2,), (3,), (2,)),
    ("a,ab,b->", (2,), (2, 3), (3,)),
    ("kk->k", (3, 3)),
    ("...k,kA->...A", (2, 3), (3, 2)),
    ("bhqk,bkhd->bqhd", (2, 2, 3, 2), (2, 2, 2, 3)),
):
    row(
        np.einsum,
        _spec,
        lambda xp, *arrays, spec=_spec: xp.einsum(spec, *arrays),
        *_shapes,
        exact=len(_shapes) < 3,
    )
row(
    np.einsum,
    "optimize",
    lambda xp, *arrays: xp.einsum("ij,jk,kl->il", *arrays, optimize=True),
    *((2, 3), (3, 2), (2, 3)),
)
row(
    np.einsum,
    "only one differentiated",
    lambda xp, x: xp.einsum("ij,j,k->ik", x, constant(_THREE, x), constant(_THREE[:2], x)),
    (2, 3),
    exact=True,
)

# --- linear systems ------------------------------------------------------------------------------

for _s, _r in (
    ((3, 3), (3,)),
    ((3, 3), (3, 2)),
    ((3, 3), (3, 1)),
    ((2, 3, 3), (2, 3, 4)),
    ((3, 3), (2, 3, 2)),
    ((2, 3, 3), (3, 2)),
    ((2, 1, 3, 3), (3, 3, 2)),
):
    row(np.linalg.solve, f"{_s}{_r}", lambda xp, a, b: xp.linalg.solve(a, b), invertible(*_s), _r)
row(
    np.linalg.solve,
    "batch of matrices and a vector",
    lambda xp, a, b: xp.linalg.solve(a, b),
    invertible(2, 3, 3),
    (3,),
)
for _s in ((3, 3), (2, 3, 3)):
    row(np.linalg.inv, f"{_s}", lambda xp, x: xp.linalg.inv(x), invertible(*_s))
    row(np.linalg.det, f"{_s}", lambda xp, x: xp.linalg.det(x), invertible(*_s))
    row(np.linalg.slogdet, f"{_s}", lambda xp, x: tuple(xp.linalg.slogdet(x)), invertible(*_s))
    row(
        np.linalg.cholesky,
        f"{_s}",
        lambda xp, x: xp.linalg.cholesky(x),
        positive_definite(*_s),
        jax=False,  # JAX symmetrizes first, NumPy reads the lower triangle
    )
    row(
        np.linalg.cholesky,
        f"{_s}, symmetrized",
        lambda xp, x: xp.linalg.cholesky((x + xp.swapaxes(x, -1, -2)) / 2),
        positive_definite(*_s),
    )
row(
    np.linalg.slogdet,
    "negative determinant",
    lambda xp, x: xp.linalg.slogdet(xp.flip(x, 0))[1],
    invertible(3, 3),
)
row(
    np.linalg.cholesky,
    "upper",
    lambda xp, x: xp.linalg.cholesky(x, upper=True),
    positive_definite(3, 3),
    jax=False,
)
row(
    np.linalg.tensorsolve,
    "",
    lambda xp, a, b: xp.linalg.tensorsolve(xp.reshape(a, (2, 2, 4)), b),
    invertible(4, 4),
    (2, 2),
)
row(
    np.linalg.tensorsolve,
    "axes",
    lambda xp, a, b: xp.linalg.tensorsolve(xp.reshape(a, (4, 2, 2)), b, axes=(0,)),
    invertible(4, 4),
    (2, 2),
)
row(
    np.linalg.tensorinv,
    "",
    lambda xp, x: xp.linalg.tensorinv(xp.reshape(x, (4, 2, 2)), ind=1),
    invertible(4, 4),
)

# --- singular matrices ---

for _name, _x in {
    "rank 2 of 3": np.arange(9.0).reshape(3, 3) - 3,
    "rank 1 of 3": np.outer([1.0, 2, -1], [1, 0.5, 2]),
    "rank 1 of 2, and 0 of 2": [[[1, 2], [2, 4]], [[0, 0], [0, 0]]],
    "nearly singular": np.arange(9.0).reshape(3, 3) + 1e-6 * np.eye(3),
}.items():
    row(
        np.linalg.det,
        _name,
        lambda xp, x: xp.linalg.det(x) + xp.sum(x),  # at rank 1 the slope of det alone is 0
        given(_x),
        jax=False,  # its second derivative at a singular matrix is NaN
    )

# --- more products ---

row(np.linalg.matmul, "", lambda xp, x, y: xp.linalg.matmul(x, y), (2, 3), (3, 2), exact=True)
row(
    np.linalg.tensordot,
    "",
    lambda xp, x, y: xp.linalg.tensordot(x, y, axes=1),
    (2, 3),
    (3, 2),
    exact=True,
)
for _n in (-3, -1, 1, 2, 3, 4, 5):
    row(
        np.linalg.matrix_power,
        f"{_n}",
        lambda xp, x, n=_n: xp.linalg.matrix_power(x, n),
        invertible(2, 2, 2),
    )
for _sizes in (
    ((2, 3), (3, 2)),
    ((3,), (3, 2), (2, 4)),
    ((2, 3), (3, 1), (1, 4), (4,)),
    ((3,), (3, 2), (2,)),
):
    row(
        np.linalg.multi_dot,
        f"{_sizes}",
        lambda xp, *arrays: xp.linalg.multi_dot(list(arrays)),
        *_sizes,
    )
for _s, _r in (((3,), (3,)), ((2, 3), (3,)), ((2, 3), (2, 3))):
    row(np.cross, f"{_s}{_r}", lambda xp, x, y: xp.cross(x, y), _s, _r, exact=True)
row(np.cross, "axis", lambda xp, x, y: xp.cross(x, y, axis=0), (3, 2), (3, 2), exact=True)
row(
    np.cross,
    "axes",
    lambda xp, x, y: xp.cross(x, y, axisa=0, axisb=1, axisc=0),
    (3, 2),
    (2, 3),
    exact=True,
)
row(np.linalg.cross, "", lambda xp, x, y: xp.linalg.cross(x, y, axis=0), (3, 2), (3, 2), exact=True)
for _s, _r in (((3,), (3,)), ((2, 3), (3,)), ((4, 1, 3), (2, 3))):
    row(np.vecdot, f"{_s}{_r}", lambda xp, x, y: xp.vecdot(x, y), _s, _r, exact=True)
row(np.vecdot, "axis", lambda xp, x, y: xp.vecdot(x, y, axis=0), (3, 2), (3, 2), exact=True)
row(
    np.linalg.vecdot,
    "",
    lambda xp, x, y: xp.linalg.vecdot(x, y, axis=0),
    (3, 2),
    (3, 2),
    exact=True,
)
if hasattr(np, "matvec"):  # since NumPy 2.2
    for _s, _r in (((2, 3), (3,)), ((2, 3), (4, 3)), ((2, 2, 3), (2, 3))):
        row(np.matvec, f"{_s}{_r}", lambda xp, x, y: xp.matvec(x, y), _s, _r, exact=True)
    for _s, _r in (((2,), (2, 3)), ((4, 2), (2, 3)), ((2, 3), (2, 3, 2))):
        row(np.vecmat, f"{_s}{_r}", lambda xp, x, y: xp.vecmat(x, y), _s, _r, exact=True)

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


for _s in ((3, 3), (2, 3, 3)):
    for _triangle in ("L", "U"):
        row(
            np.linalg.eigh,
            f"{_s}, {_triangle}",
            lambda xp, x, triangle=_triangle: tuple(xp.linalg.eigh(x, triangle)),
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
        lambda xp, x: tuple(xp.linalg.eigh(_even(xp, x))),
        _symmetric(*_s),
        jax=False,  # the signs of vectors are those of another routine
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


def _matrix_function(xp: Any, w: Any, v: Any) -> Any:
    return (v * xp.tanh(w)[..., None, :]) @ xp.swapaxes(v, -1, -2)


for _s in ((3, 3), (4, 2), (2, 4), (2, 3, 2), (2, 2, 3)):
    row(
        np.linalg.svd,
        f"{_s}",
        lambda xp, x: tuple(xp.linalg.svd(x, full_matrices=False)),
        _spread(*_s),
        jax=False,  # the signs of vectors are those of another routine
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
row(np.linalg.svd, "square", lambda xp, x: tuple(xp.linalg.svd(x)), _spread(3, 3), jax=False)
row(
    np.linalg.svd,
    "hermitian",
    lambda xp, x: tuple(xp.linalg.svd(x, hermitian=True)),
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
        f"ord={_ord or 2}",
        lambda xp, x, ord=_ord or 2: xp.linalg.vector_norm(x, axis=(-1, 0), ord=ord),
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
