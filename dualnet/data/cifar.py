"""Read the files of CIFAR-10 and CIFAR-100, in the binary and in the pickled version.

A record has one byte for each label (CIFAR-100 has a coarse label first) and 3,072 bytes for the
pixels: all of red, then green, then blue, each 32 rows of 32.  Source: A. Krizhevsky, "Learning
Multiple Layers of Features from Tiny Images", 2009; the layouts:
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualnet.data.archives import read_members
from dualnet.data.dataset import Pair
from dualnet.data.locate import Found
from dualnet.data.pickled import PickledArray, read_pickle
from dualnet.data.streams import FETCH_AGAIN, bad, digest, read_whole, require_digest

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_MOST_RECORDS = 60_000
"""The most images that a set may have."""
_BESIDE_PIXELS = 100
"""The most bytes that a record takes in a pickle besides its pixels: labels and a file name."""


@dataclass(frozen=True)
class Layout:
    """How the records of a set are built.

    Args:
        label_bytes: how many bytes come before the pixels; the last of them is the label.
        classes: how many classes there are.
        labels: the key of the labels in a pickle.
    """

    label_bytes: int
    classes: int
    labels: bytes


LAYOUTS = {"cifar10": Layout(1, 10, b"labels"), "cifar100": Layout(2, 100, b"fine_labels")}


def read_cifar(name: str, found: Found, remedy: str = FETCH_AGAIN) -> tuple[Pair, Pair]:
    """Read all files of a set, or their archive.

    Args:
        name: `cifar10` or `cifar100`.
        found: where the files are; the last one is the test set.
        remedy: what to do about a bad file; it ends every error message.

    Returns:
        The training set and the test set.

    Raises:
        DataError: a file cannot be read or is not what it should be.
    """
    read = {"binary": _read_binary, "python": _read_python}[found.form.kind]
    layout = LAYOUTS[name]
    most = _MOST_RECORDS * (_PIXELS + _BESIDE_PIXELS)
    pairs = {}
    if found.archived:
        (archive,) = found.paths
        for must_be in found.known:
            sha256 = digest(archive, must_be.size + 1, packed=must_be.packed)[1]
            require_digest(archive, must_be.sha256, sha256, remedy)
        wanted = {f"{found.form.folder}/{file}": file for file in found.form.files}
        for member, content in read_members(archive, wanted, most, remedy):
            pairs[wanted[member]] = read(content, layout, f"{archive}: {member}", remedy)
    else:
        for file, path in zip(found.form.files, found.paths, strict=True):
            pairs[file] = read(read_whole(path, most, remedy), layout, str(path), remedy)
    *training, test = (pairs[file] for file in found.form.files)
    images, labels = zip(*training, strict=True)
    return (np.concatenate(images), np.concatenate(labels)), test


def _read_binary(content: bytes, layout: Layout, where: str, remedy: str) -> Pair:
    """Read images and labels from the bytes of a binary file."""
    record = layout.label_bytes + _PIXELS
    count, rest = divmod(len(content), record)
    if rest or not 1 <= count <= _MOST_RECORDS:
        expected = f"1 to {_MOST_RECORDS} records of {record} bytes"
        raise bad(where, expected, f"{len(content)} bytes", remedy)
    records = np.frombuffer(content, np.uint8).reshape(count, record)
    labels = records[:, layout.label_bytes - 1].astype(np.int64)
    return _checked(records[:, layout.label_bytes :], labels, layout, where, remedy)


def _read_python(content: bytes, layout: Layout, where: str, remedy: str) -> Pair:
    """Read images and labels from the bytes of a pickle."""
    held, key = read_pickle(content, where, remedy), layout.labels.decode()
    if not (isinstance(held, dict) and {b"data", layout.labels} <= held.keys()):
        raise bad(where, f"a dict with data and {key}", "something else", remedy)
    data, labels = held[b"data"], held[layout.labels]
    if not (isinstance(data, PickledArray) and len(data.shape) == 2 and data.shape[1] == _PIXELS):
        raise bad(where, f"data of shape any x {_PIXELS}", "something else", remedy)
    if not (isinstance(labels, list) and all(type(label) is int for label in labels)):
        raise bad(where, f"{key} in a list of numbers", "something else", remedy)
    if len(labels) != data.shape[0]:
        raise bad(where, f"{data.shape[0]} labels, one for each image", str(len(labels)), remedy)
    return _checked(data.values(), np.array(labels, np.int64), layout, where, remedy)


def _checked(
    pixels: np.ndarray, labels: np.ndarray, layout: Layout, where: str, remedy: str
) -> Pair:
    """Check the labels, and put pixels `(N, 3072)` in the order (N, 32, 32, 3)."""
    for worst in (labels.min(), labels.max()):
        if not 0 <= worst < layout.classes:
            raise bad(where, f"labels from 0 to {layout.classes - 1}", str(worst), remedy)
    images = pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels
