"""The papers' augmentations, by the names that the command line gives them."""

from __future__ import annotations

from collections.abc import Callable

from dualnet.data.augment.color import ColorJitter, Grayscale, Solarize
from dualnet.data.augment.geometry import Flip, GaussianBlur, PaddedCrop, ResizedCrop
from dualnet.data.augment.step import Augmentation, Compose, Sometimes


def none() -> None:
    """Images as they are."""


def flip_crop() -> Compose:
    """Flip, and crop after padding by 4 pixels: the usual one of CIFAR."""
    return Compose((Sometimes(0.5, Flip()), PaddedCrop(4)))


def flip_resized_crop(size: int | None = None) -> Compose:
    """Flip, and a random crop scaled to the image's size: that of AlexNet.

    The FDFA paper's AlexNet has `size=224`.
    """
    return Compose((Sometimes(0.5, Flip()), ResizedCrop(size=size)))


def contrastive(
    smallest_area: float = 0.08, *, blur: float = 0.5, solarize: float = 0.1
) -> Compose:
    """Resized crop, flip, color jitter, grayscale, blur, solarize: one view of a pair.

    Two views of the same images are two calls with different keys.  The code published with Ren,
    Kornblith, Liao & Hinton 2023 treats them unequally: `blur=1.0, solarize=0.0` for one and
    `blur=0.1, solarize=0.2` for the other, as Grill et al. 2020 (table 6).  The defaults are
    about the mean of both; strengths and all other probabilities are theirs.

    Args:
        smallest_area: of a crop, as a share of the image's area; Ren et al. have 0.08 for
            backpropagation and 0.3 to 0.5 for forward gradients.
        blur, solarize: probabilities.
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
    """The same with crops of at least 0.3 of the area, for forward gradients."""
    return contrastive(smallest_area=0.3)


AUGMENTATIONS: dict[str, Callable[[], Augmentation | None]] = {
    "none": none,
    "flip-crop": flip_crop,
    "flip-resized-crop": flip_resized_crop,
    "contrastive": contrastive,
    "contrastive-large": contrastive_large,
}
"""Each makes its augmentation; all of them keep the size of images."""
