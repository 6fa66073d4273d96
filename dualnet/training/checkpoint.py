"""Trees of arrays in a file, from which a run goes on or a network predicts.

A file may be damaged or have come from anybody.  So the header of every array is compared with what
is expected before any of them is read: no file takes more memory than the arrays that it is to
hold, and nothing in it is ever unpickled.
"""

from __future__ import annotations

import errno
import math
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dualnet import tree
from dualnet.errors import DataError
from dualnet.files import open_regular, write_file
from dualnet.training.bad_files import damaged, in_message, unreadable
from dualnet.tree import Tree
from dualnet.types import Shape


@dataclass(frozen=True)
class Stored:
    """A leaf that stands for a NumPy array.

    Attributes:
        shape: of the array.
        dtype: of the array.
    """

    shape: Shape
    dtype: np.dtype


def write_checkpoint(file: Path, trees: dict[str, Tree]) -> None:
    """Write every leaf of every tree under its tree's name and its path, whole or not at all.

    Args:
        file: the path of the file.
        trees: by name.

    Raises:
        OSError: the file cannot be written.
    """
    write_file(file, lambda stream: np.savez(stream, **_by_array_name(trees)))


def read_checkpoint(
    file: Path,
    like: dict[str, Tree],
    remedy: str,
    whole: bool = True,
    undefined: tuple[str, ...] = (),
) -> dict[str, Tree]:
    """Return the trees that `write_checkpoint` wrote.

    Args:
        file: the path of the file.
        like: trees of the expected structure.  Arrays must agree with their leaves in shape and
            dtype, and come back on the same device as they; those of leaves `Stored` on the host.
        remedy: what to do if the file is of no use; it ends every error message.
        whole: whether the file may hold no other trees.
        undefined: the names of trees whose numbers need not be finite.

    Raises:
        DataError: the file is missing, damaged, or does not fit.
        UsageError: the file cannot be read.
    """
    expected = _by_array_name(like)
    try:
        stream = open_regular(file)
    except FileNotFoundError:
        raise DataError(f"{in_message(file)}: no checkpoint was written yet; {remedy}") from None
    except OSError as error:
        raise unreadable(file, error) from error
    try:
        with stream:
            arrays = _read_arrays(stream, expected, whole)
    except _MisfitError as error:
        text = f"{in_message(file)} does not fit this run: {in_message(error)}; {remedy}"
        raise DataError(text) from None
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes raise a dozen kinds in zipfile and NumPy
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise unreadable(file, error) from error
        raise damaged(file, error, remedy) from error
    for name, array in arrays.items():
        if name.partition(":")[0] not in undefined and not np.isfinite(array).all():
            raise damaged(file, f"{name} holds a number that is not finite", remedy)
    leaves = [
        arrays[name] if isinstance(leaf, Stored) else np.asarray(arrays[name], like=leaf)
        for name, leaf in expected.items()
    ]
    return tree.unflatten(like, leaves)


class _MisfitError(ValueError):
    """An archive holds other arrays than are expected."""


def _read_arrays(stream: BinaryIO, expected: dict[str, Any], whole: bool) -> dict[str, np.ndarray]:
    """Return the expected arrays in an archive by name; raise what says best why it cannot be."""
    if not zipfile.is_zipfile(stream):
        raise ValueError("it is no .npz archive")
    at_once = _Pieces(stream, _LIST_BYTES + _LIST_BYTES_FOR_EACH * len(expected))
    with zipfile.ZipFile(at_once) as archive, warnings.catch_warnings():
        warnings.simplefilter("error")
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise ValueError("it holds two arrays of one name")
        trees = {name.partition(":")[0] for name in expected}
        held = {name for name in members if whole or name.partition(":")[0] in trees}
        for name in sorted(held ^ set(expected)):
            raise _MisfitError(f"{name} is on one side only")
        for name, leaf in expected.items():
            _require_header(archive, members[name], name, leaf)
        return {name: _array(archive, members[name]) for name in expected}


_LIST_BYTES, _LIST_BYTES_FOR_EACH = 1 << 19, 1 << 12
"""How long the list of members may be, and how much longer for each array that is expected: other
trees, such as an optimizer's, have some of their own for each."""


class _Pieces:
    """A stream of which nobody reads more than so many bytes at once.

    `zipfile` reads an archive's list of members at once, however long it is.
    """

    def __init__(self, stream: BinaryIO, most: int):
        self._stream, self._most = stream, most

    def read(self, n: int = -1) -> bytes:
        found = self._stream.read(self._most + 1 if n < 0 else min(n, self._most + 1))
        if len(found) > self._most:
            raise ValueError("it lists more arrays than it is to hold")
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?\w+)', 'fortran_order': (?:True|False), "
    rb"'shape': \(((?:\d{1,18}, )*(?:\d{1,18},?)?)\), \} *\n"
)
"""What `np.savez` writes of an array behind the length of these words."""
_BEGINS = b"\x93NUMPY\x01\x00"


def _require_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, leaf: Any) -> None:
    """Raise an error unless a member holds an array like a leaf, and no more bytes than it has."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    with archive.open(info) as member:
        begins = member.read(len(_BEGINS) + 2)
        length = int.from_bytes(begins[len(_BEGINS) :], "little")
        header = _HEADER.fullmatch(member.read(length))
    if not begins.startswith(_BEGINS) or header is None:
        raise ValueError(f"{name} is no array")
    dtype, shape = np.dtype(header[1].decode()), tuple(map(int, re.findall(rb"\d+", header[2])))
    if (shape, dtype) != (leaf.shape, leaf.dtype):
        raise _MisfitError(f"{name} is {dtype}{shape}, expected {leaf.dtype}{leaf.shape}")
    size = len(begins) + length + math.prod(shape) * dtype.itemsize
    if info.file_size != size:
        raise ValueError(f"{name} has {info.file_size} bytes, expected {size}")


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _by_array_name(trees: dict[str, Tree]) -> dict[str, Any]:
    """Return all leaves, in the order of `tree.leaves`, under their names in a checkpoint.

    A name is that of the tree and the path of the leaf in it, as in `params:hidden1/w`.
    """
    return {f"{name}:{path}": leaf for name, t in trees.items() for path, leaf in tree.items(t)}
