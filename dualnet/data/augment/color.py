"""Augmentations of color: jitter, grayscale, solarize.

Images have three channels, red, green and blue, or a single one.  A single channel is the
brightness; it has neither saturation nor hue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualnet.backends import Backend
from dualnet.data.augment.step import check_range, draw
from dualnet.errors import UsageError
from dualnet.random import Key
from dualnet.types import Array


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue at random, in this order.

    Each of the first three is multiplied by a factor f that is uniform in [max(0, 1 - strength),
    1 + strength]: x <- f x + (1 - f) y, where y is black for brightness, the mean brightness of
    the image for contrast, and the brightness of the pixel for saturation.  The hue is turned by a
    share of the color circle that is uniform in [-hue, hue].  After every change, numbers are
    clipped to [0, 1].

    Args:
        brightness, contrast, saturation: the strengths, at least 0; 0 changes nothing.
        hue: the largest turn, from 0 to 0.5, which is half of the circle.

    Source: Chen, Kornblith, Norouzi & Hinton 2020, "A simple framework for contrastive learning
    of visual representations", appendix A, which changes the four in random order.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation", "hue"):
            strength = getattr(self, name)
            most = 0.5 if name == "hue" else 1e3
            check_range("ColorJitter", name, (strength, strength), 0.0, most)

    def __call__(self, key: Key, images: Array, backend: Backend, start: int = 0) -> Array:
        numbers = draw(key, images, 4, backend, start)[:, :, None, None, None]
        x = _mixed(images, 0.0, _factor(self.brightness, numbers[:, 0]))
        mean = _brightness(x).mean(axis=(1, 2), keepdims=True)
        x = _mixed(x, mean, _factor(self.contrast, numbers[:, 1]))
        x = _mixed(x, _brightness(x), _factor(self.saturation, numbers[:, 2]))
        if self.hue == 0.0 or x.shape[-1] == 1:  # else it would take time and round
            return x
        return _with_hue_turned(x, self.hue * (2.0 * numbers[:, 3] - 1.0))


@dataclass(frozen=True)
class Grayscale:
    """Replace every channel by the brightness of the pixel."""

    def __call__(self, key: Key, images: Array, backend: Backend, start: int = 0) -> Array:
        return np.broadcast_to(_brightness(images), images.shape)


@dataclass(frozen=True)
class Solarize:
    """Replace numbers x that are not below the threshold by 1 - x.

    Args:
        threshold: from 0 to 1.

    Source: Grill et al. 2020, "Bootstrap your own latent", appendix B.
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        check_range("Solarize", "threshold", (self.threshold, self.threshold), 0.0, 1.0)

    def __call__(self, key: Key, images: Array, backend: Backend, start: int = 0) -> Array:
        return np.where(images >= self.threshold, 1.0 - images, images)


def _factor(strength: float, numbers: Array) -> Array:
    """Map numbers from [0, 1) to factors in [max(0, 1 - strength), 1 + strength)."""
    low = max(0.0, 1.0 - strength)
    return low + (1.0 + strength - low) * numbers


def _mixed(x: Array, y: Array, factor: Array) -> Array:
    """Return factor · x + (1 - factor) · y, clipped to [0, 1]."""
    return np.clip(factor * x + (1.0 - factor) * y, 0.0, 1.0)


def _brightness(x: Array) -> Array:
    """Return the luma of ITU-R BT.601, `(N, H, W, 1)`.

    Raises:
        UsageError: the images have neither 1 nor 3 channels.
    """
    if x.shape[-1] == 1:
        return x
    if x.shape[-1] != 3:
        raise UsageError(
            f"augment: images: expected 1 or 3 channels, got {x.shape[-1]}; leave out what "
            "changes colors"
        )
    return 0.299 * x[..., :1] + 0.587 * x[..., 1:2] + 0.114 * x[..., 2:]


def _with_hue_turned(x: Array, turn: Array) -> Array:
    """Turn the hue of images `(N, H, W, 3)` by a share of the color circle, `(N, 1, 1, 1)`.

    Take a circle of length 6 with red at 0, green at 2 and blue at 4.  Where the hue is less than 1
    away from a channel, this channel is the brightest of the pixel; where it is more than 2 away,
    the channel is the darkest; between, the channel is linear in the distance.
    """
    red, green, blue = x[..., :1], x[..., 1:2], x[..., 2:]
    brightest = x.max(axis=-1, keepdims=True)
    chroma = brightest - x.min(axis=-1, keepdims=True)
    unit = chroma + (chroma == 0.0)  # gray has no hue, so any number will do
    from_green_or_blue = np.where(
        green == brightest, 2.0 + (blue - red) / unit, 4.0 + (red - green) / unit
    )
    hue = np.where(red == brightest, (green - blue) / unit, from_green_or_blue) + 6.0 * turn
    channels = (2 * np.arange(3, like=x)).astype(x.dtype)  # where red, green and blue are
    distances = np.abs(np.mod(hue - channels + 3.0, 6.0) - 3.0)
    return brightest - chroma * np.clip(distances - 1.0, 0.0, 1.0)
