"""Loading a data set: images and labels that were checked, split into training and test."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from dualnet.data.download import digest
from dualnet.data.idx import FETCH_AGAIN, read_idx
from dualnet.data.locate import locate
from dualnet.data.sources import NAMES, SOURCES, Source
from dualnet.errors import DataError, UsageError

PIXEL_SCALES = ("standard", "symmetric")

_DIGITS = Path(__file__).parent / "digits"
_DIGITS_FOR_TEST = slice(3, None, 7)  # digits/SOURCE.md says why


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels, in a fixed order and a fixed split.

    Args:
        name: the name it was loaded by.
        train_images: uint8, (N, height, width, channels), from 0 to `white`.
        train_labels: int64, (N,), indices into `classes`.
        test_images: uint8, (M, height, width, channels).
        test_labels: int64, (M,).
        classes: one name for each label.
        white: the pixel value of full intensity.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    white: int

    @cached_property
    def training_mean_and_std(self) -> tuple[float, float]:
        """Mean and standard deviation of all training pixels together."""
        return float(self.train_images.mean()), float(self.train_images.std()) or 1.0

    def pixels(self, images: np.ndarray, dtype: DTypeLike, scale: str = "standard") -> np.ndarray:
        """Images as numbers for a network.

        Args:
            images: uint8, any shape, on any backend.
            dtype: of the result, a floating-point one.
            scale: `standard`, mean 0 and standard deviation 1 over all training pixels; or
                `symmetric`, from -1 (a pixel of 0) to 1 (a pixel of `white`).

        Returns:
            A new array of the same shape.

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
        if scale == "symmetric":
            return images.astype(dtype) / (self.white / 2) - 1.0
        mean, std = self.training_mean_and_std
        return (images.astype(dtype) - mean) / std


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    limit_train: int | None = None,
    limit_test: int | None = None,
    download: bool = True,
    quiet: bool = False,
) -> Dataset:
    """Load a data set: `digits` from the package, another from a folder or by download.

    The folders are, in this order, `data_dir` or else the one that the environment variable
    DUALNET_DATA names, and the user's cache, which is also where downloads go.

    Args:
        name: one of `NAMES`.
        data_dir: a folder with the files, in itself or in a folder `name` of it.
        limit_train: keep the first so many training examples only.
        limit_test: keep the first so many test examples only.
        download: whether files that are in none of the folders may be fetched.
        quiet: show no progress on standard error.

    Returns:
        The data set.

    Raises:
        UsageError: if there is no such data set, or a limit is not a whole number from 1 to
            the number of examples.
        DataError: if a file is missing and cannot be had, or is not what it should be.
    """
    if name not in NAMES:
        raise UsageError(f"load: name: expected one of {', '.join(NAMES)}, got {name!r}")
    # Twice: what no set can satisfy is said before a download, the rest when sizes are known.
    _check_limit("limit_train", limit_train)
    _check_limit("limit_test", limit_test)
    source = SOURCES[name]
    if source.files:
        train, test = _read_files(name, locate(name, data_dir, download=download, quiet=quiet))
    else:
        train, test = _read_digits(source)
    _check_limit("limit_train", limit_train, len(train[1]))
    _check_limit("limit_test", limit_test, len(test[1]))
    return Dataset(
        name,
        train_images=train[0][:limit_train],
        train_labels=train[1][:limit_train],
        test_images=test[0][:limit_test],
        test_labels=test[1][:limit_test],
        classes=source.classes,
        white=source.white,
    )


def _check_limit(argument: str, limit: int | None, available: int | None = None) -> None:
    if limit is None:
        return
    whole = isinstance(limit, (int, np.integer)) and not isinstance(limit, bool)
    if not whole or limit < 1 or (available is not None and limit > available):
        allowed = "from 1 up" if available is None else f"from 1 to {available}"
        raise UsageError(f"load: {argument}: expected a whole number {allowed}, got {limit!r}")


def _read_digits(source: Source) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    images, labels = _read_pair(
        source,
        _DIGITS / "images-idx3-ubyte.gz",
        _DIGITS / "labels-idx1-ubyte.gz",
        "install dualnet again",
    )
    test = np.zeros(len(labels), bool)
    test[_DIGITS_FOR_TEST] = True
    return (images[~test], labels[~test]), (images[test], labels[test])


def _read_files(name: str, paths: tuple[Path, ...]) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    train_images, train_labels, test_images, test_labels = paths
    source = SOURCES[name]
    remedy = f"{FETCH_AGAIN}, for instance from {source.mirrors[0]}"
    train = _read_pair(source, train_images, train_labels, remedy)
    test = _read_pair(source, test_images, test_labels, remedy)
    for path in (train_labels, test_labels):
        _check_set(name, path)
    return train, test


def _check_set(name: str, path: Path) -> None:
    """MNIST and Fashion-MNIST share all file names, so a folder can be taken for the other."""
    others = {
        file.sha256: (other, file.size)
        for other, source in SOURCES.items()
        for file in source.files
        if other != name
    }
    most = max(size for _, size in others.values())
    _, sha256 = digest(path, most + 1)
    if sha256 in others:
        raise DataError(
            f"{path}: expected a file of {name}, found one of {others[sha256][0]}; "
            f"name the folder of {name}, or ask for {others[sha256][0]}"
        )


def _read_pair(
    source: Source, images_path: Path, labels_path: Path, remedy: str
) -> tuple[np.ndarray, np.ndarray]:
    images = read_idx(images_path, (None, source.side, source.side), remedy=remedy)
    labels = read_idx(labels_path, (None,), remedy=remedy)
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
