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

    Examples:
        >>> try:
        ...     dn.grad(np.sin)(1)
        ... except dn.errors.DualnetError as error:
        ...     print(type(error).__name__, error.exit_code)
        TangentError 1
    """

    exit_code = 1


class UsageError(DualnetError, ValueError):
    """An argument or flag has a wrong value, or is of no use to what was chosen beside it.

    The exit code is 2.

    Examples:
        >>> dn.schedules.StepDecay(factor=2.0)
        Traceback (most recent call last):
        dualnet.errors.UsageError: StepDecay: expected factor as a number from 0 to 1, got 2.0
    """

    exit_code = 2


class DataError(DualnetError):
    """A data file is missing, truncated, corrupted or of the wrong kind.

    The exit code is 3.

    Examples:
        >>> dn.data.read_idx("labels.gz")
        Traceback (most recent call last):
        dualnet.errors.DataError: labels.gz: expected a readable file, found ...
    """

    exit_code = 3


class DivergedError(DualnetError, ArithmeticError):
    """Training computed a NaN or an infinity.

    The exit code is 4.

    Examples:
        >>> examples = np.eye(4, dtype=np.float32), np.arange(4)
        >>> dn.fit("mlp", examples, rule="bp", optimizer="sgd", lr=1e38, epochs=1, quiet=True)
        Traceback (most recent call last):
        dualnet.errors.DivergedError: diverged in epoch 1: the test loss is ...
    """

    exit_code = 4


class BackendError(DualnetError):
    """The chosen array backend cannot be used on this machine, or memory does not suffice.

    The exit code is 5.

    Examples:
        >>> from dualnet.models import MLP
        >>> dn.fit(MLP(width=10**7), (np.eye(4), np.arange(4)), quiet=True)
        Traceback (most recent call last):
        dualnet.errors.BackendError: model='mlp' ...: 100,000,100,000,004 parameters and their
        gradient take 800 TB at least, this machine has ...
    """

    exit_code = 5


class Interrupted(DualnetError):
    """A command was stopped by Ctrl-C or a signal; a run's checkpoint has been written.

    It ends commands alone.  A function in Python, such as `fit`, raises KeyboardInterrupt.

    Examples:
        >>> from dualnet.console import exit_code
        >>> def pressed(words, program):
        ...     raise dn.errors.Interrupted("interrupted; go on with --resume runs/a")
        >>> exit_code("dualnet train", pressed, [])  # what a shell sees as $?
        130
    """

    exit_code = 130


class TreeError(DualnetError, ValueError):
    """Two trees should have the same structure and do not.

    Examples:
        >>> dn.tree.add({"w": 1.0}, {"weight": 1.0})
        Traceback (most recent call last):
        dualnet.errors.TreeError: trees differ at the root: expected {w: float}, got {weight: float}
    """


class MissingRuleError(DualnetError, NotImplementedError):
    """A function without a derivative rule was called with a dual number.

    Examples:
        >>> dn.grad(np.i0)(1.0)
        Traceback (most recent call last):
        dualnet.errors.MissingRuleError: np.i0 has no derivative rule. Write it with functions that
        have one (python -m dualnet.check.listing lists them), ...
    """


class EscapedDualError(DualnetError, RuntimeError):
    """A dual number was used after the transform that made it had returned.

    Examples:
        >>> kept = []
        >>> _ = dn.jvp(lambda x: kept.append(x) or 2.0 * x, (np.ones(3),), (np.ones(3),))
        >>> np.sin(kept[0])
        Traceback (most recent call last):
        dualnet.errors.EscapedDualError: np.sin met a Dual whose transform has already returned. ...
    """


class DualConversionError(DualnetError, TypeError):
    """A conversion of a dual number to a plain array or number would lose its tangent.

    Examples:
        >>> import math
        >>> dn.grad(math.exp)(1.0)
        Traceback (most recent call last):
        dualnet.errors.DualConversionError: a Dual cannot become a Python number: ... Use NumPy
        functions (np.exp instead of math.exp), or dn.stop_gradient(x) for the value alone
    """


class TangentError(DualnetError, ValueError):
    """The shape, dtype or number of directions of a tangent or cotangent does not fit.

    Examples:
        >>> dn.jvp(np.sin, (np.ones(2),), (np.ones(3),))
        Traceback (most recent call last):
        dualnet.errors.TangentError: jvp: the tangent at 0 must be float64 of shape (2,) or (k, 2),
        got float64 of shape (3,)
    """
