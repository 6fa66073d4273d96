"""The prose of docs/performance.md: its numbers are those of the benchmarks."""

import itertools
import re
from pathlib import Path

import pytest
from prose_numbers import numbers_in, prose, unheld

from benchmarks import performance
from dualnet.backends import blas

ROOT = Path(__file__).parent.parent
MODULES = {
    "How fast dualnet is, and what memory it takes": "mlp_jvp",
    "Networks of the papers": "networks network_steps network_turns",
    "Along k tangents": "mlp_jvp",
    "Layers": "layers",
    "Replicated losses": "replicated",
    "Small steps": "small_steps",
    "Start": "start",
    "Threads": "",
    "Memory by depth": "memory",
    "On a device": "",
}
"""A section → the benchmarks whose settings it names."""
SECTIONS = {
    section.partition("\n")[0].lstrip("# "): section
    for section in re.split(r"(?m)^(?=##? )", performance.PAGE.read_text(encoding="utf-8"))
    if section
}


def drawn():
    """Return how many million numbers a step of the table draws, dense and rank-one."""
    found, k = performance.results("mlp_jvp"), 64
    widths = [int(n) for n in found["network"].split("-")]
    ends = list(itertools.pairwise(widths))
    assert sum((m + 1) * n for m, n in ends) == found["parameters"]
    return k * found["parameters"] / 1e6, k * sum(m + n + n for m, n in ends) / 1e6


DERIVED = {
    "Along k tangents": {
        "each parameter, {:.0f} million": lambda: drawn()[0],
        "a weight matrix, {:.1f} million": lambda: drawn()[1],
    },
    "Threads": {"up to {:.0f} million multiplications": lambda: blas.SMALL / 1e6},
}


def test_every_section_is_known():
    assert list(SECTIONS) == list(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_number_of_a_section_is_in_its_results(name):
    """In its tables, or a setting in the source of its benchmark."""
    text = prose(SECTIONS[name])
    told = {phrase.format(derive()) for phrase, derive in DERIVED.get(name, {}).items()}
    for phrase in told:
        assert phrase in text, f"the page should say: {phrase}"
        text = text.replace(phrase, " ")
    files = [ROOT / f"benchmarks/{module}.py" for module in MODULES[name].split()]
    settings = "".join(file.read_text(encoding="utf-8") for file in files)
    tables = "\n".join(re.findall(r"(?m)^\|.*|^.*turns or more\.$", SECTIONS[name]))
    left = unheld(text, numbers_in(tables), numbers_in(settings))
    assert not left, "\n".join(left)
