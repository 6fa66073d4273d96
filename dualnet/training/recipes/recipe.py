"""What a recipe is: a published row or curve, with all settings that a comparable run needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """A row of a paper's table, or a curve of a figure, as flags of the command line.

    Attributes:
        settings: flag, with `_` for `-`, to value.  What a recipe leaves out has no influence on
            its row, or is the same in all of dualnet.
        accuracy: the published test accuracy, from 0 to 1; None where none is known.
        source: paper and table.
        ours: what is different from the source or not given there, and why: the name of a setting,
            or words for what no flag says.  All other settings are published.
    """

    settings: dict[str, Any]
    accuracy: float | None
    source: str
    ours: dict[str, str] = field(default_factory=dict)
