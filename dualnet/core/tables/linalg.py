"""Products, einsum, and linear systems."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters
from typing import Any

import numpy as np

from dualnet.backends.overridable import matrix_product
from dualnet.core import linear
from dualnet.core.arrays import arange_like
from dualnet.core.dual import primal_of, primitive
from dualnet.core.engine import composed, linearizer, operand, rule
from dualnet.core.tables import linear_maps
from dualnet.core.tables.shaping import positions_of
from dualnet.types import Array, Tangent

# --- matmul ---


def _matmul_by_x(t: Tangent, out: Array, x: Array, y: Array) -> Tangent:
    if x.ndim == 1:
        t = linear.reshape(t, (1, x.shape[0]))
    return linear.reshape(linear.matmul(t, y[:, None] if y.ndim == 1 else y), out.shape)


def _matmul_by_y(t: Tangent, out: Array, x: Array, y: Array) -> Tangent:
    if y.ndim == 1:
        t = linear.reshape(t, (y.shape[0], 1))
    product = linear.matmul_from_left(t, x[None] if x.ndim == 1 else x)
    return product if min(x.ndim, y.ndim) > 1 else linear.reshape(product, out.shape)


@linearizer(np.matmul)
def _matmul(x: Array, y: Array) -> Any:
    x, y = operand(x), operand(y)
    out = matrix_product(x, y)
    return out, (lambda t: _matmul_by_x(t, out, x, y), lambda t: _matmul_by_y(t, out, x, y))


# --- products that are an einsum: so is the tangent, of t and the other factor ---

_LETTERS = ascii_letters.replace("k", "")  # because k stands for the directions


def _product(x_axes: str, y_axes: str, result: str, x: Array, y: Array) -> tuple:
    return (
        lambda t: linear_maps.contract(t, (x_axes, y_axes), result, y),
        lambda t: linear_maps.contract(t, (y_axes, x_axes), result, x),
    )


@linearizer(np.tensordot)
def _tensordot(x: Array, y: Array, axes: Any = 2) -> Any:
    x, y = operand(x), operand(y)
    out = np.tensordot(x, y, axes)
    if isinstance(axes, int):
        axes = (range(x.ndim - axes, x.ndim), range(axes))
    sum_x, sum_y = ([a] if isinstance(a, int) else list(a) for a in axes)
    x_axes = list(_LETTERS[: x.ndim])
    y_axes = list(_LETTERS[x.ndim : x.ndim + y.ndim])
    for a, b in zip(sum_x, sum_y, strict=True):
        y_axes[b] = x_axes[a]
    free = [c for c in x_axes if c not in y_axes] + [c for c in y_axes if c not in x_axes]
    return out, _product("".join(x_axes), "".join(y_axes), "".join(free), x, y)


@linearizer(np.dot)
def _dot(x: Array, y: Array) -> Any:
    x, y = operand(x), operand(y)
    out = np.dot(x, y)
    if np.ndim(x) == 0 or np.ndim(y) == 0:
        return out, (lambda t: linear.scale(t, y), lambda t: linear.scale(t, x))
    if y.ndim <= 2:  # dot is matmul there, and only there
        return out, (
            lambda t: _matmul_by_x(t, out, x, y),
            lambda t: _matmul_by_y(t, out, x, y),
        )
    x_axes, y_axes = _LETTERS[: x.ndim], _LETTERS[x.ndim : x.ndim + y.ndim]
    y_axes = y_axes[:-2] + x_axes[-1] + y_axes[-1]
    return out, _product(x_axes, y_axes, x_axes[:-1] + y_axes[:-2] + y_axes[-1], x, y)


@linearizer(np.inner)
def _inner(x: Array, y: Array) -> Any:
    x, y = operand(x), operand(y)
    out = np.inner(x, y)
    if np.ndim(x) == 0 or np.ndim(y) == 0:
        return out, (lambda t: linear.scale(t, y), lambda t: linear.scale(t, x))
    x_axes, y_axes = _LETTERS[: x.ndim], _LETTERS[x.ndim : x.ndim + y.ndim]
    y_axes = y_axes[:-1] + x_axes[-1]
    return out, _product(x_axes, y_axes, x_axes[:-1] + y_axes[:-1], x, y)


@linearizer(np.vdot)
def _vdot(x: Array, y: Array) -> Any:
    def against(other: Array) -> Any:
        flat = np.ravel(other)
        return lambda t: linear.sum(linear.scale(linear.reshape(t, flat.shape), flat), (-1,))

    x, y = operand(x), operand(y)
    return np.vdot(x, y), (against(y), against(x))


@composed(np.outer, np.linalg.outer)
def _outer(x: Array, y: Array) -> Any:
    return np.ravel(x)[:, None] * np.ravel(y)[None, :]


@composed(np.kron)
def _kron(x: Array, y: Array) -> Any:
    x, y = operand(x), operand(y)
    ndim = max(x.ndim, y.ndim)
    x_shape = (1,) * (ndim - x.ndim) + x.shape
    y_shape = (1,) * (ndim - y.ndim) + y.shape
    blocks = np.reshape(x, [n for a in x_shape for n in (a, 1)]) * np.reshape(
        y, [n for b in y_shape for n in (1, b)]
    )
    return np.reshape(blocks, [a * b for a, b in zip(x_shape, y_shape, strict=True)])


# --- einsum ---


@linearizer(np.einsum)
def _einsum(*args: Any, optimize: Any = False) -> Any:
    """Evaluate any einsum, with implicit results, ellipses, diagonals, sums and stretched axes.

    The arguments are a string and operands, or each operand followed by the list of its axes.
    """
    in_letters = isinstance(args[0], str)
    places = range(1, len(args)) if in_letters else range(0, len(args) - 1, 2)
    args = tuple(operand(x) if i in places else x for i, x in enumerate(args))
    out = np.einsum(*args, optimize=optimize)
    spec = args[0] if in_letters else _in_letters(args)
    terms, result = _explicit(spec, [args[i] for i in places])
    terms, operands = _without_stretched(terms, [args[i] for i in places])

    def by(i: int) -> Any:
        others = [j for j in range(len(operands)) if j != i]
        elsewhere = result + "".join(terms[j] for j in others)

        def linear_map(t: Tangent) -> Any:
            if linear.shape_of(t) != operands[i].shape:
                t = linear.reshape(t, operands[i].shape)
            t, term = _without_repeats(t, terms[i], operands[i])
            alone = tuple(a - len(term) for a, c in enumerate(term) if c not in elsewhere)
            if alone:
                t = linear.sum(t, alone)
                term = "".join(c for c in term if c in elsewhere)
            subscripts = (term, *(terms[j] for j in others))
            return linear_maps.contract(t, subscripts, result, *(operands[j] for j in others))

        return linear_map

    maps: list[Any] = [None] * len(args)
    for i, place in enumerate(places):
        maps[place] = by(i)
    return out, maps


def _in_letters(args: Sequence) -> str:
    """Spell an einsum of operands and lists of axes as a string."""

    def spell(axes: Sequence) -> str:
        return "".join("..." if a is Ellipsis else _SORTED[a] for a in axes)

    spec = ",".join(map(spell, args[1 : len(args) - len(args) % 2 : 2]))
    return f"{spec}->{spell(args[-1])}" if len(args) % 2 else spec


_SORTED = "".join(sorted(ascii_letters))  # because an implicit result has its axes in this order


def _without_stretched(terms: list[str], operands: Sequence) -> tuple[list[str], Sequence]:
    """Leave out axes of length 1 that stretch to the length of another operand's."""
    sizes: dict[str, int] = {}
    for term, x in zip(terms, operands, strict=True):
        for c, n in zip(term, x.shape, strict=True):
            sizes[c] = max(n, sizes.get(c, 1)) if n else 0
    kept = [
        [a for a, (c, n) in enumerate(zip(term, x.shape, strict=True)) if n == sizes[c]]
        for term, x in zip(terms, operands, strict=True)
    ]
    return (
        ["".join(term[a] for a in axes) for term, axes in zip(terms, kept, strict=True)],
        tuple(
            x if len(axes) == x.ndim else np.reshape(x, tuple(x.shape[a] for a in axes))
            for x, axes in zip(operands, kept, strict=True)
        ),
    )


