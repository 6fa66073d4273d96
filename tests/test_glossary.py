"""The glossary: each name of the code that it tells of exists, and no word is told of twice."""

import dataclasses
import re
from pathlib import Path

import pytest

import dualnet as dn
from dualnet.learning import RULES
from dualnet.training.assemble import TABLES
from dualnet.training.flags import make_parser

PAGE = Path(__file__).parent.parent / "docs/glossary.md"
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("| word |", "| --- |"))
]
"""Of each row its cells: word, meaning, symbol, symbol in the papers, names in the code."""
FLAGS = set(re.findall(r"--[\w-]+", make_parser(TABLES, "train.py").format_help()))


def exists(name):
    """Whether a name is one of the code: `dn.nn.Linear.features`, `--lr`, or that of a rule."""
    if not name.startswith("dn."):
        return name in FLAGS or name in RULES
    *path, last = name.split(".")[1:]
    thing = dn
    for part in path:
        if not hasattr(thing, part):
            return False
        thing = getattr(thing, part)
    fields = [f.name for f in dataclasses.fields(thing)] if dataclasses.is_dataclass(thing) else []
    return hasattr(thing, last) or last in fields


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_the_code_has_the_names_of_a_word(row):
    _, meaning, _, _, code = row
    names = re.findall(r"`([^`]+)`", code)
    assert names and code == ", ".join(f"`{name}`" for name in names)
    assert not [name for name in names if not exists(name)]
    assert meaning.endswith(".") and not meaning.startswith("`")


def test_every_rule_and_word_is_there_once():
    words = [row[0] for row in ROWS]
    assert len(set(words)) == len(words) > 50
    told = {name for row in ROWS for name in re.findall(r"`([^`]+)`", row[4])}
    families = {name.removeprefix("lg-").removeprefix("l-") for name in RULES} - {"bp", "ffa"}
    assert families <= told


def test_a_name_that_is_not_there_is_found():
    assert all(map(exists, ("dn.jvp", "dn.Dual.primal", "dn.learning.Task.loss", "--lr", "fg-w")))
    wrong = ("dn.jpv", "dn.Dual.value", "dn.learning.Task.lose", "dn.lerning.Task", "--rate", "fg")
    assert not any(map(exists, wrong))
