"""Load a data set: checked images and labels, split into training and test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dualnet.data.cache import IMAGES, LABELS, cached
from dualnet.data.cifar import read_cifar
from dualnet.data.consistency import fault_of
from dualnet.data.dataset import Dataset, Pair, Rows
from dualnet.data.folders import Listing, list_classes, list_set, write_decoded
from dualnet.data.idx_sets import read_digits, read_idx_set
from dualnet.data.locate import Found, locate, locate_folder
from dualnet.data.npy import write_array
from dualnet.data.sources import SOURCES, Source
from dualnet.data.stored import Stored
from dualnet.data.streams import FETCH_AGAIN
from dualnet.errors import DataError, UsageError
from dualnet.naming import named
from dualnet.options import require_choice
from dualnet.tree import describe

_LARGEST_SIDE = 1024
"""The largest height and width of images, in pixels."""
_SCALED = "imagenet-folder"
"""The set whose images have many sizes; they are scaled when they are decoded."""


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    limit_train: int | None = None,
    limit_test: int | None = None,
    validation: int | None = None,
    image_size: int | None = None,
    download: bool = True,
    quiet: bool = False,
) -> Dataset:
    """Load a data set: `digits` from the package, the others from a folder or by a download.

    Two folders are searched: first `data_dir`, or else the folder that the environment variable
    DUALNET_DATA names, or else `shared/data` beside a checkout; then the user's cache, to which
    downloads go.  If `data_dir` is given, it must hold the set.

    Args:
        name: one of `SOURCES`.
        data_dir: a folder that has the files, directly or in its subfolder `name`.
        limit_train: how many training examples to keep, the first ones; None for all.
        limit_test: how many test examples to keep, the first ones; None for all.
        validation: how many training examples (of those that the limit leaves) to take away and
            to test on instead.  They are the last ones of a shuffle that is always the same.
        image_size: height and width of the images.  Images of `imagenet-folder` are scaled and cut
            to this size once, when they are decoded; without it, to 64.  Images of other sets are
            enlarged when they are used.
        download: whether files that are in none of the folders may be downloaded.
        quiet: show no progress on standard error.

    Returns:
        The data set.

    Raises:
        UsageError: there is no such data set, a number is no whole number from 1 to the number of
            examples, or a number is given that is of no use.
        DataError: a file is missing and cannot be downloaded, or is not what it should be.

    Examples:
        >>> digits = dn.data.load("digits", limit_train=100, limit_test=20)
        >>> digits.train_images.shape, digits.test_images.shape, digits.train_labels[:5].tolist()
        ((100, 8, 8, 1), (20, 8, 8, 1), [0, 1, 2, 4, 5])
        >>> dn.data.load("digits", limit_train=100, validation=30)
        <Dataset digits: 70 training and 30 validation images 8x8x1, 10 classes>
    """
    require_choice("load", "name", name, SOURCES)
    # Numbers are checked twice: here what no set could satisfy, before anything is downloaded;
    # below what this set does not satisfy, when its sizes are known.
    _check_number("limit_train", limit_train)
    _check_number("limit_test", limit_test)
    _check_number("validation", validation)
    _check_size(name, image_size)
    if validation is not None and limit_test is not None:
        raise UsageError(
            f"{named('limit_test', 'load')}: expected none with {named('validation')}, which says "
            "its size"
        )
    source = SOURCES[name]
    classes = source.classes
    if source.kept == "folders":
        listing = list_set(name, locate_folder(name, data_dir))
        classes = listing.classes
        _check_number("limit_train", limit_train, len(listing.train))
        _check_number("limit_test", limit_test, len(listing.test))
        # The limit comes before files are decoded, which takes hours for all of ImageNet.
        listing = listing.limited(limit_train, limit_test)
        side = image_size if name == _SCALED and image_size else source.side
        train, test = _decode(name, listing, side, quiet)
    elif source.kept == "package":
        train, test = read_digits(source)
    elif source.kept == "in-memory":
        train, test = _made(name, source)
    else:
        train, test = _read_files(name, locate(name, data_dir, download=download, quiet=quiet))
    _check_number("limit_train", limit_train, len(train[1]))
    _check_number("limit_test", limit_test, len(test[1]))
    dataset = Dataset(
        name,
        train_images=_first(train[0], limit_train),
        train_labels=train[1][:limit_train],
        test_images=_first(test[0], limit_test),
        test_labels=test[1][:limit_test],
        classes=tuple(classes),
        white=source.white,
        on_disk=source.kept == "folders",
        image_size=None if name == _SCALED else image_size,
    )
    if (fault := fault_of(dataset)) is not None:
        raise DataError(f"{name}: {fault}")
    if validation is None:
        return dataset
    _check_number("validation", validation, len(dataset.train_labels) - 1)
    return dataset.validating(validation)


def outline(
    name: str, data_dir: str | Path | None = None, image_size: int | None = None
) -> tuple[tuple[int, int, int], int]:
    """Return image shape and number of classes of a data set, without reading the set.

    Args:
        name, data_dir, image_size: as for `load`.

    Returns:
        The shape of an image, (height, width, channels), and the number of classes.

    Raises:
        UsageError: there is no such data set, or an image size is given that is of no use.
        DataError: the classes are folders, and there are no folders.

    Examples:
        >>> dn.data.outline("cifar10"), dn.data.outline("digits", image_size=16)
        (((32, 32, 3), 10), ((16, 16, 1), 10))
    """
    require_choice("outline", "name", name, SOURCES)
    _check_size(name, image_size)
    source = SOURCES[name]
    side = image_size or source.side
    count = len(source.classes) or source.class_count
    if count is None:
        count = len(list_classes(name, locate_folder(name, data_dir)))
    return (side, side, source.channels), count


def _first(images: np.ndarray | Stored, count: int | None) -> np.ndarray | Stored | Rows:
    """Return the first images; those in a file are not read."""
    if isinstance(images, np.ndarray):
        return images[:count]
    return images if count is None else Rows(images, np.arange(count))


def _check_number(argument: str, number: int | None, available: int | None = None) -> None:
    """Raise a UsageError unless a number is None or a whole one from 1 to `available`."""
    if number is None:
        return
    whole = isinstance(number, (int, np.integer)) and not isinstance(number, bool)
    if not whole or number < 1 or (available is not None and number > available):
        allowed = "from 1 up" if available is None else f"from 1 to {available}"
        raise UsageError(
            f"{named(argument, 'load')}: expected a whole number {allowed}, got {number!r}"
        )


def _check_size(name: str, image_size: int | None) -> None:
    """Raise a UsageError unless images of the set can have this size."""
    _check_number("image_size", image_size, _LARGEST_SIDE)
    smallest = 1 if name == _SCALED else SOURCES[name].side
    if image_size is not None and image_size < smallest:
        raise UsageError(
            f"{named('image_size', 'load')}: expected at least the {smallest} pixels that "
            f"{name} has, got {image_size}"
        )


def _read_files(name: str, found: Found) -> tuple[Pair, Pair]:
    """Read a set from its files; CIFAR's are decoded once, and then read from the cache."""
    remedy = f"{FETCH_AGAIN}, for instance from {SOURCES[name].mirrors[0]}"
    if found.form.kind == "idx":
        return read_idx_set(name, found, remedy)

    def make(folder: Path) -> None:
        """Write the files of `IMAGES` and `LABELS` to the folder."""
        pairs = read_cifar(name, found, remedy)
        for images, labels, pair in zip(IMAGES, LABELS, pairs, strict=True):
            for file, values in ((images, np.asarray(pair[0])), (labels, pair[1])):
                write_array(folder / f"{file}.npy", values.dtype, values.shape, (values,))

    what = [str(path.absolute()) for path in found.paths]
    train, test = cached(name, what, found.paths, make)
    return (np.asarray(train[0]), train[1]), (np.asarray(test[0]), test[1])


