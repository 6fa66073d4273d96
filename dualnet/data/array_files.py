"""Files of NumPy's arrays of a user's own; nothing in them is ever unpickled."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dualnet.data.npy import read_array
from dualnet.data.room import require_room
from dualnet.errors import DataError, UsageError
from dualnet.files import open_regular

ENDINGS = (".npy", ".npz")
"""The endings of files of arrays."""

_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The ways in which NumPy packs arrays; another takes as much memory as its header says."""
_MOST_ARRAYS = 1000
"""How many arrays a file .npz may have."""


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Return the arrays in a file by their names; the one of a file .npy is called x.

    Every header is compared with what is there before its array takes memory.

    Raises:
        UsageError: there is no such file.
        DataError: the file is damaged, holds objects, or promises more than is there or than
            memory has room for.
    """
    if not os.path.isfile(file):
        raise UsageError(f"{file}: expected a file, found none")
    try:
        with open_regular(file) as stream:
            begins = stream.read(6)
            stream.seek(0)
            if begins[:2] == b"PK":
                return _read_archive(stream)
            if begins != b"\x93NUMPY":
                raise ValueError("it is neither .npy nor .npz")
            size = os.fstat(stream.fileno()).st_size
            require_room(size)
            return {"x": read_array(stream, size)}
    except Exception as error:  # damaged bytes raise a dozen kinds in zipfile and NumPy
        what = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{file}: expected an intact file of plain arrays: {what}") from error


def _read_archive(stream: BinaryIO) -> dict[str, np.ndarray]:
    """Return the arrays in an archive .npz by their names."""
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        if len(members) > _MOST_ARRAYS or len(set(names)) < len(names):
            raise ValueError(f"it has more than {_MOST_ARRAYS} arrays, or two of one name")
        if not all(member.compress_type in _PACKED for member in members):
            raise ValueError("an array is packed in a way that NumPy does not write")
        require_room(sum(member.file_size for member in members))
        arrays = {}
        for name, member in zip(names, members, strict=True):
            with archive.open(member) as content:
                arrays[name] = read_array(content, member.file_size)  # type: ignore[arg-type]
                content.read(1)  # the end, where the checksum is compared
        return arrays
