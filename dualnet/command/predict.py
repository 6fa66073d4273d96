"""`dualnet predict RUN FILE…`: which classes a trained network finds in images, or in arrays."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dualnet.command.network import network_in, network_parser, require_one_run, run_own_files
from dualnet.console import WIDTH, answer
from dualnet.data.array_files import ENDINGS, read_arrays
from dualnet.data.arrays import inputs_like
from dualnet.data.image_files import FORMATS, fitted_words, read_fitted
from dualnet.errors import UsageError
from dualnet.naming import as_flags, printable
from dualnet.training.run_folder import RunFolder
from dualnet.training.trained import Trained

DESCRIPTION = f"""\
Print the three likeliest classes of each image, and their probabilities.

A file is an image ({", ".join(FORMATS)}; this wants Pillow,
the extra images), or it has examples as those that were trained on: .npy, or
.npz with an array x.

An image is turned as its camera says, laid on white where it is transparent,
scaled so that it just covers the height and width of the training images, cut
to them in the middle, and made gray or red, green and blue, as they are.  Its
colors stay as they are: digits, mnist and fashion-mnist are bright on black.
"""
_SHOWN = 3
_COLUMN = 36
"""Where the text beside the name of a file begins."""


class Example(NamedTuple):
    """One example.

    Attributes:
        name: the file; behind it the index in brackets, if the file has several examples.
        x: as the network takes them, without a batch axis.
    """

    name: str
    x: np.ndarray


@as_flags()
def main(argv: list[str], program: str) -> None:
    """Print what a network finds in files.

    Raises:
        UsageError, DataError, BackendError: see `dualnet.errors`.
    """
    parser = network_parser(program, DESCRIPTION)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", metavar="FILE", nargs="+", help="an image, or arrays")
    args = parser.parse_every(argv)
    run_own_files(args.plugin)
    folder = RunFolder(args.run)
    require_one_run(str(folder.path), folder)
    network = network_in(folder, args)
    images = [file for file in args.files if not file.endswith(ENDINGS)]
    how = words_for_images(network, images)
    examples = [one for file in args.files for one in read(Path(file), network)]
    x = np.stack([one.x for one in examples])
    names = [one.name for one in examples]
    if network.classes:
        rows = classified(network, names, x)
        told = [class_line(row) for row in rows]
    else:
        found = network.outputs(x).tolist()
        rows = [{"file": name, "outputs": of} for name, of in zip(names, found, strict=True)]
        told = [numbers(of) for of in found]
    if args.json:
        answer(json.dumps({"run": str(folder.path), "images": how, "examples": rows}))
    else:
        lines = [f"images {how}\n"] if how else []
        for name, text in zip(names, told, strict=True):
            lines += beside(printable(name), text)
        answer("\n".join(lines))


def words_for_images(network: Trained, images: list[str]) -> str | None:
    """Say what is done to images; None if there are none."""
    if not images:
        return None
    try:
        return fitted_words(network.preparation)
    except UsageError as error:
        raise UsageError(f"{images[0]}: {error}") from None


def read(file: Path, network: Trained) -> Iterator[Example]:
    """Yield the examples in a file."""
    if not file.name.endswith(ENDINGS):
        yield Example(str(file), read_fitted(file, network.preparation))
        return
    arrays = read_arrays(file)
    if "x" not in arrays:
        raise UsageError(f"{file}: expected an array x, got {', '.join(arrays) or 'none'}")
    given = arrays["x"]
    shape = network.preparation.shape
    # One example alone may lack the axis of examples, and a gray image that of channels.
    single = given.shape == shape or (shape[-1] == 1 and given.shape == shape[:-1])
    try:
        x = inputs_like(network.preparation, given[None] if single else given)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    for i, one in enumerate(x):
        yield Example(str(file) if len(x) == 1 else f"{file}[{i}]", one)


def classified(network: Trained, names: list[str], x: np.ndarray) -> list[dict[str, Any]]:
    """Return for each example its class and the probability of each class, the largest first."""
    rows: list[dict[str, Any]] = []
    for name, of_classes in zip(names, network.probabilities(x), strict=True):
        order = np.argsort(-of_classes, kind="stable")
        probabilities = {network.classes[i]: float(of_classes[i]) for i in order}
        first = next(iter(probabilities))
        rows.append({"file": name, "class": first, "probabilities": probabilities})
    return rows


def class_line(row: dict[str, Any]) -> str:
    """Return the likeliest classes of an example, and their probabilities."""
    largest = list(row["probabilities"].items())[:_SHOWN]
    return ", ".join(f"{printable(name)} {p:.3f}" for name, p in largest)


def beside(name: str, text: str) -> list[str]:
    """Return a name and what belongs to it, in one line or, if both are long, in more."""
    if len(name) < _COLUMN and _COLUMN + len(text) <= WIDTH:
        return [f"{name:{_COLUMN}}{text}"]
    return [name, *textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")]


def numbers(values: list[float]) -> str:
    """Return numbers as text."""
    return ", ".join(f"{x:.6g}" for x in values)
