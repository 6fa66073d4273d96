"""Files of NumPy's arrays of a user's own; nothing in them is ever unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dualnet.errors import DataError, UsageError

ENDINGS = (".npy", ".npz")
"""The endings of files of arrays."""


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Return the arrays in a file by their names; the one of a file .npy is called x.

    Raises:
        UsageError: there is no such file.
        DataError: the file is damaged, or holds objects.
    """
    if not file.is_file():
        raise UsageError(f"{file}: expected a file, found none")
    try:
        with open(file, "rb") as stream:
            begins = stream.read(6)
            if begins[:2] != b"PK" and begins != b"\x93NUMPY":
                raise ValueError("it is neither .npy nor .npz")  # NumPy would speak of pickles
            stream.seek(0)
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return {"x": found}
            return {name: found[name] for name in found.files}
    except Exception as error:  # damaged bytes raise a dozen kinds in zipfile and NumPy
        what = " ".join(str(error).split())
        if "allow_pickle" in what:
            what = "it holds Python objects, which are never read"
        raise DataError(f"{file}: expected an intact file of plain arrays: {what}") from error
