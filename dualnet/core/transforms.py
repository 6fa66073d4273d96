"""The transforms: from a function to its derivatives.

    jvp        k directional derivatives beside the value, in one pass
    linearize  the value, and the derivative as a linear function to apply again and again
    vjp        the value, and the transpose of that linear function: reverse mode

`core.derivatives` combines them to grad, value_and_grad, jacfwd, jacrev and hvp.
All of them take a function of trees of arrays and nest freely.  Names and argument order
follow JAX.  Wherever one tangent or cotangent is accepted, a stack of k with one more, leading,
axis is accepted too, and the answer then has the same leading axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.core import spaces
from dualnet.core.dual import Dual, Level, new_level, primal_of
from dualnet.core.linear import Structured
from dualnet.core.symbolic import Symbolic, evaluate, transpose_all
from dualnet.errors import TangentError
from dualnet.tree import Tree


def jvp(f: Callable, primals: Sequence, tangents: Sequence, *, has_aux: bool = False) -> Any:
    """The value of `f` and its derivative along each of k directions, in one pass.

    Args:
        f: function of `len(primals)` trees of arrays, returning a tree of arrays.
        primals: where to differentiate; float arrays, or anything where there is no tangent.
        tangents: for each primal a tree of the same structure.  Each leaf is None (constant),
            an array of the primal's shape `S` (one direction), an array `(k, *S)` (k
            directions), or a `RankOne` (k directions of a matrix).  Dtype as the primal's.
        has_aux: `f` returns `(out, aux)`; aux comes back as plain values.

    Returns:
        `(out, out_tangent)`, or with aux `(out, out_tangent, aux)`; each leaf of out_tangent
        has the shape of out's leaf, with k in front if k directions were given.  Parts of the
        result that do not depend on the primals have zero tangents.

    Raises:
        TangentError: a tangent's shape, dtype or k does not fit; both sides are shown.
        TreeError: a tangent's structure does not fit.
    """
    require_sequences("jvp", primals=primals, tangents=tangents)
    stacks, k = _tangent_stacks("jvp", tuple(primals), tuple(tangents))
    with new_level() as level:
        out, aux = _call(f, _with_tangents(primals, stacks, level), has_aux, level)
        values, out_tangents = _parts(out, level)
    result = values, tree.map(lambda t, value: _answer(t, value, k), out_tangents, values)
    return (*result, aux) if has_aux else result


def linearize(f: Callable, *primals: Any) -> tuple[Any, Callable]:
    """The value of `f`, and its derivative there as a linear function of tangents.

    Returns:
        `(out, f_jvp)`: `f_jvp(*tangents)` takes tangents as `jvp` does and returns the tangent
        of out.  Intermediate values are kept, so that applying it does not evaluate f again.
    """
    record = _Record("linearize", f, primals)
    return record.out, record.forward


def vjp(f: Callable, *primals: Any, has_aux: bool = False) -> Any:
    """The value of `f`, and the transpose of its derivative: reverse mode.

    The derivative is recorded as a linear expression while f is evaluated (the very rules of
    forward mode act on a symbolic tangent) and then transposed.
    Source: Radul et al. 2022, "You Only Linearize Once: Tangents Transpose to Gradients".

    Returns:
        `(out, f_vjp)` or `(out, f_vjp, aux)`; `f_vjp(cotangent)` takes a tree like out (or
        with k in front of every leaf) and returns a tuple with a cotangent for each primal.
    """
    record = _Record("vjp", f, primals, has_aux)
    return (record.out, record.backward, record.aux) if has_aux else (record.out, record.backward)


def linear_transpose(f: Callable, *examples: Any) -> Callable:
    """The transpose of a linear function.

    Args:
        f: linear function of trees of arrays.
        examples: arrays of the shapes and dtypes f takes; their values do not matter.

    Returns:
        A function from a cotangent of f's result to a tuple with one for each argument.

    Raises:
        TangentError: f(0) is not 0, so f is not linear.
    """
    zeros = tree.map(np.zeros_like, examples)
    record = _Record("linear_transpose", f, zeros)
    for path, leaf in tree.items(record.out):
        if np.any(np.not_equal(primal_of(leaf), 0)):
            raise TangentError(
                f"linear_transpose: f is not linear, f(0) is not 0 at {path or 'its result'}; "
                "vjp transposes the derivative of any function"
            )
    return record.backward


def stop_gradient(x: Tree) -> Tree:
    """The same values as constants: no tangent and no cotangent passes, in any transform."""
    return tree.map(primal_of, x)


# --- shared parts ------------------------------------------------------------------------------


class _Record:
    """One evaluation of f with symbolic tangents."""

    def __init__(self, name: str, f: Callable, primals: Sequence, has_aux: bool = False):
        self.name = name
        self.primals = tuple(primals)
        tree.map(lambda x: _require_float(name, x), self.primals)
        self.inputs = tree.map(Symbolic.input, tree.map(_as_array, self.primals))
        with new_level() as level:
            duals = _with_tangents(self.primals, self.inputs, level)
            out, self.aux = _call(f, duals, has_aux, level)
            self.out, self.out_tangents = _parts(out, level)

    def forward(self, *tangents: Any) -> Any:
        """f_jvp: the tangent of out for tangents of the primals."""
        stacks, k = _tangent_stacks(self.name, self.primals, tangents)
        outputs = [t for t in tree.leaves(self.out_tangents) if t is not None]
        computed = iter(evaluate(outputs, tree.leaves(self.inputs), tree.leaves(stacks)))
        return tree.map(
            lambda t, value: _answer(None if t is None else next(computed), value, k),
            self.out_tangents,
            self.out,
        )

    def backward(self, cotangents: Any) -> tuple:
        """f_vjp: cotangents of the primals for a cotangent of out."""
        stacks, k = _tangent_stacks(self.name, self.out, cotangents, "cotangent")
        pairs = [
            (symbolic, stack)
            for symbolic, stack in zip(
                tree.leaves(self.out_tangents), tree.leaves(stacks), strict=True
            )
            if symbolic is not None and stack is not None
        ]
        inputs = tree.leaves(self.inputs)
        sums = transpose_all([s for s, _ in pairs], [c for _, c in pairs], inputs)
        return tree.map(
            lambda ct, primal: _answer(ct, primal, k),
            tree.unflatten(self.primals, sums),
            self.primals,
        )


def _with_tangents(primals: Sequence, tangents: Sequence, level: Level) -> tuple:
    return tree.map(
        lambda x, t: x if t is None else Dual(_as_array(x), t, level),
        tuple(primals),
        tuple(tangents),
    )


def _call(f: Callable, duals: Sequence, has_aux: bool, level: Level) -> tuple[Any, Any]:
    result = f(*duals)
    if not has_aux:
        return result, None
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise TangentError(
            f"has_aux=True: the function must return (out, aux), got {tree.describe(result)}"
        )
    out, aux = result
    return out, tree.map(lambda x: _split(x, level)[0], aux)


def _split(x: Any, level: Level) -> tuple[Any, Any]:
    if isinstance(x, Dual) and x.level is level:
        return x.primal, x.tangent
    return x, None


def _parts(out: Tree, level: Level) -> tuple[Tree, Tree]:
    """The trees of primals and of tangents (None where there is none)."""
    return (
        tree.map(lambda x: _split(x, level)[0], out),
        tree.map(lambda x: _split(x, level)[1], out),
    )


def _answer(t: Any, like: Any, k: int | None) -> Any:
    """A tangent or cotangent of `like` as the caller gets it.

    Zeros where nothing arrived; in the dtype of `like`; without the k axis where single ones
    were given; and an array to write to, even where it was one number repeated (a view).
    """
    dtype = np.result_type(primal_of(like))
    if t is None:
        shape = (1 if k is None else k, *np.shape(like))
        t = np.zeros_like(primal_of(like), dtype, shape=shape)
    stack = spaces.dense(t)
    if stack.dtype != dtype:
        stack = stack.astype(dtype)
    if 0 in getattr(stack, "strides", ()):
        stack = stack.copy()
    return stack[0] if k is None else stack


def _as_array(x: Any) -> Any:
    return np.asarray(x) if isinstance(x, (int, float)) else x


def is_float(x: Any) -> bool:
    """Whether x can carry a tangent."""
    dtype = getattr(_as_array(x), "dtype", None)
    return dtype is not None and np.issubdtype(dtype, np.floating)


def _require_float(name: str, x: Any) -> None:
    if not is_float(x):
        raise TangentError(
            f"{name}: only float arrays can be differentiated by, got "
            f"{getattr(x, 'dtype', type(x).__name__)}; convert with x.astype(float), or close over "
            "the constant in the function"
        )


def require_sequences(name: str, **arguments: Any) -> None:
    """Raise a TangentError where an argument is not a tuple or list."""
    for argument, value in arguments.items():
        if not isinstance(value, (tuple, list)):
            raise TangentError(
                f"{name}: {argument} must be a tuple with one entry for each argument of f, got "
                f"{type(value).__name__}; write ({argument[:-1]},) for a single one"
            )


def _tangent_stacks(
    name: str, primals: Tree, tangents: Tree, kind: str = "tangent"
) -> tuple[Tree, int | None]:
    """Check tangents against primals; give single ones their k axis.  k is None for single."""
    found: set[int | None] = set()

    def stack(path: str, x: Any, t: Any) -> Any:
        if t is None:
            return None
        _require_float(f"{name}, {kind} at {path or 'the only leaf'}", x)
        shape, dtype = np.shape(x), np.result_type(primal_of(_as_array(x)))
        t = _as_array(t)
        got, k = np.shape(t), None
        if isinstance(t, Structured):
            k = spaces.directions(t)
        elif len(got) > len(shape):
            k, got = got[0], got[1:]
        if got != shape or t.dtype != dtype:
            stacked = ", ".join(map(str, ("k", *shape))) + ("" if shape else ",")
            raise TangentError(
                f"{name}: the {kind} at {path or 'the only leaf'} must be {dtype} of shape {shape} "
                f"or ({stacked}), got {t.dtype} of shape {np.shape(t)}"
            )
        found.add(k)
        return t if k is not None else t[None]

    stacks = tree.map_with_path(stack, primals, tangents)
    if len(found) > 1:
        counts = sorted("a single one" if k is None else f"k = {k}" for k in found)
        raise TangentError(f"{name}: all {kind}s must agree on k, got {' and '.join(counts)}")
    return stacks, found.pop() if found else None
