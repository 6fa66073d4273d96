"""Data sets: load them from files that are checked, cut them into batches, augment images."""

from dualnet.data.arrays import ArrayDataset, from_arrays
from dualnet.data.augment import AUGMENTATIONS
from dualnet.data.batches import batches
from dualnet.data.dataset import Dataset
from dualnet.data.idx import read_idx
from dualnet.data.preparation import PIXEL_SCALES, Preparation
from dualnet.data.sets import load, outline
from dualnet.data.sources import NAMES, SOURCES, WITHOUT_FOLDER, Source

__all__ = [
    "AUGMENTATIONS",
    "NAMES",
    "PIXEL_SCALES",
    "SOURCES",
    "WITHOUT_FOLDER",
    "ArrayDataset",
    "Dataset",
    "Preparation",
    "Source",
    "batches",
    "from_arrays",
    "load",
    "outline",
    "read_idx",
]
