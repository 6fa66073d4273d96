"""What mkdocstrings must be told of this package, before it reads the docstrings."""

from __future__ import annotations

import re
from typing import Any

import griffe

COMMON = re.compile(r"^( +)(\w+(?:, \w+)+)(: .*\n?(?:^\1 +.*\n?)*)", re.M)
"""Several arguments or attributes that share one text: `    mean, std: of the images`."""


class Dualnet(griffe.Extension):
    """Show the package as it is in a checkout, and its docstrings as they are written."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: Any) -> None:
        """Put `models/` where a checkout's package finds it (`dualnet/checkout.py`), and say of
        NumPy's functions, which have their docstrings from NumPy, what they are here."""
        if pkg.name != "dualnet":
            return
        pkg.set_member("models", loader.load("models"))
        for name, function in pkg["numpy.making"].members.items():
            if name in pkg["numpy"].exports and not function.docstring:
                text = f"NumPy's `np.{name}`, which takes duals too."
                function.docstring = griffe.Docstring(text, parent=function)

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Give each of several names its own line, as each has a type of its own."""
        if obj.docstring:
            text = obj.docstring.value + "\n"
            obj.docstring.value = COMMON.sub(one_each, text).removesuffix("\n")


def one_each(item: re.Match) -> str:
    """The item once for each of its names."""
    indent, names, text = item.groups()
    return "".join(f"{indent}{name}{text}" for name in names.split(", "))
