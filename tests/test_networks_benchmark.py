"""The benchmark of the papers' networks, in a small form and what its figures are made into."""

import os
import re
from dataclasses import asdict, replace

import pytest
from peers import peer

from benchmarks import networks, performance
from benchmarks.network_steps import settings_of
from benchmarks.network_turns import Work
from benchmarks.pages import filled
from dualnet.models import MODELS

LINUX_ALONE = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="needs Linux, where a process is held to cores"
)


def work(section, threads=1, peers=False):
    args = networks.parsed(["--small", "--rounds", "3", "--seconds", "20"])
    made = networks.SMALL["MLP"].work("MLP", section, threads, args)
    return replace(made, peers=peers)


@LINUX_ALONE
def test_our_steps_are_timed_in_a_process_of_their_own(tmp_path):
    row = networks.in_a_process(work("backprop"), tmp_path)
    names = {f"dualnet {rule}" for rule in ("bp", "fg-a", "fdfa", "lg-fg-a")}
    assert row["seconds"].keys() == row["memory"].keys() == names and not row["failed"]
    assert row["turns"] == 3 and row["batch"] == 4 and all(s > 0 for s in row["seconds"].values())
    assert all(held > 0 for held in row["memory"].values()) and row["rate"] > 1e8
    assert networks.ratios(row)["fg-a"]["bp"] > 0 and "fg-a" in networks.lines(row)


@LINUX_ALONE
def test_a_process_that_fails_says_why(tmp_path):
    row = networks.in_a_process(replace(work("backprop"), flags="--model nothing"), tmp_path)
    assert "nothing" in row["failed"]["all"] and "cannot" in networks.lines(row)
    row = networks.in_a_process(replace(work("backprop"), limit=0.0), tmp_path)
    assert "out of time" in row["failed"]["dualnet bp"]


@pytest.mark.slow
@LINUX_ALONE
@pytest.mark.parametrize("section", networks.SECTIONS)
def test_the_peers_do_the_same_work(section, tmp_path):
    peer("torch"), peer("jax")
    row = networks.in_a_process(work(section, peers=True), tmp_path)
    assert {"torch", "jax"} <= row["seconds"].keys() and not row["failed"] and row["floor"] > 0
    for ratios in networks.ratios(row).values():
        assert ratios["torch"] > 0 and ratios["jax"] > 0


def test_every_network_of_the_papers_is_timed():
    models = set()
    for network in networks.NETWORKS.values():
        settings = settings_of(f"{network.flags} --batch-size {network.batch} --rule {network.own}")
        assert settings.objective == "supervised"
        models.add(settings.model)
    assert models == set(MODELS)


def test_the_better_form_of_each_counts():
    seconds = {
        "dualnet bp": 3.0,
        "dualnet fg-a": 4.0,
        "dualnet fg-a, shards": 2.0,
        "torch, channels first": 6.0,
        "torch, channels last": 5.0,
    }
    found = networks.ratios({"rules": ["bp", "fg-a"], "seconds": seconds})
    assert found["bp"] == {"torch": 5 / 3, "jax": None}
    assert found["fg-a"] == {"torch": 2.5, "jax": None, "bp": 2 / 3}


def test_what_a_process_times_survives_as_text():
    one = work("tangents", threads=2)
    assert Work(**asdict(one)) == one and one.rules == networks.FORWARD


# --- the page -------------------------------------------------------------------------------------


def test_the_tables_of_the_page_are_the_committed_results():
    """Run `python -m benchmarks.performance` after measuring."""
    text = performance.PAGE.read_text(encoding="utf-8")
    assert filled(text, performance.TABLES) == text


def test_every_table_has_a_place():
    text = "".join(page.read_text(encoding="utf-8") for page in performance.PAGES)
    assert re.findall("<!-- end of (.*) -->", text) == list(performance.TABLES)


ROW = {
    "network": "FDFA CNN",
    "section": "backprop",
    "threads": 1,
    "batch": 8,
    "turns": 9,
    "took": 1.0,
    "floor": 0.001,
    "when": "2026-01-01 10:00",
    "versions": {"python": "3", "numpy": "2", "torch": "2", "jax": "0"},
    "rules": ["bp", "fg-a", "fdfa"],
    "seconds": {
        "dualnet bp": 0.004,
        "dualnet fg-a": 0.005,
        "dualnet fdfa": 0.006,
        "torch, channels first": 0.003,
        "torch, channels last": 0.002,
    },
    "memory": dict.fromkeys(("dualnet bp", "dualnet fg-a", "torch, channels last"), 2 << 20),
    "failed": {"jax": "out of time\nreally"},
}


def test_rows_are_made_into_tables_and_a_picture(tmp_path, monkeypatch):
    peer("matplotlib", "plot")
    both = ROW | {"threads": 2, "seconds": ROW["seconds"] | {"dualnet fg-a, shards": 0.003}}
    found = {"machine": {"name": "a processor", "cores": 2}, "rows": [ROW, both]}
    monkeypatch.setattr(performance, "results", lambda name: found)
    row = (
        "| FDFA CNN, 8 | 1.0 | 3.0 / 2.0 |  | 4.0 | 0.50 |  | 5.0 | 1.25 | 6.0 | 1.50 | `fdfa` |  |"
    )
    assert row in performance.backprop(1)
    assert "- FDFA CNN, 8, jax: out of time" in performance.backprop(1)
    assert "3.0 (shards) | 0.75" in performance.backprop(2)
    assert performance.tangents(1) == performance.NOT_YET
    assert "a processor, 2 cores" in performance.where()
    monkeypatch.setitem(ROW, "memory", ROW["memory"] | {"dualnet fdfa": 3 << 20})
    assert "| FDFA CNN, 8 | 2 | 2 | 3 | 2 |  |" in performance.memory_of_networks()
    for name in ("a.svg", "b.svg", "c.png"):
        performance.draw([ROW, both], tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert "FDFA CNN" in text and "0.50" in text and text == (tmp_path / "b.svg").read_text()
