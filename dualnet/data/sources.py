"""The data sets: what they are, the files they are made of, and where those can be had."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set, as it is after decompression; mirrors add `.gz` to the name.

    Args:
        name: its name, without `.gz`.
        size: its length in bytes.
        sha256: its SHA-256 in hexadecimal.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """A data set before it is read.

    Args:
        description: one line.
        side: height and width of an image in pixels.
        white: the pixel value of full intensity.
        classes: one name for each label.
        files: training images, training labels, test images, test labels; none for a set
            that is part of the package.
        mirrors: addresses to which a file's name is added, in the order they are tried.
    """

    description: str
    side: int
    white: int
    classes: tuple[str, ...]
    files: tuple[RemoteFile, ...] = ()
    mirrors: tuple[str, ...] = ()


def _four_files(*sha256: str) -> tuple[RemoteFile, ...]:
    names = (
        ("train-images-idx3-ubyte", 16 + 60_000 * 28 * 28),
        ("train-labels-idx1-ubyte", 8 + 60_000),
        ("t10k-images-idx3-ubyte", 16 + 10_000 * 28 * 28),
        ("t10k-labels-idx1-ubyte", 8 + 10_000),
    )
    return tuple(RemoteFile(*name, digest) for name, digest in zip(names, sha256, strict=True))


_DIGITS = tuple("0123456789")

SOURCES = {
    "digits": Source(
        "1,797 handwritten digits of 8x8 pixels, part of the package",
        side=8,
        white=16,
        classes=_DIGITS,
    ),
    "mnist": Source(
        "70,000 handwritten digits of 28x28 pixels, 11 MB to download",
        side=28,
        white=255,
        classes=_DIGITS,
        files=_four_files(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    "fashion-mnist": Source(
        "70,000 pictures of clothes of 28x28 pixels, 31 MB to download",
        side=28,
        white=255,
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        files=_four_files(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        mirrors=(
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
    ),
}
"""Every data set by the name it is loaded by."""

NAMES = tuple(SOURCES)
