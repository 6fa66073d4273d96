"""The page of results and its pictures: what they say is in the committed files."""

import json
import re
from pathlib import Path

import pytest
from derived_numbers import DERIVED, SAID, added, by
from prose_numbers import numbers_in, prose, unheld

import experiments
from benchmarks.pages import filled
from dualnet.training.recipes import RECIPES
from experiments.page import PAGE, TABLES, results
from experiments.rules import PUBLISHED

ROOT = Path(__file__).parent.parent


def test_the_picture_of_accuracies_shows_the_committed_results():
    drawn = (ROOT / "docs/figures/accuracy.svg").read_text(encoding="utf-8")
    rows = results("rules")
    shown = re.findall(r">(\d\d\.\d\d)(?: ± \d\.\d\d)?</text>", drawn)
    expected = [100 * row["test_accuracy"] for row in rows] + [*PUBLISHED.values()]
    assert sorted(shown) == sorted(f"{x:.2f}" for x in expected)


TEXT = PAGE.read_text(encoding="utf-8")
OPENING, *_PARTS = re.split(r"(?m)^##+ ", TEXT)
SECTIONS = {match.group(1): part for part in _PARTS if (match := re.match(r"`([a-z-]+)`: ", part))}
"""Name of an experiment → its section of the page."""
REST = " ".join(part for part in _PARTS if not re.match(r"`([a-z-]+)`: ", part))


def test_the_tables_of_the_page_are_the_committed_results():
    """Run `python -m experiments.page` after measuring."""
    assert filled(TEXT, TABLES) == TEXT
    assert set(re.findall("<!-- end of (.*) -->", TEXT)) <= set(SECTIONS)


def section(name):
    """Return the prose of a section without what is derived or said elsewhere, which is checked."""
    text = prose(SECTIONS[name])
    for phrase, derive in DERIVED.get(name, {}).items():
        found = derive()
        told = phrase.format(*found if isinstance(found, tuple) else (found,))
        assert told in text, f"{name}: the page should say: {told}"
        text = text.replace(told, " ")
    for said in SAID.get(name, {}):
        assert said in text, f"{name}: the page no longer says: {said}"
        text = text.replace(said, " ")
    return text


def published(name):
    """Return what the file of an experiment quotes, and its settings, as texts."""
    found = results(name)
    if isinstance(found, list):  # an older one
        settings = [{n: v for n, v in row.items() if not isinstance(v, float)} for row in found]
        return "", json.dumps(settings)
    settings = [row["settings"] for row in found["rows"]]
    recipes = [RECIPES[s["recipe"]].settings for s in settings if "recipe" in s]
    first_to_last = (row["seeds"].split("-") for row in found["rows"])
    seeds = [int(ends[-1]) - int(ends[0]) + 1 for ends in first_to_last]  # how many
    return json.dumps(found["published"]), json.dumps([settings, recipes, seeds], default=str)


@pytest.mark.parametrize("name", sorted(SECTIONS.keys() - {"alignment"}))
def test_every_number_of_a_section_is_in_its_results(name):
    """In its table, or published, or derived from its rows; and settings are those of its rows."""
    quoted, settings = published(name)
    tables = "\n".join(re.findall(r"(?m)^\|.*", SECTIONS[name]))
    source = Path(experiments.__file__).with_name(f"{name.replace('-', '_')}.py")
    settings += source.read_text(encoding="utf-8")
    left = unheld(section(name), numbers_in(tables + quoted), numbers_in(settings))
    assert not left, "\n".join(left)


def test_the_opening_says_what_the_sections_say():
    """A number of a line stands in the section, or in one of them, that the line leads to."""
    lines = [line for line in OPENING.splitlines() if "](#" in line]
    named = {name for line in lines for name in re.findall(r"\[`([a-z-]+)`\]", line)}
    assert named == SECTIONS.keys() - {"mnist", "alignment"}
    for line in lines:
        names = re.findall(r"\[`([a-z-]+)`\]", line)
        there = numbers_in(" ".join(SECTIONS[name] for name in names))
        cells = prose(" ".join(line.split("|")[2:]))
        assert not unheld(cells, there, there), line


def test_no_other_part_of_the_page_has_numbers():
    assert not unheld(prose(REST), set(), set())
    assert not unheld(prose(OPENING), set(), set())


def test_what_the_opening_says_in_words_holds():
    """Its verdicts that stand on an order or a bound, and on no single number."""
    for result in by("ren-variance", "method", "batch").values():
        off = abs(result["measured"]["mean"] - result["theory"]["mean"])
        assert off < 4 * result["measured"]["error"]
    for result in by("ren-mask", "network").values():
        assert all(found["mean"] > 1 for found in result.values())
    contrastive = {rule: r["test_accuracy"] for rule, r in by("ren-contrastive", "rule").items()}
    without = {r: a for r, a in contrastive.items() if r not in ("bp", "l-bp", "lg-bp")}
    assert max(without, key=without.get) == "lg-fg-a"
    for name in ("dkh-rates", "dkh-width", "dkh-cifar"):
        diverged = [recipe for recipe, r in by(name, "recipe").items() if "diverged" in r]
        assert diverged and all(r.endswith("fg-w") and "sgd" in r for r in diverged)
    noise = by("fdfa-noise", "noise", "rule")
    assert noise[None, "fdfa"]["loss"]["mean"] < noise[0.0, None]["loss"]["mean"]
    for place, of_weights in added("fg-w").items():
        assert of_weights > 100 * added("fg-a")[place] > 0 == added("fdfa")[place]
    local = by("ren-sites", "losses")
    assert all(local["the output alone"]["added"] > r["added"] for r in list(local.values())[1:])
    functions = by("frog-functions", "function", "n", "k")
    one, many = (functions["sphere", 1024, k][f"mean-{k}"]["best"] for k in (1, 16))
    assert max(many) < min(one)
