"""Why a Dual was asked for a plain array or a plain number: what the error message is about.

NumPy, SciPy and `math` ask a Dual for its plain value without saying on whose behalf.  When the
error is made, which is the only time when this costs something, the calling frame tells: by its
module, by its instruction, and by the text of the call, where the source is there.
"""

from __future__ import annotations

import dis
import linecache
import math
import re
import sys
from types import FrameType
from typing import Any

import numpy as np

_LIBRARIES = {
    "numpy.ma": "A function of np.ma or a masked array met a Dual, and masks have no derivative "
    "rules. Write np.where(mask, 0, x.data), which leaves out the masked entries of a sum",
    "scipy.sparse": "A sparse matrix met a Dual, and sparse matrices have no derivative rules. "
    "Write A.toarray() @ x, or wrap the product by dn.custom_jvp",
    "pandas": "A pandas object met a Dual, and it holds plain numbers alone. Write df.to_numpy()",
}
"""package → what its frames mean."""
_MAKES_ARRAYS = re.compile(
    r"(np|numpy)\.(array|as\w*array\w*|float(16|32|64)|longdouble|matrix|full|fromiter|require)$"
)
_METHODS = {name for name in dir(np.ndarray) if not name.startswith("_")}
_METHODS -= {"item", "tobytes", "tolist"}  # a Dual has these itself
_ANOTHER_NAME = {"pow": "power", "fabs": "abs", "gamma": "", "lgamma": "", "erf": "", "erfc": ""}
"""function of math → NumPy's name of it, empty where there is none."""


def cause() -> str:
    """Say who asked for a plain value, and what to write instead; empty where nothing tells."""
    frame: FrameType | None = sys._getframe(1)
    inner = ("dualnet.core", "numpy.")
    while frame and frame.f_globals.get("__name__", "").startswith(inner):
        if frame.f_globals["__name__"].startswith("numpy.ma."):
            return _LIBRARIES["numpy.ma"]
        frame = frame.f_back
    if frame is None:
        return ""
    module = frame.f_globals.get("__name__", "")
    for package, text in _LIBRARIES.items():
        if f"{module}.".startswith(f"{package}."):
            return text
    if module.startswith("scipy."):
        return (
            f"The SciPy function {_public_name(frame)} has no derivative rule; dualnet.scipy has "
            "those that can be differentiated. Write it with NumPy functions, or wrap it by "
            "dn.custom_jvp"
        )
    if _instruction(frame) == "STORE_SUBSCR":
        return (
            "`a[i] = dual` writes into a plain array, which cannot hold a tangent. Write "
            "a = dn.numpy.put_at(a, i, dual), collect the parts for np.stack, or make the buffer "
            "of a Dual: a = 0 * x"
        )
    return _of_call(_called(frame))


def _of_call(function: str) -> str:
    """Say what a call means, by the text of the function that is called."""
    owner, _, name = function.rpartition(".")
    if _MAKES_ARRAYS.match(function):
        return (
            f"{function} makes a plain array. Write np.stack([x, y]) for several duals, x itself "
            "for one, or dn.numpy.array, which takes both"
        )
    if owner.partition(".")[0] in ("np", "numpy", "dnp"):
        return (
            f"{function} was given duals inside a list, or where it takes plain numbers alone. "
            "Write np.stack([x, y]) for a list of duals, or import dualnet.numpy as np"
        )
    if function in ("int", "float", "complex"):
        return (
            f"`{function}(dual)` makes a plain number. Write {function}(dn.stop_gradient(x)) where "
            "only the value decides, as in a number of steps, and x itself elsewhere"
        )
    if owner == "math" and hasattr(math, name):
        numpy_name = _ANOTHER_NAME.get(name, name)
        if hasattr(np, numpy_name):
            return f"{function} takes plain numbers alone. Write np.{numpy_name}"
        return f"{function} takes plain numbers alone. Write scipy.special.{name.replace('l', '')}"
    if name in _METHODS and owner not in ("np", "numpy", ""):
        instead = f"np.{name}({owner}, ...)" if hasattr(np, name) else "a function of NumPy"
        if name in ("fill", "put", "setfield"):
            instead = f"{owner} = dn.numpy.put_at({owner}, i, x)"
        instead = f"{owner} @ x" if name == "dot" else instead
        return f"`{function}` is a method of a plain array and does not know duals. Write {instead}"
    return ""


def _instruction(frame: FrameType) -> str:
    return dis.opname[frame.f_code.co_code[frame.f_lasti]]


def _called(frame: FrameType) -> str:
    """Read the text of the function that a frame is calling; empty where there is no source."""
    positions: Any = getattr(frame.f_code, "co_positions", None)  # Python 3.11 and later
    if positions is None:
        return ""
    places = list(positions())
    line, end_line, start, end = places[frame.f_lasti // 2]
    if line is None or line != end_line:
        return ""
    text = linecache.getline(frame.f_code.co_filename, line).encode()[start:end].decode()
    found = re.match(r"([\w.\[\]]+)\(", text)
    return found[1] if found else ""


def _public_name(frame: FrameType) -> str:
    """Name the outermost function of SciPy that the user called."""
    while frame.f_back and frame.f_back.f_globals.get("__name__", "").startswith("scipy."):
        frame = frame.f_back
    name = frame.f_code.co_name
    module = frame.f_globals["__name__"]
    written = _called(frame.f_back) if frame.f_back else ""
    if name.startswith("_") or name.endswith("wrapper"):  # a decorator's, or that of an object
        return f"`{written}`" if written else f"of {module.replace('._', '.')}"
    return ".".join([part for part in module.split(".") if not part.startswith("_")] + [name])
