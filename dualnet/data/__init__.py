"""Data sets whose files are checked before they are used, and the batches of an epoch."""

from dualnet.data.batches import batches
from dualnet.data.idx import read_idx
from dualnet.data.sets import PIXEL_SCALES, Dataset, load
from dualnet.data.sources import NAMES, SOURCES

__all__ = ["NAMES", "PIXEL_SCALES", "SOURCES", "Dataset", "batches", "load", "read_idx"]
