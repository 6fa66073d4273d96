"""Which pages the site has: a hook of mkdocs (`mkdocs.yml`).

The site has the folders of the repository, so a relative link that works on a code host works here.
A page is

* a Markdown file of those below,
* a file or folder of code to which such a page links, or which it names as `dualnet/tree.py`: shown
  as text with colors, or as a list,
* or a page of the reference, one for each public module, which mkdocstrings fills from docstrings.

All else that a page may show, pictures above all, is copied as it is.
"""

from __future__ import annotations

import posixpath
import re
from functools import cache
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
MARKDOWN = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "dualnet/**/*.md", "benchmarks/**/*.md")
COPIED = ("docs/**/*", "benchmarks/results/*")
COPIED_AS_IT_IS = (".svg", ".png", ".json", ".ipynb", ".js", ".css")
SHOWN_AS_CODE = {".py": "python", ".cu": "cuda", ".toml": "toml", ".yml": "yaml"}
"""Ending of a file → the language by which its text is colored."""

FENCED = re.compile(r"^( *)(```+).*?^\1\2", re.M | re.S)
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)[^)]*\)")
SPAN = re.compile(r"(?<![\[`])`([\w./-]+)`(?![\]`])")
"""A code span that may be a path or a name, and is not a link yet."""


class Code(File):
    """A file or folder of the repository that is a page, although it is no Markdown."""

    def is_documentation_page(self) -> bool:
        return True

    @property
    def dest_uri(self) -> str:
        return self.src_uri + ("/index" if (ROOT / self.src_uri).is_dir() else "") + ".html"


# --- hooks ---


def on_config(config: MkDocsConfig) -> None:
    """Add the pages of the reference to the navigation."""
    reference = next(part["Reference"] for part in config.nav if "Reference" in part)
    reference.extend({f"dualnet.{name}".removesuffix(".dualnet"): uri(name)} for name in public())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the files of the repository in the place of those of `docs/`."""
    of_theme = (file for file in files if file.src_dir != config.docs_dir)
    made: dict[str, File] = {file.src_uri: file for file in of_theme}

    def add(path: str, content: str | None = None, kind: type[File] = File) -> None:
        source = {"content": content} if content else {"abs_src_path": str(ROOT / path)}
        made[path] = kind.generated(config, path, **source)

    for name in public():
        add(uri(name), reference(name))
    pages = sorted({path for pattern in MARKDOWN for path in ROOT.glob(pattern)})
    for page in pages:
        add(page.relative_to(ROOT).as_posix())
    for path in {path for pattern in COPIED for path in ROOT.glob(pattern) if path.is_file()}:
        if path.suffix in COPIED_AS_IT_IS:
            add(path.relative_to(ROOT).as_posix())
    for path in sorted({path for page in pages for path in code_of(page)}):
        add(path, as_markdown(path), Code)
        made[path].inclusion = InclusionLevel.NOT_IN_NAV
    return Files(list(made.values()))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links of the files and the public names, such as `dn.jvp`, that a page names."""
    if isinstance(page.file, Code) or page.file.src_uri.startswith("reference/"):
        return markdown

    def link(span: re.Match) -> str:
        entry = entry_of(span[1])
        if entry is not None:
            return f"[{span[0]}][{entry}]"
        path = found(page.file.src_uri, span[1])
        if path is None or path == page.file.src_uri or path not in files.src_uris:
            return span[0]
        return f"[{span[0]}]({posixpath.relpath(path, posixpath.dirname(page.file.src_uri))})"

    parts, end = [], 0
    for block in FENCED.finditer(markdown):
        parts += [SPAN.sub(link, markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, SPAN.sub(link, markdown[end:])])


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mark short names in text, which `style.css` keeps on one line."""
    return re.sub(r"<code>([^\s<]{1,40})</code>", r'<code class="name">\1</code>', html)


# --- files of the repository ---


def code_of(page: Path) -> set[str]:
    """The files and folders, no pages themselves, that a page links to or names."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    here = page.relative_to(ROOT).as_posix()
    linked = (
        posixpath.normpath(posixpath.join(posixpath.dirname(here), x[1]))
        for x in LINK.finditer(text)
    )
    named = (found(here, x[1]) for x in SPAN.finditer(text))
    return {
        path
        for path in (*linked, *named)
        if path and (Path(path).suffix in SHOWN_AS_CODE or (ROOT / path).is_dir())
    }


