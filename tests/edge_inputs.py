"""Inputs at the edges of what NumPy programs do, where a wrong number would go unseen.

Every row is a program without arguments and what is right of it: a value, a refusal, or either.
The rows are in kinds; a kind is one cause of wrong numbers.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import io
import itertools
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

import dualnet as dn
import dualnet.numpy as dnp
from dualnet.errors import DualConversionError, DualnetError, EscapedDualError, TangentError

# --- what is right -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refused:
    """A refusal is right: an error of one of these classes whose message has a piece (a regex)."""

    piece: str = ""
    errors: tuple[type[Exception], ...] = (DualnetError,)


@dataclass(frozen=True)
class Either:
    """Each of these is right: a value, or a refusal."""

    choices: tuple[Any, ...]


@dataclass(frozen=True)
class MayBeNaN:
    """This value is right, and so is NaN at any of its entries, where no rule can be right."""

    value: Any


@dataclass(frozen=True)
class Edge:
    """A row.

    Attributes:
        kind: the cause of wrong numbers that the program has to do with.
        name: the program, in short.
        program: what is run.
        right: a tree of arrays, a `Refused`, a `MayBeNaN` or an `Either`.
    """

    kind: str
    name: str
    program: Callable[[], Any]
    right: Any

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


def either(*choices: Any) -> Either:
    return Either(choices)


# --- how the programs differentiate --------------------------------------------------------------

V = np.array([1.0, 2.0])
M = np.array([[1.0, 2.0], [3.0, 4.0]])
Q = np.array([[0.0, 2.0], [1.0, 3.0]])
"""The gradient of `A.flatten("F") @ arange(4.0)` by a 2 × 2 matrix."""


def fresh(x: Any) -> Any:
    """Return a copy in the same memory order, so that no program can change what others read."""
    return copy.deepcopy(x)


def jacobian(f: Callable, x: Any) -> Any:
    """Differentiate in forward mode and in reverse mode, which must agree."""
    forward, reverse = dn.jacfwd(f)(fresh(x)), dn.jacrev(f)(fresh(x))
    np.testing.assert_allclose(reverse, forward, rtol=1e-6, err_msg="reverse against forward mode")
    return forward


def value_and_slope(f: Callable, x: Any) -> Any:
    """Evaluate f and its Jacobian, in both modes, which must agree."""
    value, _ = dn.vjp(f, fresh(x))
    return value, jacobian(f, x)


def hessians(f: Callable, x: Any) -> Any:
    """Differentiate twice, in all four orders of the modes, and stack what they give."""
    modes = (dn.jacfwd, dn.jacrev)
    return np.stack([outer(inner(f))(x) for outer in modes for inner in modes])


def four(hessian: Any) -> Any:
    """Stack a Hessian as `hessians` does."""
    return np.stack([np.asarray(hessian, float)] * 4)


def each_pull(f: Callable, x: Any, row: int) -> Any:
    """Compute one row of the Jacobian by reverse mode, once forward mode agrees."""
    forward, reverse = dn.jacfwd(f)(x)[row], dn.jacrev(f)(x)[row]
    np.testing.assert_array_equal(reverse, forward, err_msg="reverse against forward mode")
    return reverse


def with_dtype(x: Any) -> tuple[str, Any]:
    """Show a result's dtype beside its value."""
    return str(np.result_type(x)), x


KINDS: dict[str, Callable[[], Iterator[tuple[str, Callable, Any]]]] = {}


def kind(name: str) -> Callable:
    """Register a function that yields the rows of a kind: name, program, what is right."""

    def register(rows: Callable) -> Callable:
        KINDS[name] = rows
        return rows

    return register


# --- the rows ------------------------------------------------------------------------------------


@kind("memory order")
def _() -> Iterator:
    w = np.arange(4.0)
    refused = Refused("order")
    three = np.arange(8.0).reshape(2, 2, 2)
    for name, flat in {
        "A.flatten('F')": lambda A: A.flatten("F"),
        "A.ravel('F')": lambda A: A.ravel("F"),
        "np.ravel(A, 'F')": lambda A: np.ravel(A, "F"),
        "np.ravel(A, order='F')": lambda A: np.ravel(A, order="F"),
        "np.reshape(A, 4, 'F')": lambda A: np.reshape(A, 4, "F"),
        "np.reshape(A, 4, order='F')": lambda A: np.reshape(A, 4, order="F"),
        "A.reshape(4, order='F')": lambda A: A.reshape(4, order="F"),
        "A.reshape((4, 1), order='F')": lambda A: A.reshape((4, 1), order="F")[:, 0],
        "A.reshape(1, 4, order='F')": lambda A: A.reshape(1, 4, order="F")[0],
        "A.T.flatten('C')": lambda A: A.T.flatten("C"),
        "A.T.copy().ravel()": lambda A: A.T.copy().ravel(),
    }.items():
        yield name, lambda flat=flat: jacobian(lambda A: flat(A) @ w, M), Q
    for name, flat in {
        "np.ravel(A, 'K') of a transpose": lambda A: np.ravel(A.T, "K"),
        "A.ravel('A') of a transpose": lambda A: A.T.ravel("A"),
        "A.flatten('K') of a transpose": lambda A: A.T.flatten("K"),
        "np.reshape(A.T, 4, 'A')": lambda A: np.reshape(A.T, 4, "A"),
    }.items():
        yield name, lambda flat=flat: jacobian(lambda A: flat(A) @ w, M), either(M - 1, refused)
    for name, made in {
        "array(A, order='F')": lambda A: dnp.array(A, order="F"),
        "asarray(A, order='F')": lambda A: dnp.asarray(A, order="F"),
        "asfortranarray(A)": dnp.asfortranarray,
        "require(A, None, 'F')": lambda A: dnp.require(A, None, "F"),
        "array([row, row], order='F')": lambda A: dnp.array([A[0], A[1]], order="F"),
    }.items():
        yield (
            f"dualnet.numpy: {name}.ravel('K')",
            lambda made=made: jacobian(lambda A: made(A).ravel("K") @ w, M),
            Q,
        )
    yield (
        "an array in Fortran order, A.ravel('K')",
        lambda: dn.grad(lambda A: A.ravel("K") @ w)(np.asfortranarray(M)),
        either(Q, refused),
    )
    yield (
        "an array in Fortran order, A.ravel()",
        lambda: dn.grad(lambda A: A.ravel() @ w)(np.asfortranarray(M)),
        M - 1,
    )
    yield (
        "three axes",
        lambda: jacobian(lambda A: np.reshape(A, (4, 2), "F")[:, 0] @ w, three),
        [[[0, 0], [2, 0]], [[1, 0], [3, 0]]],
    )
    yield (
        "k equal to every length",
        lambda: dn.jvp(lambda A: A.flatten("F"), (M,), (np.stack([M, 2 * M]),))[1],
        [[1, 3, 2, 4], [2, 6, 4, 8]],
    )
    yield (
        "second order",
        lambda: dn.jacfwd(dn.grad(lambda A: (A.flatten("F") @ w) ** 2))(M),
        2 * np.multiply.outer(Q, Q),
    )
    yield (
        "A.copy('F').ravel('K')",
        lambda: jacobian(lambda A: A.copy("F").ravel("K") @ w, M),
        either(Q, refused),
    )
    yield (
        "np.copy(A, 'F').ravel('K')",
        lambda: jacobian(lambda A: np.copy(A, "F").ravel("K") @ w, M),
        either(Q, refused),
    )
    yield (
        "A.astype(float, order='F').ravel('K')",
        lambda: jacobian(lambda A: A.astype(float, order="F").ravel("K") @ w, M),
        either(Q, refused),
    )


@kind("lists of duals")
def _() -> Iterator:
    def lists(name: str, f: Callable, right: Any) -> Iterator:
        yield name, lambda: jacobian(f, V), right
        # a Jacobian is blind to k; here k is 3, and every direction counts
        t = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        yield (
            f"{name}, k = 3",
            lambda: dn.jvp(f, (V,), (t,))[1],
            np.moveaxis(np.asarray(right, float) @ t.T, -1, 0),
        )

    exchanged = [[0.0, 1.0], [1.0, 0.0]]
    rows = {
        "np.concatenate([x, [x0, 3 x0]])": (
            lambda x: np.concatenate([x, [x[0], 3 * x[0]]]),
            [[1, 0], [0, 1], [1, 0], [3, 0]],
        ),
        "np.concatenate([x, [x0, 1, x1]])": (
            lambda x: np.concatenate([x, [x[0], 1.0, x[1]]]),
            [[1, 0], [0, 1], [1, 0], [0, 0], [0, 1]],
        ),
        "x @ [x1, x0]": (lambda x: x @ [x[1], x[0]], [4, 2]),
        "[x1, x0] @ x": (lambda x: [x[1], x[0]] @ x, [4, 2]),
        "x * [x1, x0]": (lambda x: x * [x[1], x[0]], [[2, 1], [2, 1]]),
        "[x1, x0] * x": (lambda x: [x[1], x[0]] * x, [[2, 1], [2, 1]]),
        "x + [x1, 1]": (lambda x: x + [x[1], 1.0], [[1, 1], [0, 1]]),  # noqa: RUF005, an array
        "x - (x1, x0)": (lambda x: x - (x[1], x[0]), [[1, -1], [-1, 1]]),
        "x / [x1, x0]": (lambda x: x / [x[1], x[0]], [[0.5, -0.25], [-2, 1]]),
        "x ** [2, 3]": (lambda x: x ** [2, 3], [[2, 0], [0, 12]]),
        "np.add(x, [x1, x0])": (lambda x: np.add(x, [x[1], x[0]]), [[1, 1], [1, 1]]),
        "np.maximum(x, [x1, 0])": (lambda x: np.maximum(x, [x[1], 0.0]), [[0, 1], [0, 1]]),
        "np.where(c, x, [x1, x0])": (
            lambda x: np.where([True, False], x, [x[1], x[0]]),
            [[1, 0], [1, 0]],
        ),
        "np.where(x > 1, x, [0, 0])": (lambda x: np.where(x > 1, x, [0.0, 0.0]), [[0, 0], [0, 1]]),
        "np.einsum('i,i', x, [x1, x0])": (lambda x: np.einsum("i,i", x, [x[1], x[0]]), [4, 2]),
        "np.dot(x, [x1, x0])": (lambda x: np.dot(x, [x[1], x[0]]), [4, 2]),
        "np.inner(x, [x1, x0])": (lambda x: np.inner(x, [x[1], x[0]]), [4, 2]),
        "np.tensordot(x, [x1, x0], 1)": (lambda x: np.tensordot(x, [x[1], x[0]], 1), [4, 2]),
        "np.outer(x, [x1, x0])": (
            lambda x: np.outer(x, [x[1], x[0]]),
            [[[2, 1], [2, 0]], [[0, 4], [2, 1]]],
        ),
        "np.outer([x1, x0], x)": (
            lambda x: np.outer([x[1], x[0]], x),
            [[[2, 1], [0, 4]], [[2, 0], [2, 1]]],
        ),
        "np.kron(x, [x1, x0])": (
            lambda x: np.kron(x, [x[1], x[0]]),
            [[2, 1], [2, 0], [0, 4], [2, 1]],
        ),
        "np.linalg.solve(2 I x0, [x1, x0])": (
            lambda x: np.linalg.solve(2 * np.eye(2) * x[0], [x[1], x[0]]),
            [[-1, 0.5], [0, 0]],
        ),
        "np.linalg.solve([[x0, 0], [0, x1]], x)": (
            lambda x: np.linalg.solve([[x[0], 0.0], [0.0, x[1] ** 2]], x),
            [[0, 0], [0, -0.25]],
        ),
        "x @ [[x0, x1], [x1, x0]]": (lambda x: x @ [[x[0], x[1]], [x[1], x[0]]], [[2, 4], [4, 2]]),
        "np.matmul(x, [[x0], [x1]])": (lambda x: np.matmul(x, [[x[0]], [x[1]]]), [[2, 4]]),
        "np.append(x, [x0, 3 x0])": (
            lambda x: np.append(x, [x[0], 3 * x[0]]),
            [[1, 0], [0, 1], [1, 0], [3, 0]],
        ),
        "np.hstack([x, [x1]])": (lambda x: np.hstack([x, [x[1]]]), [[1, 0], [0, 1], [0, 1]]),
        "np.vstack([x, [x1, x0]])": (
            lambda x: np.vstack([x, [x[1], x[0]]]),
            [np.eye(2), exchanged],
        ),
        "np.stack([x, [x1, x0]])": (lambda x: np.stack([x, [x[1], x[0]]]), [np.eye(2), exchanged]),
        "np.column_stack([x, [x1, x0]])": (
            lambda x: np.column_stack([x, [x[1], x[0]]]),
            [[[1, 0], [0, 1]], [[0, 1], [1, 0]]],
        ),
        "np.clip(x, [x1, 0], 9)": (lambda x: np.clip(x, [x[1], 0.0], 9.0), [[0, 1], [0, 1]]),
        "np.arctan2(x, [x1, x0])": (
            lambda x: np.arctan2(x, [x[1], x[0]]),
            [[0.4, -0.2], [-0.4, 0.2]],
        ),
        "np.hypot(x, [3, x0])": (
            lambda x: np.hypot(x, [3.0, x[0]]),
            [[1 / np.sqrt(10), 0], [1 / np.sqrt(5), 2 / np.sqrt(5)]],
        ),
        "np.broadcast_arrays(x, [x1])": (
            lambda x: np.broadcast_arrays(x, [x[1]])[1],
            [[0, 1], [0, 1]],
        ),
        "np.full_like(x, [x1, x0])": (lambda x: np.full_like(x, [x[1], x[0]]), exchanged),
    }
    for name, (f, right) in rows.items():
        yield from lists(name, f, right)
    yield (
        "a comparison with a list",
        lambda: jacobian(lambda x: np.sum(x * (x > [x[1], x[0]])), V),
        [0, 1],
    )
    yield (
        "second order",
        lambda: hessians(lambda x: x @ [x[1], x[0] ** 2], V),
        four([[4, 3], [3, 0]]),
    )


