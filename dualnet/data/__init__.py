"""Data sets: load them from files that are checked, cut them into batches, augment images."""

from dualnet.data.augment import AUGMENTATIONS
from dualnet.data.batches import batches
from dualnet.data.dataset import PIXEL_SCALES, Dataset
from dualnet.data.idx import read_idx
from dualnet.data.sets import load, outline
from dualnet.data.sources import NAMES, SOURCES, Source

__all__ = [
    "AUGMENTATIONS",
    "NAMES",
    "PIXEL_SCALES",
    "SOURCES",
    "Dataset",
    "Source",
    "batches",
    "load",
    "outline",
    "read_idx",
]
