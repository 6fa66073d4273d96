"""Data sets in folders of image files: Tiny ImageNet, and one folder for each class."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dualnet.data.cache import IMAGES, LABELS
from dualnet.data.images import SUFFIXES, decode
from dualnet.data.npy import write_array
from dualnet.data.sources import SOURCES
from dualnet.data.streams import bad, read_whole
from dualnet.random import Key

_MOST_ANNOTATIONS = 1 << 24
"""The largest list of labels that is read, in bytes."""
_REMEDY = "unpack the set again"


@dataclass(frozen=True)
class Listing:
    """The files of a set, in an order that mixes the classes and that is always the same.

    Args:
        classes: the names of the classes' folders, sorted.
        train, test: the paths of the image files.
        train_labels, test_labels: int64, one index into `classes` for each file.
    """

    classes: tuple[str, ...]
    train: tuple[Path, ...]
    train_labels: np.ndarray
    test: tuple[Path, ...]
    test_labels: np.ndarray

    def limited(self, train: int | None, test: int | None) -> Listing:
        """Keep the first `train` and the first `test` files; None keeps all."""
        return Listing(
            self.classes,
            self.train[:train],
            self.train_labels[:train],
            self.test[:test],
            self.test_labels[:test],
        )


def list_classes(name: str, folder: Path) -> tuple[str, ...]:
    """List the names of a set's classes.

    Args:
        name: the set's name.
        folder: the folder that `locate_folder` found.

    Raises:
        DataError: there are no classes, or not as many as the set must have.
    """
    classes = tuple(sorted(e.name for e in _entries(folder / "train") if os.path.isdir(e)))
    count = SOURCES[name].class_count
    if not classes or (count is not None and len(classes) != count):
        expected = f"{count or 'some'} folders, one for each class"
        raise bad(folder / "train", expected, str(len(classes)), _REMEDY)
    return classes


def list_set(name: str, folder: Path) -> Listing:
    """Find the files of a set.  No file is opened but Tiny ImageNet's list of labels.

    Args:
        name: `tiny-imagenet` (train/CLASS/images/*, val/images/*, val/val_annotations.txt) or
            `imagenet-folder` (train/CLASS/*, val/CLASS/*).
        folder: the folder that `locate_folder` found.

    Raises:
        DataError: classes or files are missing, or labels name classes or files that are not
            there.
    """
    classes = list_classes(name, folder)
    if name == "tiny-imagenet":
        train = [_images(folder / "train" / c / "images") for c in classes]
        test = _annotated(folder / "val", classes)
    else:
        train = [_images(folder / "train" / c) for c in classes]
        for entry in _entries(folder / "val"):
            if os.path.isdir(entry) and entry.name not in classes:
                found = f"no folder of it in {folder / 'train'}"
                raise bad(entry.path, "a class of the training set", found, _REMEDY)
        test = [_images(folder / "val" / c) for c in classes]
    return Listing(classes, *_mixed("train", train), *_mixed("test", test))


def write_decoded(listing: Listing, side: int, resize: bool, quiet: bool) -> Callable[[Path], None]:
    """Return a function that decodes the files of a listing into a folder, for `cached`.

    Args:
        listing: the files and labels.
        side: height and width of the decoded images in pixels.
        resize: see `decode`.
        quiet: show no progress bar.
    """

    def make(folder: Path) -> None:
        """Write the files of `IMAGES` and `LABELS` to the folder."""
        files, labels = (listing.train, listing.test), (listing.train_labels, listing.test_labels)
        for images_name, labels_name, paths, numbers in zip(
            IMAGES, LABELS, files, labels, strict=True
        ):
            shape = (len(paths), side, side, 3)
            with closing(decode(paths, side, resize=resize, quiet=quiet)) as decoded:
                write_array(folder / f"{images_name}.npy", np.uint8, shape, decoded)
            write_array(folder / f"{labels_name}.npy", np.int64, numbers.shape, (numbers,))

    return make


def _annotated(folder: Path, classes: tuple[str, ...]) -> list[list[Path]]:
    """List the validation images of Tiny ImageNet by class.

    A line of its list of labels is a file, a class, and a box that is not used.
    """
    path = folder / "val_annotations.txt"
    there = {image.name: image for image in _images(folder / "images")}
    by_class: dict[str, list[Path]] = {name: [] for name in classes}
    for line in read_whole(path, _MOST_ANNOTATIONS).decode("utf-8", "replace").splitlines():
        file, label = [*line.split("\t"), "", ""][:2]
        # A name is only looked up among the files that are there; it is never used as a path.
        if file not in there or label not in by_class:
            expected = f"a file of {folder / 'images'} and a class, each once"
            raise bad(path, expected, repr(line[:80]), _REMEDY)
        by_class[label].append(there.pop(file))
    if there:
        raise bad(path, f"a line for {min(there)}", "none", _REMEDY)
    return list(by_class.values())


def _images(folder: Path) -> list[Path]:
    """List the image files of a folder, sorted.  Other files are ignored."""
    images = sorted(
        Path(entry.path) for entry in _entries(folder) if entry.name.lower().endswith(SUFFIXES)
    )
    if not images:
        raise bad(folder, f"files {' '.join('*' + s for s in SUFFIXES)}", "none", _REMEDY)
    return images


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """List the files and folders in a folder, without the hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise bad(folder, "a folder", error.strerror or str(error), _REMEDY) from error


def _mixed(part: str, by_class: list[list[Path]]) -> tuple[tuple[Path, ...], np.ndarray]:
    """Shuffle the files of all classes, always alike for one `part`; return files and labels."""
    files = [file for images in by_class for file in images]
    labels = np.repeat(np.arange(len(by_class)), [len(images) for images in by_class])
    shuffle = np.random.Generator(np.random.SFC64(Key(0).fold_in(part).bits))
    order = shuffle.permutation(len(files))
    return tuple(files[i] for i in order), labels[order].astype(np.int64)
