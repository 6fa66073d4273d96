"""Augmentations: random changes of images while training.  They are off by default."""

from dualnet.data.augment.color import ColorJitter, Grayscale, Solarize
from dualnet.data.augment.geometry import Flip, GaussianBlur, PaddedCrop, ResizedCrop
from dualnet.data.augment.pipelines import (
    AUGMENTATIONS,
    contrastive,
    flip_crop,
    flip_resized_crop,
)
from dualnet.data.augment.step import Augmentation, Compose, Sometimes

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "ColorJitter",
    "Compose",
    "Flip",
    "GaussianBlur",
    "Grayscale",
    "PaddedCrop",
    "ResizedCrop",
    "Solarize",
    "Sometimes",
    "contrastive",
    "flip_crop",
    "flip_resized_crop",
]
