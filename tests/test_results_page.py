"""The page of results and its pictures: what they say is in the committed files."""

import json
import re
import sys
from pathlib import Path

from experiments.rules import PUBLISHED

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
sys.path.insert(0, str(ROOT / "docs/figures"))

import accuracy  # noqa: E402


def test_the_picture_of_accuracies_is_the_committed_results():
    """Run `python docs/figures/accuracy.py` after measuring."""
    drawn = (ROOT / "docs/figures/accuracy.svg").read_text(encoding="utf-8")
    assert drawn == accuracy.picture()
    rows = json.loads((RESULTS / "rules.json").read_text(encoding="utf-8"))
    shown = re.findall(r">(\d\d\.\d\d)(?: ± \d\.\d\d)?</text>", drawn)
    expected = [100 * row["test_accuracy"] for row in rows] + [*PUBLISHED.values()]
    assert sorted(shown) == sorted(f"{x:.2f}" for x in expected)
