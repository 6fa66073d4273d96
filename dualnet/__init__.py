"""dualnet: forward-mode automatic differentiation with k tangents at once, and training by it.

Everything is imported when it is first asked for, as `dn.nn`, so that derivatives alone start fast,
and commands are within `console.exit_code` before anything that takes long.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` finds, for editors and type checkers
    from dualnet import (
        analysis,
        backends,
        checking,
        data,
        errors,
        images,
        learning,
        linear,
        nn,
        numpy,
        optim,
        schedules,
        special,
        tree,
    )
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
    from dualnet.training.fit import fit
    from dualnet.training.trained import load_run

    __version__: str
    """The version, as pyproject.toml has it in a checkout, and else as it was installed."""

_FUNCTIONS = {
    **dict.fromkeys(("check_jvp", "check_vjp"), "checking"),
    "custom_jvp": "core.custom",
    **dict.fromkeys(("grad", "hvp", "jacfwd", "jacrev"), "core.derivatives"),
    **dict.fromkeys(("linear_transpose", "value_and_grad"), "core.derivatives"),
    "Dual": "core.dual",
    "RankOne": "core.spaces",
    **dict.fromkeys(("jvp", "linearize", "stop_gradient", "vjp"), "core.transforms"),
    "Key": "random",
    "recorded": "recording",
    "fit": "training.fit",
    "load_run": "training.trained",
}
"""Name → the module that has it.  All other names of `__all__` are modules."""
_SCIPY = "scipy"
"""A module that is not in `__all__`, because SciPy may be missing."""


def __getattr__(name: str) -> Any:
    """Import what is first asked for, and find the version."""
    if name == "__version__":
        return import_module("dualnet.version").version()
    if name in _FUNCTIONS:
        globals()[name] = getattr(import_module(f"dualnet.{_FUNCTIONS[name]}"), name)
        return globals()[name]
    if name in __all__ or name == _SCIPY:
        return import_module(f"dualnet.{name}")
    raise AttributeError(f"module 'dualnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return what there is to use, whether or not it has been imported yet."""
    return sorted({*__all__, _SCIPY, *(name for name in globals() if name.startswith("__"))})


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

_HERE = os.path.dirname(__file__)
if not os.path.isdir(os.path.join(_HERE, "models")):
    # An installed package has `dualnet.models` inside; a checkout has `models/` beside the package.
    import_module("dualnet.checkout").find_models_in(os.path.dirname(_HERE))
