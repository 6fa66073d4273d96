"""A stand-in for the package `autograd`, by which its own tests run on dualnet.

`installed()` puts it into `sys.modules`.  `autograd.numpy` is `dualnet.numpy`, the operators (grad,
jacobian, make_vjp, ...) are dualnet's under autograd's names, and `check_grads` is `dn.check_jvp`
(three directions at once, nested once) and `dn.check_vjp`.  SciPy's functions are SciPy's own.

Complex inputs are off: a check of one is left out and counted, and an operator raises `Complex`.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as onp

import dualnet as dn
import dualnet.numpy as np
from dualnet import tree
from dualnet.errors import TangentError

DIRECTIONS = 3
"""How many tangents forward mode carries at once."""


class Complex(TypeError):
    """A derivative by a complex number, or of one, was asked for; dualnet has none."""


checks = {"real": 0, "complex": 0}
"""How many checks were made and left out since the last test began."""


def is_complex(x: Any) -> bool:
    """Tell whether a tree has a complex leaf."""
    return any(
        onp.result_type(getattr(leaf, "dtype", builtins.type(leaf))).kind == "c"
        for leaf in tree.leaves(x)
        if hasattr(leaf, "dtype") or builtins.isinstance(leaf, (int, float, complex))
    )


def as_floats(x: Any) -> Any:
    """Make integers floats, as autograd does."""

    def one(leaf: Any) -> Any:
        return leaf * 1.0 if onp.result_type(getattr(leaf, "dtype", leaf)).kind == "i" else leaf

    return tree.map(one, x)


# --- the operators -------------------------------------------------------------------------------


def of_one_argument(operator: Callable) -> Callable:
    """Make `operator(f, x)` what autograd's operators are: `operator(f, argnum)(*args)`."""

    def with_argnum(fun: Callable, argnum: Any = 0, *more: Any, **options: Any) -> Callable:
        several = not builtins.isinstance(argnum, int)

        def of_arguments(*args: Any, **kwargs: Any) -> Any:
            def f(x: Any) -> Any:
                replaced = builtins.list(args)
                for number, value in zip(argnum, x, strict=True) if several else [(argnum, x)]:
                    replaced[number] = value
                return fun(*replaced, **kwargs)

            f.__name__ = getattr(fun, "__name__", "f")
            x = builtins.tuple(args[i] for i in argnum) if several else args[argnum]
            if is_complex(x):
                raise Complex(f"{operator.__name__} by a complex number")
            return operator(f, as_floats(x), *more, **options)

        return of_arguments

    return with_argnum


def _pulled(f: Callable, x: Any) -> tuple[Callable, Any]:
    """Return `(cotangent -> cotangent of x, f(x))`; f may return Python numbers."""

    def of_arrays(x: Any) -> Any:
        out = tree.map(np.asarray, f(x))
        if is_complex(out):
            raise Complex("a complex result")
        return out

    try:
        out, pull = dn.vjp(of_arrays, x)
    except TangentError as error:
        if "complex" in str(error):
            raise Complex(str(error)) from error
        raise

    def of_cotangent(ct: Any) -> Any:
        if any(y.dtype.kind != "f" for y in tree.leaves(out)):
            return tree.map(np.zeros_like, x)  # as autograd has it, with a warning
        return pull(tree.map(lambda y, c: np.broadcast_to(np.asarray(c), y.shape), out, ct))[0]

    return of_cotangent, out


def _ones(out: Any) -> Any:
    return tree.map(lambda y: onp.ones(np.shape(y), np.result_type(y)), out)


def _scalar(name: str, out: Any) -> None:
    if not hasattr(out, "size") or out.size != 1 or np.result_type(out).kind != "f":
        raise TypeError(f"{name} only applies to real scalar-output functions")


@of_one_argument
def make_vjp(f: Callable, x: Any) -> tuple[Callable, Any]:
    return _pulled(f, x)


