"""The transforms: from a function to its derivatives.

    jvp        k directional derivatives beside the value, in one pass
    linearize  the value, and the derivative as a linear function to apply again and again
    vjp        the value, and the transpose of that linear function: reverse mode

All take a function of trees of arrays and nest freely.  Names and argument order follow JAX.
A function that has no derivative rule is refused by a MissingRuleError, and a request for a plain
number or array (`float(x)`, `math.exp(x)`) by a DualConversionError.
Wherever one tangent or cotangent is accepted, a stack of k with one more, leading, axis is too, and
the answer then has the same leading axis.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from dualnet import tree
from dualnet.core import aliasing, arguments
from dualnet.core.dual import Dual, Level, primal_of
from dualnet.core.engine import take_apart
from dualnet.core.half import in_single
from dualnet.core.python_floats import WEAK, FloatDual
from dualnet.core.reach import has_nan, transpose_along_paths
from dualnet.core.symbolic import Symbolic, push_all, transpose_all
from dualnet.errors import TangentError
from dualnet.tree import Tree
from dualnet.types import Array, Tangent


def jvp(
    f: Callable, primals: Sequence, tangents: Sequence, *, has_aux: bool = False
) -> tuple[Tree, ...]:
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

    Source: Wengert 1964, "A simple automatic derivative evaluation program".

    Examples:
        >>> x, v = np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, 10.0])
        >>> out, out_tangent = dn.jvp(np.square, (x,), (v,))
        >>> out.tolist(), out_tangent.tolist()  # x², 2 x v
        ([1.0, 4.0, 9.0], [2.0, 0.0, 60.0])
        >>> dn.jvp(np.prod, (x,), (np.eye(3),))[1].tolist()  # k = 3 directions in one pass
        [6.0, 3.0, 2.0]
    """
    arguments.require_sequences("jvp", primals=primals, tangents=tangents)
    primals = tuple(primals)
    leaves, stacks, k = arguments.tangent_stacks("jvp", primals, tuple(tangents))
    out, values, out_tangents, aux = _call("jvp", f, primals, leaves, stacks, has_aux)
    result = tree.unflatten(out, values), arguments.answers(out, values, out_tangents, k)
    return (*result, aux) if has_aux else result


def linearize(f: Callable, *primals: Tree) -> tuple[Tree, Callable[..., Tree]]:
    """Evaluate `f`, and record its derivative there as a linear function of tangents.

    Args:
        f, primals: as for `jvp`; all leaves are floats.

    Returns:
        `(out, f_jvp)`: `f_jvp(*tangents)` takes tangents as `jvp` does and returns the tangent of
        out.  Intermediate values are kept, so that applying it does not evaluate f again.

    Raises:
        TangentError: a primal is no float, or `f_jvp` is called with what does not fit.

    Examples:
        >>> out, f_jvp = dn.linearize(lambda x: np.exp(2.0 * x), 0.0)
        >>> float(out), float(f_jvp(1.0)), float(f_jvp(-3.0))  # the slope at 0 is 2
        (1.0, 2.0, -6.0)
    """
    recording = Recording("linearize", f, tree.map(aliasing.own, primals))
    return tree.map(aliasing.own, recording.out), recording.push


def vjp(f: Callable, *primals: Tree, has_aux: bool = False) -> tuple[Any, ...]:
    """Evaluate `f`, and transpose its derivative: reverse mode.

    The derivative is recorded as a linear expression while f is evaluated, as the very rules of
    forward mode act on a symbolic tangent; then it is transposed (see `core.symbolic`).

    Args:
        f, primals, has_aux: as for `jvp`; all leaves of the primals are floats.

    Returns:
        `(out, f_vjp)` or `(out, f_vjp, aux)`.  `f_vjp(cotangent)` takes a tree like out (or with k
        in front of every leaf) and returns a tuple with a cotangent for each primal.

    Raises:
        TangentError: a primal is no float, or a cotangent does not fit.
        TreeError: a cotangent's structure is not that of out.

    Source: Radul et al. 2022, "You Only Linearize Once: Tangents Transpose to Gradients".

    Examples:
        >>> x, w = np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])
        >>> out, f_vjp = dn.vjp(np.matmul, x, w)
        >>> [c.tolist() for c in f_vjp(np.array([[10.0]]))]  # 10 wᵀ and 10 xᵀ
        [[[30.0, 40.0]], [[10.0], [20.0]]]
    """
    recording = Recording("vjp", f, tree.map(aliasing.own, primals), has_aux)
    out, aux = tree.map(aliasing.own, (recording.out, recording.aux))
    return (out, recording.pull, aux) if has_aux else (out, recording.pull)


