"""Image files of a user's own as examples of the kind that a network was trained on."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from dualnet.data.images import read_image_file, require_harmless
from dualnet.data.preparation import Preparation
from dualnet.data.promised_pixels import load_all
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
    if not os.path.isfile(file):
        raise UsageError(f"{file}: expected an image file, found none")
    content = read_image_file(file, _REMEDY)
    try:
        # Nothing is decoded before its size and mode are known to be harmless.
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
            warnings.simplefilter("ignore")  # of palettes, and of large images
            require_harmless(image, file, _REMEDY)
            if image.format == "TIFF" and image.info.get("compression") == "jpeg":
                raise ValueError("JPEG in TIFF, where missing pixels go unnoticed")
            with _libtiff_is_silent() if image.format == "TIFF" else nullcontext():
                image = load_all(image, content)
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


@contextmanager
def _libtiff_is_silent() -> Iterator[None]:
    """Keep what libtiff writes to standard error, past Python, about damaged files from there."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