@dataclass
class _Weights:
    w: Any
    name: str = "w"


@kind("copies of a dual")
def _() -> Iterator:
    weights = {"w": V}
    both = {"forward": [2.0, 4.0], "reverse": [2.0, 4.0]}

    def through(copied: Callable) -> Callable:
        """Make a program that squares a copy of the parameters."""

        def program() -> Any:
            def f(p: Any) -> Any:
                return (copied(p)["w"] ** 2).sum()

            return {"forward": dn.jacfwd(f)(weights)["w"], "reverse": dn.grad(f)(weights)["w"]}

        return program

    refused = Refused("pickle|process|copied|Dual", (DualConversionError, EscapedDualError))
    yield "copy.deepcopy of parameters", through(copy.deepcopy), both
    yield "copy.copy of an array", through(lambda p: {"w": copy.copy(p["w"])}), both
    yield "copy.deepcopy of an array", through(lambda p: {"w": copy.deepcopy(p["w"])}), both
    yield "copy.deepcopy of a list of entries", through(lambda p: {"w": _rows(p["w"])}), both
    yield (
        "dataclasses.asdict",
        through(lambda p: dataclasses.asdict(_Weights(p["w"]))),
        both,
    )
    yield (
        "dataclasses.replace",
        through(lambda p: vars(dataclasses.replace(_Weights(p["w"]), name="v"))),
        both,
    )
    yield "np.copy", through(lambda p: {"w": np.copy(p["w"])}), both
    yield "pickle", through(lambda p: pickle.loads(pickle.dumps(p))), refused
    yield "pickle of an array", through(lambda p: {"w": _pickled(p["w"])}), refused
    yield "np.save", through(lambda p: np.save(io.BytesIO(), p["w"]) or p), Refused("np.save")
    yield (
        "threads",
        through(lambda p: {"w": np.stack(_in_threads(lambda i: 1.0 * p["w"][i], range(2)))}),
        both,
    )
    yield (
        "second order",
        lambda: hessians(lambda x: copy.deepcopy(x) @ (x**2), V),
        four([[6, 0], [0, 12]]),
    )
    yield (
        "a copy of an outer dual",
        lambda: jacobian(lambda x: dn.grad(lambda y: (copy.deepcopy(x) * y**2).sum())(x), V),
        [[4, 0], [0, 8]],
    )
    yield (
        "a pickled dual that is returned",
        lambda: dn.jvp(lambda x: pickle.loads(pickle.dumps(x)), (V,), (V,)),
        refused,
    )
    yield (
        "a deep copy that is returned",
        lambda: dn.jvp(copy.deepcopy, (V,), (V,)),
        (V, V),
    )


def _rows(x: Any) -> Any:
    return np.stack(copy.deepcopy(list(x)))


def _pickled(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


def _in_threads(f: Callable, items: Any) -> list:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(f, items))


@kind("complex intermediates")
def _() -> Iterator:
    refused = Refused("complex")
    c = np.array([1.0 + 2.0j, 3.0 - 1.0j])
    at = np.array(2.0)
    rows = {
        "abs(1j x)": (lambda x: np.abs(x * 1j), at, 1.0),
        "abs(exp(1j x))": (lambda x: np.abs(np.exp(1j * x)), at, 0.0),
        "real((x + 1j)²)": (lambda x: np.real((x + 1j) ** 2), at, 4.0),
        "(1j x · 1j).real": (lambda x: (x * 1j * 1j).real, at, -1.0),
        "abs(x + 1j)": (lambda x: np.abs(x + 1j), at, 2 / np.sqrt(5)),
        "imag(x · c)": (lambda x: np.imag(x @ c), V, c.imag),
        "real(c @ x)": (lambda x: np.real(c @ x), V, c.real),
        "abs(np.sum(c x))": (
            lambda x: np.abs(np.sum(c * x)),
            V,
            np.real(np.conj(c @ V) * c) / abs(c @ V),
        ),
        "abs(np.power(x, 1j))": (lambda x: np.abs(np.power(x, 1j)), at, 0.0),
        "real(sqrt(x + 0j))": (lambda x: np.real(np.sqrt(-x + 0j)), at, 0.0),
        "abs(np.maximum(x, 1j))": (lambda x: np.abs(np.maximum(x, 1j)), at, 1.0),
        "sum(abs(np.where(c, x, 1j)))": (
            lambda x: np.sum(np.abs(np.where([True, False], x, 1j))),
            V,
            [1, 0],
        ),
        "abs(np.concatenate([x, c]))": (
            lambda x: np.sum(np.abs(np.concatenate([x, c]))),
            V,
            [1, 1],
        ),
        "abs(np.stack([x, c]))": (lambda x: np.sum(np.abs(np.stack([x, c]))), V, [1, 1]),
        "np.outer(x, c)": (lambda x: np.sum(np.outer(x, c).imag), V, [1, 1]),
        "np.einsum('i,i', x, c)": (lambda x: np.einsum("i,i", x, c).imag, V, c.imag),
        "np.linalg.solve(1j A, x)": (
            lambda x: np.linalg.solve(1j * np.eye(2), x).imag.sum(),
            V,
            [-1, -1],
        ),
        "np.kron(x, c)": (lambda x: np.kron(x, c).imag.sum(), V, [1, 1]),
        "x.astype(complex)": (lambda x: np.abs(x.astype(complex)).sum(), V, [1, 1]),
        "np.full_like(x, 1j)": (
            lambda x: (x * np.abs(np.full_like(x, 1j, dtype=complex))).sum(),
            V,
            [1, 1],
        ),
        "np.divide(x, c)": (
            lambda x: np.real(np.divide(x, c)).sum(),
            V,
            np.real(1 / c),
        ),
        "c - x": (lambda x: np.abs(c - x).sum(), V, np.real(V - c) / abs(c - V)),
        "c ** x": (lambda x: np.abs(2j**x), at, 4 * np.log(2)),
        "np.append(x, c)": (lambda x: np.append(x, c).real.sum(), V, [1, 1]),
        "np.dot(c, x)": (lambda x: np.dot(c, x).real, V, c.real),
        "np.vdot(c, x)": (lambda x: np.vdot(c, x).imag, V, -c.imag),
        "abs(np.exp(x c))": (
            lambda x: np.abs(np.exp(x * c)).sum(),
            V,
            np.exp(V * c.real) * c.real,
        ),
        "np.pad with 1j": (
            lambda x: np.abs(np.pad(x * 1j, 1)).sum(),
            V,
            [1, 1],
        ),
        "abs(np.fft.fft(x))": (
            lambda x: np.sum(np.abs(np.fft.fft(x)) ** 2),
            V,
            [4, 8],
        ),
        "np.clip(x, 0, c)": (lambda x: np.abs(np.clip(x, 0, c)).sum(), V, None),
        "np.interp(x, xp, c)": (lambda x: np.abs(np.interp(x, [0.0, 3.0], c)).sum(), V, None),
        "np.select of c": (lambda x: np.select([x > 1.5], [x], 1j).real.sum(), V, [0, 1]),
        "np.polyval(c, x)": (lambda x: np.polyval(c, x).imag.sum(), V, [2, 2]),
        "np.linalg.eigvals of a rotation": (
            lambda x: np.abs(np.linalg.eigvals(x[1] * np.array([[0.0, 1.0], [-1.0, 0.0]])))[0],
            V,
            [0, 1],
        ),
    }
    for name, (f, x, right) in rows.items():
        right = refused if right is None else either(right, refused)
        yield name, lambda f=f, x=x: jacobian(f, x), right
    yield "a complex primal", lambda: dn.grad(np.abs)(1.0 + 2.0j), Refused("complex")
    yield "a complex result", lambda: dn.jvp(lambda x: x * 1j, (at,), (at,)), refused
    yield (
        "a complex constant in a solve",
        lambda: jacobian(lambda b: np.abs(np.linalg.solve(M * 1j, b)).sum(), V),
        either(np.sign(np.linalg.solve(M, V)) @ np.linalg.inv(M), refused),
    )


