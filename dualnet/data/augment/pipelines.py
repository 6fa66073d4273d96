"""The augmentations of the papers, and their names on the command line."""

from __future__ import annotations

from collections.abc import Callable

from dualnet.data.augment.color import ColorJitter, Grayscale, Solarize
from dualnet.data.augment.geometry import Flip, GaussianBlur, PaddedCrop, ResizedCrop
from dualnet.data.augment.step import Augmentation, Compose, Sometimes


def none() -> None:
    """Return no augmentation: images stay as they are."""


def flip() -> Sometimes:
    """Flip: all that the code published with Ren et al. 2023 does to images of CIFAR-10."""
    return Sometimes(0.5, Flip())


def flip_crop() -> Compose:
    """Flip, and crop after padding by 4 pixels: the usual augmentation for CIFAR."""
    return Compose((Sometimes(0.5, Flip()), PaddedCrop(4)))


def flip_resized_crop(size: int | None = None) -> Compose:
    """Flip, and scale a random crop to the image's size: the augmentation of AlexNet.

    Args:
        size: height and width of the result; None for those of the image.  The AlexNet of the
            FDFA paper has 224.
    """
    return Compose((Sometimes(0.5, Flip()), ResizedCrop(size=size)))


def contrastive(
    smallest_area: float = 0.08, *, blur: float = 0.5, solarize: float = 0.1
) -> Compose:
    """Make one view of a pair: resized crop, flip, color jitter, grayscale, blur, solarize.

    Two calls with different keys make two views of the same images.  The code published with Ren,
    Kornblith, Liao & Hinton 2023 treats the two views unequally: `blur=1.0, solarize=0.0` for one
    and `blur=0.1, solarize=0.2` for the other, like Grill et al. 2020 (table 6).  The defaults
    here are about the mean of both.  Strengths and all other probabilities are those of the code.

    Args:
        smallest_area: the smallest area of a crop, as a share of the image's area.  Ren et al.
            take 0.08 for backpropagation and 0.3 to 0.5 for forward gradients.
        blur, solarize: the probabilities of both.
    """
    return Compose(
        (
            ResizedCrop(area=(smallest_area, 1.0)),
            Sometimes(0.5, Flip()),
            Sometimes(0.8, ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)),
            Sometimes(0.2, Grayscale()),
            Sometimes(blur, GaussianBlur()),
            Sometimes(solarize, Solarize()),
        )
    )


def contrastive_large() -> Compose:
    """Make views as `contrastive` does, with crops of at least 0.3 of the area.

    They are for forward gradients.
    """
    return contrastive(smallest_area=0.3)


AUGMENTATIONS: dict[str, Callable[[], Augmentation | None]] = {
    "none": none,
    "flip": flip,
    "flip-crop": flip_crop,
    "flip-resized-crop": flip_resized_crop,
    "contrastive": contrastive,
    "contrastive-large": contrastive_large,
}
"""Name → function that makes the augmentation.  All of these keep the size of images."""