def stop_gradient(x: Tree) -> Tree:
    """Return the same values as constants: no tangent and no cotangent passes, in any transform.

    Examples:
        >>> dn.grad(lambda x: x * dn.stop_gradient(x))(3.0)  # without it, 2 x = 6
        np.float64(3.0)
    """
    return tree.map(_constant, x)


def is_constant(x: Array) -> bool:
    """Tell whether x has no tangent in any transform: nothing is being differentiated by it."""
    return not isinstance(x, Dual)


# --- parts ---------------------------------------------------------------------------------------


class Recording:
    """One evaluation of f with symbolic tangents: its value and its derivative, recorded.

    Attributes:
        out, aux: what f returned, without tangents.
        push: the derivative, as a function of tangents of the primals.
        pull: its transpose, as a function of cotangents of out.
    """

    def __init__(self, name: str, f: Callable, primals: tuple, has_aux: bool = False):
        self.name, self.primals = name, primals
        self.leaves = [arguments.float_array(name, x) for x in tree.leaves(primals)]
        self.inputs = list(map(Symbolic.input, self.leaves))
        called = _call(name, f, primals, self.leaves, self.inputs, has_aux)
        out, self.values, self.out_tangents, self.aux = called
        self.out = tree.unflatten(out, self.values)

    def push(self, *tangents: Any) -> Any:
        _, stacks, k = arguments.tangent_stacks(self.name, self.primals, tangents)
        pushed = push_all(self.out_tangents, self.inputs, stacks)
        return arguments.answers(self.out, self.values, pushed, k)

    def pull(self, cotangents: Any) -> tuple:
        _, stacks, k = arguments.tangent_stacks(self.name, self.out, cotangents, "cotangent")
        stacks = list(map(in_single, stacks))
        pulled = transpose_all(self.out_tangents, stacks, self.inputs)
        if any(map(has_nan, pulled)):
            with contextlib.suppress(TypeError, TangentError):  # some maps know arrays alone
                pulled = transpose_along_paths(self.out_tangents, stacks, self.inputs)
        return arguments.answers(self.primals, self.leaves, pulled, k)


def _call(
    name: str, f: Callable, primals: tuple, leaves: list, tangents: Sequence[Tangent], has_aux: bool
) -> tuple:
    """Evaluate f on duals of a level of its own, where a leaf of the primals has a tangent.

    Returns:
        What f returned, the primals and tangents of its leaves, and aux without tangents.
    """
    with Level() as level:
        kinds = [FloatDual if type(x) in WEAK else Dual for x in tree.leaves(primals)]
        triples = zip(kinds, leaves, tangents, strict=True)
        duals = [x if t is None else kind(x, t, level) for kind, x, t in triples]
        out, aux = f(*tree.unflatten(primals, duals)), None
        if has_aux:
            out, aux = arguments.require_pair("has_aux=True: the function", "(out, aux)", out)
            aux = tree.unflatten(aux, take_apart(tree.leaves(aux), level)[0])
        values, out_tangents = take_apart(tree.leaves(out), level)
    arguments.require_arrays(name, out, values)
    return out, values, out_tangents, aux


def _constant(x: Any) -> Any:
    if isinstance(x, FloatDual):
        return float(primal_of(x))
    return aliasing.locked(primal_of(x)) if isinstance(x, Dual) else x
