"""What the pages about design, rules, decisions and devices say in figures and lists."""

import json
import re
from pathlib import Path

import pytest

import dualnet as dn
from dualnet import learning
from dualnet.core import linear
from dualnet.core.tables import linear_maps

ROOT = Path(__file__).parent.parent


def page(name):
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def results(name):
    return json.loads((ROOT / "benchmarks/results" / name).read_text(encoding="utf-8"))


def test_the_page_of_the_design_is_read_in_ten_minutes():
    assert len(page("design.md").split()) <= 1500


def test_there_are_as_many_linear_maps_as_the_pages_say():
    maps = {
        module: {name for name, x in vars(module).items() if isinstance(x, linear.LinearMap)}
        for module in (linear, linear_maps)
    }
    here, beside = maps[linear], maps[linear_maps] - maps[linear]
    assert (len(here), len(beside)) == (9, 8)
    assert here | beside == {
        n for n in dn.linear.__all__ if hasattr(getattr(dn.linear, n), "forward")
    }
    assert "`dn.linear` has 17: nine in" in page("design.md")
    assert "transposes of 17 linear maps" in page("decisions.md")


def test_the_readme_counts_the_rules():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f" {len(learning.RULES)} learning rules " in readme


def test_the_table_of_rules_has_all_of_them():
    rows = re.findall(r"^\| (`.*?`) \|.*\| \[(.*?)\]\((.*?)\) \|$", page("rules/README.md"), re.M)
    told = {name: file for names, _, file in rows for name in re.findall(r"`(.*?)`", names)}
    assert told.keys() == learning.RULES.keys()
    for name, file in told.items():
        assert f"`{name}`" in page(f"rules/{file}"), (name, file)


def test_each_decision_says_what_and_why():
    sections = re.split(r"^### ", page("decisions.md"), flags=re.M)[1:]
    assert len(sections) > 40
    for section in sections:
        section = section.partition("\n## ")[0]
        assert "\n**What:** " in section and "\n**Why:** " in section, section.partition("\n")[0]


def test_the_pixels_of_the_decisions_are_those_of_the_runs():
    accuracy = {
        row["command"]: f"{100 * row['test_accuracy']:.2f} %" for row in results("mnist.json")
    }
    command = "python train.py --dataset mnist --rule fg-a --sampler normal --epochs 10"
    symmetric = accuracy[f"{command} --pixels symmetric"]
    said = f"reaches {accuracy[command]} with the first, and {symmetric} with the second"
    assert said in page("decisions.md")


@pytest.mark.parametrize(
    ("row", "what", "contenders"),
    [
        ("ResNet18, 3x3 stem | `bp`", "ResNet18, 3x3 stem", ("dualnet bp", "torch", "jax")),
        ("LocalMixer M/8/16 | `lg-fg-a`", "LocalMixer M/8/16", ("dualnet lg-fg-a", "torch", "jax")),
    ],
)
def test_the_steps_of_the_device_are_those_of_the_benchmark(row, what, contenders):
    (timing,) = [t for t in results("gpu-networks.json")["timings"] if t["what"].startswith(what)]
    times = " | ".join(f"{1e3 * timing['seconds'][name]:.1f}" for name in contenders)
    assert f"| {row} | {times} |" in page("device.md")


def test_the_step_of_many_directions_is_that_of_the_benchmark():
    (timing,) = [t for t in results("gpu.json")["timings"] if "k = 64" in t["what"]]
    ours, theirs = (1e3 * timing["seconds"][name] for name in ("dualnet recorded", "torch"))
    assert f"takes {ours:.2f} ms, where torch takes {theirs:.2f} with" in page("device.md")