def _without_repeats(t: Tangent, term: str, x: Array) -> tuple[Any, str]:
    """Turn the axes of a letter that a term repeats (a diagonal) into one axis."""
    unique = "".join(dict.fromkeys(term))
    if unique == term:
        return t, term
    return linear_maps.gather(t, np.einsum(f"{term}->{unique}", positions_of(x))), unique


def _explicit(spec: str, operands: Sequence) -> tuple[list[str], str]:
    """Spell out implicit results and ellipses in the terms and the result, without the letter k."""
    inputs, arrow, result = spec.replace(" ", "").partition("->")
    terms = inputs.split(",")
    spare = [c for c in _LETTERS if c not in spec]
    hidden = [
        x.ndim - len(term.replace("...", "")) if "..." in term else 0
        for term, x in zip(terms, operands, strict=True)
    ]
    ellipsis = "".join(spare[: max(hidden)])
    terms = [
        term.replace("...", ellipsis[len(ellipsis) - n :])
        for term, n in zip(terms, hidden, strict=True)
    ]
    if arrow:
        result = result.replace("...", ellipsis)
    else:
        letters = "".join(terms)
        once = sorted(c for c in set(letters) if letters.count(c) == 1 and c not in ellipsis)
        result = ellipsis + "".join(once)
    free = spare[max(hidden)] if "k" in spec else "k"
    return [term.replace("k", free) for term in terms], result.replace("k", free)


