"""The fingerprint of a data set: a digest by which a run that goes on knows its examples again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dualnet.data.dataset import Dataset, Rows
from dualnet.data.stored import Stored

_MOST_BYTES = 1 << 32
"""Of an array with more bytes, evenly spaced examples are read that have about so many."""
_CHUNK_BYTES = 1 << 22


def fingerprint(dataset: Dataset, to_host: Callable[[Any], np.ndarray] = np.asarray) -> str:
    """Return the SHA-256 of all examples and labels, with their shapes, dtypes and classes.

    `to_host` is that of the backend, which may keep the examples on a device.
    """
    digest = hashlib.sha256(repr((dataset.classes, dataset.white, dataset.image_size)).encode())
    for array in (
        dataset.train_images,
        dataset.train_labels,
        dataset.test_images,
        dataset.test_labels,
    ):
        digest.update(repr((array.shape, array.dtype.str)).encode())
        for part in _parts(array):
            digest.update(np.ascontiguousarray(to_host(part)).data)
    return digest.hexdigest()


def _parts(array: np.ndarray | Rows | Stored) -> Iterator[np.ndarray]:
    """Yield the examples of an array, some at a time, and of a very large one some of them."""
    of_one = max(1, math.prod(array.shape[1:]) * array.dtype.itemsize)
    apart = max(1, -(-len(array) * of_one // _MOST_BYTES))
    at_once = apart * max(1, _CHUNK_BYTES // of_one)
    for start in range(0, len(array), at_once):
        yield array[start : start + at_once : apart]
