"""Derivatives held against what they claim: `check_jvp` and `check_vjp`."""

from dualnet.checking.checks import Report, check_jvp, check_vjp
from dualnet.checking.comparison import DerivativeError

__all__ = ["DerivativeError", "Report", "check_jvp", "check_vjp"]
