"""What a data set is once it is read, and how its pixels become numbers for a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dualnet.data.batches import read_ahead
from dualnet.data.enlarge import enlarged
from dualnet.errors import UsageError

Pair = tuple[np.ndarray, np.ndarray]
"""Images, uint8 (N, height, width, channels), and their labels, int64 (N,)."""

PIXEL_SCALES = ("standard", "symmetric")

_EXACT_BATCH = 256
"""So many squares of bytes still add up exactly in float32: 256 * 255**2 < 2**24."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of an array, read when they are asked for: no copy of a set on disk is made.

    Args:
        array: (N, ...), which may be mapped into memory from a file.
        rows: int64, (M,), their numbers in it.
    """

    array: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def nbytes(self) -> int:
        """Of the array that `self[:]` makes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, chosen: Any) -> np.ndarray:
        """A new array of the rows that a slice or an index array chooses among these."""
        return np.asarray(self.array[self.rows[chosen]])


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels, in a fixed order and a fixed split.

    Args:
        name: the name it was loaded by.
        train_images: uint8, (N, height, width, channels), from 0 to `white`; an array, one that
            is mapped into memory from a file, or `Rows`.
        train_labels: int64, (N,), indices into `classes`.
        test_images: uint8, (M, height, width, channels); likewise.
        test_labels: int64, (M,).
        classes: one name for each label.
        white: the pixel value of full intensity.
        tested_on: what the test images are: `test`, or `validation` if they are some of the
            training images instead.
        on_disk: whether the images are mapped into memory from a file.
        image_size: height and width that `pixels` enlarges images to; None for as they are.
    """

    name: str
    train_images: np.ndarray | Rows
    train_labels: np.ndarray
    test_images: np.ndarray | Rows
    test_labels: np.ndarray
    classes: tuple[str, ...]
    white: int
    tested_on: str = "test"
    on_disk: bool = False
    image_size: int | None = None

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of an image as `pixels` gives it."""
        _, height, width, channels = self.train_images.shape
        return (self.image_size or height, self.image_size or width, channels)

    def training_batches(self, order: Iterable[np.ndarray]) -> Generator[Pair, None, None]:
        """Read batches of training images and labels; ahead of time, where a disk has them.

        Args:
            order: int64 index arrays, (batch size,), as `batches` gives them.

        Returns:
            Yields images, (batch size, height, width, channels), and labels, (batch size,).
        """
        read = read_ahead if self.on_disk else map
        yield from read(
            lambda chosen: (self.train_images[chosen], self.train_labels[chosen]), order
        )

    @cached_property
    def training_mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of all training pixels, (channels,) in float64.

        A channel of one value has 1 for its deviation.  They are where the images are.
        """
        n, height, width, channels = self.train_images.shape
        total = np.zeros((2, height * width * channels), like=self.train_images[:1])
        for start in range(0, n, _EXACT_BATCH):
            part = self.train_images[start : start + _EXACT_BATCH]
            part = part.reshape(len(part), -1).astype(np.float32)
            total += np.stack([part.sum(axis=0), np.square(part).sum(axis=0)])
        # Whole numbers to here, so nothing is lost where the two terms below are almost equal.
        total = total.reshape(2, -1, channels).sum(axis=1)
        mean, mean_square = total / (n * height * width)
        variance = mean_square - np.square(mean)
        constant = total[1] * (n * height * width) == np.square(total[0])
        return mean, np.where(constant, 1.0, np.sqrt(np.maximum(variance, 0.0)))

    def pixels(
        self,
        images: np.ndarray,
        dtype: DTypeLike,
        scale: str = "standard",
        augment: Callable[[Any], Any] | None = None,
    ) -> np.ndarray:
        """Images as numbers for a network.

        Args:
            images: uint8, (..., channels), on any backend; (N, height, width, channels) where
                they are enlarged.
            dtype: of the result, a floating-point one.
            scale: `standard`, mean 0 and standard deviation 1 of each channel over all training
                pixels; or `symmetric`, from -1 (a pixel of 0) to 1 (a pixel of `white`).
            augment: changes the images, as numbers from 0 to 1 (a pixel of `white`), after they
                are enlarged and before they are scaled: then nobody could tell any more what is
                black and what is full intensity.

        Returns:
            A new array, of the same shape but for what enlarging and `augment` change.

        Raises:
            UsageError: if `images` are not uint8, `dtype` is not floating-point, or there is no
                such scale.
        """
        if images.dtype != np.uint8:
            raise UsageError(f"pixels: images: expected uint8, got {images.dtype}")
        if not np.issubdtype(dtype, np.floating):
            raise UsageError(f"pixels: dtype: expected float32 or float64, got {dtype}")
        if scale not in PIXEL_SCALES:
            raise UsageError(f"pixels: scale: expected {' or '.join(PIXEL_SCALES)}, got {scale!r}")
        x = images.astype(dtype)
        if self.image_size is not None:
            x = enlarged(x, self.image_size)
        if augment is not None:
            x = augment(x / self.white) * self.white
        # In place: new memory for a large batch takes longer than the arithmetic.
        if scale == "symmetric":
            x /= self.white / 2
            x -= 1.0
        else:
            # Spelled out for a whole image: along an axis of three, arithmetic is slow.
            mean, std = self._spelled_out(x)
            x -= mean
            x /= std
        return x

    def _spelled_out(self, x: Any) -> tuple[Any, Any]:
        """Mean and deviation for every number of an image, as arrays of the kind of x."""
        kind = (type(x), x.dtype, x.shape[-3:])
        if kind not in self._constants:
            mean, std = (
                np.asarray(np.broadcast_to(c, x.shape[-3:]), x.dtype, "C", like=x)
                for c in self.training_mean_and_std
            )
            self._constants[kind] = (mean, std)
        return self._constants[kind]

    @cached_property
    def _constants(self) -> dict[tuple, tuple[Any, Any]]:
        """What `_spelled_out` has made: once, as a device would wait for it in every step."""
        return {}