@kind("in-place operators")
def _() -> Iterator:
    instead = Refused("in place|view", (DualConversionError,))

    def table(a: Any) -> Any:
        return np.outer(a, [1.0, 2.0]) + 1

    def rows_divided(a: Any) -> Any:
        W = table(a)
        for row in W:
            row /= row.sum()
        return W[0, 0]

    def rows_centered(a: Any) -> Any:
        W = table(a)
        for row in W:
            row -= row[0]
        return W.sum()

    def one_row(a: Any) -> Any:
        W = table(a)
        r = W[0]
        r *= 2
        return W.sum()

    def transposed(a: Any) -> Any:
        W = table(a)
        t = W.T
        t *= 2
        return W.sum()

    def reshaped(a: Any) -> Any:
        W = table(a)
        flat = W.reshape(4)
        flat *= 2
        return W.sum()

    def raveled(a: Any) -> Any:
        W = table(a)
        flat = np.ravel(W)
        flat *= 2
        return W.sum()

    def whole_slice(a: Any) -> Any:
        b = a * 1.0
        c = b[:]
        c += b
        return b.sum()

    def alias(a: Any) -> Any:
        b = a * 1.0
        c = b
        c *= 3
        return b.sum()

    def in_a_function(a: Any) -> Any:
        def normalize(v: Any) -> None:
            v /= v.sum()

        b = a * 1.0
        normalize(b)
        return b[0]

    def in_a_list(a: Any) -> Any:
        W = table(a)
        rows = list(W)
        rows[0] *= 2
        return W.sum()

    def in_a_dict(a: Any) -> Any:
        p = {"b": a * 1.0}
        b = p["b"]
        p["b"] *= 2
        return b.sum()

    def parts_of_split(a: Any) -> Any:
        b = a * 1.0
        first, _ = np.split(b, 2)
        first *= 2
        return b.sum()

    def new_axis(a: Any) -> Any:
        b = a * 1.0
        c = b[:, None]
        c *= 2
        return b.sum()

    def swapped(a: Any) -> Any:
        W = table(a)
        t = np.swapaxes(W, 0, 1)
        t *= 2
        return W.sum()

    def squeezed(a: Any) -> Any:
        b = (a * 1.0)[None]
        c = np.squeeze(b)
        c *= 2
        return b.sum()

    def atleast(a: Any) -> Any:
        b = a * 1.0
        c = np.atleast_2d(b)
        c *= 2
        return b.sum()

    def flipped(a: Any) -> Any:
        b = a * 1.0
        c = b[::-1]
        c *= 2
        return b.sum()

    def power(a: Any) -> Any:
        b = a * 1.0
        c = b
        c **= 2
        return b.sum()

    def entry(a: Any) -> Any:
        b = a * 1.0
        b[0] *= 2
        return b.sum()

    def masked(a: Any) -> Any:
        b = a * 1.0
        b[a > 1] = 0.0
        return b.sum()

    def plain_buffer(a: Any) -> Any:
        b = np.zeros(2)
        b += a
        return b.sum()

    def entry_of_buffer(a: Any) -> Any:
        b = np.zeros((2, 2))
        b[0] += a
        return b.sum()

    at_v = {
        "for row in W: row /= row.sum()": (rows_divided, (0.4, [-0.04, 0.0])),
        "for row in W: row -= row[0]": (rows_centered, (3.0, [1.0, 1.0])),
        "r = W[0]; r *= 2": (one_row, (18.0, [6.0, 3.0])),
        "t = W.T; t *= 2": (transposed, (26.0, [6.0, 6.0])),
        "flat = W.reshape(4); flat *= 2": (reshaped, (26.0, [6.0, 6.0])),
        "flat = np.ravel(W); flat *= 2": (raveled, (26.0, [6.0, 6.0])),
        "c = b[:]; c += b": (whole_slice, (6.0, [2.0, 2.0])),
        "c = b; c *= 3": (alias, (9.0, [3.0, 3.0])),
        "c = b; c **= 2": (power, (5.0, [2.0, 4.0])),
        "a function that divides its argument": (in_a_function, (1 / 3, [2 / 9, -1 / 9])),
        "rows = list(W); rows[0] *= 2": (in_a_list, (18.0, [6.0, 3.0])),
        "p['b'] *= 2, where b is known by another name": (in_a_dict, (6.0, [2.0, 2.0])),
        "first, _ = np.split(b, 2); first *= 2": (parts_of_split, (4.0, [2.0, 1.0])),
        "c = b[:, None]; c *= 2": (new_axis, (6.0, [2.0, 2.0])),
        "t = np.swapaxes(W, 0, 1); t *= 2": (swapped, (26.0, [6.0, 6.0])),
        "c = np.squeeze(b); c *= 2": (squeezed, (6.0, [2.0, 2.0])),
        "c = np.atleast_2d(b); c *= 2": (atleast, (6.0, [2.0, 2.0])),
        "c = b[::-1]; c *= 2": (flipped, (6.0, [2.0, 2.0])),
        "b[0] *= 2": (entry, (4.0, [2.0, 1.0])),
        "b[mask] = 0": (masked, (1.0, [1.0, 0.0])),
        "zeros += dual": (plain_buffer, (3.0, [1.0, 1.0])),
        "zeros[0] += dual": (entry_of_buffer, (3.0, [1.0, 1.0])),
    }
    for name, (f, right) in at_v.items():
        right = (right[0], np.array(right[1]))
        yield name, lambda f=f: value_and_slope(f, V), either(right, instead)

    # what must go on working: no array is known by two names here

    def total(a: Any) -> Any:
        s = 0.0
        for x in a:
            s += x**2
        return s

    def running(a: Any) -> Any:
        s = a * 0.0
        for i in range(3):
            s = s + i * a
        return s.sum()

    def an_entry_is_a_number(a: Any) -> Any:
        b = a * 1.0
        r = b[0]
        r *= 2
        return b.sum() + r

    def a_copy(a: Any) -> Any:
        b = a * 1.0
        c = b.copy()
        c *= 2
        return b.sum()

    def flattened(a: Any) -> Any:
        W = table(a)
        c = W.flatten()
        c *= 2
        return W.sum()

    def by_indices(a: Any) -> Any:
        b = a * 1.0
        c = b[[0, 1]]
        c *= 2
        return b.sum()

    def by_np_copy(a: Any) -> Any:
        b = a * 1.0
        c = np.copy(b)
        c *= 2
        return b.sum()

    def by_deepcopy(a: Any) -> Any:
        b = a * 1.0
        c = copy.deepcopy(b)
        c *= 2
        return b.sum()

    def by_astype(a: Any) -> Any:
        b = a * 1.0
        c = b.astype(float)
        c *= 2
        return b.sum()

    def reduced(a: Any) -> Any:
        W = table(a)
        s = W.sum(0)
        s *= 2
        return W.sum() + s.sum()

    for name, f, right in (
        ("s = 0.0; s += x²", total, (5.0, [2.0, 4.0])),
        ("s = s + i a", running, (9.0, [3.0, 3.0])),
        ("an entry is a number: r = b[0]; r *= 2", an_entry_is_a_number, (5.0, [3.0, 1.0])),
        ("c = b.copy(); c *= 2", a_copy, (3.0, [1.0, 1.0])),
        ("c = np.copy(b); c *= 2", by_np_copy, (3.0, [1.0, 1.0])),
        ("c = copy.deepcopy(b); c *= 2", by_deepcopy, (3.0, [1.0, 1.0])),
        ("c = b.astype(float); c *= 2", by_astype, (3.0, [1.0, 1.0])),
        ("c = W.flatten(); c *= 2", flattened, (13.0, [3.0, 3.0])),
        ("c = b[[0, 1]]; c *= 2", by_indices, (3.0, [1.0, 1.0])),
        ("s = W.sum(0); s *= 2", reduced, (39.0, [9.0, 9.0])),
    ):
        yield name, lambda f=f: value_and_slope(f, V), (right[0], np.array(right[1]))


def differences(f: Callable, x: Any) -> Any:
    """Differentiate the plain program by central differences."""
    steps = 1e-6 * np.eye(x.size).reshape(x.size, *x.shape)
    columns = [(f(x + step) - f(x - step)) / 2e-6 for step in steps]
    moved = np.moveaxis(np.array(columns), 0, -1)
    return np.round(np.reshape(moved, (*moved.shape[:-1], *x.shape)), 8)


@kind("writes and views")
def _() -> Iterator:
    x3 = np.array([0.75, 1.25, 2.0])
    mask = np.array([True, False, True])

    def on_copy(write: Callable) -> Callable:
        def f(x: Any) -> Any:
            y = x * 1
            write(y, x)
            return y * np.arange(1.0, 4.0)

        return f

    writes = {
        "y[[0, 1]] = y[[1, 0]]": lambda y, x: y.__setitem__([0, 1], y[[1, 0]]),
        "y[1:] = y[:-1]": lambda y, x: y.__setitem__(slice(1, None), y[:-1]),
        "y[y > 1] = 0": lambda y, x: y.__setitem__(y > 1, 0.0),
        "y.real *= 2": lambda y, x: y.real.__imul__(2),
        "y.conj() += x": lambda y, x: y.conj().__iadd__(x),
        "np.squeeze(y) += x": lambda y, x: np.squeeze(y).__iadd__(x),
        "y.squeeze()[0] = x1": lambda y, x: y.squeeze().__setitem__(0, x[1]),
        "y.astype(float, copy=False) *= x": lambda y, x: y.astype(float, copy=False).__imul__(x),
        "np.real(y) *= x": lambda y, x: np.real(y).__imul__(x),
        "y.flat = x1": lambda y, x: setattr(y, "flat", x[1]),
        "y.sort(kind=)": lambda y, x: y.__setitem__(slice(None), -y) or y.sort(kind="stable"),
        "y.put([0, -1], ...)": lambda y, x: y.put([0, -1], [x[1], 2.0 * x[0]]),
        "np.put": lambda y, x: np.put(y, [2, 0], x[1:] ** 2),
        "np.put, repeated values": lambda y, x: np.put(y, [0, 1, 2], x[:2]),
        "np.putmask": lambda y, x: np.putmask(y, mask, x[::-1]),
        "np.place": lambda y, x: np.place(y, mask, x[1:]),
        "np.copyto": lambda y, x: np.copyto(y, x[::-1], where=mask),
        "np.put_along_axis": lambda y, x: np.put_along_axis(y, np.array([2]), x[:1], 0),
        "np.nan_to_num, no copy": lambda y, x: np.nan_to_num(y, copy=False),
        "out=": lambda y, x: np.multiply(x, x, out=y),
        "out= and where=": lambda y, x: np.divide(1.0, x, out=y, where=mask),
        "out= of constants": lambda y, x: np.add(1.0, np.arange(3.0), out=y),
        "out= of two results": lambda y, x: np.modf(0.9 * x**2, out=(y, x * 0)),
        "out= of two by position": lambda y, x: np.divmod(x**2, 0.7, x * 0, y),
        "out= of one result of two": lambda y, x: np.frexp(0.9 * x, out=(y, None)),
        "out= of a part": lambda y, x: np.exp(x[:2], out=y[:2]),
        "np.cumsum with out=": lambda y, x: np.cumsum(x, out=y),
        "y.clip(1, 2, out=y)": lambda y, x: y.clip(1.0, 1.5, out=y),
        "dualnet.numpy: a copy by array": lambda y, x: dnp.array(y).__imul__(3),
        "dualnet.numpy: no copy by asarray": lambda y, x: dnp.asarray(y, float).__imul__(3),
    }
    for name, write in writes.items():
        f = on_copy(write)
        yield name, lambda f=f: jacobian(f, x3), differences(f, x3)

    def squares(x: Any) -> Any:
        W = np.outer(x, x)
        np.fill_diagonal(W, 3 * x)
        return W

    yield "np.fill_diagonal", lambda: jacobian(squares, x3), differences(squares, x3)

    def on_matrix(part: Callable, write: Callable) -> Callable:
        def f(x: Any) -> Any:
            y = part(np.outer(x, x + 1.0))
            write(y, x)
            return y * np.exp(y)

        return f

    def add_to_flat(y: Any, x: Any) -> None:
        y.flat[1] += x[0]

    parts = {
        "W": lambda W: W,
        "W.T": lambda W: W.T,
        "W[:, ::2]": lambda W: W[:, ::2],
        "W[1:, 0]": lambda W: W[1:, 0],
    }
    into_flat = {
        "y.flat[0] = x1": lambda y, x: y.flat.__setitem__(0, x[1]),
        "y.flat[:] = 0": lambda y, x: y.flat.__setitem__(slice(None), 0.0),
        "y.flat[1] += x0": add_to_flat,
        "y.flat = x1": lambda y, x: setattr(y, "flat", x[1]),
        "np.astype, copy=False": lambda y, x: np.astype(y, float, copy=False).__imul__(x[0]),
        "y.astype, order=F": lambda y, x: y.astype(float, "F", copy=False).__imul__(x[0]),
        "np.meshgrid": lambda y, x: np.meshgrid(y, x)[0].__imul__(x[0]),
    }
    for (at, part), (name, write) in itertools.product(parts.items(), into_flat.items()):
        f = on_matrix(part, write)
        yield f"{name}, where y = {at}", lambda f=f: jacobian(f, x3), differences(f, x3)

    def of_a_column(change: Callable) -> Callable:
        return on_matrix(lambda W: W[:, 0], change)

    outdated = Refused("a view of it .* was used afterwards")
    stretched = Refused("assignment destination is read-only", (ValueError,))
    for name, change, right in (
        ("of one", lambda y, x: np.meshgrid(y, copy=False)[0].__imul__(x), outdated),
        ("of two", lambda y, x: np.meshgrid(y, x, copy=False)[0].__imul__(2), stretched),
        ("sparse", lambda y, x: np.meshgrid(x, y, copy=False, sparse=True)[1].sort(0), outdated),
    ):
        f = of_a_column(change)
        yield f"np.meshgrid, copy=False, {name}", lambda f=f: jacobian(f, x3), right
    for name, change in {
        "np.broadcast_to": lambda y, x: np.broadcast_to(y, (2, 3)).__setitem__(0, x),
        "np.broadcast_arrays": lambda y, x: np.broadcast_arrays(y, M[:, :1])[0].fill(x[0]),
    }.items():
        f = of_a_column(change)
        yield f"into {name}", lambda f=f: jacobian(f, x3), stretched
    scalar = Refused("item assignment|out= must be an array", (TypeError,))
    for name, change in {
        "s[...] = 5": lambda y, x: y.sum().__setitem__(..., 5.0),
        "out=s": lambda y, x: np.sum(x, out=y.sum()),
    }.items():
        f = of_a_column(change)
        yield f"into the number s: {name}", lambda f=f: jacobian(f, x3), scalar
    plain = Refused("plain array.*tangent|put_at", (DualnetError,))

    def set_one(a: Any, x: Any) -> None:
        a[0] = x[0]

    def add_to_one(a: Any, x: Any) -> None:
        a[0] += x[0]

    def set_all(a: Any, x: Any) -> None:
        a[:] = x

    for name, store in {
        "a[0] = dual": set_one,
        "a[0] += dual": add_to_one,
        "a[:] = dual": set_all,
        "np.put(a, 0, dual)": lambda a, x: np.put(a, 0, x[0]),
        "np.copyto(a, dual)": lambda a, x: np.copyto(a, x),
        "out=a": lambda a, x: np.add(x, 1.0, out=a),
    }.items():
        yield (
            f"into a plain array: {name}",
            lambda store=store: jacobian(lambda x: (lambda a: store(a, x) or a)(np.zeros(3)), x3),
            plain,
        )
    for name, change in {
        "x.shape = 9": lambda x: setattr(x, "shape", (3, 1)),
        "x.dtype = int": lambda x: setattr(x, "dtype", int),
        "x.flags": lambda x: x.flags,
    }.items():
        yield (
            name,
            lambda change=change: jacobian(lambda x: (change(x * 1), x)[1], x3),
            Refused("a Dual has no x.*Write"),
        )


