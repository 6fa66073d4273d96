"""A data set that has been read, and the conversion of its pixels to numbers for a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import DTypeLike

from dualnet.data.batches import read_ahead
from dualnet.data.enlarge import enlarged
from dualnet.errors import UsageError
from dualnet.types import Array, Shape

Pair = tuple[np.ndarray, np.ndarray]
"""Images, uint8 (N, height, width, channels), and their labels, int64 (N,)."""

PIXEL_SCALES = ("standard", "symmetric")
"""How `Dataset.pixels` scales numbers; it says what the names mean."""

_EXACT_BATCH = 256
"""The sum of so many squares of bytes is exact in float32, because 256 * 255**2 < 2**24."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of an array, which are read only when they are indexed.

    So a part of a data set on disk needs no copy.

    Args:
        array: (N, ...); it may be mapped into memory from a file.
        rows: int64, (M,), the indices of the rows in the array.
    """

    array: np.ndarray
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
        return np.asarray(self.array[self.rows[chosen]])


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels, in a fixed order and a fixed split.

    Args:
        name: the name by which it was loaded.
        train_images: uint8, (N, height, width, channels), from 0 to `white`.  An array, which may
            be mapped into memory from a file, or `Rows`.
        train_labels: int64, (N,), indices into `classes`.
        test_images: uint8, (M, height, width, channels); likewise.
        test_labels: int64, (M,).
        classes: the name of each label.
        white: the pixel value of full intensity.
        tested_on: `test`, or `validation` if the test images are some of the training images.
        on_disk: whether the images are mapped into memory from a file.
        image_size: height and width to which `pixels` enlarges images; None to leave their size.
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

    def __repr__(self) -> str:
        images = "x".join(map(str, self.in_shape))
        return (
            f"<Dataset {self.name}: {len(self.train_labels):,} training and "
            f"{len(self.test_labels):,} {self.tested_on} images {images}, "
            f"{len(self.classes)} classes>"
        )

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of an image that `pixels` returns."""
        _, height, width, channels = self.train_images.shape
        return (self.image_size or height, self.image_size or width, channels)

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
        """Mean and standard deviation of all training pixels, two arrays (channels,) in float64.

        Where all pixels of a channel are equal, 1 stands for the deviation, so that it can divide.
        The arrays are on the device of the images.
        """
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

    def pixels(
        self,
        images: np.ndarray,
        dtype: DTypeLike,
        scale: str = "standard",
        augment: Callable[[Array], Array] | None = None,
    ) -> np.ndarray:
        """Convert images to numbers for a network.

        Args:
            images: uint8, (..., channels), on any backend; (N, height, width, channels) if they
                are enlarged.
            dtype: the dtype of the result, a floating-point one.
            scale: `standard` makes the mean 0 and the standard deviation 1 for each channel over
                all training pixels; `symmetric` maps pixels from 0 to `white` to -1 to 1.
            augment: changes images whose numbers are from 0 (black) to 1 (a pixel of `white`).  It
                is called after images are enlarged and before they are scaled, because after that
                the numbers do not tell what is black and what is white.

        Returns:
            A new array.  Its shape is that of the images, unless they are enlarged or `augment`
            changes it.

        Raises:
            UsageError: `images` are not uint8, `dtype` is not floating-point, or there is no such
                scale.
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
        # This is done in place, because new memory for a large batch takes longer than arithmetic.
        if scale == "symmetric":
            x /= self.white / 2
            x -= 1.0
        else:
            # Both have the shape of an image, because arithmetic along an axis of three is slow.
            mean, std = self._mean_and_std_of_image(x)
            x -= mean
            x /= std
        return x

    def _mean_and_std_of_image(self, x: Array) -> tuple[Array, Array]:
        """Repeat mean and deviation for every number of an image (height, width, channels).

        Both are arrays of the dtype of x, on the device of x.
        """
        kind = (type(x), x.dtype, x.shape[-3:])
        if kind not in self._constants:
            mean, std = (
                np.asarray(np.broadcast_to(c, x.shape[-3:]), x.dtype, "C", like=x)
                for c in self.training_mean_and_std
            )
            self._constants[kind] = (mean, std)
        return self._constants[kind]

    @cached_property
    def _constants(self) -> dict[tuple, tuple[Array, Array]]:
        """Keeps the results of `_mean_and_std_of_image`, so that no device waits in every step."""
        return {}