# --- linear systems ---


@linearizer(np.linalg.solve)
def _solve(a: Array, b: Array) -> Any:
    """Solve a x = b; the tangent of x is a⁻¹ (ḃ - ȧ x)."""
    a, b = operand(a), operand(b)
    out = np.linalg.solve(a, b)
    column = b.ndim == 1
    x = out[..., None] if column else out

    def by_a(t: Tangent) -> Any:
        return linear.reshape(linear_maps.solve(-linear.matmul(t, x), a), out.shape)

    def by_b(t: Tangent) -> Any:
        if column:
            t = linear.reshape(t, (b.shape[0], 1))
        return linear.reshape(linear_maps.solve(t, a), out.shape)

    return out, (by_a, by_b)


def _inv(t: Tangent, out: Array, x: Array) -> Tangent:
    return -linear.matmul(linear.matmul_from_left(t, out), out)


rule(np.linalg.inv, _inv)


def _sum_with(t: Tangent, factor: Array) -> Tangent:
    return linear.sum(linear.scale(t, factor), (-2, -1))


@linearizer(np.linalg.det)
def _det(x: Array) -> Any:
    """Evaluate the determinant; its tangent is det(x) tr(x⁻¹ ẋ) for an invertible x (Jacobi)."""
    out = np.linalg.det(x)
    cofactors = np.expand_dims(out, (-2, -1)) * np.swapaxes(np.linalg.inv(x), -1, -2)
    return out, lambda t: _sum_with(t, cofactors)


@primitive
def _logabsdet(x: Array) -> Any:
    return np.linalg.slogdet(x)[1]


rule(
    _logabsdet,
    lambda t, out, x: _sum_with(t, np.swapaxes(np.linalg.inv(x), -1, -2)),
)


@composed(np.linalg.slogdet)
def _slogdet(x: Array) -> tuple:
    sign, _ = np.linalg.slogdet(primal_of(x))
    return type(np.linalg.slogdet(np.eye(1)))(sign, _logabsdet(x))


@linearizer(np.linalg.cholesky)
def _cholesky(x: Array) -> Any:
    """Find L with L Lᵀ = x; L̇ = L Φ(L⁻¹ ẋ L⁻ᵀ), where Φ keeps the lower triangle and halves
    the diagonal.

    NumPy reads the lower triangle of x alone, so only that of ẋ counts.
    Source: Murray 2016, "Differentiation of the Cholesky decomposition", Eq. 8.
    """
    out = np.linalg.cholesky(x)
    i = arange_like(x.shape[-1], x)
    lower, strictly_lower = i[:, None] >= i, i[:, None] > i
    half = 0.5 * (lower.astype(x.dtype) + strictly_lower.astype(x.dtype))

    def transposed(t: Tangent) -> Any:
        n = len(linear.shape_of(t))
        return linear.transpose(t, (*range(-n, -2), -1, -2))

    def linear_map(t: Tangent) -> Any:
        symmetric = linear.add(
            linear_maps.select(t, lower), transposed(linear_maps.select(t, strictly_lower))
        )
        inside = linear_maps.solve(transposed(linear_maps.solve(symmetric, out)), out)
        return linear.matmul_from_left(linear.scale(inside, half), out)

    return out, linear_map
