"""What the core refuses, and how it says so.

Every message says which function is meant, what came, what was expected, and what to write.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from dualnet.core.causes import cause
from dualnet.core.instead import INSTEAD
from dualnet.errors import (
    DualConversionError,
    DualnetError,
    EscapedDualError,
    MissingRuleError,
    TangentError,
)
from dualnet.types import Shape

PLAIN = (np.ndarray, np.memmap)
"""NumPy's arrays whose operators mean what they mean here; its other subclasses are refused."""


def name_of(fn: Callable) -> str:
    """Name a function as a user would write it: `np.linalg.inv`."""
    if fn is operator.pow:
        return "np.power"
    owner: Any = getattr(fn, "__self__", None)
    if hasattr(owner, "nin"):  # a method of a ufunc, such as np.add.reduce
        return f"{name_of(owner)}.{fn.__name__}"
    if hasattr(fn, "nin"):
        return _name_of_ufunc(fn)
    module = getattr(fn, "__module__", None) or "numpy"
    name = str(getattr(fn, "__qualname__", None) or getattr(fn, "__name__", repr(fn)))
    return f"{module}.{name}".replace("numpy.", "np.", 1) if module.startswith("numpy") else name


def _name_of_ufunc(ufunc: Any) -> str:
    """Name a ufunc, which does not know its module, by the shortest module that has it."""
    name = ufunc.__name__
    if getattr(np, name, None) is ufunc:
        return f"np.{name}"
    homes = [
        module
        for module, contents in list(sys.modules.items())
        if not module.startswith("_")
        and "._" not in module
        and getattr(contents, "__dict__", {}).get(name) is ufunc
    ]
    return f"{min(homes, key=len)}.{name}" if homes else name


# Each error below is a function of what fills the blanks of its text, where functions are named.


def _refusal(error: type[DualnetError], text: str) -> Callable[..., DualnetError]:
    def refuse(*blanks: Any) -> DualnetError:
        return error(text.format(*(name_of(b) if callable(b) else b for b in blanks)))

    return refuse


# --- functions and arguments without a rule ------------------------------------------------------

_no_rule = _refusal(
    MissingRuleError,
    "{} has no derivative rule. Write it with functions that have one "
    "(python -m dualnet.check.listing lists them), call it on dn.stop_gradient(x) if its "
    "derivative is zero, or wrap it: `f = dn.custom_jvp(f)` and `f.defjvps(lambda t, out, x: ...)` "
    "gives the tangent of the result from the tangent t of x, written with operators or "
    "dn.linear; try it with dn.check_jvp and dn.check_vjp",
)
_not_yet_a_rule = _refusal(
    MissingRuleError,
    "{0} has no derivative rule yet: call {0}.defjvps(lambda t, out, x: ...), with one linear map "
    "for each argument, or decorate its linearizer by @{0}.deflinearizer, before it is used",
)
no_conversion = _refusal(
    MissingRuleError,
    "{}: cannot convert what is differentiated to {}: complex numbers and objects carry no "
    "tangent. Write the real and the imaginary part as two real arrays, or convert "
    "dn.stop_gradient(x)",
)
no_derivative_by = _refusal(
    MissingRuleError,
    "{} cannot be differentiated by argument {}; pass dn.stop_gradient(x) there",
)
_no_ufunc_method = _refusal(
    MissingRuleError,
    "{} has no derivative rule; write it as a loop over the entries, or with np.sum, np.prod, "
    "np.max, np.cumsum, dn.numpy.add_at",
)
out_of_place = _refusal(
    MissingRuleError,
    "{}: pass arrays that carry tangents by position, not by keyword or in "
    "nested lists (np.stack builds an array from duals)",
)


_out_by_position = _refusal(
    MissingRuleError,
    "{}: where the result is to be written into an array that carries a tangent, give this array "
    "by keyword: out=y",
)


def second_rule(fn: Callable) -> ValueError:
    """Refuse a function's second rule, which would take the first one's place without a word."""
    return ValueError(f"{name_of(fn)} has a derivative rule already; two would hide a mistake")


def missing_rule(fn: Callable) -> DualnetError:
    """Name the function that has no rule, and show what to write instead, or how to add one."""
    if name_of(fn) in INSTEAD:
        return MissingRuleError(f"{name_of(fn)} {INSTEAD[name_of(fn)]}")
    if hasattr(getattr(fn, "__self__", None), "nin"):
        return _no_ufunc_method(fn)
    return (_no_rule if _is_foreign(fn) else _not_yet_a_rule)(fn)


def _is_foreign(fn: Callable) -> bool:
    """Tell whether a function is NumPy's or SciPy's, and no one's who could give it a rule."""
    return hasattr(fn, "nin") or name_of(fn).startswith("np.")


