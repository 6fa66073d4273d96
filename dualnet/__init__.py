"""dualnet: forward-mode automatic differentiation with k tangents at once, and training by it."""

from pathlib import Path

from dualnet import images, linear, numpy, special, tree  # noqa: F401, some register their rules
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

__all__ = [
    "Dual",
    "Key",
    "RankOne",
    "check_jvp",
    "check_vjp",
    "custom_jvp",
    "grad",
    "hvp",
    "jacfwd",
    "jacrev",
    "jvp",
    "linear",
    "linear_transpose",
    "linearize",
    "numpy",
    "recorded",
    "stop_gradient",
    "tree",
    "value_and_grad",
    "vjp",
]

if not (Path(__file__).parent / "models").exists():
    # An installed package has `dualnet.models` inside; a checkout has `models/` beside the package.
    __path__.append(str(Path(__file__).parent.parent))
