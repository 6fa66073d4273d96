"""Products, einsum, and linear systems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from string import ascii_letters
from typing import Any

import numpy as np

from dualnet.backends.overridable import matmul
from dualnet.core import linear
from dualnet.core.arrays import operand, operand_like
from dualnet.core.dual import astype
from dualnet.core.engine import composed, linearizer, rule
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
    out = matmul(x, y)
    return out, (lambda t: _matmul_by_x(t, out, x, y), lambda t: _matmul_by_y(t, out, x, y))


# --- products that are an einsum: so is the tangent, of t and the other factor ---

_LETTERS = ascii_letters.replace("k", "")  # because k stands for the directions


def _contraction(x: Array, y: Array, sum_x: Sequence[int], sum_y: Sequence[int]) -> tuple:
    """Return the maps of a product that sums over pairs of axes, as `np.tensordot` does."""
    x_axes = list(_LETTERS[: x.ndim])
    y_axes = list(_LETTERS[x.ndim : x.ndim + y.ndim])
    for a, b in zip(sum_x, sum_y, strict=True):
        y_axes[b] = x_axes[a]
    free = [c for c in x_axes if c not in y_axes] + [c for c in y_axes if c not in x_axes]
    of_x, of_y, result = "".join(x_axes), "".join(y_axes), "".join(free)
    return _maps_of_einsum([of_x, of_y], result, (x, y))


@linearizer(np.tensordot)
def _tensordot(x: Array, y: Array, axes: Any = 2) -> Any:
    x, y = operand_like(x, y), operand_like(y, x)
    if isinstance(axes, int):
        axes = (range(x.ndim - axes, x.ndim), range(axes))
    sum_x, sum_y = ([a] if isinstance(a, int) else list(a) for a in axes)
    return np.tensordot(x, y, (sum_x, sum_y)), _contraction(x, y, sum_x, sum_y)


def _dot_or_inner(fn: Callable, x: Array, y: Array) -> Any:
    """Return the result and the maps of `np.dot` or `np.inner`, which differ in an axis of y."""
    x, y = operand(x), operand(y)
    out = fn(x, y)
    if np.ndim(x) == 0 or np.ndim(y) == 0:
        return out, (lambda t: linear.scale(t, y), lambda t: linear.scale(t, x))
    if fn is np.dot and y.ndim <= 2:  # dot is matmul there, and only there
        return out, (lambda t: _matmul_by_x(t, out, x, y), lambda t: _matmul_by_y(t, out, x, y))
    return out, _contraction(x, y, [-1], [-2 if fn is np.dot else -1])


linearizer(np.dot)(lambda x, y: _dot_or_inner(np.dot, x, y))
linearizer(np.inner)(lambda x, y: _dot_or_inner(np.inner, x, y))


@linearizer(np.vdot)
def _vdot(x: Array, y: Array) -> Any:
    x, y = operand(x), operand(y)

    def by(other: Array) -> Any:
        flat = np.ravel(other)
        return lambda t: linear.sum(linear.scale(linear.reshape(t, flat.shape), flat), (-1,))

    return np.vdot(x, y), (by(y), by(x))


composed(np.outer)(lambda x, y: np.ravel(x)[:, None] * np.ravel(y)[None, :])


@composed(np.linalg.outer)
def _linalg_outer(x1: Array, x2: Array) -> Any:
    if np.ndim(x1) != 1 or np.ndim(x2) != 1:
        raise ValueError(
            f"np.linalg.outer: expected two vectors, got {np.ndim(x1)} and {np.ndim(x2)} axes; "
            "np.outer flattens what it gets"
        )
    return np.outer(x1, x2)


@composed(np.kron)
def _kron(x: Array, y: Array) -> Any:
    x, y = operand_like(x, y), operand_like(y, x)
    ndim = max(x.ndim, y.ndim)
    x, y = (np.reshape(a, (1,) * (ndim - a.ndim) + a.shape) for a in (x, y))
    behind, before = tuple(range(1, 2 * ndim, 2)), tuple(range(0, 2 * ndim, 2))
    blocks = np.expand_dims(x, behind) * np.expand_dims(y, before)
    return np.reshape(blocks, [a * b for a, b in zip(x.shape, y.shape, strict=True)])


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
    # Narrow constants are multiplied with one another, where int8 would overflow.
    wide = [x if x.dtype == out.dtype else astype(x, out.dtype) for x in (args[i] for i in places)]
    terms, operands = _without_stretched(terms, wide)
    maps: list[Any] = [None] * len(args)
    for place, linear_map in zip(places, _maps_of_einsum(terms, result, operands), strict=True):
        maps[place] = linear_map
    return out, maps


def _maps_of_einsum(terms: list[str], result: str, operands: Sequence) -> tuple:
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

    return tuple(map(by, range(len(operands))))


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
    pairs = list(zip(terms, operands, strict=True))
    hidden = [x.ndim - len(term.replace("...", "")) for term, x in pairs]
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


rule(np.linalg.inv, lambda t, out, x: -linear.matmul(linear.matmul_from_left(t, out), out))
