"""The transforms: from a function to its derivatives.

    jvp        k directional derivatives beside the value, in one pass
    linearize  the value, and the derivative as a linear function to apply again and again
    vjp        the value, and the transpose of that linear function: reverse mode

All take a function of trees of arrays and nest freely.  Names and argument order follow JAX.
Wherever one tangent or cotangent is accepted, a stack of k with one more, leading, axis is too, and
the answer then has the same leading axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.core import aliasing, spaces
from dualnet.core.arguments import (
    float_array,
    require_arrays,
    require_pair,
    require_sequences,
    tangent_stacks,
)
from dualnet.core.dual import Dual, Level, primal_of
from dualnet.core.reach import has_nan, transpose_along_paths
from dualnet.core.symbolic import Symbolic, push_all, transpose_all
from dualnet.tree import Tree
from dualnet.types import Array, Tangent


def jvp(f: Callable, primals: Sequence, tangents: Sequence, *, has_aux: bool = False) -> Any:
    """Evaluate `f` and its derivative along each of k directions, in one pass.

    Args:
        f: function of `len(primals)` trees of arrays, returning a tree of arrays.
        primals: where to differentiate; float arrays, or anything where there is no tangent.
        tangents: for each primal a tree of the same structure.  Each leaf is None (constant), an
            array of the primal's shape `S` (one direction), an array `(k, *S)` (k directions), or
            a `RankOne` (k directions of a matrix).  Its dtype is the primal's.
        has_aux: `f` returns `(out, aux)`, and aux comes back as plain values.

    Returns:
        `(out, out_tangent)`, or with aux `(out, out_tangent, aux)`.  Each leaf of out_tangent has
        the shape of out's leaf, with k in front if k directions were given.  Parts of the result
        that do not depend on the primals have zero tangents.

    Raises:
        TangentError: a tangent's shape, dtype or k does not fit; both sides are shown.
        TreeError: a tangent's structure does not fit.
    """
    require_sequences("jvp", primals=primals, tangents=tangents)
    primals = tuple(primals)
    leaves, stacks, k = tangent_stacks("jvp", primals, tuple(tangents))
    with Level() as level:
        duals = _duals(primals, leaves, stacks, level)
        out, values, out_tangents, aux = _call("jvp", f, duals, has_aux, level)
    answers = [_answer(t, x, k) for t, x in zip(out_tangents, values, strict=True)]
    result = tree.unflatten(out, values), tree.unflatten(out, answers)
    return (*result, aux) if has_aux else result


def linearize(f: Callable, *primals: Any) -> tuple[Any, Callable]:
    """Evaluate `f`, and record its derivative there as a linear function of tangents.

    Returns:
        `(out, f_jvp)`: `f_jvp(*tangents)` takes tangents as `jvp` does and returns the tangent of
        out.  Intermediate values are kept, so that applying it does not evaluate f again.
    """
    record = Record("linearize", f, tree.map(aliasing.own, primals))
    return tree.map(aliasing.own, record.out), record.push


def vjp(f: Callable, *primals: Any, has_aux: bool = False) -> Any:
    """Evaluate `f`, and transpose its derivative: reverse mode.

    The derivative is recorded as a linear expression while f is evaluated, as the very rules of
    forward mode act on a symbolic tangent; then it is transposed.
    Source: Radul et al. 2022, "You Only Linearize Once: Tangents Transpose to Gradients".

    Returns:
        `(out, f_vjp)` or `(out, f_vjp, aux)`.  `f_vjp(cotangent)` takes a tree like out (or with k
        in front of every leaf) and returns a tuple with a cotangent for each primal.
    """
    record = Record("vjp", f, tree.map(aliasing.own, primals), has_aux)
    out, aux = tree.map(aliasing.own, (record.out, record.aux))
    return (out, record.pull, aux) if has_aux else (out, record.pull)


def stop_gradient(x: Tree) -> Tree:
    """Return the same values as constants: no tangent and no cotangent passes, in any transform."""
    return tree.map(_constant, x)


def is_constant(x: Array) -> bool:
    """Tell whether x has no tangent in any transform: nothing is being differentiated by it."""
    return not isinstance(x, Dual)


# --- parts ---------------------------------------------------------------------------------------


class Record:
    """One evaluation of f with symbolic tangents: its value and its derivative, recorded.

    Attributes:
        out, aux: what f returned, without tangents.
        push: the derivative, as a function of tangents of the primals.
        pull: its transpose, as a function of cotangents of out.
    """

    def __init__(self, name: str, f: Callable, primals: tuple, has_aux: bool = False):
        self.name, self.primals = name, primals
        self.leaves = [float_array(name, x) for x in tree.leaves(primals)]
        self.inputs = list(map(Symbolic.input, self.leaves))
        with Level() as level:
            duals = _duals(primals, self.leaves, self.inputs, level)
            out, self.values, self.out_tangents, self.aux = _call(name, f, duals, has_aux, level)
        self.out = tree.unflatten(out, self.values)

    def push(self, *tangents: Any) -> Any:
        _, stacks, k = tangent_stacks(self.name, self.primals, tangents)
        reached = [t for t in self.out_tangents if t is not None]
        computed = iter(push_all(reached, self.inputs, stacks))
        pairs = zip(self.out_tangents, self.values, strict=True)
        answers = [_answer(t if t is None else next(computed), x, k) for t, x in pairs]
        return tree.unflatten(self.out, answers)

    def pull(self, cotangents: Any) -> tuple:
        _, stacks, k = tangent_stacks(self.name, self.out, cotangents, "cotangent")
        outputs, given = [], []
        for t, stack in zip(self.out_tangents, stacks, strict=True):
            if t is not None and stack is not None:
                outputs.append(t)
                given.append(stack)
        sums = transpose_all(outputs, given, self.inputs)
        if any(map(has_nan, sums)):
            sums = transpose_along_paths(outputs, given, self.inputs)
        pairs = zip(sums, self.leaves, strict=True)
        return tree.unflatten(self.primals, [_answer(ct, x, k) for ct, x in pairs])


def _duals(primals: tuple, leaves: list, tangents: Sequence[Tangent], level: Level) -> tuple:
    """Build a tree like the primals, of its leaves paired with their tangents."""
    pairs = zip(leaves, tangents, strict=True)
    return tree.unflatten(primals, [x if t is None else Dual(x, t, level) for x, t in pairs])


def _call(name: str, f: Callable, duals: Sequence, has_aux: bool, level: Level) -> tuple:
    """Return f's result, the primals and tangents of its leaves, and aux without tangents."""
    out, aux = f(*duals), None
    if has_aux:
        out, aux = require_pair("has_aux=True: the function must return (out, aux)", out)
        aux = tree.unflatten(aux, _primals_and_tangents(aux, level)[0])
    values, tangents = _primals_and_tangents(out, level)
    require_arrays(name, out, values)
    return out, values, tangents, aux


