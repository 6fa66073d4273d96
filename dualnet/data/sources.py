"""The data sets: what they are, the files they are made of, and where to get the files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set that can be downloaded.

    Args:
        name: the file's name, without the `.gz` that mirrors may add.
        size: its length in bytes.
        sha256: its SHA-256 in hexadecimal.
        packed: whether mirrors have it as `name.gz`.  Then size and checksum are those of the file
            after decompression.
    """

    name: str
    size: int
    sha256: str
    packed: bool = True

    @property
    def sent_name(self) -> str:
        """The name that the file has on mirrors."""
        return f"{self.name}.gz" if self.packed else self.name


@dataclass(frozen=True)
class Form:
    """One way in which the files of a set are kept.

    Args:
        kind: how they are read: `idx`, or one of CIFAR's, `binary` and `python`.
        files: the files' names.
        folder: the folder that they are in, within their archive and where it was unpacked.
        archive: the name of the tar file that holds them; empty if there is none.
    """

    kind: str
    files: tuple[str, ...]
    folder: str = ""
    archive: str = ""


@dataclass(frozen=True)
class Source:
    """A data set before it is read.

    Args:
        description: one line for a reader.
        side: height and width of an image in pixels.
        white: the pixel value of full intensity, from 1 to 255.
        classes: the name of each label; empty if the folders of the classes give the names.
        channels: 1 for gray, 3 for red, green and blue.
        class_count: how many classes there must be, where folders name them; None for any number.
        make: returns training and test examples, each images, uint8 (N, side, side, channels), and
            labels, int (N,), if they are kept `in-memory`.
        kept: `files` for a set whose files are looked for or downloaded, `package` for a set that
            is part of the package, `in-memory` for one that `make` makes, `folders` for a set that
            the user has, with one folder for each class.
        forms: the forms in which the files may be kept; the first one that is found is read.
        files: the files to download if none of the forms is found.
        mirrors: addresses to which a file's name is added; they are tried in this order.
        page: the address where a person gets the set, if it cannot be downloaded.

    Examples:
        >>> def make():
        ...     images = np.zeros((4, 2, 2, 1), np.uint8)
        ...     return (images, np.array([0, 1, 0, 1])), (images[:2], np.array([0, 1]))
        >>> source = dn.data.Source("black", 2, 255, ("a", "b"), kept="in-memory", make=make)
        >>> dn.data.SOURCES["black"] = source  # as a plugin does
        >>> dn.data.load("black")
        <Dataset black: 4 training and 2 test images 2x2x1, 2 classes>
        >>> del dn.data.SOURCES["black"]
    """

    description: str
    side: int
    white: int
    classes: tuple[str, ...]
    channels: int = 1
    class_count: int | None = None
    kept: str = "files"
    forms: tuple[Form, ...] = ()
    files: tuple[RemoteFile, ...] = ()
    mirrors: tuple[str, ...] = ()
    page: str = ""
    make: Callable[[], tuple[tuple[Any, Any], tuple[Any, Any]]] | None = None


_IDX = Form(
    "idx",
    (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ),
)


def _four_files(*sha256: str) -> tuple[RemoteFile, ...]:
    """Return the four files of MNIST or Fashion-MNIST, given their checksums."""
    sizes = (16 + 60_000 * 28 * 28, 8 + 60_000, 16 + 10_000 * 28 * 28, 8 + 10_000)
    return tuple(RemoteFile(*file) for file in zip(_IDX.files, sizes, sha256, strict=True))


_DIGITS = tuple("0123456789")

_CIFAR100 = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
    mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
    plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
    television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split()
)

_TORONTO = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")

SOURCES = {
    "digits": Source(
        "1,797 handwritten digits of 8x8 pixels, part of the package",
        side=8,
        white=16,
        classes=_DIGITS,
        kept="package",
    ),
    "mnist": Source(
        "70,000 handwritten digits of 28x28 pixels, 11 MB to download",
        side=28,
        white=255,
        classes=_DIGITS,
        forms=(_IDX,),
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
        forms=(_IDX,),
        files=_four_files(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        mirrors=(
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        ),
    ),
    "cifar10": Source(
        "60,000 color photographs of 10 things, 32x32 pixels, 170 MB to download",
        side=32,
        white=255,
        channels=3,
        classes=tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
        forms=(
            Form(
                "binary",
                (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"),
                folder="cifar-10-batches-bin",
                archive="cifar-10-binary.tar.gz",
            ),
            Form(
                "python",
                (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"),
                folder="cifar-10-batches-py",
                archive="cifar-10-python.tar.gz",
            ),
        ),
        files=(
            RemoteFile(
                "cifar-10-binary.tar.gz",
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                packed=False,
            ),
        ),
        mirrors=_TORONTO,
    ),
    "cifar100": Source(
        "60,000 color photographs of 100 things, 32x32 pixels, 169 MB to download",
        side=32,
        white=255,
        channels=3,
        classes=_CIFAR100,
        forms=(
            Form(
                "binary",
                ("train.bin", "test.bin"),
                folder="cifar-100-binary",
                archive="cifar-100-binary.tar.gz",
            ),
            Form(
                "python",
                ("train", "test"),
                folder="cifar-100-python",
                archive="cifar-100-python.tar.gz",
            ),
        ),
        files=(
            RemoteFile(
                "cifar-100-binary.tar.gz",
                168_513_733,
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                packed=False,
            ),
        ),
        mirrors=_TORONTO,
    ),
    "tiny-imagenet": Source(
        "110,000 color photographs of 200 things, 64x64 pixels, in folders; not downloaded",
        side=64,
        white=255,
        channels=3,
        classes=(),
        class_count=200,
        kept="folders",
        page="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    ),
    "imagenet-folder": Source(
        "your own photographs: train/CLASS/*, val/CLASS/* (--image-size, default 64)",
        side=64,
        white=255,
        channels=3,
        classes=(),
        kept="folders",
        page="https://image-net.org/download",
    ),
}
"""Name → data set; `load` takes the name.

Sources: digits: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits"; MNIST: LeCun
et al. 1998, "Gradient-Based Learning Applied to Document Recognition"; Fashion-MNIST: Xiao et al.
2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms"; CIFAR:
Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"; ImageNet: Deng et al.
2009, "ImageNet: A Large-Scale Hierarchical Image Database".
"""

NAMES = tuple(SOURCES)
"""The names of dualnet's own data sets; a plugin adds to `SOURCES` alone."""

WITHOUT_FOLDER = {"package": "ships with dualnet", "in-memory": "is made by a plugin"}
"""How a data set is kept that has no folder → what a message says of it."""
