"""Gradients, Jacobians, Hessian-vector products and transposes: combinations of jvp and vjp.

Names and argument order follow JAX.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, SupportsIndex, TypeAlias

import numpy as np

from dualnet import tree
from dualnet.core.arguments import argument_numbers, float_array, is_float
from dualnet.core.arrays import arange_like
from dualnet.core.dual import primal_of
from dualnet.core.transforms import Recording, jvp
from dualnet.errors import TangentError
from dualnet.options import require_count
from dualnet.tree import Tree
from dualnet.types import Array, Stack

Argnums: TypeAlias = SupportsIndex | Sequence[int]
"""Which arguments by position to differentiate by; a tuple gives a tuple of derivatives."""


class Transformed(functools.partial):
    """A function made of a function of the user's: it can be pickled where that one can be.

    It binds to an object as a function does, so that a method can be transformed by a decorator.
    """

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)


def value_and_grad(f: Callable, argnums: Argnums = 0, has_aux: bool = False) -> Callable:
    """Make a function that returns the value of the scalar function `f` and its gradient.

    Args:
        f: function whose result (or first result, with has_aux) is a scalar.
        argnums: which arguments to differentiate by; a tuple gives a tuple of gradients.
        has_aux: `f` returns `(value, aux)`.

    Returns:
        A function of f's arguments that returns `(value, gradient)`, or
        `((value, aux), gradient)`; a gradient is a tree like its argument.

    Raises:
        TangentError: f returns no single float, an argument to differentiate by is no float, or
            there is no such argument.

    Examples:
        >>> loss = lambda w, x: np.sum((x @ w) ** 2)
        >>> value, gradient = dn.value_and_grad(loss)(np.array([1.0, 2.0]), np.eye(2))
        >>> float(value), gradient.tolist()  # |w|², 2 w
        (5.0, [2.0, 4.0])
    """
    return Transformed(_value_and_gradient, f, argnums, has_aux)


def grad(f: Callable, argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Tree]:
    """Make a function that returns the gradient of the scalar function `f`.

    Args:
        f, argnums, has_aux: as for `value_and_grad`.

    Returns:
        A function of f's arguments that returns the gradient, a tree like the argument; with
        has_aux `(gradient, aux)`.

    Raises:
        TangentError: as for `value_and_grad`.

    Examples:
        >>> params = {"w": np.array([1.0, 2.0]), "b": np.array(3.0)}
        >>> gradient = dn.grad(lambda p: np.sum(p["w"]) * p["b"])(params)
        >>> gradient["w"].tolist(), float(gradient["b"])
        ([3.0, 3.0], 3.0)
        >>> float(dn.grad(dn.grad(lambda x: x**3))(2.0))  # 6 x
        12.0
    """
    return Transformed(_gradient, f, argnums, has_aux)


def jacfwd(f: Callable, argnums: Argnums = 0, *, tangent_chunk: int | None = None) -> Callable:
    """Make a function that returns the Jacobian of `f`, by one direction for each input entry.

    A direction is zero for all other entries, and 0 · ∞ is NaN.  So where an entry has an infinite
    slope, as `x ** 0.5` has at 0, the rest of its row is NaN.  `jacrev` has zeros there, because it
    finds out which entries a cotangent reaches.

    Args:
        f: function of trees of arrays.
        argnums: which arguments to differentiate by.
        tangent_chunk: how many directions one pass carries at the most (all if None); memory grows
            with it, and the result does not depend on it.

    Returns:
        A function of f's arguments that returns a tree like out whose leaves are trees like the
        argument, with leaves of shape `(*out_leaf.shape, *argument_leaf.shape)`.

    Raises:
        TangentError: an argument to differentiate by is no float, or there is none of this number;
            or f returns what is no float.
        UsageError: tangent_chunk is no integer of at least 1.

    Examples:
        >>> x = np.array([1.0, 2.0, 3.0])
        >>> dn.jacfwd(np.cumsum)(x).tolist()  # entry i sums up the first i + 1
        [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]
    """
    if tangent_chunk is not None:
        require_count("jacfwd", "tangent_chunk", tangent_chunk)
    return Transformed(_jacobian_forward, f, argnums, tangent_chunk)


def jacrev(f: Callable, argnums: Argnums = 0, *, tangent_chunk: int | None = None) -> Callable:
    """Make the same function as `jacfwd`, by one cotangent for each output entry.

    Args:
        f, argnums: as for `jacfwd`.
        tangent_chunk: how many cotangents one pass carries at the most (all if None).

    Returns:
        A function of f's arguments, as `jacfwd` makes it.

    Raises:
        TangentError, UsageError: as for `jacfwd`.

    Examples:
        >>> dn.jacrev(lambda x: x[0] * x[1:])(np.array([2.0, 5.0, 7.0])).tolist()
        [[5.0, 2.0, 0.0], [7.0, 0.0, 2.0]]
    """
    if tangent_chunk is not None:
        require_count("jacrev", "tangent_chunk", tangent_chunk)
    return Transformed(_jacobian_reverse, f, argnums, tangent_chunk)


def hvp(f: Callable, primals: Sequence, tangents: Sequence) -> tuple[Tree, ...]:
    """Evaluate Hessian-vector products of the scalar function `f`: forward over reverse.

    Args:
        f, primals, tangents: as for `jvp`; k directions give k products.

    Returns:
        A tuple with, for each primal, a tree like it (with k in front): ∇²f · tangents.

    Raises:
        TangentError: f returns no single float, a primal is no float, or a tangent does not fit.
        TreeError: a tangent's structure does not fit.

    Source: Pearlmutter 1994, "Fast exact multiplication by the Hessian".

    Examples:
        >>> x = np.array([1.0, 2.0])
        >>> (product,) = dn.hvp(lambda x: np.sum(x**3), (x,), (np.array([1.0, 10.0]),))
        >>> product.tolist()  # 6 x v
        [6.0, 120.0]
    """
    every = tuple(range(len(primals)))
    return jvp(grad(f, every), primals, tangents)[1]


def linear_transpose(f: Callable, *examples: Tree) -> Callable[..., tuple[Tree, ...]]:
    """Transpose a linear function.

    Args:
        f: linear function of trees of arrays.
        examples: arrays of the shapes and dtypes that f takes; their values do not matter.

    Returns:
        A function from a cotangent of f's result to a tuple with one for each argument.

    Raises:
        TangentError: f is not linear: f(0) is not 0, or f differs from its derivative at another
            point; or an example is no float.

    Source: Radul et al. 2022, "You Only Linearize Once: Tangents Transpose to Gradients".

    Examples:
        >>> differences_transposed = dn.linear_transpose(np.diff, np.zeros(3))
        >>> differences_transposed(np.array([1.0, 10.0]))[0].tolist()
        [-1.0, -9.0, 10.0]
    """
    zeros = tree.map(np.zeros_like, examples)
    recording = Recording("linear_transpose", f, zeros)
    point = tree.map(_irregular, zeros)
    values, images = f(*point), recording.push(*point)
    pairs = zip(tree.leaves_like(recording.out, values), tree.leaves(images), strict=True)
    for (path, at_zero), (value, image) in zip(tree.items(recording.out), pairs, strict=True):
        not_zero = bool(np.any(np.not_equal(primal_of(at_zero), 0)))
        if not_zero or not _nearly_equal(primal_of(value), primal_of(image)):
            said = "f(0) is not 0" if not_zero else "f differs from its derivative"
            raise TangentError(
                f"linear_transpose: f is not linear, {said} at {path or 'its result'}; vjp "
                "transposes the derivative of any function"
            )
    return recording.pull


# --- parts ---------------------------------------------------------------------------------------


def _value_and_gradient(
    f: Callable, argnums: Argnums, has_aux: bool, /, *args: Any, **kwargs: Any
) -> Any:
    chosen, of_chosen, single = _by_chosen_arguments(f, argnums, args, kwargs)
    recording = Recording("grad", of_chosen, chosen, has_aux)
    value = recording.out
    if not is_float(value) or getattr(value, "shape", ()) != ():
        raise TangentError(
            f"grad: the function must return one float, got {tree.describe(value)}; sum it, or "
            "use vjp or jacrev"
        )
    gradients = recording.pull(np.ones_like(primal_of(value)))
    gradient = gradients[0] if single else gradients
    return ((value, recording.aux), gradient) if has_aux else (value, gradient)


def _gradient(f: Callable, argnums: Argnums, has_aux: bool, /, *args: Any, **kwargs: Any) -> Any:
    value, gradient = _value_and_gradient(f, argnums, has_aux, *args, **kwargs)
    return (gradient, value[1]) if has_aux else gradient


def _jacobian_forward(
    f: Callable, argnums: Argnums, tangent_chunk: int | None, /, *args: Any, **kwargs: Any
) -> Any:
    chosen, of_chosen, single = _by_chosen_arguments(f, argnums, args, kwargs)
    leaves = [float_array("jacfwd", x) for x in tree.leaves(chosen)]
    out, columns = None, []
    for position, leaf in enumerate(leaves):
        pieces = []
        for basis in _basis(chosen, leaves, position, tangent_chunk):
            out, stacks = jvp(of_chosen, chosen, basis)
            _require_floats("jacfwd", out)
            pieces.append(stacks)
        moved = [np.moveaxis(stack, 0, -1) for stack in _joined(pieces)]  # (*out, n)
        columns.append([np.reshape(c, c.shape[:-1] + leaf.shape) for c in moved])
    rows = [tree.unflatten(chosen, list(row)) for row in zip(*columns, strict=True)]
    return _jacobian_tree(out, rows, single)


def _jacobian_reverse(
    f: Callable, argnums: Argnums, tangent_chunk: int | None, /, *args: Any, **kwargs: Any
) -> Any:
    chosen, of_chosen, single = _by_chosen_arguments(f, argnums, args, kwargs)
    recording = Recording("jacrev", of_chosen, chosen)
    out, leaves = recording.out, recording.values
    _require_floats("jacrev", out)
    rows = []
    for position, leaf in enumerate(leaves):
        pieces = map(recording.pull, _basis(out, leaves, position, tangent_chunk))
        row = [np.reshape(r, (*np.shape(leaf), *r.shape[1:])) for r in _joined(pieces)]
        rows.append(tree.unflatten(chosen, row))
    return _jacobian_tree(out, rows, single)


def _by_chosen_arguments(
    f: Callable, argnums: Argnums, args: tuple, kwargs: dict
) -> tuple[tuple, Callable, bool]:
    """Return the chosen arguments, f as a function of them alone, and whether it is just one."""
    numbers, single = argument_numbers(argnums, len(args))

    def of_chosen(*chosen: Any) -> Any:
        replaced = list(args)
        for n, value in zip(numbers, chosen, strict=True):
            replaced[n] = value
        return f(*replaced, **kwargs)

    return tuple(map(args.__getitem__, numbers)), of_chosen, single


def _irregular(x: Array) -> Array:
    """Make an array like x whose entries have no relation to one another."""
    entries = np.sin(np.square(arange_like(x.size, x) + 1.0))
    return np.reshape(entries, x.shape).astype(x.dtype)


def _nearly_equal(a: Array, b: Array) -> bool:
    """Compare two results at a point of size 1, up to what rounding may add up to."""
    epsilon = float(np.finfo(np.result_type(b, np.float16)).eps)
    largest = np.max(np.abs(b), initial=0.0)
    allowed = epsilon**0.5 * largest + 1e3 * epsilon
    return bool(np.allclose(a, b, rtol=epsilon**0.5, atol=allowed))


def _require_floats(name: str, out: Tree) -> None:
    """Refuse a function whose result has integers, which have no Jacobian."""
    if all(map(is_float, tree.leaves(out))):
        return
    raise TangentError(
        f"{name}: the function must return floats alone, got {tree.describe(out)}; leave out what "
        "is none, or convert it by x.astype(float)"
    )


def _basis(like: Tree, leaves: list, position: int, chunk: int | None) -> Iterator[Tree]:
    """Yield trees with a stack of one leaf's standard basis, of at most `chunk` directions each."""
    leaf = leaves[position]
    size, shape, dtype = np.size(primal_of(leaf)), np.shape(leaf), np.result_type(primal_of(leaf))
    step = max(1, size if chunk is None else chunk)
    for start in range(0, max(size, 1), step):
        ones_at = start + arange_like(min(step, size - start), leaf)
        rows = np.equal(arange_like(size, leaf), ones_at[:, None]).astype(dtype)
        tangents: list = [None] * len(leaves)
        tangents[position] = np.reshape(rows, (rows.shape[0], *shape))
        yield tree.unflatten(like, tangents)


def _joined(pieces: Iterable[Tree]) -> list[Stack]:
    """Join the stacks of several passes, leaf by leaf."""
    return [np.concatenate(parts) for parts in zip(*map(tree.leaves, pieces), strict=True)]


def _jacobian_tree(out: Tree, rows: list, single: bool) -> Tree:
    return tree.unflatten(out, [row[0] for row in rows] if single else rows)