def _primals_and_tangents(out: Tree, level: Level) -> tuple[list, list]:
    """Separate the leaves' primals and tangents at a level; None where there is no tangent."""
    primals, tangents = [], []
    for x in tree.leaves(out):
        mine = isinstance(x, Dual) and x.level is level
        if mine and x.alias is not None:
            x.alias.require_current()
        primals.append(x.primal if mine else x)
        tangents.append(x.tangent if mine else None)
    return primals, tangents


def _constant(x: Any) -> Any:
    if not isinstance(x, Dual):
        return x
    if x.alias is not None:
        x.alias.require_current()
    return aliasing.locked(primal_of(x))


def _answer(t: Tangent | None, like: Array, k: int | None) -> Array:
    """Return a tangent or cotangent of `like` in the form in which the caller gets it.

    It has zeros where nothing arrived, the dtype of `like`, and no k axis where single tangents
    were given; and it is an array to write to, even where it was one number repeated (a view).
    """
    dtype = like.dtype if hasattr(like, "dtype") else np.result_type(like)
    if t is None:
        shape = (1 if k is None else k, *np.shape(like))
        t = np.zeros_like(primal_of(like), dtype, shape=shape)
    stack = spaces.dense(t)
    if stack.dtype != dtype:
        stack = stack.astype(dtype)
    if 0 in getattr(stack, "strides", ()):
        stack = stack.copy()
    return stack[0] if k is None else stack