def _made(name: str, source: Source) -> tuple[Pair, Pair]:
    """Make a set that is registered from Python, and check it."""
    if source.make is None:
        raise UsageError(f"{name}: expected a function make in its Source, got None")
    parts = source.make()
    try:
        (train, train_labels), (test, test_labels) = parts
    except (TypeError, ValueError):
        raise DataError(
            f"{name}: expected make to return ((images, labels), (test images, test labels)), got "
            f"{describe(parts)}"
        ) from None
    shape = (source.side, source.side, source.channels)
    for images, labels in ((train, train_labels), (test, test_labels)):
        if not (
            isinstance(images, np.ndarray)
            and (images.dtype, images.shape[1:]) == (np.uint8, shape)
            and isinstance(labels, np.ndarray)
            and labels.dtype.kind in "iu"
            and labels.shape == (len(images),)
            and len(images) > 0
            and set(np.unique(labels)) <= set(range(len(source.classes)))
        ):
            raise DataError(
                f"{name}: expected images uint8 {('N', *shape)} and labels int (N,) from 0 to "
                f"{len(source.classes) - 1}, N from 1 up, got {describe((images, labels))}"
            )
    return (train, train_labels.astype(np.int64)), (test, test_labels.astype(np.int64))


def _decode(name: str, listing: Listing, side: int, quiet: bool) -> tuple[Pair, Pair]:
    """Return the images of a listing from the cache; decode them if they are not there."""
    make = write_decoded(listing, side, resize=name == _SCALED, quiet=quiet)
    files = (*listing.train, *listing.test)
    what = [str(files[0].absolute()), len(listing.train), len(listing.test), side]
    return cached(name, what, files, make)