@kind("keywords of reductions")
def _() -> Iterator:
    A = np.array([[1.0, 2.0, 0.25], [0.5, 3.0, 1.5], [2.5, 0.125, 4.0]])
    mask = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1]], bool)
    few = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1]], bool)
    rows = {
        "np.trace, dtype": lambda a: np.trace(a, dtype=float) ** 2,
        "a.trace(0, 0, 1, dtype)": lambda a: a.trace(0, 0, 1, float),
        "np.var, mean=": lambda a: np.var(a, axis=0, mean=np.mean(a, axis=0, keepdims=True)),
        "np.std, a constant mean=": lambda a: np.std(a, axis=0, mean=np.ones((1, 3)), ddof=1),
        "np.sum, initial= of a dual": lambda a: np.sum(a, axis=0, initial=a[0, 0]),
        "np.nansum, where": lambda a: np.nansum(np.where(mask, a, np.nan), axis=0, where=few),
        "np.nansum, dtype": lambda a: np.nansum(np.where(mask, a, np.nan), 0, float),
        "np.nanprod, initial": lambda a: np.nanprod(np.where(mask, a, np.nan), 0, initial=2.0),
        "np.nanmax, initial": lambda a: np.nanmax(np.where(mask, a, np.nan), 0, initial=0.0),
        "np.nanmin, where": lambda a: np.nanmin(a, axis=0, initial=9.0, where=mask),
        "np.nanmean, where": lambda a: np.nanmean(np.where(mask, a, np.nan), 1, where=few),
        "np.nanvar, where": lambda a: np.nanvar(np.where(mask, a, np.nan), 0, where=few),
        "np.nanstd, ddof": lambda a: np.nanstd(np.where(mask, a, np.nan), 1, float, ddof=0.5),
        "np.nancumsum, dtype": lambda a: np.nancumsum(np.where(mask, a, np.nan), 1, dtype=float),
        "np.bincount, weights=": lambda a: np.bincount(np.arange(9) % 4, weights=a.ravel()),
        "np.diff, append a list": lambda a: np.diff(a[0], append=[a[1, 0], 1.0]),
        "np.average, a list of weights": lambda a: np.average(a[0], weights=[a[1, 0], 1.0, 2.0]),
        "np.interp, a list": lambda a: np.interp(a[0] / 2.5, [0, 1, 3], [a[0, 0], 2.0, 1.0]),
        "np.select, a list": lambda a: np.select(
            [a[0] > 1.5, a[0] > 0], [[a[1, 0], a[1, 1], 3.0], a[2]]
        ),
    }
    for name, f in rows.items():
        yield name, lambda f=f: jacobian(f, A), differences(_of_lists(f), A)
    empty = np.zeros((0, 2))
    for name, f in {"std": np.std, "var": np.var, "median": np.median, "nanstd": np.nanstd}.items():
        yield (
            f"np.{name} of no entries",
            lambda f=f: _without_warnings(lambda: jacobian(lambda x: f(x, axis=0), empty)),
            np.zeros((2, 0, 2)),
        )
    deviations = np.linspace(0.1, 3.3, 37 * 5).reshape(37, 5)
    kept = deviations % 0.2 > 0.1
    for fn in (np.sum, np.mean, np.var, np.std):
        yield (
            f"np.{fn.__name__}, where: the value is NumPy's to the last bit",
            lambda fn=fn: bool_of(
                dn.jvp(lambda x: fn(x, where=kept), (deviations,), (deviations,))[0]
                == fn(deviations, where=kept)
            ),
            1,
        )


def _of_lists(f: Callable) -> Callable:
    return lambda a: np.array(f(a))


def _without_warnings(program: Callable) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return program()


def bool_of(x: Any) -> int:
    return int(np.all(x))


@kind("arrays changed later")
def _() -> Iterator:
    refused = Refused("changed|read-only|in place", (DualnetError, ValueError))

    def recorded(f: Callable, x: Any, right: Any, back: Any = 1.0) -> Iterator:
        """Yield programs that change the primal between recording and use."""

        def pull_after_change() -> Any:
            w = x.copy()
            _, pull = dn.vjp(f, w)
            w -= 1.0
            return pull(back)[0]

        def push_after_change() -> Any:
            w = x.copy()
            _, push = dn.linearize(f, w)
            w -= 1.0
            return [push(row) for row in np.eye(2)]

        yield "vjp", pull_after_change, either(np.asarray(right), refused)
        pushed = np.broadcast_to(right, (2,)) if back == 1.0 else None
        if pushed is not None:
            yield "linearize", push_after_change, either(list(pushed), refused)

    for name, f, right in (
        ("(w * w).sum()", lambda w: (w * w).sum(), [2, 4]),
        ("np.square", lambda w: np.square(w).sum(), [2, 4]),
        ("w ** 3", lambda w: (w**3).sum(), [3, 12]),
        ("np.sin", lambda w: np.sin(w).sum(), np.cos(V)),
        ("w @ M @ w", lambda w: w @ M @ w, (M + M.T) @ V),
        ("np.prod", np.prod, [2, 1]),
        ("np.log", lambda w: np.log(w).sum(), [1, 0.5]),
        ("w[0] * w[1]", lambda w: w[0] * w[1], [2, 1]),
        ("w.reshape(2, 1)", lambda w: (w.reshape(2, 1) * w).sum(), [6, 6]),
        ("np.max", lambda w: np.max(w * w), [0, 4]),
    ):
        for how, program, answer in recorded(f, V, right):
            yield f"the primal, {how}, {name}", program, answer

    def out_changed(f: Callable) -> Callable:
        def program() -> Any:
            y, pull = dn.vjp(f, V.copy())
            y -= 1.0
            return pull(np.ones(2))[0]

        return program

    for name, f, right in (
        ("np.exp", np.exp, np.exp(V)),
        ("np.sqrt", np.sqrt, 0.5 / np.sqrt(V)),
        ("np.tanh", np.tanh, 1 - np.tanh(V) ** 2),
        ("1 / w", lambda w: 1 / w, -1 / V**2),
        ("np.cumprod", np.cumprod, [3, 1]),
    ):
        yield f"the result, {name}", out_changed(f), either(np.asarray(right), refused)

    def linearized_out() -> Any:
        y, push = dn.linearize(np.exp, V.copy())
        y *= 0.0
        return push(np.ones(2))

    yield "the result of linearize", linearized_out, either(np.exp(V), refused)

    def captured(x: Any) -> Any:
        c = V.copy()
        y = (c * x).sum()
        c -= 1.0
        return y

    def buffer(x: Any) -> Any:
        b, total = np.empty(2), 0.0
        for i in range(3):
            b[:] = i + 1.0
            total = total + (x * b).sum()
        return total

    def matrix(x: Any) -> Any:
        A = M.copy()
        y = (A @ x).sum()
        A *= 0.0
        return y

    def indices(x: Any) -> Any:
        i = np.array([0, 0])
        y = x[i].sum()
        i[:] = 1
        return y

    def mask(x: Any) -> Any:
        m = np.array([True, False])
        y = np.where(m, x, 3 * x).sum()
        m[:] = False
        return y

    def divisor(x: Any) -> Any:
        c = V.copy()
        y = (x / c).sum()
        c += 1.0
        return y

    def exponent(x: Any) -> Any:
        n = np.array([2.0, 3.0])
        y = (x**n).sum()
        n[:] = 0.0
        return y

    def kernel(x: Any) -> Any:
        A = M.copy()
        y = np.einsum("ij,j->i", A, x).sum()
        A[:] = 0.0
        return y

    def system(x: Any) -> Any:
        A = 2 * np.eye(2)
        y = np.linalg.solve(A, x).sum()
        A[:] = 7.0
        return y

    def taken(x: Any) -> Any:
        i = np.array([0, 0])
        y = np.take(x, i).sum()
        i += 1
        return y

    def own_update(x: Any) -> Any:
        velocity = np.zeros(2)
        y = 0.0
        for _ in range(2):
            velocity += 1.0
            y = y + (x * velocity).sum()
        return y

    for name, f, right in (
        ("a constant", captured, [1, 2]),
        ("a buffer that is used three times", buffer, [6, 6]),
        ("velocity += 1 in a loop", own_update, [3, 3]),
        ("a matrix", matrix, [4, 6]),
        ("an index array", indices, [2, 0]),
        ("the indices of np.take", taken, [2, 0]),
        ("a mask", mask, [1, 3]),
        ("a divisor", divisor, [1, 0.5]),
        ("an exponent", exponent, [2, 12]),
        ("an operand of einsum", kernel, [4, 6]),
        ("the matrix of a solve", system, [0.5, 0.5]),
    ):
        yield (
            f"{name}, changed by the function",
            lambda f=f: jacobian(f, V),
            either(np.array(right, float), refused),
        )

    def changed_between() -> Any:
        c = V.copy()
        _, pull = dn.vjp(lambda x: (c * x * x).sum(), V)
        c *= 0.0
        return pull(1.0)[0]

    def a_stopped_gradient() -> Any:
        def f(x: Any) -> Any:
            q = dn.stop_gradient(x)
            q -= q.mean()
            return (x * q).sum()

        return dn.grad(f)(V.copy())

    def two_gradients() -> Any:
        first, second = dn.grad(lambda x, y: (x + y).sum(), (0, 1))(V, V)
        first *= 3.0
        return second

    def a_cotangent() -> Any:
        ct = np.ones(2)
        _, pull = dn.vjp(lambda x: x, V)
        (g,) = pull(ct)
        g += 1.0
        return ct

    def a_pull_twice() -> Any:
        _, pull = dn.vjp(lambda x: x.sum(), V)
        (g,) = pull(1.0)
        g *= 0.0
        return pull(1.0)[0]

    def a_direction() -> Any:
        t = np.ones(2)
        _, moved = dn.jvp(lambda x: x, (V.copy(),), (t,))
        moved += 1.0
        return t

    def two_leaves() -> Any:
        g = dn.grad(lambda p: (p["a"] + p["b"]).sum())({"a": V, "b": V})
        g["a"] *= 3.0
        return g["b"]

    yield "a constant, between vjp and pull", changed_between, either([2.0, 8.0], refused)
    yield "what stop_gradient returned", a_stopped_gradient, either([-0.5, 0.5], refused)
    yield "one gradient of two", two_gradients, np.ones(2)
    yield "one leaf of a gradient", two_leaves, np.ones(2)
    yield "a pulled cotangent", a_cotangent, np.ones(2)
    yield "a pulled cotangent, pulled again", a_pull_twice, np.ones(2)
    yield "a pushed direction", a_direction, np.ones(2)


class _Doubled(np.ndarray):
    """A subclass whose product is another function's."""

    def __mul__(self, other: Any) -> Any:
        return 2 * (np.asarray(self) * other)

    __rmul__ = __mul__


