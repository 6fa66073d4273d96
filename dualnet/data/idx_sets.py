"""Read the data sets that are IDX files: the digits of the package, MNIST and Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dualnet.data.dataset import Pair
from dualnet.data.idx import read_idx
from dualnet.data.locate import Found
from dualnet.data.sources import SOURCES, Source
from dualnet.data.streams import digest
from dualnet.errors import DataError

_DIGITS = Path(__file__).parent / "digits"
_DIGITS_FOR_TEST = slice(3, None, 7)  # digits/SOURCE.md says why


def read_digits(source: Source) -> tuple[Pair, Pair]:
    """Read the training set and the test set of the package's digits.

    Raises:
        DataError: the installation is damaged.
    """
    images, labels = _read_pair(
        source,
        _DIGITS / "images-idx3-ubyte.gz",
        _DIGITS / "labels-idx1-ubyte.gz",
        "install dualnet again",
    )
    test = np.zeros(len(labels), bool)
    test[_DIGITS_FOR_TEST] = True
    return (images[~test], labels[~test]), (images[test], labels[test])


def read_idx_set(name: str, found: Found, remedy: str) -> tuple[Pair, Pair]:
    """Read the four files of a set.

    Args:
        name: the set's name.
        found: where the files are.
        remedy: what to do about a bad file; it ends every error message.

    Returns:
        The training set and the test set.

    Raises:
        DataError: a file cannot be read or is not what it should be.
    """
    train_images, train_labels, test_images, test_labels = found.paths
    source = SOURCES[name]
    known = tuple(file.sha256 for file in found.known) or (None,) * 4
    train = _read_pair(source, train_images, train_labels, remedy, known[:2])
    test = _read_pair(source, test_images, test_labels, remedy, known[2:])
    if not found.known:
        for path in (train_labels, test_labels):
            _check_set(name, path)
    return train, test


def _check_set(name: str, path: Path) -> None:
    """Raise a DataError if a file belongs to another set with the same file names.

    MNIST and Fashion-MNIST have the same file names, so a folder of one can be taken for the other.
    """
    names = SOURCES[name].forms
    others = {
        file.sha256: (other, file.size)
        for other, source in SOURCES.items()
        for file in source.files
        if other != name and source.forms == names
    }
    most = max(size for _, size in others.values())
    _, sha256 = digest(path, most + 1)
    if sha256 in others:
        raise DataError(
            f"{path}: expected a file of {name}, found one of {others[sha256][0]}; "
            f"name the folder of {name}, or ask for {others[sha256][0]}"
        )


def _read_pair(
    source: Source,
    images_path: Path,
    labels_path: Path,
    remedy: str,
    known: Sequence[str | None] = (None, None),
) -> Pair:
    """Read images and labels from two files, and check that they fit together.

    `known` are the SHA-256 that the files must have.
    """
    shape = (None, source.side, source.side)
    images = read_idx(images_path, shape, remedy=remedy, sha256=known[0])
    labels = read_idx(labels_path, (None,), remedy=remedy, sha256=known[1])
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: expected {len(images)} labels, one for each image of "
            f"{images_path}, found {len(labels)}; {remedy}"
        )
    if labels.max() >= len(source.classes):
        raise DataError(
            f"{labels_path}: expected labels from 0 to {len(source.classes) - 1}, "
            f"found {labels.max()}; {remedy}"
        )
    return images[..., None], labels.astype(np.int64)
