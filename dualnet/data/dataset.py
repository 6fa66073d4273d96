"""A data set that has been read."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import DTypeLike

from dualnet.data.batches import read_ahead
from dualnet.data.preparation import Preparation
from dualnet.data.stored import Stored, one_index
from dualnet.errors import UsageError
from dualnet.random import Key
from dualnet.types import Array, Shape

AnyDataset = TypeVar("AnyDataset", bound="Dataset")
Pair = tuple[np.ndarray | Stored, np.ndarray]
"""Images, uint8 (N, height, width, channels), and their labels, int64 (N,)."""

_EXACT_BATCH = 256
"""The sum of so many squares of bytes is exact in float32, because 256 * 255**2 < 2**24."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of an array, which are read only when they are indexed.

    So a part of a data set on disk needs no copy.

    Args:
        array: (N, ...).
        rows: int64, (M,), the indices of the rows in the array.
    """

    array: np.ndarray | Stored | Rows
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> Shape:
        """The shape of the array that `self[:]` makes, (M, ...)."""
        return (len(self.rows), *self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the array."""
        return self.array.dtype

    @property
    def nbytes(self) -> int:
        """How many bytes the array takes that `self[:]` makes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"Rows({self.dtype}{self.shape})"

    def __getitem__(self, chosen: slice | np.ndarray) -> np.ndarray:
        """Read the rows that a slice or an index array chooses into a new array."""
        return np.asarray(self.array[self.rows[one_index(chosen)]])


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images or other examples with labels, in a fixed order and a fixed split.

    Args:
        name: the name by which it was loaded.
        train_images: uint8, (N, height, width, channels), from 0 to `white`; or other examples, of
            any shape (N, ..., channels), in float32 or float64.  An array; or what is read when it
            is indexed: `Stored`, images in a file, or `Rows`.
        train_labels: int64, (N,), indices into `classes`; or real targets, float64, (N, outputs).
        test_images, test_labels: likewise, (M, ...).
        classes: the name of each label; () where targets are real.
        white: the pixel value of full intensity; None where examples are floats.
        tested_on: `test`; `validation` if the test images are some of the training images, which
            are not trained on; `training` if they are the training images themselves.
        on_disk: whether the images are read from a file when they are indexed.
        image_size: height and width to which `pixels` enlarges images; None to leave their size.

    Examples:
        >>> digits = dn.data.load("digits")
        >>> digits
        <Dataset digits: 1,540 training and 257 test images 8x8x1, 10 classes>
        >>> digits.train_images.shape, digits.train_images.dtype.name, digits.white
        ((1540, 8, 8, 1), 'uint8', 16)
        >>> digits.validating(100)
        <Dataset digits: 1,440 training and 100 validation images 8x8x1, 10 classes>
    """

    name: str
    train_images: np.ndarray | Stored | Rows
    train_labels: np.ndarray
    test_images: np.ndarray | Stored | Rows
    test_labels: np.ndarray
    classes: tuple[str, ...]
    white: int | None
    tested_on: str = "test"
    on_disk: bool = False
    image_size: int | None = None

    def __repr__(self) -> str:
        images = "x".join(map(str, self.in_shape))
        return (
            f"<Dataset {self.name}: {len(self.train_labels):,} training and "
            f"{len(self.test_labels):,} {self.tested_on} images {images}, "
            f"{len(self.classes)} classes>"
        )

    @property
    def in_shape(self) -> Shape:
        """The shape of an example that `pixels` returns: for images (height, width, channels)."""
        return self.preparation("none").in_shape

    @property
    def outputs(self) -> int:
        """How many numbers a network gives for an example: one for each class or real target."""
        return len(self.classes) if self.classes else self.train_labels.shape[1]

    def validating(self: AnyDataset, count: int) -> AnyDataset:
        """Return a data set that tests on `count` of the training examples and not trains on them.

        They are the last ones of a shuffle that is always the same.

        Raises:
            UsageError: there are not so many, or none would be left to train on.
        """
        n = len(self.train_labels)
        if not 1 <= count < n:
            raise UsageError(
                f"data: validation: expected 1 to {n - 1} of {n} examples, got {count}"
            )
        images, labels = self.train_images, self.train_labels
        shuffle = np.random.Generator(np.random.SFC64(Key(0).fold_in("validation").bits))
        order = shuffle.permutation(len(labels)).astype(np.int64)
        kept, held_back = np.sort(order[:-count]), np.sort(order[-count:])
        return replace(
            self,
            train_images=Rows(images, kept),
            train_labels=labels[kept],
            test_images=Rows(images, held_back),
            test_labels=labels[held_back],
            tested_on="validation",
        )

    def training_batches(self, order: Iterable[np.ndarray]) -> Generator[Pair, None, None]:
        """Yield batches of training images and labels.

        If the images are on disk, two batches are read ahead in a thread.

        Args:
            order: int64 index arrays, (batch size,), as `batches` returns them.

        Yields:
            Images, (batch size, height, width, channels), and labels, (batch size,).
        """
        read = read_ahead if self.on_disk else map
        yield from read(
            lambda chosen: (self.train_images[chosen], self.train_labels[chosen]), order
        )

    @cached_property
    def training_mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of all training examples along their last axis.

        They are two arrays (channels,) in float64, on the device of the examples.  Where all
        numbers of a channel are equal, 1 stands for the deviation, so that it can divide.
        """
        if self.white is None:
            examples = self.train_images[:]
            return _of_floats(np.asarray(examples, like=examples))
        n, height, width, channels = self.train_images.shape
        total = np.zeros((2, height * width * channels), like=self.train_images[:1])
        for start in range(0, n, _EXACT_BATCH):
            part = self.train_images[start : start + _EXACT_BATCH]
            part = part.reshape(len(part), -1).astype(np.float32)
            total += np.stack([part.sum(axis=0), np.square(part).sum(axis=0)])
        # All numbers so far are whole, so no digit is lost where the two terms below are close.
        total = total.reshape(2, -1, channels).sum(axis=1)
        mean, mean_square = total / (n * height * width)
        variance = mean_square - np.square(mean)
        constant = total[1] * (n * height * width) == np.square(total[0])
        return mean, np.where(constant, 1.0, np.sqrt(np.maximum(variance, 0.0)))

    def preparation(self, scale: str = "standard") -> Preparation:
        """Return what makes numbers for a network of examples, scaled in this way.

        Raises:
            UsageError: there is no such scale, or it is of no use to such examples.
        """
        if scale not in self._preparations:
            # Only this scale needs mean and deviation, which take a pass over all examples.
            mean, std = self.training_mean_and_std if scale == "standard" else (_ZERO, _ONE)
            self._preparations[scale] = Preparation(
                scale, mean, std, self.train_images.shape[1:], self.white, self.image_size
            )
        return self._preparations[scale]

    @cached_property
    def _preparations(self) -> dict[str, Preparation]:
        return {}

    def pixels(
        self,
        images: np.ndarray,
        dtype: DTypeLike,
        scale: str = "standard",
        augment: Callable[[Array], Array] | None = None,
    ) -> np.ndarray:
        """Return images as numbers for a network; `Preparation` says what the arguments mean."""
        return self.preparation(scale)(images, dtype, augment)


_ZERO, _ONE = np.zeros(1), np.ones(1)


def _of_floats(examples: Array) -> tuple[Array, Array]:
    """Return mean and deviation along the last axis of examples that are floats."""
    axes = tuple(range(examples.ndim - 1))
    with np.errstate(over="ignore", invalid="ignore"):  # where it happens is looked for below
        mean: Array = np.mean(examples, axes, dtype=np.float64)
        std: Array = np.sqrt(np.mean(np.square(examples - mean), axes))
    # A mean is rounded, so that equal numbers may have a tiny deviation, which must divide no test.
    constant = examples.min(axes) == examples.max(axes)
    in_range = np.isfinite(mean) & (constant | (np.isfinite(std) & (std > _SQUARES_UNDERFLOW)))
    if not in_range.all():
        mean[~in_range], std[~in_range] = _of_extremes(examples[..., ~in_range])
    return mean, np.where(constant | (std == 0.0), 1.0, std)


_SQUARES_UNDERFLOW = 1e-146
"""Squares of numbers that are smaller lose digits in float64, or all of them."""


def _of_extremes(examples: Array) -> tuple[Array, Array]:
    """Return mean and deviation of numbers whose sum or squares are out of the range of float64.

    They are scaled by powers of two, which changes no digit.
    """
    axes = tuple(range(examples.ndim - 1))
    x, of_numbers = _near_one(examples, axes)
    mean = np.mean(x, axes, dtype=np.float64)
    away, of_deviations = _near_one(x - mean, axes)
    std = np.sqrt(np.mean(np.square(away), axes))
    return np.ldexp(mean, of_numbers), np.ldexp(std, of_numbers + of_deviations)


def _near_one(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Return numbers of which the largest is near 1, and the power of two that they lack."""
    _, power = np.frexp(np.abs(x).max(axes))
    return np.ldexp(x, -power), power
