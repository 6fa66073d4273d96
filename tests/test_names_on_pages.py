"""Files, functions, classes and flags that the pages name are there, and not renamed."""

import ast
import functools
import importlib
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import dualnet as dn

ROOT = Path(__file__).parent.parent
FOLDERS = ("benchmarks", "docs", "dualnet", "experiments", "models", "tests", ".ci")
"""What is in the repository beside the files at its top."""
LISTS = ("docs/functions.md",)
"""Pages that are made of the registry, which test_docs.py compares with it."""
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in (*ROOT.glob("*.md"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.md")))
    if str(page.relative_to(ROOT)) not in LISTS
)
OF_READERS = {
    "docs/own.md": {"FILE.py", "wide.py", "signs.py", "shapes.py", "mine.py"},
    "docs/programs.md": {"smooth.py", "signs.py"},
    "docs/tour.md": {"mine.py"},
    "docs/training.md": {"mine.py"},
    "docs/verification.md": {"mine.py"},
}
"""Page → files that it has its reader write."""
OF_OTHERS = {"SQLITE_BUSY", "REINDEX", "weights_only", "require-hashes", "trusted-host"}
"""Names and flags of other programs."""
VALUES = {
    "self": "Layer",
    "layer": "Layer",
    "context": "Context",
    "network": "Sequential",
    "rule": "Rule",
    "optimizer": "Optimizer",
    "backend": "Backend",
    "plan": "Plan",
    "run": "FittedNetwork",
}
"""What a page calls a value → its class."""

# --- what there is -------------------------------------------------------------------------------


def files():
    """The files of the repository, or all that lie here where there is no git."""
    try:
        done = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return [str(path.relative_to(ROOT)) for f in FOLDERS for path in (ROOT / f).rglob("*.*")]
    return done.stdout.split("\n")[:-1]


FILES = files()
PLACES = {*FILES, *(str(parent) for file in FILES for parent in Path(file).parents)}
TEXTS = {
    file: (ROOT / file).read_text(encoding="utf-8")
    for file in FILES
    if file.endswith((".py", ".cu", ".toml"))
    and (ROOT / file).exists()
    and file != "tests/test_names_on_pages.py"
}
WORDS = {word for text in TEXTS.values() for word in re.findall(r"\w+", text)}
MODULES: dict[str, set[str]] = {}
"""Name of a module, without its package → what is defined in modules of that name."""
CLASSES: dict[str, set[str]] = {}
"""Name of a class → its members, and those of its bases."""


def defined(node):
    """The names that a statement of a module or a class defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))


def members(node):
    for part in node.body:
        yield from defined(part)
    for part in ast.walk(node):  # self.name = …
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
            yield part.attr


bases: dict[str, set[str]] = {}
for file, text in TEXTS.items():
    if file.endswith(".py") and not file.startswith("docs/"):
        tree = ast.parse(text)
        MODULES.setdefault(Path(file).stem, set()).update(
            n for part in tree.body for n in defined(part)
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                CLASSES.setdefault(node.name, set()).update(members(node))
                of_node = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                bases.setdefault(node.name, set()).update(of_node - {node.name})


@functools.cache
def all_members(name):
    found = set(CLASSES.get(name, ()))
    return found.union(*(all_members(base) for base in bases.get(name, ())))


# --- what pages say ------------------------------------------------------------------------------

BLOCK = re.compile(r"(?ms)^ *```.*?^ *```")


def spans(page):
    """What stands between backticks on a page, outside of its blocks."""
    text = BLOCK.sub("", (ROOT / page).read_text(encoding="utf-8"))
    return dict.fromkeys(re.findall(r"`([^`\n]+)`", text))


def words_of_blocks(page):
    """What the blocks of a page may define."""
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return {word for block in blocks for word in re.findall(r"\w+", block)}


def missing_paths(page, span):
    """The files and folders of a span that are nowhere, or written from another place."""
    for path in re.findall(r"(?<![\w/.<…-])([\w.-]+(?:/[\w.-]+)*/?)(?![\w*{…/])", span):
        whole = path.rstrip("/.")
        if re.search(r"NAME|FILE|CLASS", whole):  # stands for any
            continue
        ours = whole.partition("/")[0] in FOLDERS and "/" in path
        if not (ours or re.search(r"\w\.(py|cu|md)$|/.*\w\.(json|png|svg|toml)$", whole)):
            continue
        if whole in OF_READERS.get(page, ()) or (ROOT / page).parent.joinpath(whole).exists():
            continue
        if not any(place == whole or place.endswith(f"/{whole}") for place in PLACES):
            yield path


def module(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def is_there(dotted):
    """Whether a dotted name leads to something."""
    head, *rest = dotted.split(".")
    if head in ("dn", "dualnet", "np"):
        found = {"dn": dn, "dualnet": dn, "np": np}[head]
        for i, name in enumerate(rest):
            inside = getattr(found, name, None)
            if inside is None and isinstance(found, type):
                return name in all_members(found.__name__)
            if inside is None:
                inside = module(".".join(["dualnet", *rest[: i + 1]]))
            if inside is None:
                return False
            found = inside
        return True
    head = VALUES.get(head, head)
    if head in CLASSES:
        return rest[0] in all_members(head) and set(rest) <= WORDS
    if head in MODULES and rest[0] in MODULES[head]:
        return set(rest) <= WORDS
    if head in dir(np):  # as `linalg` of `np.linalg`
        return is_there(f"np.{dotted}")
    return head not in MODULES and {head, *rest} <= WORDS


def missing_names(page, span):
    """The names of a span that are neither in the sources nor in the page's own blocks."""
    found = re.fullmatch(r"@?([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(\(.*\))?", span)
    if found is None or found[1] in OF_OTHERS:
        return
    name, words = found[1], WORDS | words_of_blocks(page)
    if "." in name:
        if not re.search(r"\.(py|cu|md|json|npz|csv|toml|png|svg|npy|gz|tes)$", name):
            if not is_there(name):
                yield name
    elif ("_" in name.strip("_") or re.search(r"[a-z][A-Z]", name)) and name not in words:
        yield name


def missing_flags(span):
    for flag in re.findall(r"(?<![\w-])--([a-z][\w-]*)", span):
        name = flag.replace("-", "_")
        if not {name, name.removeprefix("no_"), flag} & WORDS and flag not in OF_OTHERS:
            yield f"--{flag}"


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page):
    wrong = [
        f"{missing} in `{span}`"
        for span in spans(page)
        for missing in (
            *missing_paths(page, span),
            *missing_names(page, span),
            *missing_flags(span),
        )
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("span", "missing"),
    [
        ("dualnet/core/nowhere.py", "dualnet/core/nowhere.py"),
        ("core/dual.py", None),
        ("nowhere.py", "nowhere.py"),
        ("dualnet/nowhere/", "dualnet/nowhere/"),
        ("python -m pytest tests/test_nowhere.py -k some", "tests/test_nowhere.py"),
        ("benchmarks/results/nowhere.json", "benchmarks/results/nowhere.json"),
        ("figures/nowhere.svg", "figures/nowhere.svg"),
        ("checkpoint.npz", None),
        ("dn.nowhere", "dn.nowhere"),
        ("dn.linear.matmul(t, x)", None),
        ("dualnet.nn.nowhere", "dualnet.nn.nowhere"),
        ("Trainer.advance", None),
        ("Trainer.nowhere", "Trainer.nowhere"),
        ("linear.nowhere(t)", "linear.nowhere"),
        ("context.tap(path, y)", None),
        ("context.nowhere", "context.nowhere"),
        ("@nowhere_at_all", "nowhere_at_all"),
        ("transpose_nothing", "transpose_nothing"),
        ("NothingAtAll(x)", "NothingAtAll"),
        ("--nowhere-at", "--nowhere-at"),
    ],
)
def test_what_is_not_there_is_found(span, missing):
    found = (
        *missing_paths("README.md", span),
        *missing_names("README.md", span),
        *missing_flags(span),
    )
    assert found == ((missing,) if missing else ())
