"""The site of the documentation, built as continuous integration builds it, and read as a user."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import peers
import pytest

import dualnet as dn

ROOT = Path(__file__).parent.parent
LOADED = re.compile(r"<(?:script|link|img|iframe|source|object|embed|video)\b[^>]*>")
"""Tags of HTML that make a browser load a file."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    for package in ("mkdocs", "material", "mkdocstrings"):
        peers.peer(package, "docs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    print(done.stderr.splitlines()[-1])
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """The text of each page, by its path."""
    return {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}


def own_names(module):
    """What a public module lists; of `dualnet.numpy` the part that its text names."""
    if module is not dn.numpy:
        return module.__all__
    lists = (
        node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.Assign)
    )
    return next(ast.literal_eval(n.value) for n in lists if ast.unparse(n.targets) == "__all__")


def test_every_public_name_has_an_entry(site):
    unlisted = {name: importlib.import_module(f"dualnet.{name}") for name in ("models", "scipy")}
    modules = {"dualnet": dn, **unlisted}
    listed = {name: getattr(dn, name) for name in dn.__all__}
    modules |= {name: value for name, value in listed.items() if isinstance(value, ModuleType)}
    own_pages = list(modules.values())
    for page, module in modules.items():
        text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        entries = set(re.findall(r'<h\d id="([\w.]+)"', text))
        assert module.__name__ in entries
        for name in own_names(module):
            path = f"{module.__name__}.{name}"
            # A function with the name of its file is listed by its full path.
            assert {path, f"{path}.{name}"} & entries or getattr(dn, name, 0) in own_pages, path


def test_no_page_loads_anything_from_elsewhere(site, pages):
    for path, text in pages.items():
        for tag in LOADED.findall(text):
            assert not re.search(r"""["'(]\s*(https?:)?//""", tag), (path, tag)
        assert 'class="mermaid"' not in text, path  # its script would come from elsewhere
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text("utf-8")), path


def test_every_link_of_the_site_leads_to_a_page_and_a_place_on_it(pages):
    places = {
        path: set(re.findall(r'\b(?:id|name)="([^"]*)"', text)) for path, text in pages.items()
    }
    checked = 0
    for path, text in pages.items():
        if path.name == "404.html":  # a server shows it at any address
            continue
        for link in re.findall(r'\b(?:href|src)="([^"]*)"', text):
            scheme, _, target, _, anchor = urlsplit(unescape(link))
            if scheme:
                assert scheme in ("https", "data"), (path, link)
                continue
            to = (path.parent / unquote(target)).resolve() if target else path
            to = to / "index.html" if to.is_dir() else to
            assert to.is_file(), (path, link)
            if anchor and to in places:
                assert unquote(anchor) in places[to], (path, link)
            checked += 1
    assert checked > 10_000


def test_the_search_knows_every_page_of_text(site, pages):
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    for path in pages:
        where = path.relative_to(site).as_posix()
        if not where.endswith((".py.html", ".cu.html", "404.html")) and where.startswith("docs/"):
            assert f'"{where}"' in index or "notebooks" in where, where
