"""The errors that dualnet raises, and the exit code `train.py` gives each of them.

Every message says, in this order: where, what was expected, what came, and what to do.
"""


class DualnetError(Exception):
    """Base of every error below.  `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(DualnetError, ValueError):
    """An argument or a flag that does not fit: wrong value, or of no use to the chosen rule."""

    exit_code = 2


class DataError(DualnetError):
    """A data file that is missing, truncated, corrupted or of the wrong kind."""

    exit_code = 3


class DivergedError(DualnetError, ArithmeticError):
    """Training met a NaN or an infinity."""

    exit_code = 4


class BackendError(DualnetError):
    """The asked-for array backend cannot be used on this machine."""

    exit_code = 5


class Interrupted(DualnetError):
    """A run was stopped from outside; its checkpoint is written."""

    exit_code = 130


class TreeError(DualnetError, ValueError):
    """Two trees that should have the same structure do not."""


class MissingRuleError(DualnetError, NotImplementedError):
    """A function met a dual number and has no derivative rule."""


class EscapedDualError(DualnetError, RuntimeError):
    """A dual number was used after the transform that made it had returned."""


class DualConversionError(DualnetError, TypeError):
    """A dual number was about to become a plain array or number, losing its tangent."""


class TangentError(DualnetError, ValueError):
    """A tangent or cotangent whose shape, dtype or number of directions does not fit."""
