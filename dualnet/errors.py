"""The errors that dualnet raises, and the exit code with which a command ends for each of them.

Every message says, in this order: where it happened, what was expected, what came, and what to do.
"""

__all__ = [
    "BackendError",
    "DataError",
    "DivergedError",
    "DualConversionError",
    "DualnetError",
    "EscapedDualError",
    "Interrupted",
    "MissingRuleError",
    "TangentError",
    "TreeError",
    "UsageError",
]


class DualnetError(Exception):
    """The base class of every error below.

    Attributes:
        exit_code: the exit code with which the command line ends.
    """

    exit_code = 1


class UsageError(DualnetError, ValueError):
    """An argument or flag has a wrong value, or is of no use to what was chosen beside it."""

    exit_code = 2


class DataError(DualnetError):
    """A data file is missing, truncated, corrupted or of the wrong kind."""

    exit_code = 3


class DivergedError(DualnetError, ArithmeticError):
    """Training computed a NaN or an infinity."""

    exit_code = 4


class BackendError(DualnetError):
    """The chosen array backend cannot be used on this machine."""

    exit_code = 5


class Interrupted(DualnetError):
    """A run was stopped from outside, and its checkpoint has been written."""

    exit_code = 130


class TreeError(DualnetError, ValueError):
    """Two trees should have the same structure and do not."""


class MissingRuleError(DualnetError, NotImplementedError):
    """A function without a derivative rule was called with a dual number."""


class EscapedDualError(DualnetError, RuntimeError):
    """A dual number was used after the transform that made it had returned."""


class DualConversionError(DualnetError, TypeError):
    """A conversion of a dual number to a plain array or number would lose its tangent."""


class TangentError(DualnetError, ValueError):
    """The shape, dtype or number of directions of a tangent or cotangent does not fit."""
