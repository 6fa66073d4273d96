"""Data sets of one's own arrays: images or features, with classes or real targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dualnet.data.dataset import Dataset
from dualnet.data.preparation import Preparation
from dualnet.errors import UsageError

NAME = "arrays"
"""The name of data sets that are made of arrays."""
FORMS = "(inputs, targets) or (inputs, targets, test inputs, test targets)"


@dataclass(frozen=True, eq=False)
class ArrayDataset(Dataset):
    """A data set of one's own arrays.

    `from_arrays` makes it; what else it has is that of a `Dataset`.

    Attributes:
        labels: `(classes,)`, what the targets call each class; empty where targets are real.

    Examples:
        >>> dataset = dn.data.from_arrays(np.eye(3), ["left", "right", "left"])
        >>> dataset.labels.tolist(), dataset.train_labels.tolist()
        (['left', 'right'], [0, 1, 0])
    """

    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def from_arrays(
    inputs: Any,
    targets: Any,
    test_inputs: Any = None,
    test_targets: Any = None,
    *,
    validation: int | None = None,
) -> ArrayDataset:
    """Make a data set of arrays.

    Inputs are images, uint8 `(N, height, width)` or `(N, height, width, channels)` from 0 to 255,
    or numbers of any shape `(N, ...)`, of which the last axis is standardized one by one; numbers
    `(N,)` count as one feature each.  Targets are classes, whole numbers, booleans or strings
    `(N,)`; or real, floats `(N,)` or `(N, outputs)`.

    Args:
        inputs, targets: what is trained on.
        test_inputs, test_targets: what is tested on.  Without them, and without `validation`, that
            is what is trained on.
        validation: how many of the training examples are taken away and tested on instead.  They
            are the last ones of a shuffle that is always the same.

    Raises:
        UsageError: the arrays do not fit together, or hold what nothing can be learned from.

    Examples:
        >>> x = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
        >>> dataset = dn.data.from_arrays(x, [0.5, 1.0, 1.5, 2.0], validation=1)  # real targets
        >>> dataset.in_shape, dataset.outputs, dataset.tested_on, len(dataset.train_labels)
        ((2,), 1, 'validation', 3)
        >>> dn.data.from_arrays(x, ["a", "b", "b", "c"]).classes
        ('a', 'b', 'c')
    """
    x, white = _inputs("inputs", inputs)
    labels, y = _targets("targets", targets, len(x))
    tested_on = "test"
    if (test_inputs is None) != (test_targets is None):
        raise UsageError(f"data: expected {FORMS}, got one of the last two alone")
    if test_inputs is not None:
        if validation is not None:
            raise UsageError(
                "data: validation: expected none with test inputs, which are tested on"
            )
        test_x, test_white = _inputs("test inputs", test_inputs)
        if (test_x.shape[1:], test_white) != (x.shape[1:], white):
            raise UsageError(
                f"data: test inputs: expected {_words(x)} as the inputs are, got {_words(test_x)}"
            )
        test_labels, test_y = _targets("test targets", test_targets, len(test_x))
        outputs = None if len(labels) else y.shape[1]
        test_y = _renumbered("test targets", test_y, test_labels, labels, outputs)
    else:
        test_x, test_y, tested_on = x, y, "training"
    dataset = ArrayDataset(
        name=NAME,
        train_images=x,
        train_labels=y,
        test_images=test_x,
        test_labels=test_y,
        classes=tuple(map(str, labels)),
        white=white,
        tested_on=tested_on,
        labels=labels,
    )
    return dataset if validation is None else dataset.validating(validation)


def inputs_like(preparation: Preparation, given: Any) -> np.ndarray:
    """Return examples as the data set kept those that a network was trained on.

    Raises:
        UsageError: they are not of that shape or kind.
    """
    pixels = preparation.white is not None
    x, white = _inputs("inputs", given)
    if x.shape[1:] != preparation.shape or (white is not None) != pixels:
        kind = f"pixels in uint8 from 0 to {preparation.white}" if pixels else "floats"
        one = ""
        if np.shape(given) in (preparation.shape, preparation.shape[:-1]):
            one = "; a single example is x[None]"
        raise UsageError(
            f"data: inputs: expected {kind} (n, {', '.join(map(str, preparation.shape))}), got "
            f"{_words(np.asarray(given))}{one}"
        )
    if pixels and int(x.max()) > int(preparation.white or 0):
        raise UsageError(
            f"data: inputs: expected pixels from 0 to {preparation.white}, got {x.max()}"
        )
    return x


def targets_like(labels: np.ndarray, outputs: int | None, given: Any, examples: int) -> np.ndarray:
    """Return the numbers of the classes that targets are, `(n,)`, or real targets `(n, outputs)`.

    Args:
        labels: what the classes are called; empty where targets are real.
        outputs: how many real targets an example has.
        given: the targets.
        examples: how many there must be.
    """
    found, y = _targets("targets", given, examples)
    return _renumbered("targets", y, found, labels, outputs)


def _inputs(name: str, given: Any) -> tuple[np.ndarray, int | None]:
    """Return inputs as a data set keeps them, and the value of white if they are pixels."""
    x = _array(name, given)
    if x.ndim < 1 or len(x) == 0 or x.size == 0:
        raise UsageError(f"data: {name}: expected one example or more (N, ...), got {_words(x)}")
    if x.dtype.kind not in "buif":
        raise UsageError(
            f"data: {name}: expected numbers, got {_words(x)}; turn each column into numbers first"
        )
    if x.dtype == np.uint8 and x.ndim in (3, 4):
        return (x if x.ndim == 4 else x[..., None]), 255
    _require_exact(name, x)
    x = x.astype(np.float32 if x.dtype.itemsize <= 4 and x.dtype.kind == "f" else np.float64)
    if not np.isfinite(x).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise UsageError(
            f"data: {name}: expected finite numbers, got {x[where]} at {where}; replace missing "
            "numbers, for example by the mean of the column"
        )
    return (x if x.ndim > 1 else x[:, None]), None


def _require_exact(name: str, x: np.ndarray) -> None:
    """Raise a UsageError if whole numbers are so large that float64 does not have all of them."""
    if x.dtype.kind not in "iu" or x.dtype.itemsize < 8:
        return
    large = x[(x > 2**53) | (x < -(2**53))].tolist()
    if (rounded := next((n for n in large if n != float(n)), None)) is not None:
        raise UsageError(
            f"data: {name}: expected whole numbers that float64 has exactly, as all are up to "
            f"2**53, got {rounded}; subtract what all have in common, or write "
            "x.astype(np.float64), which rounds them"
        )


def _targets(name: str, given: Any, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what classes are called, and the number of each example's class.

    Of real targets, return an empty array, and the targets `(N, outputs)` in float64.
    """
    y = _array(name, given)
    if y.ndim < 1 or len(y) != examples:
        raise UsageError(
            f"data: {name}: expected one for each of {examples} examples, got {_words(y)}"
        )
    if y.dtype.kind == "f":
        if y.ndim > 2:
            raise UsageError(
                f"data: {name}: expected real targets (N,) or (N, outputs), got {_words(y)}"
            )
        if not np.isfinite(y).all():
            raise UsageError(f"data: {name}: expected finite numbers, got NaN or infinity")
        return np.zeros(0, np.int64), y.astype(np.float64).reshape(examples, -1)
    if y.dtype.kind == "S":
        raise UsageError(f"data: {name}: expected strings, got bytes; write targets.astype(str)")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "buiUO":
        raise UsageError(
            f"data: {name}: expected classes (N,), whole numbers or strings, or floats as real "
            f"targets, got {_words(y)}"
        )
    if y.dtype.kind == "O" and not all(isinstance(label, str) for label in y):
        raise UsageError(f"data: {name}: expected numbers or strings, got {_words(y)}")
    labels, numbers = np.unique(y.astype(str) if y.dtype.kind == "O" else y, return_inverse=True)
    if labels.dtype.kind in "iu" and labels[-1] <= np.iinfo(np.int64).max:
        labels = labels.astype(np.int64)  # others stay in uint64
    return labels, numbers.astype(np.int64).reshape(examples)