def found(page: str, name: str) -> str | None:
    """The file that a page means by a name: beside the page, in the repository or the package."""
    for folder in (posixpath.dirname(page), "", "dualnet"):
        path = posixpath.normpath(posixpath.join(folder, name))
        if "." in name and (ROOT / path).is_file():
            return path
    return None


def as_markdown(path: str) -> str:
    """The page of a file or folder of code, as wide as the window; the search leaves it out."""
    head = "---\nsearch: {exclude: true}\nhide: [navigation, toc]\n---\n\n"
    head += f"# `{path}`\n\n"
    if (ROOT / path).is_dir():
        names = sorted(entry.name for entry in (ROOT / path).iterdir() if entry.name[0] not in "._")
        return head + "".join(
            f"- [{name}](<{posixpath.basename(path)}/{name}>)\n" for name in names
        )
    text = (ROOT / path).read_text(encoding="utf-8")
    return f'{head}``````{SHOWN_AS_CODE[Path(path).suffix]} linenums="1"\n{text}``````\n'


# --- the reference ---


@cache
def package() -> griffe.Module:
    """The package as its text has it: nothing is imported."""
    told = griffe.load_extensions(str(ROOT / "docs/site/docstrings.py"))
    return griffe.load("dualnet", search_paths=[ROOT], extensions=told, allow_inspection=False)


def public() -> dict[str, griffe.Module]:
    """The package, the modules that it lists, and two that it does not, by their names."""
    listed = [name for name in map(str, package().exports) if package()[name].is_module]
    names = sorted([*listed, "models", "scipy"])
    return {"dualnet": package(), **{name: package()[name] for name in names}}


@cache
def entries(name: str) -> dict[str, str]:
    """What a module lists and has itself, without what is NumPy's, each with its full path."""
    module, found = public()[name], {}
    for member in map(str, module.exports):
        if member in module.members and member not in public():
            found[member] = f"{module.path}.{member}"
            # A function may have the name of the file that it is in, which hides it.
            if module.members[member].is_module and member in module[member].members:
                found[member] += f".{member}"
    return found


def entry_of(name: str) -> str | None:
    """The entry to which a name like `dn.nn.Linear.features` leads; None if there is none."""
    package_name, *path = name.split(".")
    if package_name != "dn" or not path:
        return None
    module = path.pop(0) if path[0] in public() else "dualnet"
    return entries(module).get(path[0]) if path else public()[module].path


def uri(name: str) -> str:
    return f"reference/{name}.md"


def reference(name: str) -> str:
    """The page of a module, for mkdocstrings to fill."""
    module = public()[name].path
    listed = [member for member, path in entries(name).items() if path == f"{module}.{member}"]
    hidden = [path for path in entries(name).values() if path.count(".") > module.count(".") + 1]
    page = f"::: {module}\n    options:\n      members:\n"
    page += "".join(f"      - {member}\n" for member in listed)
    for path in hidden:
        page += f"\n::: {path}\n    options:\n      heading_level: 2\n"
    return page + (modules() if name == "dualnet" else "")


def modules() -> str:
    """The part of the package's page that leads to its modules."""
    rows = [
        f"| [`{module.path}`]({name}.md) | {module.docstring.value.partition(chr(10))[0]} |\n"
        for name, module in public().items()
        if name != "dualnet"
    ]
    return "\n## Modules\n\n| module | what it is for |\n| --- | --- |\n" + "".join(rows)