@of_one_argument
def make_jvp(f: Callable, x: Any) -> Callable:
    return lambda v: dn.jvp(f, (x,), (v,))


@of_one_argument
def value_and_grad(f: Callable, x: Any) -> tuple[Any, Any]:
    pull, out = _pulled(f, x)
    _scalar("value_and_grad", out)
    return out, pull(_ones(out))


@of_one_argument
def grad(f: Callable, x: Any) -> Any:
    pull, out = _pulled(f, x)
    _scalar("grad", out)
    return pull(_ones(out))


@of_one_argument
def elementwise_grad(f: Callable, x: Any) -> Any:
    pull, out = _pulled(f, x)
    return pull(_ones(out))


@of_one_argument
def deriv(f: Callable, x: Any) -> Any:
    return dn.jvp(f, (x,), (_ones(x),))[1]


@of_one_argument
def jacobian(f: Callable, x: Any) -> Any:
    return dn.jacrev(lambda x: np.asarray(f(x)))(x)


@of_one_argument
def hessian(f: Callable, x: Any) -> Any:
    return dn.jacfwd(dn.jacrev(lambda x: np.asarray(f(x))))(x)


@of_one_argument
def make_hvp(f: Callable, x: Any) -> tuple[Callable, Any]:
    return (lambda v: dn.hvp(f, (x,), (v,))[0]), dn.grad(f)(x)


@of_one_argument
def grad_and_aux(f: Callable, x: Any) -> tuple[Any, Any]:
    return dn.grad(f, has_aux=True)(x)


@of_one_argument
def holomorphic_grad(f: Callable, x: Any) -> Any:
    raise Complex("holomorphic_grad")


def hessian_tensor_product(fun: Callable, argnum: int = 0) -> Callable:
    def product(*args: Any) -> Any:
        *args, v = args

        def gradient(x: Any) -> Any:
            return grad(fun, argnum)(*args[:argnum], x, *args[argnum + 1 :])

        return dn.jvp(gradient, (args[argnum],), (v,))[1]

    return product


def tensor_jacobian_product(fun: Callable, argnum: int = 0) -> Callable:
    def product(*args: Any) -> Any:
        *args, v = args
        return jacobian(lambda *a: np.tensordot(v, fun(*a), np.ndim(v)), argnum)(*args)

    return product


def make_ggnvp(f: Callable, g: Callable = lambda x: np.sum(x**2, axis=-1) / 2) -> Callable:
    def at(x: Any) -> Callable:
        y, push = dn.linearize(f, x)
        _, pull = dn.vjp(f, x)
        return lambda v: pull(dn.hvp(g, (y,), (push(v),))[0])[0]

    return at


# --- the checks ----------------------------------------------------------------------------------


def check_grads(fun: Callable, argnum: Any = None, modes: Any = None, order: int = 2) -> Callable:
    """Check forward mode, nested once if `order` is above 1, and reverse mode, whatever `modes`."""

    def check(*args: Any, **kwargs: Any) -> None:
        if argnum is None:
            numbers = builtins.tuple(range(len(args)))
        else:
            numbers = (argnum,) if builtins.isinstance(argnum, int) else argnum
        chosen = builtins.tuple(args[i] for i in numbers)

        def f(*values: Any) -> Any:
            replaced = builtins.list(args)
            for number, value in zip(numbers, values, strict=True):
                replaced[number] = value
            return fun(*replaced, **kwargs)

        if is_complex(chosen) or is_complex(f(*chosen)):
            checks["complex"] += 1
            return
        chosen = as_floats(chosen)
        dn.check_jvp(f, chosen, order=min(order, 2), k=DIRECTIONS)
        dn.check_vjp(f, chosen, order=min(order, 2), k=DIRECTIONS)
        checks["real"] += 1

    return check


