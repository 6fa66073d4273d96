"""The training examples of a step, as they lie in host memory, on a disk or on a device."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from dualnet.backends import Backend
from dualnet.backends.processes import ALONE, Processes
from dualnet.data import Dataset
from dualnet.learning.sharing import part_of_batch
from dualnet.types import Array


@dataclass(frozen=True)
class Examples:
    """Hands out the batches of an epoch.

    Where processes share batches, each reads its own part alone.

    Of a data set on a device, a batch is the indices of its examples alone.  The step picks the
    examples itself, so that this is a part of its recording.

    Attributes:
        dataset: the examples.
        backend: runs the work.
        processes: that share the batches.
    """

    dataset: Dataset
    backend: Backend
    processes: Processes = ALONE

    def batches(self, order: list[np.ndarray]) -> Generator[tuple[Array, ...], None, None]:
        """Yield each batch of an epoch: its images and labels, or on a device its indices.

        Args:
            order: int64 index arrays of whole batches, `(batch size,)`.
        """
        parts = [part_of_batch(self.processes, len(chosen)) for chosen in order]
        order = [c[part.start : part.stop] for c, part in zip(order, parts, strict=True)]
        if not self._on_device:
            yield from self.dataset.training_batches(order)
        elif order:
            indices = self.backend.asarray(np.concatenate(order))  # moved at once
            start = 0
            for chosen in order:
                yield (indices[start : start + len(chosen)],)
                start += len(chosen)

    def of(self, batch: tuple[Array, ...]) -> tuple[Array, Array]:
        """Return the images and the labels of a batch, as they are in the data set."""
        if len(batch) == 1:
            batch = tuple(np.take(self.backend.asarray(x), *batch, 0) for x in self._data)
        images, labels = batch
        return images, labels

    @property
    def _data(self) -> tuple[Array, Array]:
        return self.dataset.train_images, self.dataset.train_labels

    @property
    def _on_device(self) -> bool:
        """Whether images and labels are both in the memory of a device."""
        there = type(self.backend.asarray(0))
        return there is not np.ndarray and all(type(x) is there for x in self._data)