def missing_argument(
    fn: Callable, positional: float, keywords: frozenset[str] | None, args: tuple, kwargs: dict
) -> DualnetError:
    """Name the argument that the rule of a function does not know.

    Without this, `np.sum(x, where=mask)` would end in a TypeError about a function that its reader
    has never seen.
    """
    if any(hasattr(x, "tangent") for x in kwargs.values()):
        return out_of_place(fn)
    if len(args) > positional and hasattr(args[-1], "tangent"):
        return _out_by_position(fn)
    unknown = [f"{name}=" for name in kwargs if keywords is not None and name not in keywords]
    if len(args) > positional:
        unknown.append(f"number {positional + 1} by position")
    return MissingRuleError(
        f"{name_of(fn)}: the argument {unknown[0]} has no derivative rule; leave it out, "
        "or use another function for it (np.where for where=, x.astype for dtype=)"
    )


# --- duals where they cannot be ------------------------------------------------------------------

escaped = _refusal(
    EscapedDualError,
    "{} met a Dual whose transform has already returned. A value was kept "
    "from inside the differentiated function (in a list, an attribute, a closure); return "
    "it instead, with has_aux=True where it is not to be differentiated",
)
in_place = _refusal(
    DualConversionError,
    "{} writes in place what carries a tangent, and in a plain array the tangent would be lost. "
    "Use the result instead: W = W + x, np.where(mask, x, W), np.stack of the parts, or "
    "W = dn.numpy.put_at(W, i, x)",
)
array_subclass = _refusal(
    MissingRuleError,
    "an array of the subclass {} met derivatives. Its operators mean something else than those of "
    "arrays (a matrix product, entries left out); convert it by np.asarray(x), and a masked array "
    "by np.where(mask, 0, x.data)",
)
outdated = _refusal(
    DualConversionError,
    "an array was written to in place, and a view of it (or the array of which the view is) was "
    "used afterwards, where NumPy would show the new values. Write x = x + v instead of x += v, "
    "take views after the write, or write by index (W[i] = row) and not through a view that was "
    "reshaped or transposed",
)
no_write = _refusal(
    DualConversionError,
    "{} in place: cannot write {} into an array of shape {} that carries a tangent; use the "
    "function or operator that makes a new array",
)


def stretched(fn: Callable) -> ValueError:
    """Refuse to write into one entry that stands for several, by the type of NumPy's error."""
    return ValueError(
        f"{name_of(fn)} in place: assignment destination is read-only, as all that is stretched by "
        "np.broadcast_to, np.broadcast_arrays or np.meshgrid; write into a copy, x.copy()"
    )


no_pickle = _refusal(
    DualConversionError,
    "a Dual cannot be pickled or sent to another process: its transform lives in this one. "
    "Differentiate inside the other process, or send dn.stop_gradient(x)",
)


def no_plain_array(shape: Shape) -> DualnetError:
    """Name what asked for a plain array."""
    asked = cause() or (
        "Writing `a[i] = dual` into an array? Collect the parts and use np.stack or np.where"
    )
    return DualConversionError(
        f"a Dual of shape {shape} cannot become a plain array: its tangent would be lost. {asked}. "
        "Want the value alone? Use dn.stop_gradient(x)"
    )


def no_python_number() -> DualnetError:
    """Name what asked for a Python number."""
    asked = cause() or "Use NumPy functions (np.exp instead of math.exp)"
    return DualConversionError(
        f"a Dual cannot become a Python number: its tangent would be lost. {asked}, or "
        "dn.stop_gradient(x) for the value alone"
    )


def require_no_subclass(x: Any) -> None:
    """Refuse an array whose operators mean something else than those of arrays."""
    if isinstance(x, np.ndarray) and type(x) not in PLAIN:
        raise array_subclass(type(x).__name__)


def require_no_out(fn: Any, out: Any) -> None:
    """Refuse an array that a rule's function was told to write its result into."""
    if hasattr(out, "tangent"):
        raise _out_by_position(fn)
    if out is not None:
        raise in_place(f"{name_of(fn)} with out=")


def uncover(error: BaseException) -> None:
    """Raise what a Dual has said, where NumPy has put an error of its own above it.

    `a[0] = dual` asks the Dual for a float, and NumPy turns every error that is the answer into
    "setting an array element with a sequence".
    """
    said = error.__cause__
    if isinstance(said, DualConversionError) and not isinstance(error, DualnetError):
        raise said.with_traceback(error.__traceback__) from None


no_method = _refusal(
    DualConversionError,
    "a Dual has no {}: it gives access to the memory of a plain array, where the tangent would be "
    "lost. {}",
)


# --- rules that return what cannot be ------------------------------------------------------------