@kind("array subclasses")
def _() -> Iterator:
    refused = Refused("matrix|masked|Masked|subclass|_Doubled")
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    matrix = _matrix(M)
    rows = {
        "x * matrix": (lambda x: (x * matrix).sum(), V, M.sum(1)),
        "matrix * x": (lambda x: (matrix * x[:, None]).sum(), V, M.sum(0)),
        "x @ matrix": (lambda x: (x @ matrix).sum(), V, M.sum(1)),
        "matrix ** 2 beside x": (lambda x: (x @ (matrix**2)).sum(), V, (M @ M).sum(1)),
        "x + matrix": (lambda x: (x + matrix).sum(), V, [2, 2]),
        "np.dot(matrix, x)": (lambda x: np.dot(matrix, x).sum(), V, M.sum(0)),
        "np.multiply(x, matrix)": (lambda x: np.multiply(x, matrix).sum(), V, M.sum(0)),
        "np.vstack([x, matrix])": (lambda x: np.vstack([x, matrix]).sum(), V, [1, 1]),
        "np.where(c, x, matrix)": (
            lambda x: np.where([True, False], x, matrix).sum(),
            V,
            [2, 0],
        ),
        "A * A of a matrix": (lambda A: (A * A).sum(), matrix, None),
        "A ** 2 of a matrix": (lambda A: (A**2).sum(), matrix, None),
        "A[0] of a matrix": (lambda A: A[0][0, 1], matrix, None),
        "sum(x * masked)": (lambda x: (x * masked).sum(), V, [1, 0]),
        "sum(masked * x)": (lambda x: (masked * x).sum(), V, [1, 0]),
        "x + masked": (lambda x: np.sum(x + masked), V, [1, 0]),
        "mean(x / masked)": (lambda x: np.mean(x / masked), V, [1, 0]),
        "masked - x": (lambda x: np.sum(masked - x), V, [-1, 0]),
        "x ** masked": (lambda x: np.sum(x**masked), V, [1, 0]),
        "max(x, masked)": (lambda x: np.sum(np.maximum(x, masked)), V, None),
        "np.where(masked > 0, x, 0)": (lambda x: np.where(masked > 0, x, 0).sum(), V, None),
        "x @ masked": (lambda x: x @ masked, V, None),
        "np.concatenate([x, masked])": (lambda x: np.concatenate([x, masked]).sum(), V, None),
        "np.einsum('i,i', x, masked)": (lambda x: np.einsum("i,i", x, masked), V, None),
        "np.ma.sum(x)": (lambda x: np.ma.sum(x), V, [1, 1]),
        "a masked primal": (lambda x: x.sum(), masked, None),
        "x * np.ma.masked": (lambda x: x * np.ma.masked, np.array(2.0), None),
        "a subclass with its own product, on the left": (
            lambda x: (V.view(_Doubled) * x).sum(),
            V,
            2 * V,
        ),
        "a subclass with its own product, on the right": (
            lambda x: (x * V.view(_Doubled)).sum(),
            V,
            2 * V,
        ),
    }
    for name, (f, x, right) in rows.items():
        right = refused if right is None else either(right, refused)
        yield name, lambda f=f, x=x: jacobian(f, x), right
    # what is a subclass by its storage alone is an array like any other
    record = np.rec.array([(1.0, 2.0)], dtype=[("a", float), ("b", float)])
    yield "a field of a record array", lambda: jacobian(lambda x: (x * record.b).sum(), V), [2, 2]
    with tempfile.NamedTemporaryFile() as file:
        mapped = np.memmap(file.name, np.float64, "w+", shape=(2,))
        mapped[:] = V
    yield "a memory-mapped array", lambda: jacobian(lambda x: (x * mapped).sum(), V), V
    yield "a memory-mapped primal", lambda: dn.grad(lambda x: (x * x).sum())(mapped), 2 * V
    yield "a read-only array", lambda: jacobian(lambda x: (x * _read_only(V)).sum(), V), V


