"""Check derivatives: `check_jvp` by central differences, `check_vjp` as the transpose of jvp."""

from dualnet.checking.checks import Report, check_jvp, check_vjp
from dualnet.checking.comparison import DerivativeError

__all__ = ["DerivativeError", "Report", "check_jvp", "check_vjp"]
