"""What the core refuses, and how it says so.

Every message says which function is meant, what came, what was expected, and what to write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualnet.core.instead import INSTEAD
from dualnet.errors import (
    DualConversionError,
    EscapedDualError,
    MissingRuleError,
    TangentError,
)
from dualnet.types import Shape


def name_of(fn: Callable) -> str:
    """Name a function as a user would write it: `np.linalg.inv`."""
    module = getattr(fn, "__module__", None) or "numpy"
    name = str(getattr(fn, "__qualname__", None) or getattr(fn, "__name__", repr(fn)))
    return f"{module}.{name}".replace("numpy.", "np.", 1) if module.startswith("numpy") else name


# --- functions and arguments without a rule ------------------------------------------------------


def missing_rule(fn: Callable) -> MissingRuleError:
    """Name the function that has no rule, and show what to write instead, or how to add one."""
    if name_of(fn) in INSTEAD:
        return MissingRuleError(f"{name_of(fn)} {INSTEAD[name_of(fn)]}")
    return MissingRuleError(
        f"{name_of(fn)} has no derivative rule. Write it with functions that have one "
        "(listed in docs/functions.md), call it on dn.stop_gradient(x) if its derivative is "
        "zero, or wrap it: `f = dn.custom_jvp(f)` and `f.defjvps(lambda t, out, x: ...)` "
        "gives the tangent of the result from the tangent t of x, written with operators or "
        "dn.linear; try it with dn.check_jvp and dn.check_vjp"
    )


def missing_argument(
    fn: Callable, positional: float, keywords: frozenset[str] | None, args: tuple, kwargs: dict
) -> MissingRuleError:
    """Name the argument that the rule of a function does not know.

    Without this, `np.sum(x, where=mask)` would end in a TypeError about a function that its reader
    has never seen.
    """
    unknown = [f"{name}=" for name in kwargs if keywords is not None and name not in keywords]
    if len(args) > positional:
        unknown.append(f"number {positional + 1} by position")
    return MissingRuleError(
        f"{name_of(fn)}: the argument {unknown[0]} has no derivative rule; leave it out, "
        "or use another function for it (np.where for where=, x.astype for dtype=)"
    )


def no_derivative_by(fn: Callable, position: int) -> MissingRuleError:
    """Name the argument by which a function cannot be differentiated."""
    return MissingRuleError(
        f"{name_of(fn)} cannot be differentiated by argument {position}; "
        "pass dn.stop_gradient(x) there"
    )


def ufunc_method(ufunc: Any, method: str) -> MissingRuleError:
    """Refuse `np.add.reduce` and its like."""
    return MissingRuleError(
        f"np.{ufunc.__name__}.{method} has no derivative rule; write np.sum, np.prod, "
        "np.max, np.cumsum, ... instead"
    )


def out_of_place(fn: Callable) -> MissingRuleError:
    """Refuse duals by keyword and in nested lists."""
    return MissingRuleError(
        f"{name_of(fn)}: pass arrays that carry tangents by position, not by keyword or in "
        "nested lists (np.stack builds an array from duals)"
    )


# --- duals where they cannot be ------------------------------------------------------------------


def escaped(fn: Callable) -> EscapedDualError:
    """Refuse a dual whose transform has returned."""
    return EscapedDualError(
        f"{name_of(fn)} met a Dual whose transform has already returned. A value was kept "
        "from inside the differentiated function (in a list, an attribute, a closure); return "
        "it instead, with has_aux=True where it is not to be differentiated"
    )


def in_place(what: str) -> DualConversionError:
    """Refuse to write into a dual."""
    return DualConversionError(
        f"{what} writes in place, and duals are immutable. Use the result of the function: "
        "y = np.add(x, 1), x = x + v, np.where(mask, v, x), np.concatenate or np.stack"
    )


def require_no_out(fn: Any, kwargs: dict) -> None:
    """Refuse `out=`, and take `out=None` from the arguments, which means nothing."""
    if kwargs.pop("out", None) is not None:
        operator = " (or an operator such as +=)" if hasattr(fn, "nin") else ""
        raise in_place(f"{name_of(fn)} with out={operator}")


def no_plain_array(shape: Shape) -> DualConversionError:
    """Refuse to turn a dual into a plain array."""
    return DualConversionError(
        f"a Dual of shape {shape} cannot become a plain array: its tangent would be lost. "
        "Writing `a[i] = dual` into an array? Collect the parts and use np.stack or "
        "np.where. Want the value alone? Use dn.stop_gradient(x)"
    )


def no_python_number() -> DualConversionError:
    """Refuse to turn a dual into a Python number."""
    return DualConversionError(
        "a Dual cannot become a Python number: its tangent would be lost. Use NumPy functions "
        "(np.exp instead of math.exp), or dn.stop_gradient(x) for the value alone"
    )


# --- rules that return what cannot be ------------------------------------------------------------


def require_fit(fn: Callable, position: int, t: Any, image: Any, expected: Shape) -> None:
    """Refuse what a rule's map returned unless it is a tangent of the function's result.

    Args:
        fn, position: which rule.
        t: the tangent that went into the map, or a list of tangents.
        image: what the map returned.
        expected: the shape of the function's result.
    """
    shape: Any = getattr(image, "shape", None)
    dtype: Any = getattr(image, "dtype", None)
    if dtype is not None and dtype.kind != "f":
        raise no_float(fn, position, dtype)
    if hasattr(image, "apply_map"):  # a structured tangent, whose shape is without k
        if shape != expected:
            raise misfit(fn, position, shape, None, expected)
        return
    if isinstance(t, list):
        t = next(item for item in t if item is not None)
    k = t.k if hasattr(t, "apply_map") else t.shape[0]
    if shape is None or k is None:
        raise no_tangent(fn, position, image)
    if shape != (k, *expected):
        raise misfit(fn, position, shape, k, expected)


def no_array(fn: Callable, got: Any) -> TangentError:
    """Say that a function with a derivative rule returned something that is no array."""
    return TangentError(
        f"{name_of(fn)} has a derivative rule and returned "
        f"{getattr(got, 'dtype', type(got).__name__)}, expected one array of floats; return "
        "np.asarray(...) of a number, give each of several results a function of its own, and no "
        "rule to what has integers or booleans as its result"
    )


def no_tangent(fn: Callable, position: int, got: Any) -> TangentError:
    """Say that the rule of a function returned something that is no tangent."""
    return TangentError(
        f"the derivative rule of {name_of(fn)} by argument {position} returned "
        f"{type(got).__name__}, expected a tangent: what operators, NumPy functions or dn.linear "
        "make of t"
    )


def no_float(fn: Callable, position: int, dtype: Any) -> TangentError:
    """Say that the rule of a function returned a tangent of a dtype that carries no tangent."""
    return TangentError(
        f"the derivative rule of {name_of(fn)} by argument {position} returned a tangent of dtype "
        f"{dtype}, expected a real floating dtype; multiply t by a mask instead of returning it, "
        "and convert numbers by astype"
    )


def misfit(fn: Callable, position: int, got: Shape, k: int | None, expected: Shape) -> TangentError:
    """Say that the rule of a function returned a tangent of another shape than its result.

    Args:
        fn, position: which rule.
        got: the shape that came, with k in front where k is known.
        k: the number of directions that went in; None where the tangent does not say.
        expected: the shape of the function's result.
    """
    full = expected if k is None else (k, *expected)
    if k is not None and got == expected:
        fix = "the rule loses the leading axis of the k directions; count axes from the end"
    elif k is not None and got[:1] != (k,):
        fix = f"the leading axis is that of the k = {k} directions; count axes from the end"
    else:
        fix = (
            "use dn.linear.broadcast_to(t, out.shape) where the argument is stretched to the "
            "result, and dn.linear.sum where it is summed"
        )
    return TangentError(
        f"the derivative rule of {name_of(fn)} by argument {position} returned a tangent of shape "
        f"{got}, expected {full} for a result of shape {expected}: {fix}"
    )


def wrong_transpose(linear_map: Any, got: Shape, expected: Shape) -> TangentError:
    """Say that the transpose of a linear map returned a cotangent of another shape."""
    return TangentError(
        f"the transpose of {linear_map} returned a cotangent of shape {got} (without k), expected "
        f"{expected}, the shape of what the map was applied to; use dn.linear.unbroadcast where "
        "the map broadcasts"
    )


def unequal_sum(left: Shape, right: Shape) -> TangentError:
    """Refuse to add tangents of two shapes, which a rule must stretch first."""
    return TangentError(
        f"a derivative rule adds tangents of shapes {left} and {right} (without k); stretch both "
        "by dn.linear.broadcast_to to one shape"
    )


def require_factors(left: Any, right: Any) -> None:
    """Refuse what cannot be the factors of a `RankOne`."""
    for factor in (left, right):
        if not hasattr(factor, "dtype"):
            raise TangentError(
                f"RankOne: expected arrays as factors, got {type(factor).__name__}; convert it "
                "by np.asarray"
            )
    if left.ndim < 2 or left.shape[:-1] != right.shape[:-1]:
        raise TangentError(
            "RankOne: expected factors (k, *b, p) and (k, *b, q), got "
            f"{left.shape} and {right.shape}"
        )
    if left.dtype != right.dtype:
        raise TangentError(
            f"RankOne: expected factors of one dtype, got {left.dtype} and {right.dtype}; "
            "convert one by astype"
        )


def not_for_this_tangent(fn: Callable, position: int, t: Any, error: Exception) -> TangentError:
    """Say that a rule did something to a structured or recorded tangent that only arrays know."""
    return TangentError(
        f"the derivative rule of {name_of(fn)} by argument {position} cannot take a "
        f"{type(t).__name__} tangent ({error}); write it with operators, or with the functions of "
        "dn.linear, which every kind of tangent knows"
    )


def tangent_in_function(fn: Callable) -> TangentError:
    """Refuse a NumPy function of a structured tangent, which is meant for `dn.linear`."""
    return TangentError(
        f"{name_of(fn)} met a structured or recorded tangent inside a derivative rule; write the "
        "rule with operators, or with the functions of dn.linear, which every kind of tangent knows"
    )
