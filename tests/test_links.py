"""Links and pictures of the Markdown pages: each leads to a file, and to a heading in it."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "dualnet/**/*.md", "benchmarks/**/*.md")
    for path in ROOT.glob(pattern)
)
FENCED = re.compile(r"^( *)(```+)[^\n]*\n.*?^\1\2 *$", re.M | re.S)
CODE = re.compile(rf"{FENCED.pattern}|(`+).+?\3", re.M | re.S)
"""Fenced blocks, and spans of code: what looks like a link in them is none."""
LINKS = re.compile(
    r"\]\(<?([^)\s>]*)>?(?:\s+\"[^\"]*\")?\)"  # [text](link "title")
    r"|^\[[^\]]+\]: *(\S+)"  # [name]: link
    r"|<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]*)\"",  # the same in HTML
    re.M,
)


def links(text):
    """The addresses to which a page leads, in their order."""
    return ["".join(found) for found in LINKS.findall(CODE.sub("`code`", text))]


def anchors(text):
    """The names of a page's headings, as code hosts make them of their words."""
    names = []
    for heading in re.findall(r"^#+ +(.*?) *#*$", FENCED.sub("", text), re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        again = sum(1 for other in names if re.fullmatch(rf"{re.escape(name)}(-\d+)?", other))
        names.append(f"{name}-{again}" if again else name)
    return names + re.findall(r"<\w+\b[^>]*?\b(?:id|name)=\"([^\"]*)\"", text)


def wrong(page, link):
    """What is wrong with a link of a page; an empty string if nothing is."""
    scheme, host, path, _, anchor = urlsplit(link)
    if scheme or host:
        return "" if scheme == "https" and host else "is neither relative nor https"
    target = (ROOT / page).parent / unquote(path) if path else ROOT / page
    if ROOT not in target.resolve().parents:
        return "leads out of the repository"
    if not target.exists():
        return "leads to no file"
    if anchor and target.suffix != ".md":
        return "names a heading of a file that has none"
    if anchor and unquote(anchor) not in anchors(target.read_text(encoding="utf-8")):
        return "names a heading that is not there"
    return ""


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    found = links((ROOT / page).read_text(encoding="utf-8"))
    assert not {link: reason for link in found if (reason := wrong(page, link))}


def test_links_are_found():
    by_page = {page: len(links((ROOT / page).read_text(encoding="utf-8"))) for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "docs/results.md", "dualnet/core/README.md"} <= set(
        by_page
    )
    assert sum(by_page.values()) > 100, by_page


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("docs/design.md", ""),
        ("docs/design.md#one-idea", ""),
        ("docs/tutorial", ""),
        ("https://www.sqlite.org/testing.html", ""),
        ("docs/designs.md", "leads to no file"),
        ("docs/design.md#two-ideas", "names a heading that is not there"),
        ("#one-idea", "names a heading that is not there"),
        ("train.py#main", "names a heading of a file that has none"),
        ("../elsewhere.md", "leads out of the repository"),
        ("http://www.sqlite.org/testing.html", "is neither relative nor https"),
        ("//www.sqlite.org/testing.html", "is neither relative nor https"),
        ("file:///etc/hosts", "is neither relative nor https"),
    ],
)
def test_a_wrong_link_is_found(link, reason):
    for text in (f"See [it]({link}).", f'<img src="{link}" alt="">', f"[it]: {link}\n"):
        assert links(f"`[code](of.md)`\n\n```\n[code](of.md)\n```\n\n{text}\n") == [link]
    assert wrong("README.md", link) == reason


def test_headings_have_the_names_of_code_hosts():
    text = "# 1. The `jvp`, and k > 1\n\n## Notes\n\n```\n# no heading\n```\n\n## Notes ##\n"
    assert anchors(text) == ["1-the-jvp-and-k--1", "notes", "notes-1"]