def _renumbered(
    name: str, y: np.ndarray, found: np.ndarray, labels: np.ndarray, outputs: int | None
) -> np.ndarray:
    """Return targets with the numbers that the classes have under `labels`.

    Args:
        name: of the targets, for messages.
        y, found: targets as `_targets` returns them.
        labels: what the classes are called; empty where targets are real.
        outputs: how many real targets an example has; None for classes.
    """
    if outputs is not None:
        if len(found) or y.shape[1] != outputs:
            got = "classes" if len(found) else f"{y.shape[1]}"
            raise UsageError(
                f"data: {name}: expected {outputs} real targets for each example, got {got}"
            )
        return y
    if not len(found):
        raise UsageError(f"data: {name}: expected classes, got real targets")
    unknown = [label for label in found.tolist() if label not in labels.tolist()]
    if unknown:
        raise UsageError(
            f"data: {name}: expected the classes that were trained on, {labels.tolist()[0]!r} to "
            f"{labels.tolist()[-1]!r}, got {unknown[0]!r}"
        )
    # Of two dtypes of whole numbers, NumPy would make float64, in which large ones are merged.
    return np.searchsorted(labels, found.astype(labels.dtype))[y]


def _array(name: str, given: Any) -> np.ndarray:
    """Return what was given as an array.

    Raises:
        UsageError: it is none, or some of it is masked.
    """
    if masked := _masked(given):
        raise UsageError(
            f"data: {name}: expected no masked numbers, got {masked}; leave "
            "these examples out, or fill them, as in x.filled(0)"
        )
    try:
        return np.asarray(given)
    except (ValueError, TypeError) as error:
        raise UsageError(f"data: {name}: expected an array, got what makes none: {error}") from None


def _masked(given: Any) -> int:
    """Return how many numbers are masked in an array, or in a list of arrays or lists."""
    if isinstance(given, np.ma.MaskedArray):
        return int(np.ma.getmaskarray(given).sum())
    if not isinstance(given, (list, tuple)):
        return 0
    kinds = set(map(type, given))  # a list of numbers is not walked through
    inside = any(issubclass(one, (list, tuple, np.ma.MaskedArray)) for one in kinds)
    return sum(map(_masked, given)) if inside else 0


def _words(x: np.ndarray) -> str:
    return f"{x.dtype}{x.shape}"
