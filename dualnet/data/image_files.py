"""Image files of a user's own as examples of the kind that a network was trained on."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from dualnet.data.images import MAX_BYTES, MAX_PIXELS, MODES
from dualnet.data.preparation import Preparation
from dualnet.data.streams import bad
from dualnet.errors import DataError, UsageError

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""The formats of image files, as Pillow calls them."""

_CHANNELS = {1: "L", 3: "RGB"}
"""Channels → Pillow's mode of such an image."""
_REMEDY = "replace it or leave it out"


def fitted_words(preparation: Preparation) -> str:
    """Say what `read_fitted` makes of an image.

    Raises:
        UsageError: the network was not trained on images.
    """
    shape, white = preparation.shape, preparation.white
    if white is None or len(shape) != 3 or shape[-1] not in _CHANNELS:
        raise UsageError(
            f"expected examples {tuple(shape)}, as those that the network was trained on, in a "
            "file .npy or .npz; it was not trained on images"
        )
    colors = "gray" if shape[-1] == 1 else "in color"
    return f"scaled and cut to {shape[0]} x {shape[1]}, {colors}, from 0 to {white}"


def read_fitted(file: Path, preparation: Preparation) -> np.ndarray:
    """Decode an image file, and make it an example of the kind that a network was trained on.

    The image is turned as its camera says, laid on white where it is transparent, scaled so that it
    just covers an example's height and width, and what then stands out at two opposite sides is cut
    off.  An image of an example's size is left as it is.  Then it is made gray, or red, green and
    blue, and numbers from 0 to 255 are scaled to 0 to `white`.

    Args:
        file: of one of the `FORMATS`.
        preparation: of a network of images; `fitted_words` makes sure of that.

    Returns:
        uint8 `preparation.shape`.

    Raises:
        UsageError: there is no such file.
        DataError: Pillow is missing, or the file is damaged, too large or no image.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise DataError(
            f"{file}: expected Pillow, which decodes images, found none; "
            'pip install "dualnet[images]"'
        ) from None
    height, width, channels = preparation.shape
    if not file.is_file():
        raise UsageError(f"{file}: expected an image file, found none")
    if (size := os.path.getsize(file)) > MAX_BYTES:
        raise bad(file, f"a file of at most {MAX_BYTES} bytes", f"{size} bytes", _REMEDY)
    try:
        # Nothing is decoded before its size and mode are known to be harmless.
        with warnings.catch_warnings(), Image.open(file, formats=FORMATS) as image:
            warnings.simplefilter("ignore")  # of palettes, and of large images
            if image.width * image.height > MAX_PIXELS:
                found = f"{image.width} x {image.height}"
                raise bad(file, f"at most {MAX_PIXELS} pixels", found, _REMEDY)
            if image.mode not in MODES:
                raise bad(file, f"one of the modes {' '.join(MODES)}", image.mode, _REMEDY)
            image.load()
            turned = ImageOps.exif_transpose(image)
            if turned.has_transparency_data:
                colored = turned.convert("RGBA")
                turned = Image.alpha_composite(Image.new("RGBA", turned.size, "white"), colored)
            plain = turned.convert("RGB").convert(_CHANNELS[channels])
            fitted = ImageOps.fit(plain, (width, height), Image.Resampling.BICUBIC)
            pixels = np.asarray(fitted).reshape(preparation.shape)
    except DataError:
        raise
    except Exception as error:  # of any kind: Pillow's decoders raise many for damaged files
        found = " ".join(str(error).split()) or type(error).__name__
        raise bad(file, f"an intact image ({', '.join(FORMATS)})", found, _REMEDY) from error
    return np.rint(pixels * ((preparation.white or 255) / 255)).astype(np.uint8)
