"""Decode the image files of data sets with Pillow (extra `images`)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dualnet.backends.threads import cores
from dualnet.data.promised_pixels import load_all
from dualnet.data.streams import bad
from dualnet.errors import DataError
from dualnet.files import read_file
from dualnet.progress import progress_bar

SUFFIXES = (".jpeg", ".jpg", ".png")
"""The endings of the names of image files, in small letters."""

MAX_PIXELS = 1 << 26
"""The largest image that is decoded; the largest of ImageNet has 61 million pixels."""

MAX_BYTES = 1 << 27
"""The largest image file that is read."""
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
_AT_ONCE = 256
"""How many files are handed to the threads at once."""
_REMEDY = "replace it or remove it"


def decode(
    files: Sequence[Path], side: int, *, resize: bool, quiet: bool = False
) -> Generator[np.ndarray, None, None]:
    """Decode image files, in several threads.

    Args:
        files: JPEG or PNG files.  Gray, palette and CMYK images are converted to red, green and
            blue.
        side: height and width of the result in pixels.
        resize: True to scale images so that their smaller side fits, and to cut off the same
            length at both ends of the longer side; False to refuse images of another size.
        quiet: show no progress bar.

    Yields:
        The next images, uint8 `(n, side, side, 3)`.

    Raises:
        DataError: Pillow is missing, or a file is damaged, too large or no image.
    """
    _need_pillow()
    read = partial(read_image, side=side, resize=resize)
    with (
        ThreadPoolExecutor(cores()) as threads,
        progress_bar(total=len(files), desc="decoding images", unit="img", quiet=quiet) as bar,
    ):
        for start in range(0, len(files), _AT_ONCE):
            part = files[start : start + _AT_ONCE]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of palettes, and of large images, see below
                images = np.stack(list(threads.map(read, part)))
            yield images
            bar.update(len(part))


def read_image(path: Path, side: int, resize: bool) -> np.ndarray:
    """Decode one image file; see `decode`.

    Returns:
        A new uint8 array, (side, side, 3).
    """
    from PIL import Image, ImageOps

    content = read_image_file(path, _REMEDY)
    try:
        # Nothing is decoded before its size and mode are known to be harmless.  Of Pillow's many
        # formats, only the two are read that data sets are made of.
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            require_harmless(image, path, _REMEDY)
            width, height = image.size
            if not resize:
                if (width, height) != (side, side):
                    raise bad(path, f"{side} x {side} pixels", f"{width} x {height}", _REMEDY)
                return np.asarray(load_all(image, content).convert("RGB"))
            # A JPEG is decoded much faster at half its size, a quarter and so on.
            loaded = load_all(image, content, (2 * side, 2 * side)).convert("RGB")
            return np.asarray(ImageOps.fit(loaded, (side, side), Image.Resampling.BICUBIC))
    except DataError:
        raise
    except Exception as error:  # of any kind: Pillow's decoders raise many for damaged files
        found = " ".join(str(error).split()) or type(error).__name__
        raise bad(path, "an intact JPEG or PNG image", found, _REMEDY) from error


def read_image_file(path: Path, remedy: str) -> bytes:
    """Return the content of an image file.

    Args:
        path: the file.
        remedy: what to do about a bad file; it ends every error message.

    Raises:
        DataError: it is no file, too large, or cannot be read.
    """
    expected = f"a file of at most {MAX_BYTES} bytes"
    try:
        return read_file(path, MAX_BYTES)
    except ValueError:
        raise bad(path, expected, "more", remedy) from None
    except OSError as error:
        raise bad(path, expected, error.strerror or "none", remedy) from error


def require_harmless(image: Any, path: Path, remedy: str) -> None:
    """Raise a DataError if an image that Pillow has opened is too large or of an unknown mode."""
    if image.width * image.height > MAX_PIXELS:
        raise bad(path, f"at most {MAX_PIXELS} pixels", f"{image.width} x {image.height}", remedy)
    if image.mode not in MODES:
        raise bad(path, f"one of the modes {' '.join(MODES)}", image.mode, remedy)


def _need_pillow() -> None:
    """Raise a DataError unless Pillow is installed."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise DataError(
            "image folders: expected Pillow, which decodes them, found none; "
            "pip install 'dualnet[images]'"
        ) from None