def combo_check(fun: Callable, *which: Any, **options: Any) -> Callable:
    """Check all combinations of arguments and keywords."""

    def check(*args: Any, **kwargs: Any) -> None:
        for values in itertools.product(*args):
            for named in itertools.product(*kwargs.values()):
                keywords = builtins.dict(zip(kwargs, named, strict=True))
                check_grads(fun, *which, **options)(*values, **keywords)

    return check


def scalar_close(a: Any, b: Any) -> bool:
    return bool(onp.isclose(a, b, rtol=1e-6, atol=1e-6))


def check_equivalent(x: Any, y: Any) -> None:
    """Require two trees to be alike, and their leaves close."""
    for a, b in zip(tree.leaves(x), tree.leaves(y), strict=True):
        onp.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
        assert onp.shape(a) == onp.shape(b)


# --- the rest of the names -----------------------------------------------------------------------


class More(types.ModuleType):
    """A module of `dualnet.numpy` with a few functions that only autograd's has."""

    def __init__(self, name: str, module: types.ModuleType, **functions: Callable):
        super().__init__(name)
        vars(self).update(functions, __getattr__=functools.partial(getattr, module))


def make_diagonal(D: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """Put the last axis of D on the diagonal of the two last axes."""
    if (offset, axis1, axis2) != (0, -1, -2):
        raise NotImplementedError("make_diagonal of other axes than the last two")
    return D[..., None] * np.eye(D.shape[-1])


def _modules() -> dict[str, types.ModuleType]:
    """Build the modules by their names."""
    names = {
        "autograd": {
            **{name: globals()[name] for name in OPERATORS},
            **{name: getattr(builtins, name) for name in ("dict", "isinstance", "list", "tuple")},
            "checkpoint": lambda f: f,
        },
        "autograd.test_util": {
            "check_equivalent": check_equivalent,
            "check_grads": check_grads,
            "combo_check": combo_check,
            "scalar_close": scalar_close,
        },
        "autograd.core": {"make_vjp": _pulled, "primitive": dn.custom_jvp, "primitive_vjps": {}},
        "autograd.extend": {"primitive": dn.custom_jvp},
        "autograd.tracer": {
            "isbox": lambda x: builtins.isinstance(x, dn.Dual),
            "primitive": dn.custom_jvp,
        },
        "autograd.wrap_util": {"unary_to_nary": of_one_argument},
        "autograd.util": {"quick_grad_check": lambda f, x, more=(): check_grads(f)(x, *more)},
    }
    modules = {}
    for name, members in names.items():
        modules[name] = types.ModuleType(name)
        vars(modules[name]).update(members)
    linalg = More("autograd.numpy.linalg", np.linalg, T=np.matrix_transpose, _dot=np.matmul)
    modules["autograd.numpy"] = More(
        "autograd.numpy", np, make_diagonal=make_diagonal, linalg=linalg
    )
    modules["autograd.numpy.linalg"] = linalg
    for part in ("fft", "random"):
        modules[f"autograd.numpy.{part}"] = getattr(np, part)
    with contextlib.suppress(ImportError):
        modules["autograd.scipy"] = importlib.import_module("scipy")
        for part in ("integrate", "linalg", "signal", "special", "stats"):
            modules[f"autograd.scipy.{part}"] = importlib.import_module(f"scipy.{part}")
        normal = importlib.import_module("scipy.stats").multivariate_normal
        modules["autograd.scipy.stats.multivariate_normal"] = normal
    for name, module in modules.items():
        parent, _, last = name.rpartition(".")
        if parent and not hasattr(modules[parent], last):
            setattr(modules[parent], last, module)
    return modules


OPERATORS = (
    *("deriv", "elementwise_grad", "grad", "grad_and_aux", "hessian", "hessian_tensor_product"),
    *("holomorphic_grad", "jacobian", "make_ggnvp", "make_hvp", "make_jvp", "make_vjp"),
    *("tensor_jacobian_product", "value_and_grad"),
)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Put the stand-in in the place of `autograd`, and take it away again."""
    modules = _modules()
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
