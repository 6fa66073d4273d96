"""Trees of arrays in a file, from which a run goes on or a network predicts."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.errors import DataError
from dualnet.files import open_regular, write_file
from dualnet.tree import Tree


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
    file: Path, like: dict[str, Tree], remedy: str, whole: bool = True
) -> dict[str, Tree]:
    """Return the trees that `write_checkpoint` wrote.

    Args:
        file: the path of the file.
        like: trees of the expected structure.  Arrays must agree with their leaves in shape
            and dtype, and come back on the same device as they.  A leaf None stands for a
            NumPy array of any shape and dtype.
        remedy: what to do if the file is of no use; it ends every error message.
        whole: whether the file may hold no other trees.

    Raises:
        DataError: the file is missing, damaged, or does not fit.
    """
    arrays, expected = _read_arrays(file, remedy), _by_array_name(like)
    if not whole:
        arrays = {n: x for n, x in arrays.items() if n.partition(":")[0] in like}
    misfit = f"{file} does not fit this run"
    for array_name in sorted(set(arrays) ^ set(expected)):
        raise DataError(f"{misfit}: {array_name} is on one side only; {remedy}")
    for array_name, leaf in expected.items():
        found = arrays[array_name]
        if leaf is not None and (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
            raise DataError(
                f"{misfit}: {array_name} is {found.dtype}{found.shape}, expected "
                f"{leaf.dtype}{leaf.shape}; {remedy}"
            )
    leaves = [
        arrays[array_name] if leaf is None else np.asarray(arrays[array_name], like=leaf)
        for array_name, leaf in expected.items()
    ]
    return tree.unflatten(like, leaves)


def _read_arrays(file: Path, remedy: str) -> dict[str, np.ndarray]:
    """Return the arrays in a file by name; a DataError if they cannot be read."""
    try:
        with open_regular(file) as stream:
            if not zipfile.is_zipfile(stream):
                raise ValueError("it is no .npz archive")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as archive:
                arrays = {array_name: archive[array_name] for array_name in archive.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("it holds what is no array")
    except FileNotFoundError:
        raise DataError(f"{file}: no checkpoint was written yet; {remedy}") from None
    except Exception as error:  # damaged bytes raise a dozen kinds in zipfile and NumPy
        raise DataError(f"{file} is damaged ({error}); {remedy}") from error
    return arrays


def _by_array_name(trees: dict[str, Tree]) -> dict[str, Any]:
    """Return all leaves, in the order of `tree.leaves`, under their names in a checkpoint.

    A name is that of the tree and the path of the leaf in it, as in `params:hidden1/w`.
    """
    return {f"{name}:{path}": leaf for name, t in trees.items() for path, leaf in tree.items(t)}
