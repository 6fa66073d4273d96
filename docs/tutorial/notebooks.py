"""Make a notebook of each page: `python docs/tutorial/notebooks.py` writes docs/tutorial/notebooks.

The pages are the source.  A test makes the notebooks again, and compares.
"""

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGES = sorted(HERE.glob("[1-8]-*.md"))
PART = re.compile(r"```python\n(.*?)\n```(?:\n+```text\n(.*?)```)?", re.S)
"""A block of Python, and what it prints."""


def notebook(page: str) -> str:
    """Return the notebook of a page, as JSON (format 4.4)."""
    cells, end = [], 0
    for block in PART.finditer(page):
        cells += [_text(page[end : block.start()]), _code(*block.groups())]
        end = block.end()
    cells.append(_text(page[end:]))
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book = {
        "cells": [cell for cell in cells if cell["source"]],
        "metadata": {"kernelspec": python, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


def stored(page: Path) -> Path:
    """Return where the notebook of a page is."""
    return HERE / "notebooks" / f"{page.stem}.ipynb"


def _text(markdown: str) -> dict:
    """Return a cell of text; its links are from a folder further down."""
    markdown = re.sub(r"\]\((?!http)", "](../", markdown.strip())
    return {"cell_type": "markdown", "metadata": {}, "source": markdown.splitlines(True)}


def _code(source: str, printed: str | None) -> dict:
    """Return a cell of code with what it prints."""
    stream = {"name": "stdout", "output_type": "stream", "text": (printed or "").splitlines(True)}
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [stream] if printed else [],
        "source": source.splitlines(True),
    }


if __name__ == "__main__":
    for page in PAGES:
        stored(page).parent.mkdir(exist_ok=True)
        stored(page).write_text(notebook(page.read_text(encoding="utf-8")), encoding="utf-8")
