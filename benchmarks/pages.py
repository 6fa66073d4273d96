"""Pages whose tables come from results: a table stands between `<!-- NAME -->` and
`<!-- end of NAME -->`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

Tables = Mapping[str, Callable[[], str]]
"""The name of a table → what makes it, as Markdown."""


def filled(text: str, tables: Tables) -> str:
    """Return a page with the tables that the results give, where it has a place for them.

    Raises:
        KeyError: the page has a place for a table that is not there.
        ValueError: a place has an end and no beginning.
    """
    for name in re.findall(r"<!-- end of (.*) -->", text):
        before, rest = text.split(f"<!-- {name} -->\n", 1)
        _, after = rest.split(f"<!-- end of {name} -->", 1)
        text = f"{before}<!-- {name} -->\n\n{tables[name]()}\n\n<!-- end of {name} -->{after}"
    return text


def results(name: str) -> Any:
    """Return what a file of results holds; None if there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Format a table; what a cell lacks is left empty."""
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
