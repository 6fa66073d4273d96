"""dualnet: forward-mode automatic differentiation with k tangents at once, and training by it.

The modules in `_LATER` are imported when they are first asked for, as `dn.nn`, so that derivatives
alone start fast.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualnet import checking, errors, images, linear, numpy, special, tree
from dualnet.checking import check_jvp, check_vjp
from dualnet.core.custom import custom_jvp
from dualnet.core.derivatives import (
    grad,
    hvp,
    jacfwd,
    jacrev,
    linear_transpose,
    value_and_grad,
)
from dualnet.core.dual import Dual
from dualnet.core.spaces import RankOne
from dualnet.core.transforms import jvp, linearize, stop_gradient, vjp
from dualnet.random import Key
from dualnet.recording import recorded

if TYPE_CHECKING:  # what `__getattr__` finds, for editors and type checkers
    from dualnet import analysis, backends, data, learning, nn, optim, schedules
    from dualnet.training.fit import fit
    from dualnet.training.trained import load_run

    __version__: str

_LATER = ("analysis", "backends", "data", "learning", "nn", "optim", "schedules", "scipy")
"""Without `scipy` in `__all__`, because SciPy may be missing."""
_FUNCTIONS_LATER = {"fit": "dualnet.training.fit", "load_run": "dualnet.training.trained"}


def __getattr__(name: str) -> Any:
    """Import a module when it is first asked for, and find the version."""
    if name in _LATER:
        return import_module(f"dualnet.{name}")
    if name in _FUNCTIONS_LATER:
        return getattr(import_module(_FUNCTIONS_LATER[name]), name)
    if name == "__version__":
        return import_module("dualnet.version").version()
    raise AttributeError(f"module 'dualnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return what there is to use, whether or not it has been imported yet."""
    return sorted({*__all__, *_LATER, *(name for name in globals() if name.startswith("__"))})


__all__ = [
    "Dual",
    "Key",
    "RankOne",
    "__version__",
    "analysis",
    "backends",
    "check_jvp",
    "check_vjp",
    "checking",
    "custom_jvp",
    "data",
    "errors",
    "fit",
    "grad",
    "hvp",
    "images",
    "jacfwd",
    "jacrev",
    "jvp",
    "learning",
    "linear",
    "linear_transpose",
    "linearize",
    "load_run",
    "nn",
    "numpy",
    "optim",
    "recorded",
    "schedules",
    "special",
    "stop_gradient",
    "tree",
    "value_and_grad",
    "vjp",
]

if not (Path(__file__).parent / "models").exists():
    # An installed package has `dualnet.models` inside; a checkout has `models/` beside the package.
    __path__.append(str(Path(__file__).parent.parent))
