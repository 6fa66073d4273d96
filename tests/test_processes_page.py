"""The page on many processes has the table of the committed results, and what the table is for."""

from benchmarks.pages import filled
from benchmarks.performance import PAGES, TABLES, results


def test_the_page_is_what_the_command_writes():
    text = PAGES[1].read_text(encoding="utf-8")
    assert "<!-- end of processes -->" in text and filled(text, TABLES) == text


def test_fg_w_gives_little_and_other_rules_a_gradient():
    for row in results("processes")["rows"]:
        few = row["rule"].startswith("fg-w")
        assert row["bytes"] < 2000 if few else row["bytes"] >= 4 * row["parameters"]
