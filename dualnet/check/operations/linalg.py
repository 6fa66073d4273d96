"""Products, einsum, linear systems and determinants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dualnet.check.table import (
    Row,
    adder,
    constant,
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
