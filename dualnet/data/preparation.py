"""How examples, as a data set keeps them, become numbers for a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import DTypeLike

from dualnet.data.enlarge import enlarged
from dualnet.errors import UsageError
from dualnet.options import require_choice
from dualnet.types import Array, Shape

PIXEL_SCALES = ("standard", "symmetric", "none")
"""How numbers are scaled; `Preparation` says what the names mean."""


@dataclass(frozen=True, eq=False)
class Preparation:
    """Enlarges, changes and scales examples; what it does depends on the training examples alone.

    Args:
        scale: `standard` makes the mean 0 and the standard deviation 1 for each channel (the last
            axis) over all training examples; `symmetric` maps pixels from 0 to `white` to -1 to 1;
            `none` leaves numbers as they are.
        mean, std: float64 `(channels,)`, what `standard` subtracts and divides by.
        shape: of an example as the data set keeps it, the last axis being channels.
        white: the uint8 value of full intensity; None if examples are no pixels but floats.
        image_size: height and width to which images are enlarged; None to leave their size.

    Raises:
        UsageError: there is no such scale, or it is of no use to such examples.

    Examples:
        >>> images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
        >>> symmetric = dn.data.from_arrays(images, [0]).preparation("symmetric")
        >>> symmetric(images, np.float64).ravel().round(3).tolist()
        [-1.0, -0.6, 1.0]
        >>> standard = dn.data.from_arrays(np.array([[1.0], [3.0]]), [0, 1]).preparation("standard")
        >>> standard(np.array([[1.0], [3.0], [4.0]]), np.float64).ravel().tolist()
        [-1.0, 1.0, 2.0]
    """

    scale: str
    mean: Array
    std: Array
    shape: Shape
    white: int | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        require_choice("pixels", "scale", self.scale, PIXEL_SCALES)
        if self.scale == "symmetric" and self.white is None:
            raise UsageError(
                "pixels: scale: symmetric is for pixels in uint8, and these examples are floats; "
                "expected standard or none"
            )

    @property
    def in_shape(self) -> Shape:
        """The shape of an example as the network gets it."""
        if self.image_size is None:
            return self.shape
        return (self.image_size, self.image_size, self.shape[-1])

    def __call__(
        self,
        examples: Array,
        dtype: DTypeLike,
        augment: Callable[[Array], Array] | None = None,
    ) -> Array:
        """Return examples as numbers for a network, in a new array.

        Args:
            examples: `(n, *shape)`, on any backend; a single example `shape` is taken, too, if it
                is not enlarged.  Pixels are uint8, others float32 or float64.
            dtype: the dtype of the result, a floating-point one.
            augment: changes images whose numbers are from 0 (black) to 1 (a pixel of `white`).  It
                is called after images are enlarged and before they are scaled, because after that
                the numbers do not tell what is black and what is white.

        Returns:
            `(n, *in_shape)`, unless `augment` makes another shape.

        Raises:
            UsageError: the examples are not of the right kind, `dtype` is not floating-point, or
                examples that are no pixels are to be augmented.
        """
        if self.white is not None and examples.dtype != np.uint8:
            raise UsageError(f"pixels: images: expected uint8, got {examples.dtype}")
        if self.white is None and not np.issubdtype(examples.dtype, np.floating):
            raise UsageError(f"pixels: examples: expected floats, got {examples.dtype}")
        if not np.issubdtype(dtype, np.floating):
            raise UsageError(f"pixels: dtype: expected float32 or float64, got {dtype}")
        # Features may lie far from 0 and close together, so their mean is subtracted before they
        # are rounded: of times in seconds since 1970, float32 keeps every other minute at most.
        precise = self.white is None and self.scale == "standard"
        x = examples.astype(np.float64 if precise else dtype)
        if self.image_size is not None:
            x = enlarged(x, self.image_size)
        if augment is not None:
            if self.white is None:
                raise UsageError(
                    "pixels: augment: expected images in uint8, got floats, of which nothing says "
                    "what is black and what is white"
                )
            x = augment(x / self.white) * self.white
        # This is done in place, because new memory for a large batch takes longer than arithmetic.
        if self.scale == "symmetric":
            assert self.white is not None  # `__post_init__` made sure
            x /= self.white / 2
            x -= 1.0
        elif self.scale == "standard":
            # Both have the shape of an example, as arithmetic along an axis of three is slow.
            mean, std = self._of_an_example(x)
            x -= mean
            x /= std
        return x.astype(dtype, copy=False)

    def _of_an_example(self, x: Array) -> tuple[Array, Array]:
        """Repeat mean and deviation for every number of an example.

        Both are arrays of the dtype of x, on the device of x.
        """
        shape = x.shape[x.ndim - len(self.shape) :]
        kind = (type(x), x.dtype, shape)
        if kind not in self._constants:
            mean, std = (
                np.asarray(np.broadcast_to(c, shape), x.dtype, "C", like=x)
                for c in (self.mean, self.std)
            )
            self._constants[kind] = (mean, std)
        return self._constants[kind]

    @cached_property
    def _constants(self) -> dict[tuple, tuple[Array, Array]]:
        """Keeps the results of `_of_an_example`, so that no device waits in every step."""
        return {}
