"""The version of dualnet that is running."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

__all__ = ["version"]


def version() -> str:
    """Return the version: that of `pyproject.toml` in a checkout, of the installed package else.

    A checkout comes first, because another version may be installed beside it.
    """
    project = Path(__file__).parent.parent / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    found = re.search(r'^name = "dualnet"\nversion = "(.+)"$', text, re.M)
    if found:
        return found[1]
    try:
        return installed_version("dualnet")
    except PackageNotFoundError:
        return "unknown"