_no_array = _refusal(
    TangentError,
    "{} has a derivative rule and returned {}, expected one array of floats; return "
    "np.asarray(...) of a number, give each of several results a function of its own, and no "
    "rule to what has integers or booleans as its result",
)
_no_floats = _refusal(
    TangentError,
    "the result of {} is {}, and only floats carry tangents. Call it on dn.stop_gradient(x) where "
    "integers are meant, and write the number of days or seconds in place of a date or a time",
)
_complex_result = _refusal(
    TangentError,
    "the result of {} is {}, and complex numbers carry no tangents. Write the real and the "
    "imaginary part as two real arrays: np.cos(x) and np.sin(x) for np.exp(1j * x), np.hypot for "
    "np.abs, np.arctan2 for np.angle",
)

_result_of_objects = _refusal(
    TangentError,
    "the result of {} is an array of objects, so one of its arguments is no array of numbers: a "
    "sparse matrix (write A.toarray()), a list of arrays of several shapes (write "
    "np.concatenate), a Fraction or a Decimal (write float(c)), or None",
)


def no_array(fn: Callable, out: Any) -> DualnetError:
    """Refuse the result of a rule that is no array of floats."""
    got = getattr(out, "dtype", type(out).__name__)
    kind = getattr(got, "kind", "")
    if kind == "c":
        return _complex_result(fn, got)
    if kind == "O" or (got == "float" and _is_foreign(fn)):  # of numbers, NumPy makes a number
        return _result_of_objects(fn)
    return (_no_floats if kind and _is_foreign(fn) else _no_array)(fn, got)


wrong_transpose = _refusal(
    TangentError,
    "the transpose of {} returned a cotangent of shape {} (without k), expected {}, the shape of "
    "what the map was applied to; use dn.linear.unbroadcast where the map broadcasts",
)
unequal_sum = _refusal(
    TangentError,
    "a derivative rule adds tangents of shapes {} and {} (without k); stretch both "
    "by dn.linear.broadcast_to to one shape",
)
tangent_in_function = _refusal(
    TangentError,
    "{} met a structured or recorded tangent inside a derivative rule; write the "
    "rule with operators, or with the functions of dn.linear, which every kind of tangent knows",
)
no_entries = _refusal(
    TangentError,
    "a {} tangent has no entries of its own and met a function that needs them. Derivative rules "
    "must be linear: multiply t by arrays, never a tangent by a tangent",
)
_not_for_this_tangent = _refusal(
    TangentError,
    "the derivative rule of {} by argument {} cannot take a {} tangent ({}); write it with "
    "operators, or with the functions of dn.linear, which every kind of tangent knows",
)
_wrong_image = _refusal(
    TangentError, "the derivative rule of {} by argument {} returned {}, expected {}"
)


def require_arrays(fn: Callable, position: int, t: Any, error: Exception) -> None:
    """Say that a rule did what only arrays know, if a tangent that it took is none."""
    for item in t if isinstance(t, list) else (t,):
        if hasattr(item, "apply_map"):
            kind = type(item).__name__
            raise _not_for_this_tangent(fn, position, kind, error) from error


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
    structured = hasattr(image, "apply_map")  # its shape is without k
    if isinstance(t, list):
        t = next(item for item in t if item is not None)
    k = t.k if hasattr(t, "apply_map") else t.shape[0]
    if dtype is not None and dtype.kind != "f":
        wanted = (
            "a real floating dtype; multiply t by a mask instead of returning it, and convert "
            "numbers by astype"
        )
        raise _wrong_image(fn, position, f"a tangent of dtype {dtype}", wanted)
    if type(image) is not np.ndarray and isinstance(image, np.ndarray):
        wanted = "a plain array; convert it by np.asarray"
        raise _wrong_image(fn, position, f"an array of the subclass {type(image).__name__}", wanted)
    if shape is None or dtype is None or (k is None and not structured):
        wanted = "a tangent: what operators, NumPy functions or dn.linear make of t"
        raise _wrong_image(fn, position, type(image).__name__, wanted)
    full = expected if structured else (k, *expected)
    if shape == full:
        return
    if not structured and shape == expected:
        fix = "the rule loses the leading axis of the k directions; count axes from the end"
    elif not structured and shape[:1] != (k,):
        fix = f"the leading axis is that of the k = {k} directions; count axes from the end"
    else:
        fix = (
            "use dn.linear.broadcast_to(t, out.shape) where the argument is stretched to the "
            "result, and dn.linear.sum where it is summed"
        )
    wanted = f"{full} for a result of shape {expected}: {fix}"
    raise _wrong_image(fn, position, f"a tangent of shape {shape}", wanted)


def require_factors(left: Any, right: Any) -> None:
    """Refuse what cannot be the factors of a `RankOne`."""
    for factor in (left, right):
        if not hasattr(factor, "dtype"):
            raise TangentError(
                f"RankOne: expected arrays as factors, got {type(factor).__name__}; convert it "
                "by np.asarray"
            )
        require_no_subclass(factor)
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