def _matrix(x: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(x)


@kind("views of what is changed later")
def _() -> Iterator:
    def later(view: Callable) -> Callable:
        def program() -> Any:
            base = np.arange(4.0)
            c = view(base)

            def f(x: Any) -> Any:
                y = x * c
                base[:] = 9.0
                return y.sum()

            return dn.grad(f)(V.copy())

        return program

    yield "a view", later(lambda base: base[1:3]), [1.0, 2.0]
    yield "a view that cannot be written to", later(lambda base: _locked(base[1:3])), [1.0, 2.0]
    yield "a stretched view", later(lambda base: np.broadcast_to(base[1:2], (2,))), [1.0, 1.0]
    yield "a transposed view", later(lambda base: base.reshape(2, 2).T[0]), [0.0, 2.0]
    yield "a diagonal", later(lambda base: np.diagonal(base.reshape(2, 2))), [0.0, 3.0]
    yield "windows", later(lambda base: _windows(base)[0]), [0.0, 1.0]


def _locked(x: Any) -> Any:
    x.flags.writeable = False
    return x


def _windows(x: Any) -> Any:
    return np.lib.stride_tricks.sliding_window_view(x, 2)


def _read_only(x: Any) -> Any:
    x = x.copy()
    x.flags.writeable = False
    return x


@kind("float16")
def _() -> Iterator:
    ones = np.ones((256, 256), np.float16)
    few = np.linspace(1, 2, 4).astype(np.float16)
    share = np.full((256, 256), 2.0**-16, np.float16)
    quiet = np.float16(0.0)

    def in_half(f: Callable, *args: Any) -> Callable:
        return lambda: with_dtype(f(*args))

    def right(x: Any) -> tuple[str, Any]:
        return "float16", x

    yield "grad of np.mean", in_half(dn.grad(np.mean), ones), right(share)
    yield (
        "jvp of np.mean",
        in_half(lambda: dn.jvp(np.mean, (ones,), (ones,))[1]),
        right(1.0),
    )
    yield (
        "jvp of np.mean, k = 2",
        in_half(lambda: dn.jvp(np.mean, (ones,), (np.stack([ones, 2 * ones]),))[1]),
        right([1.0, 2.0]),
    )
    yield "x.mean()", in_half(dn.grad(lambda x: x.mean()), ones), right(share)
    yield (
        "np.mean over both axes, kept",
        in_half(dn.grad(lambda x: np.mean(x, (0, 1), keepdims=True)[0, 0]), ones),
        right(share),
    )
    yield (
        "np.mean of a bias that is stretched",
        in_half(dn.grad(lambda b: np.mean(ones + b)), quiet),
        right(1.0),
    )
    yield (
        "np.mean of a row that is stretched",
        in_half(dn.grad(lambda b: np.mean(ones + b)), ones[0]),
        right(np.full(256, 2.0**-8)),
    )
    yield (
        "np.max of 65,536 equal entries",
        in_half(dn.grad(np.max), ones),
        right(share),
    )
    yield (
        "np.max of 65,536 equal entries, jvp",
        in_half(lambda: dn.jvp(np.max, (ones,), (ones,))[1]),
        right(1.0),
    )
    sign = np.where(np.arange(65536).reshape(256, 256) % 2, 0.5, -0.5).astype(np.float16)
    eight = np.ones((8, 8), np.float16)
    yield "np.var", in_half(dn.grad(np.var), sign), right(sign * np.float16(2.0**-15))
    yield (
        "np.var, jvp",
        in_half(lambda: dn.jvp(np.var, (sign,), (sign,))[1]),
        right(0.5),
    )
    yield "np.std", in_half(dn.grad(np.std), sign), right(sign * np.float16(2.0**-15))
    yield (
        "np.std, jvp",
        in_half(lambda: dn.jvp(np.std, (sign,), (sign,))[1]),
        right(0.5),
    )
    yield (
        "np.var with ddof=1",
        in_half(dn.grad(lambda x: np.var(x, ddof=1)), sign),
        right(sign * np.float16(2.0**-15)),
    )
    yield (
        "np.linalg.norm of 64 entries",
        in_half(dn.grad(lambda x: np.linalg.norm(x)), eight),
        right(eight / 8),
    )
    yield (
        "np.sum of a product with small numbers",
        in_half(dn.grad(lambda b: np.sum(share * b)), np.float16(1.0)),
        right(1.0),
    )
    yield (
        "np.mean over one axis",
        in_half(dn.jacfwd(lambda s: np.mean(s * np.ones((2, 65520), np.float16), 1)), quiet),
        right([1.0, 1.0]),
    )
    yield (
        "np.mean over one axis, reverse",
        in_half(dn.jacrev(lambda s: np.mean(s * np.ones((2, 65520), np.float16), 1)), quiet),
        right([1.0, 1.0]),
    )
    yield (
        "np.sum(x) / x.size",
        in_half(dn.grad(lambda x: np.sum(x / np.float16(256.0) / np.float16(256.0))), ones),
        right(share),
    )
    yield (
        "a matrix product that averages",
        in_half(
            dn.grad(lambda w: np.mean(np.ones((2048, 1), np.float16) @ w)),
            np.ones((1, 2048), np.float16),
        ),
        right(np.full((1, 2048), 2.0**-11)),
    )
    yield "np.mean of four", in_half(dn.grad(np.mean), few), right(np.full(4, 0.25))
    yield (
        "a Hessian of np.mean(x²)",
        in_half(lambda: dn.jvp(dn.grad(lambda x: np.mean(x * x)), (ones,), (ones,))[1]),
        right(2 * share),
    )
    yield (
        "the second derivative of np.var",
        in_half(lambda: dn.jvp(dn.grad(np.var), (sign,), (sign,))[1]),
        right(sign * np.float16(2.0**-15)),
    )
    yield (
        "np.linalg.norm with ord=inf",
        in_half(dn.grad(lambda x: np.linalg.norm(x.ravel(), np.inf)), ones),
        right(share),
    )


@kind("removable kinks")
def _() -> Iterator:
    zero, zeros = np.array(0.0), np.zeros(2)
    two = 2 * np.eye(2)
    rows = {
        "norm(x)²": (lambda x: np.linalg.norm(x) ** 2, zeros, two),
        "norm(x)·norm(x)": (lambda x: np.linalg.norm(x) * np.linalg.norm(x), zeros, two),
        "np.square(norm(x))": (lambda x: np.square(np.linalg.norm(x)), zeros, two),
        "norm(x - c)² at c": (lambda x: np.linalg.norm(x - V) ** 2, V, two),
        "norm(x, axis=0)²": (lambda x: np.linalg.norm(x, axis=0) ** 2, zeros, two),
        "norm(A, 'fro')²": (
            lambda x: np.linalg.norm(x.reshape(1, 2), "fro") ** 2,
            zeros,
            two,
        ),
        "norm(x, 2)²": (lambda x: np.linalg.norm(x, 2) ** 2, zeros, two),
        "norm(x)⁴": (lambda x: np.linalg.norm(x) ** 4, zeros, np.zeros((2, 2))),
        "norm of one row among several": (
            lambda x: np.sum(np.linalg.norm(np.stack([x, x + 1]), axis=1) ** 2),
            zeros,
            2 * two,
        ),
        "norm(x, 3)³": (lambda x: np.linalg.norm(x, 3) ** 3, zeros, np.zeros((2, 2))),
        "std(x)²": (lambda x: np.std(x) ** 2, np.ones(2), [[0.5, -0.5], [-0.5, 0.5]]),
        "std(x, ddof=1)²": (
            lambda x: np.std(x, ddof=1) ** 2,
            np.ones(2),
            [[1.0, -1.0], [-1.0, 1.0]],
        ),
        "std(x, axis=0)²": (
            lambda x: np.sum(np.std(x[:, None], axis=0) ** 2),
            np.ones(2),
            [[0.5, -0.5], [-0.5, 0.5]],
        ),
        "hypot(x, y)²": (lambda x: np.hypot(x[0], x[1]) ** 2, zeros, two),
        "|x|³": (lambda x: np.abs(x) ** 3, zero, 0.0),
        "abs(x)²": (lambda x: np.abs(x) ** 2, zero, 2.0),
        "fabs(x)²": (lambda x: np.square(np.fabs(x)), zero, 2.0),
        "r = abs(x); r * r": (lambda x: (lambda r: r * r)(np.abs(x)), zero, 2.0),
        "abs(x)⁴": (lambda x: np.power(np.abs(x), 4), zero, 0.0),
        "var as a root": (
            lambda x: np.sqrt(np.var(x)) ** 2,
            np.ones(2),
            [[0.5, -0.5], [-0.5, 0.5]],
        ),
        "norm(A x)²": (
            lambda x: 3 * np.linalg.norm(M @ x) ** 2,
            zeros,
            6 * M.T @ M,
        ),
        "vector_norm(x)²": (lambda x: np.linalg.vector_norm(x) ** 2, zeros, two),
        "a root that was written to": (
            lambda x: (lambda r: (r.__iadd__(1.0), np.sum(r**2))[1])(np.abs(x)),
            V,
            two,
        ),
        "sqrt(x @ x)²": (lambda x: np.sqrt(x @ x) ** 2, zeros, two),
        "cbrt(x³)": (lambda x: np.cbrt(x**3), zero, 0.0),
        "cbrt(x)³": (lambda x: np.cbrt(x) ** 3, zero, 0.0),
        "copysign(x, x)": (lambda x: np.copysign(x, x), zero, 0.0),
        "norm of one entry, ord=1, squared": (
            lambda x: np.linalg.norm(x[:1], 1) ** 2,
            np.zeros(1),
            [[2.0]],
        ),
        "x ** 2.0": (lambda x: x**2.0, zero, 2.0),
        "np.power(x, array(2.0))": (lambda x: np.power(x, np.array(2.0)), zero, 2.0),
        "np.prod(x) at zeros": (np.prod, zeros, [[0, 1], [1, 0]]),
        "np.cumprod(x)[-1] at zeros": (lambda x: np.cumprod(x)[-1], zeros, [[0, 1], [1, 0]]),
        "np.sinc": (np.sinc, zero, -(np.pi**2) / 3),
    }
    # A product of two roots, and what a root is a part of, may have NaN.
    undetermined = (
        "norm(x)·norm(x)",
        "norm(x, 3)",
        "|x|³",
        "cbrt",
        "copysign",
        "norm of one entry",
    )
    for name, (f, x, right) in rows.items():
        right = MayBeNaN(four(right)) if name.startswith(undetermined) else four(right)
        yield name, lambda f=f, x=x: _quietly(hessians, f, x), right
    single = {
        "|x|·|x|": lambda x: np.abs(x) * np.abs(x),
        "norm of one entry, ord=inf, squared": lambda x: np.linalg.norm(x[None], np.inf) ** 2,
        "max(x, -x)²": lambda x: np.maximum(x, -x) ** 2,
        "fmax(x, -x)²": lambda x: np.fmax(x, -x) ** 2,
        "np.max([x, -x])²": lambda x: np.max(np.stack([x, -x])) ** 2,
    }
    for name, f in single.items():
        yield name, lambda f=f: _quietly(hessians, f, zero), MayBeNaN(four(2.0))
    nowhere = {
        "norm(x)": lambda x: np.linalg.norm(x),
        "std(x)": lambda x: np.std(x),
        "hypot(x, y)": lambda x: np.hypot(x[0], x[1]),
    }
    for name, f in nowhere.items():
        yield f"{name} itself", lambda f=f: _quietly(hessians, f, zeros), np.full((4, 2, 2), np.nan)
    yield (
        "a row beside a kink",
        lambda: _quietly(hessians, lambda x: np.sum(np.abs(x)) + x[1] ** 3, np.array([0.0, 1.0])),
        four([[np.nan, 0.0], [0.0, 6.0]]),
    )
    alike = {
        "np.max of copies": lambda x: np.max(np.tile(np.sinh(x), 3)),
        "std of copies": lambda x: np.std(np.tile(0.1 * x, 3)) + np.sinh(x),
        "maximum of copies": lambda x: np.maximum(np.sinh(x), 1.0 * np.sinh(x)),
        "abs of a unit that is off": lambda x: np.abs(np.maximum(x - 9.0, 0.0)) + np.sinh(x),
        "np.max of units that are off": lambda x: (
            np.max(np.maximum(np.tile(x, 2) - 9.0, 0.0)) + np.sinh(x)
        ),
    }
    for name, f in alike.items():
        yield name, lambda f=f: hessians(f, np.array(0.5)), four(np.sinh(0.5))


def _quietly(f: Callable, *args: Any) -> Any:
    with np.errstate(all="ignore"):
        return f(*args)


@kind("overflow in a rule")
def _() -> Iterator:
    single = np.float32
    big, tiny = 1e200, 1e-200
    slopes = {
        "arcsinh(exp(x)), float32": (lambda x: np.arcsinh(np.exp(x)), single(60), 1.0),
        "arccosh(exp(x)), float32": (lambda x: np.arccosh(np.exp(x)), single(60), 1.0),
        "arcsinh(-exp(x)), float32": (lambda x: np.arcsinh(-np.exp(x)), single(60), -1.0),
        "arcsinh(exp(x))": (lambda x: np.arcsinh(np.exp(x)), np.array(400.0), 1.0),
        "arccosh(exp(x))": (lambda x: np.arccosh(np.exp(x)), np.array(400.0), 1.0),
        "arcsinh(1e200)": (np.arcsinh, np.array(big), tiny),
        "arccosh(1e200)": (np.arccosh, np.array(big), tiny),
        "arcsinh at 300, float16": (np.arcsinh, np.float16(300), 1 / 300),
        "arccosh at 300, float16": (np.arccosh, np.float16(300), 1 / 300),
        "arctan at 300, float16": (np.arctan, np.float16(300), 1 / 300**2),
        "arctan at 2e19, float32": (np.arctan, single(2e19), 0.25e-38),
        "arctan at 2e154": (np.arctan, np.array(2e154), 0.25e-308),
        "arctan2(y, x) at 300, float16": (
            lambda x: np.arctan2(x[0], x[1]),
            np.array([300, 300], np.float16),
            [0.5 / 300, -0.5 / 300],
        ),
        "arctan2(y, x) at 1e200": (
            lambda x: big * np.arctan2(x[0], x[1]),
            np.array([big, big]),
            [0.5, -0.5],
        ),
        "arctan2(y, x) at 1e-200": (
            lambda x: tiny * np.arctan2(x[0], x[1]),
            np.array([tiny, tiny]),
            [0.5, -0.5],
        ),
        "arctan2(y, x) at 1e25, float32": (
            lambda x: single(1e25) * np.arctan2(x[0], x[1]),
            np.array([1e25, 1e25], single),
            [0.5, -0.5],
        ),
        "arctan2(y, x) at 1e-25, float32": (
            lambda x: single(1e-25) * np.arctan2(x[0], x[1]),
            np.array([1e-25, 1e-25], single),
            [0.5, -0.5],
        ),
        "arctan2(1e200, 1e-200)": (
            lambda x: big * np.arctan2(x[0], x[1]),
            np.array([big, tiny]),
            [0.0, -1.0],
        ),
        "std at 1e200": (lambda x: _quietly(np.std, x), np.array([big, -big]), [0.5, -0.5]),
        "std at 1e-200": (lambda x: np.std(x), np.array([tiny, -tiny]), [0.5, -0.5]),
        "std at 1e25, float32": (
            lambda x: _quietly(lambda x: np.std(x, ddof=1), x),
            np.array([1e25, -1e25], single),
            [0.5**0.5, -(0.5**0.5)],
        ),
        "hypot at 1e200": (
            lambda x: np.hypot(x[0], x[1]),
            np.array([3 * big, 4 * big]),
            [0.6, 0.8],
        ),
        "hypot at 1e-200": (
            lambda x: np.hypot(x[0], x[1]),
            np.array([3 * tiny, 4 * tiny]),
            [0.6, 0.8],
        ),
        "(1 / x) · tiny, float32": (lambda x: 1 / (x * single(1e15)), single(1e5), -1e-25),
        "reciprocal at 1e25, float32": (
            lambda x: np.reciprocal(x) * single(1e25) * single(1e10),
            single(1e15),
            -1e5,
        ),
        "log1p(exp(x)), float32": (lambda x: np.log1p(np.exp(x)), single(60), 1.0),
        "tan at a huge slope, float32": (
            lambda x: np.arctan(np.tan(x)),
            np.array(np.pi / 2, single),
            1.0,
        ),
        "cbrt at 1e-30, float32": (
            lambda x: np.cbrt(np.exp(x)),
            single(-60),
            np.exp(-20.0) / 3,
        ),
        "tanh at 100": (np.tanh, np.array(100.0), 0.0),
        "logaddexp(x, 0) at 1000": (lambda x: np.logaddexp(x, 0.0), np.array(1000.0), 1.0),
        "logaddexp(x, 0) at -1000": (lambda x: np.logaddexp(x, 0.0), np.array(-1000.0), 0.0),
        "logaddexp(x, y) of large equals": (
            lambda x: np.logaddexp(x, 1e8),
            np.array(1e8, np.float32),
            0.5,
        ),
        "prod of large and small": (
            lambda x: np.prod(x),
            np.array([1e200, 1e-200, 1e200, 1e-200]),
            [1e-200, 1e200, 1e-200, 1e200],
        ),
        "norm with ord=3 at 1e30, float32": (
            lambda x: np.linalg.norm(x * single(1e-30) * single(1e5), 3),
            np.array([1e30, 1e30], single),
            np.full(2, 2 ** (-2 / 3) * 1e-25),
        ),
        "sqrt at 1e-300": (np.sqrt, np.array(1e-300), 0.5e150),
        "x / y at 1e-200": (lambda x: x[0] / x[1], np.array([tiny, tiny]), [1e200, -1e200]),
        "(x / y) y at 1e25, float32": (
            lambda x: x[0] / x[1] * single(1e25),
            np.array([1e25, 1e25], single),
            [1.0, -1.0],
        ),
        "arcsinh, second order, float32": (
            dn.grad(np.arcsinh),
            single(np.exp(30)),
            -np.exp(-60.0),
        ),
        "arccosh, second order, float32": (
            dn.grad(np.arccosh),
            single(np.exp(30)),
            -np.exp(-60.0),
        ),
        "hypot, second order, float32": (
            lambda x: single(1e25) * dn.grad(lambda x: np.hypot(x, single(3e25)))(x),
            single(4e25),
            9 / 125,
        ),
        "arctan2, second order, float32": (
            lambda x: single(1e15) * dn.grad(lambda x: np.arctan2(x, single(1e15)))(x),
            single(1e15),
            -0.5e-15,
        ),
        "sinc at 1e30, float32": (np.sinc, single(1e30), None),
    }
    for name, (f, x, right) in slopes.items():
        if right is None:
            right = (lambda x: (np.cos(np.pi * x) - np.sinc(x)) / x)(x)
        yield name, lambda f=f, x=x: jacobian(f, x), np.asarray(right)
    # in reverse mode alone: all directions at once would take gigabytes
    many = np.ones(70000, np.float16)
    norm = lambda x: _quietly(np.linalg.norm, x)  # noqa: E731
    yield "norm of many, float16", lambda: dn.grad(norm)(many), np.full(70000, 70000**-0.5)


@kind("NaN instead of a convention")
def _() -> Iterator:
    zero, inf = np.array(0.0), np.inf
    rows = {
        "hypot(0, 0)": (lambda x: np.hypot(x[0], x[1]), np.zeros(2), [0, 0]),
        "hypot(x, 0) at 0": (lambda x: np.hypot(x, 0.0), zero, 0.0),
        "hypot(0, x) at 0, float32": (
            lambda x: np.hypot(np.float32(0), x),
            np.float32(0),
            0.0,
        ),
        "hypot, one entry at 0": (
            lambda x: np.hypot(x, np.array([0.0, 4.0])),
            np.array([0.0, 3.0]),
            [[0, 0], [0, 0.6]],
        ),
        "hypot(inf, 1)": (lambda x: np.hypot(x, 1.0), np.array(inf), 1.0),
        "norm at 0": (np.linalg.norm, np.zeros(2), [0, 0]),
        "norm with ord=3 at 0": (lambda x: np.linalg.norm(x, 3), np.zeros(2), [0, 0]),
        "norm of a row of zeros": (
            lambda x: np.linalg.norm(np.stack([x, V]), axis=1),
            np.zeros(2),
            [[0, 0], [0, 0]],
        ),
        "cbrt at 0": (np.cbrt, zero, inf),
        "cbrt at -0": (np.cbrt, np.array(-0.0), inf),
        "cbrt at 0, float32": (np.cbrt, np.float32(0), inf),
        "cbrt of x³ at 8": (lambda x: np.cbrt(x), np.array(-8.0), 1 / 12),
        "sqrt at 0": (np.sqrt, zero, inf),
        "x ** 0.5 at 0": (lambda x: x**0.5, zero, inf),
        "np.power(x, 1/3) at 0": (lambda x: np.power(x, 1 / 3), zero, inf),
        "x ** 0 at 0": (lambda x: x**0, zero, 0.0),
        "x ** 0.0 at 0": (lambda x: x ** np.array(0.0), zero, 0.0),
        "x ** 1 at 0": (lambda x: x ** np.array(1.0), zero, 1.0),
        "2 ** x": (lambda x: 2.0**x, zero, np.log(2)),
        "0 ** x at 2": (lambda x: 0.0**x, np.array(2.0), 0.0),
        "0 ** x, x an array, at 2": (lambda x: np.zeros(1) ** x, np.array([2.0]), [[0.0]]),
        "float_power(x, 0) at 0": (lambda x: np.float_power(x, 0.0), zero, 0.0),
        "log at 0": (np.log, zero, inf),
        "log1p at -1": (np.log1p, np.array(-1.0), inf),
        "arcsin at 1": (np.arcsin, np.array(1.0), inf),
        "arccos at -1": (np.arccos, np.array(-1.0), -inf),
        "arccosh at 1": (np.arccosh, np.array(1.0), inf),
        "arctanh at 1": (np.arctanh, np.array(1.0), inf),
        "arctan2(1, inf)": (lambda x: np.arctan2(x, inf), np.array(1.0), 0.0),
        "arctan2(inf, 1)": (lambda x: np.arctan2(inf, x), np.array(1.0), 0.0),
        "arctan2(x, 1) at inf": (lambda x: np.arctan2(x, 1.0), np.array(inf), 0.0),
        "arctan at inf": (np.arctan, np.array(inf), 0.0),
        "tanh at inf": (np.tanh, np.array(inf), 0.0),
        "arcsinh at inf": (np.arcsinh, np.array(inf), 0.0),
        "fmax(x, nan)": (lambda x: np.fmax(x, np.nan), np.array(1.0), 1.0),
        "fmin(nan, x)": (lambda x: np.fmin(np.nan, x), np.array(1.0), 1.0),
        "logaddexp(x, -inf)": (lambda x: np.logaddexp(x, -inf), zero, 1.0),
        "logaddexp(x, 0) at -inf": (lambda x: np.logaddexp(x, 0.0), np.array(-inf), 0.0),
        "logaddexp(x, x) at -inf": (lambda x: np.logaddexp(x, x), np.array(-inf), 1.0),
        "logaddexp(x, x) at inf": (lambda x: np.logaddexp(x, x), np.array(inf), 1.0),
        "logaddexp at inf beside 1": (lambda x: np.logaddexp(x, 1.0), np.array(inf), 1.0),
        "logaddexp2(x, x) at -inf": (lambda x: np.logaddexp2(x, x), np.array(-inf), 1.0),
        "logaddexp.reduce of nothing but -inf": (
            np.logaddexp.reduce,
            np.array([-inf, -inf]),
            [0.5, 0.5],
        ),
        "logaddexp2(x, -inf)": (lambda x: np.logaddexp2(x, -inf), zero, 1.0),
        "1 / x at inf": (lambda x: 1 / x, np.array(inf), 0.0),
        "exp at -inf": (np.exp, np.array(-inf), 0.0),
        "expm1 at -inf": (np.expm1, np.array(-inf), 0.0),
        "fmod(x, inf)": (lambda x: np.fmod(x, inf), np.array(2.0), 1.0),
        "fmod(5, y) at inf": (lambda y: np.fmod(5.0, y), np.array(inf), 0.0),
        "remainder(5, y) at inf": (lambda y: np.remainder(5.0, y), np.array(inf), 0.0),
        "clip with infinite bounds": (lambda x: np.clip(x, -inf, inf), zero, 1.0),
        "maximum(x, -inf)": (lambda x: np.maximum(x, -inf), zero, 1.0),
        "std of equal entries": (np.std, np.ones(3), np.zeros(3)),
        "std of one entry": (np.std, np.ones(1), np.zeros(1)),
        "sinc at 0": (np.sinc, zero, 0.0),
        "prod with a zero": (np.prod, np.array([0.0, 2.0]), [2, 0]),
        "cumprod with a zero": (np.cumprod, np.array([0.0, 2.0]), [[1, 0], [2, 0]]),
        "nan_to_num of an infinity": (lambda x: np.nan_to_num(x), np.array(inf), 0.0),
        "where beside a NaN": (
            lambda x: np.where(x > 0, x, np.full(2, np.nan)),
            np.ones(2),
            np.eye(2),
        ),
    }
    for name, (f, x, right) in rows.items():
        yield name, lambda f=f, x=x: _quietly(jacobian, f, x), np.asarray(right, float)


@kind("NaN that spreads")
def _() -> Iterator:
    inf, nan = np.inf, np.nan
    bad = np.array([[nan, 1.0], [1.0, 2.0]])
    at_zero = np.array([0.0, 4.0])

    def two_matrices(x: Any) -> Any:
        return np.stack([np.eye(2) * np.sqrt(x[0]), np.array([[2.0, 0.0], [0.0, 1.0]]) * x[1]])

    rows = {
        "np.linalg.solve of a stack": (
            lambda x: np.linalg.solve(two_matrices(x), np.ones((2, 2, 1)))[:, 1, 0],
            np.array([-1.0, 2.0]),
            [0, -1 / 4],
        ),
        "np.linalg.inv of a stack": (
            lambda x: np.linalg.inv(two_matrices(x))[:, 0, 0],
            np.array([-1.0, 2.0]),
            [0, -1 / 8],
        ),
        "np.linalg.eigvalsh of a stack": (
            lambda x: np.linalg.eigvalsh(two_matrices(x))[:, 1],
            np.array([-1.0, 2.0]),
            [0, 2],
        ),
        "np.linalg.eigh of a stack, a vector": (
            lambda x: np.linalg.eigh(two_matrices(x))[1][:, 0, 0] ** 2 + x[1],
            np.array([-1.0, 2.0]),
            [0, 1],
        ),
        "sqrt": (np.sqrt, at_zero, [0, 0.25]),
        "log": (np.log, at_zero, [0, 0.25]),
        "1 / x": (lambda x: 1 / x, at_zero, [0, -1 / 16]),
        "np.reciprocal": (np.reciprocal, at_zero, [0, -1 / 16]),
        "x ** 0.5": (lambda x: x**0.5, at_zero, [0, 0.25]),
        "x ** -1": (lambda x: x ** np.array([-1.0, -1.0]), at_zero, [0, -1 / 16]),
        "cbrt": (np.cbrt, np.array([0.0, 8.0]), [0, 1 / 12]),
        "arcsin": (np.arcsin, np.array([1.0, 0.0]), [0, 1]),
        "arccosh": (np.arccosh, np.array([1.0, 2.0]), [0, 1 / np.sqrt(3)]),
        "arctanh": (np.arctanh, np.array([1.0, 0.0]), [0, 1]),
        "exp overflows": (np.exp, np.array([1000.0, 0.0]), [0, 1]),
        "cosh overflows": (np.cosh, np.array([1000.0, 0.0]), [0, 0]),
        "log of a negative number": (np.log, np.array([-1.0, 4.0]), [0, 0.25]),
        "sqrt of a NaN": (np.sqrt, np.array([nan, 4.0]), [0, 0.25]),
        "x times an infinity": (lambda x: x * np.array([inf, 3.0]), V, [0, 3]),
        "x times a NaN": (lambda x: x * np.array([nan, 3.0]), V, [0, 3]),
        "x divided by 0": (lambda x: x / np.array([0.0, 2.0]), V, [0, 0.5]),
        "c / x": (lambda x: np.array([1.0, 2.0]) / x, at_zero, [0, -1 / 8]),
        "sin of an infinity": (np.sin, np.array([inf, 0.0]), [0, 1]),
        "A @ x with a NaN": (lambda x: bad @ x, V, [1, 2]),
        "x @ A with a NaN": (lambda x: x @ bad, V, [1, 2]),
        "np.dot with a NaN": (lambda x: np.dot(bad, x), V, [1, 2]),
        "np.einsum with a NaN": (lambda x: np.einsum("ij,j->i", bad, x), V, [1, 2]),
        "(A * x).sum(1) with a NaN": (lambda x: (bad * x).sum(1), V, [1, 2]),
        "np.inner with an infinity": (
            lambda x: np.inner(np.array([[inf, 1.0], [1.0, 2.0]]), x),
            V,
            [1, 2],
        ),
        "np.stack of log and of x²": (
            lambda x: np.stack([np.log(x[0]), x[1] ** 2]),
            at_zero,
            [0, 8],
        ),
        "np.concatenate of sqrt and x": (
            lambda x: np.concatenate([np.sqrt(x[:1]), 3 * x[1:]]),
            at_zero,
            [0, 3],
        ),
        "std of each row": (
            lambda x: np.std(np.stack([x * inf, x]), axis=1),
            np.array([1.0, 2.0]),
            [-0.5, 0.5],
        ),
        "norm of each row": (
            lambda x: np.linalg.norm(np.stack([x * inf, x]), axis=1),
            np.array([3.0, 4.0]),
            [0.6, 0.8],
        ),
        "np.prod of each row": (
            lambda x: np.prod(np.stack([x * inf, x]), axis=1),
            np.array([3.0, 4.0]),
            [4, 3],
        ),
        "log of a log": (lambda x: np.log(np.log(x)), np.array([1.0, np.e]), [0, 1 / np.e]),
        "a quotient by the integer 0": (
            lambda x: np.where(x > 0, np.sqrt(x), x / 0),
            at_zero,
            [0, 0.25],
        ),
        "a quotient by an array of integers": (lambda x: x / np.array([0, 2]), at_zero, [0, 0.5]),
        "np.max of each row, of which one is infinite": (
            lambda x: np.max(np.stack([x / 0, x]), axis=1),
            at_zero,
            [0, 1],
        ),
        "an eigenvalue beside a log": (
            lambda x: np.stack([np.log(x[0]), np.linalg.eigvalsh(np.diag(x))[1]]),
            at_zero,
            [0, 1],
        ),
        "a singular value beside a log": (
            lambda x: np.stack([np.log(x[0]), np.linalg.norm(np.diag(x + 1), 2)]),
            at_zero,
            [0, 1],
        ),
        "np.where around a log": (
            lambda x: np.where(np.array([True, False]), np.log(x), 2 * x),
            at_zero,
            [0, 2],
        ),
    }
    for name, (f, x, right) in rows.items():
        yield name, lambda f=f, x=x: _quietly(each_pull, f, x, 1), np.asarray(right, float)

    def parts(x: Any) -> Any:
        return {"log": np.log(x[0]), "square": x[1] ** 2}

    yield (
        "a cotangent of 0 for one leaf",
        lambda: _quietly(
            lambda: dn.vjp(parts, at_zero)[1]({"log": np.array(0.0), "square": np.array(1.0)})[0]
        ),
        [0.0, 8.0],
    )
    yield (
        "jacrev of a dict",
        lambda: _quietly(lambda: dn.jacrev(parts)(at_zero)["square"]),
        [0.0, 8.0],
    )


@kind("dtype of directions")
def _() -> Iterator:
    x = np.array([1.0, 2.0], np.float32)
    s = np.array(2.0, np.float32)
    refused = Refused("float32", (TangentError,))

    def single(value: Any) -> Any:
        return either(("float32", np.asarray(value)), refused)

    def double(value: Any) -> Any:
        return either(("float64", np.asarray(value)), Refused("float64", (TangentError,)))

    def push(f: Callable, at: Any, t: Any) -> Callable:
        return lambda: with_dtype(dn.jvp(f, (at,), (t,))[1])

    square = np.square
    yield "a wider direction", push(square, x, np.ones(2)), single([2, 4])
    yield "a wider stack", push(square, x, np.ones((3, 2))), single(np.tile([2, 4], (3, 1)))
    yield "a narrower direction", push(square, V, np.ones(2, np.float32)), double([2, 4])
    yield "a Python float", push(square, s, 1.0), single(4)
    yield "an int", push(square, s, 1), single(4)
    yield "np.float64", push(square, s, np.float64(1)), single(4)
    yield "np.int64", push(square, s, np.int64(1)), single(4)
    yield "an int for a Python float", push(square, 2.0, 1), double(4)
    yield "a bool for a Python float", push(square, 2.0, True), double(4)
    yield "an array of ints", push(square, V, np.array([1, 1])), double([2, 4])
    yield "a list", push(square, V, [1.0, 1.0]), either(("float64", [2.0, 4.0]), Refused())
    yield "a float16 direction", push(square, x, np.ones(2, np.float16)), single([2, 4])
    yield "longdouble", push(square, x, np.ones(2, np.longdouble)), single([2, 4])
    yield (
        "a complex direction",
        push(square, V, np.ones(2, complex)),
        Refused("complex", (TangentError,)),
    )
    yield (
        "a Python float pulled back from float32",
        lambda: with_dtype(dn.vjp(lambda x: square(x).sum(), x)[1](1.0)[0]),
        single([2, 4]),
    )
    yield (
        "an int pulled back from float32",
        lambda: with_dtype(dn.vjp(lambda x: square(x).sum(), x)[1](1)[0]),
        single([2, 4]),
    )
    yield (
        "a wider cotangent",
        lambda: with_dtype(dn.vjp(square, x)[1](np.ones(2))[0]),
        single([2, 4]),
    )
    yield (
        "linearize, a wider direction",
        lambda: with_dtype(dn.linearize(square, x)[1](np.ones(2))),
        single([2, 4]),
    )
    yield (
        "linearize, a Python float",
        lambda: with_dtype(dn.linearize(square, s)[1](1.0)),
        single(4),
    )
    yield (
        "hvp, a wider direction",
        lambda: with_dtype(dn.hvp(lambda x: (x**3).sum(), (x,), (np.ones(2),))[0]),
        single([6, 12]),
    )
    yield (
        "a wider direction, seen inside",
        lambda: _dtype_inside(x, np.ones(2)),
        either("float32", refused),
    )
    yield (
        "a rule that widens, seen inside",
        lambda: _dtype_inside(x, np.ones(2, np.float32), widening=True),
        either("float32", Refused("dtype|float64", (TangentError,))),
    )
    # a Python number is weak: it does not widen what it meets, and no more does its dual
    for name, f in {
        "s * x": lambda s, x: s * x,
        "x + s": lambda s, x: x + s,
        "x ** s": lambda s, x: x**s,
        "s / x": lambda s, x: s / x,
        "s // 1 * x": lambda s, x: s // 1 * x,
        "divmod(s, 1)": lambda s, x: divmod(s, 1)[0] * x,
        "round(s, 1) * x": lambda s, x: round(s, 1) * x,
        "(s > 1) * 0.5 * x": lambda s, x: (s > 1) * 0.5 * x,
        "s.imag * x": lambda s, x: s.imag * x,
        "np.maximum(x, s)": lambda s, x: np.maximum(x, s),
        "np.where(c, x, s)": lambda s, x: np.where([True, False], x, s),
        "np.clip(x, 0, s)": lambda s, x: np.clip(x, 0.0, s),
        "np.exp(s) * x": lambda s, x: np.exp(s) * x,
        "np.quantile": lambda s, x: np.quantile(x, s / 3),
        "np.nanpercentile": lambda s, x: np.nanpercentile(x, s),
        "np.choose": lambda s, x: np.choose([0, 1], [x, s]),
        "np.linspace": lambda s, x: np.linspace(x, s, 3),
        "np.var": lambda s, x: np.var(x, mean=s),
    }.items():
        right = (_dtype(f(1.5, x)),) * 2
        yield (
            f"a Python float beside float32, {name}",
            lambda f=f: tuple(map(_dtype, dn.jvp(lambda s: f(s, x), (1.5,), (1.0,)))),
            right,
        )
        yield (
            f"a Python float beside a dual of float32, {name}",
            lambda f=f: tuple(map(_dtype, dn.jvp(f, (1.5, x), (1.0, np.ones_like(x))))),
            right,
        )
    for name, f in {
        "x.clip(s, 2 s)": lambda s, x: x.clip(s, 2 * s),
        "np.select": lambda s, x: np.select([x > 1, x < 9], [x, s], 1.0),
        "np.choose, a constant": lambda _s, x: np.choose([0, 1], [x, 1.5]),
    }.items():
        yield (
            f"a Python float and a dual of float32, {name}",
            lambda f=f: tuple(map(_dtype, dn.jvp(f, (1.5, x), (1.0, np.ones_like(x))))),
            ("float32",) * 2,
        )
    yield (
        "the gradient by a Python float beside float32",
        lambda: tuple(map(_dtype, dn.value_and_grad(lambda s: (s * x).sum())(1.5))),
        ("float32", "float64"),
    )
    yield (
        "one direction of two is wider",
        lambda: with_dtype(dn.jvp(np.multiply, (x, x), (np.ones(2, np.float32), np.ones(2)))[1]),
        single([2, 4]),
    )
    yield (
        "a RankOne of wider factors",
        lambda: with_dtype(
            dn.jvp(
                square,
                (np.ones((2, 2), np.float32),),
                (dn.RankOne(np.ones((1, 2)), np.ones((1, 2))),),
            )[1]
        ),
        single(np.full((1, 2, 2), 2.0)),
    )


def _dtype(x: Any) -> str:
    return str(np.result_type(x))


def _dtype_inside(x: Any, t: Any, widening: bool = False) -> str:
    """Find the dtype of a tangent inside the function."""
    seen = []
    double = dn.custom_jvp(lambda x: 2 * x)
    double.defjvps(lambda t, out, x: t * np.full(2, 2.0))

    def f(x: Any) -> Any:
        y = double(x) if widening else np.sin(x)
        seen.append(str(y.tangent.dtype))
        return y

    dn.jvp(f, (x,), (t,))
    return seen[0]


@kind("argument numbers")
def _() -> Iterator:
    def product(x: Any, y: Any) -> Any:
        return (x * y).sum()

    refused = Refused("argnums", (TangentError,))
    twice = Refused("argnums.*(twice|once|more than)", (TangentError,))
    w = np.array([3.0, 5.0])
    of_x, of_y = w, V
    for make in (dn.grad, dn.jacfwd, dn.jacrev):
        name = make.__name__

        def call(argnums: Any, make: Callable = make) -> Callable:
            return lambda: make(product, argnums)(V, w)

        yield f"{name}: (0, 0)", call((0, 0)), twice
        yield f"{name}: (1, -1)", call((1, -1)), twice
        yield f"{name}: (0, 1, 0)", call((0, 1, 0)), twice
        yield f"{name}: np.int64(1)", call(np.int64(1)), of_y
        yield f"{name}: np.int32(-2)", call(np.int32(-2)), of_x
        yield f"{name}: (np.int64(0), 1)", call((np.int64(0), 1)), (of_x, of_y)
        yield f"{name}: [1, 0]", call([1, 0]), (of_y, of_x)
        yield f"{name}: np.array([0, 1])", call(np.array([0, 1])), either((of_x, of_y), refused)
        yield f"{name}: range(2)", call(range(2)), (of_x, of_y)
        yield f"{name}: 2", call(2), refused
        yield f"{name}: -3", call(-3), refused
        yield f"{name}: 1.0", call(1.0), refused
        yield f"{name}: 'x'", call("x"), refused
        yield f"{name}: b'0'", call(b"0"), refused
        yield f"{name}: a set", call({0, 1}), refused
        yield f"{name}: a dict", call({0: 1}), refused
        yield f"{name}: an iterator", call(iter([0])), refused
        yield f"{name}: None", call(None), refused
        yield f"{name}: True", call(True), either(of_y, refused)
        yield f"{name}: ()", call(()), either((), refused)
    yield (
        "value_and_grad: (0, 0)",
        lambda: dn.value_and_grad(product, (0, 0))(V, w),
        twice,
    )
    yield (
        "value_and_grad: np.int64(1)",
        lambda: dn.value_and_grad(product, np.int64(1))(V, w),
        (13.0, of_y),
    )


@kind("own rules")
def _() -> Iterator:
    refused = Refused("rule|differentiated|linearizer")

    def ruled(rule: Callable, function: Callable = lambda x: 3.0 * x) -> Callable:
        f = dn.custom_jvp(function)
        f.defjvps(rule)
        return f

    def modes(f: Callable, x: Any, right: Any) -> Iterator:
        eye = np.ones((1, *np.shape(x))) if np.ndim(x) == 0 else np.eye(np.size(x))
        for name, program in (
            ("one direction", lambda: dn.jvp(f, (x,), (np.ones_like(x),))[1]),
            ("k directions", lambda: dn.jvp(f, (x,), (np.concatenate([eye, eye]),))[1]),
            ("reverse", lambda: dn.vjp(lambda x: np.sum(f(x)), x)[1](np.array(1.0))[0]),
        ):
            expected = None if right is None else right[name]
            yield name, program, refused if expected is None else either(expected, refused)

    one = np.array(2.0)
    number = {
        "one direction": np.array(3.0),
        "k directions": np.array([3.0, 3.0]),
        "reverse": np.array(3.0),
    }
    vector = {
        "one direction": np.array([3.0, 3.0]),
        "k directions": 3 * np.vstack([np.eye(2), np.eye(2)]),
        "reverse": np.array([3.0, 3.0]),
    }
    total = {
        "one direction": np.array(6.0),
        "k directions": np.full(4, 3.0),
        "reverse": np.array([3.0, 3.0]),
    }
    rows = {
        "a float, of a number": (ruled(lambda t, out, x: 3.0), one, None),
        "a float, of an array": (ruled(lambda t, out, x: 3.0), V, None),
        "float(t)": (ruled(lambda t, out, x: float(t[0]) * 3.0), one, None),
        "an int": (ruled(lambda t, out, x: 3), one, None),
        "a list": (ruled(lambda t, out, x: [3.0 * a for a in t]), V, vector),
        "a tuple": (ruled(lambda t, out, x: (3.0 * t,)), V, None),
        "None": (ruled(lambda t, out, x: None), V, None),
        "a string": (ruled(lambda t, out, x: "3 t"), V, None),
        "the slope without t": (ruled(lambda t, out, x: np.full(2, 3.0)), V, None),
        "np.full_like(x, 3)": (ruled(lambda t, out, x: np.full_like(x, 3.0)), V, None),
        "t[0], without k": (ruled(lambda t, out, x: 3.0 * t[0]), V, None),
        "a sum that takes k along": (
            ruled(lambda t, out, x: 3.0 * np.sum(t), lambda x: 3.0 * x.sum()),
            V,
            None,
        ),
        "t.sum(0), of a number": (
            ruled(lambda t, out, x: 3.0 * t.sum(0), lambda x: 3.0 * x.sum()),
            V,
            None,
        ),
        "t.mean()": (ruled(lambda t, out, x: 3.0 * t.mean()), one, None),
        "ints": (ruled(lambda t, out, x: (3 * t).astype(int)), V, None),
        "bools": (ruled(lambda t, out, x: t > 0), V, None),
        "complex": (ruled(lambda t, out, x: t * 3j), V, None),
        "a memoryview": (ruled(lambda t, out, x: memoryview(3.0 * t)), V, None),
        "np.matrix": (ruled(lambda t, out, x: np.matrix(3.0 * t)), V, None),
        "a masked array": (ruled(lambda t, out, x: np.ma.array(3.0 * t)), V, None),
        "an object array": (ruled(lambda t, out, x: (3 * t).astype(object)), V, None),
        "one axis too many": (ruled(lambda t, out, x: 3 * t[..., None]), V, None),
        "right, of a number": (ruled(lambda t, out, x: 3.0 * t), one, number),
        "right, of an array": (ruled(lambda t, out, x: 3.0 * t), V, vector),
        "right, of a sum": (
            ruled(lambda t, out, x: 3.0 * dn.linear.sum(t, (-1,)), lambda x: 3.0 * x.sum()),
            V,
            total,
        ),
    }
    for name, (f, x, right) in rows.items():
        for how, program, answer in modes(f, x, right):
            if name.startswith("right"):
                answer = right[how]
            yield f"{name}, {how}", program, answer

    def linearizer(maps: Callable) -> Callable:
        f = dn.custom_jvp(lambda x: 3.0 * x)
        f.deflinearizer(lambda x: (3.0 * x, maps))
        return f

    for name, f in {
        "a linearizer's map returns a float": linearizer(lambda t: 3.0),
        "a linearizer's map returns a list": linearizer(lambda t: list(3.0 * t)),
        "a linearizer's map loses k": linearizer(lambda t: 3.0 * t[0]),
        "a linearizer's map is a number": linearizer(3.0),
        "a linearizer returns no maps": linearizer(()),
    }.items():
        lists = vector if "list" in name else None
        for how, program, answer in modes(f, V, lists):
            yield f"{name}, {how}", program, answer

    def bare(x: Any) -> Any:
        f = dn.custom_jvp(lambda x: 3.0 * x)
        f.deflinearizer(lambda x: 3.0 * x)
        return f(x)

    yield (
        "a linearizer returns the result alone",
        lambda: dn.jvp(bare, (V,), (V,)),
        Refused("linearizer|rule|maps"),
    )


@kind("results that are no arrays")
def _() -> Iterator:
    results = {
        "a string": lambda x: "loss",
        "None": lambda x: None,
        "a dict with a string": lambda x: {"loss": x.sum(), "name": "mse"},
        "a tuple with None": lambda x: (x.sum(), None),
        "a list with a string": lambda x: [x, "x"],
        "a function": lambda x: lambda: x,
        "an object": lambda x: object(),
        "a set": lambda x: {1.0, 2.0},
        "a generator": lambda x: (a for a in x),
        "an array of strings": lambda x: np.array(["a", "b"]),
        "an array of objects": lambda x: np.array([None, None], dtype=object),
        "bytes": lambda x: b"loss",
        "a range": lambda x: range(3),
        "a module": lambda x: np,
        "a type": lambda x: np.float64,
        "a deque of duals": lambda x: collections.deque([x]),
        "a set-like view": lambda x: {"a": x}.keys(),
        "an iterator": lambda x: iter([x]),
        "an array of dates": lambda x: np.array(["2020-01-01"], "datetime64[D]"),
    }
    transforms = {
        "jvp": lambda f: dn.jvp(f, (V,), (V,)),
        "vjp": lambda f: dn.vjp(f, V),
        "linearize": lambda f: dn.linearize(f, V),
        "jacfwd": lambda f: dn.jacfwd(f)(V),
        "jacrev": lambda f: dn.jacrev(f)(V),
        "grad": lambda f: dn.grad(f)(V),
    }
    refused = Refused("", (DualnetError,))
    for what, f in results.items():
        for name, transform in transforms.items():
            yield f"{name} of {what}", lambda f=f, t=transform: t(f), refused
    yield (
        "aux may be anything",
        lambda: dn.jvp(
            lambda x: (x.sum(), {"name": "mse", "none": None}), (V,), (V,), has_aux=True
        ),
        (np.array(3.0), np.array(3.0), {"name": "mse", "none": None}),
    )
    yield (
        "an int beside a float",
        lambda: dn.jvp(lambda x: (x.sum(), 3), (V,), (V,))[0],
        (np.array(3.0), 3),
    )
    yield (
        "a plain float",
        lambda: dn.jvp(lambda x: 3.0, (V,), (V,)),
        (3.0, np.array(0.0)),
    )


EDGES = [Edge(name, *row) for name, rows in KINDS.items() for row in rows()]
"""All rows, kind after kind."""
