"""The house's own rules: imports go down, the story stays short, calls go the way the pages say."""

import ast
import importlib
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import dualnet as dn
from dualnet.checkout import find_models_in

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dualnet"

FLOORS = {
    0: (
        *("checkout", "console", "depth", "errors", "files", "locks", "naming", "nodes"),
        *("options", "progress", "random", "rebuilding", "tree", "types", "version"),
    ),
    1: ("backends",),
    2: ("core", "images", "linear", "numpy", "checking", "recording", "scipy", "special"),
    3: ("nn", "optim", "schedules"),
    4: ("learning", "models"),
    5: ("analysis", "data", "training"),
    6: ("check", "tour"),
    7: ("command", "__main__"),
}
"""Floor → what is on it, as the table of floors in docs/design.md has it, too."""
STORY = ("dual", "linear", "engine", "symbolic", "spaces", "transforms")
"""The files of dualnet/core that its README has one read from top to bottom."""


# --- packages ------------------------------------------------------------------------------------


def test_every_package_is_installed():
    """`packages` in pyproject.toml are all of them; `models/` is installed as `dualnet.models`."""
    inside = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")
    }
    listed = re.search(r"(?s)\npackages = \[\n(.*?)\n\]", (ROOT / "pyproject.toml").read_text())
    assert set(re.findall(r'"(.*?)"', listed[1])) == {*inside, "dualnet.models"}


# --- imports -------------------------------------------------------------------------------------


def modules():
    """Every module of the package, by its dotted name, with its syntax tree."""
    for path in sorted([*PACKAGE.rglob("*.py"), *(ROOT / "models").rglob("*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts if parts[0] == "dualnet" else ("dualnet", *parts))
        yield name.removesuffix(".__init__"), ast.parse(path.read_text())


MODULES = dict(modules())


def imported(name, tree, everywhere):
    """The modules of the package that a module imports: at its top, or anywhere in it."""
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dualnet"):
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield inside if inside in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in MODULES)


def floor_of(module):
    part = module.split(".")[1]
    return next(floor for floor, parts in FLOORS.items() if part in parts)


def test_the_page_of_the_design_has_these_floors():
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| (.*?) \|", text, re.M)
    told = {int(n): {Path(path).stem for path in re.findall(r"`(.*?)`", row)} for n, row in rows}
    assert told == {floor: set(parts) for floor, parts in FLOORS.items()}


def test_imports_only_go_down():
    upward = [
        f"{name} imports {other}"
        for name, tree in MODULES.items()
        if name != "dualnet"
        for other in imported(name, tree, everywhere=True)
        if other != "dualnet" and floor_of(other) > floor_of(name)
    ]
    assert not upward


def test_no_import_is_circular():
    graph = {name: set(imported(name, tree, everywhere=False)) for name, tree in MODULES.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, " → ".join([*path[path.index(name) :], name])
        if name in done or name == "dualnet":
            return
        path.append(name)
        for other in sorted(graph[name]):
            visit(other)
        done.add(path.pop())

    for name in graph:
        visit(name)


def test_duals_are_named_in_the_core_alone():
    named = [
        f"{name}: {node.name}"
        for name, tree in MODULES.items()
        if name != "dualnet" and floor_of(name) in (4, 5)
        for node in ast.walk(tree)
        if isinstance(node, ast.alias) and node.name in ("Dual", "Level", "Symbolic", "DirectSum")
    ]
    assert not named


def test_files_are_short_enough_to_read():
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "models").rglob("*.py")]
    long = {str(path.relative_to(ROOT)): n for path in paths if (n := lines(path)) > 400}
    assert not long, f"split these by the question they answer: {long}"


def test_the_package_needs_no_peer():
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                roots = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
                assert not {root.partition(".")[0] for root in roots} & {"torch", "jax"}, name


# --- what users see ---


def public():
    """The package and the modules that it lists, by their names."""
    listed = {name: getattr(dn, name) for name in dn.__all__}
    return {"dualnet": dn} | {k: m for k, m in listed.items() if isinstance(m, ModuleType)}


def test_every_public_module_lists_what_it_has():
    assert {"nn", "learning", "data", "optim", "schedules", "analysis", "backends", "tree"} <= set(
        public()
    )
    for name, module in public().items():
        assert module.__all__, name
        missing = [n for n in module.__all__ if not hasattr(module, n)]
        assert not missing, f"{name}: {missing}"


def test_type_checkers_find_what_python_finds():
    """Names that come when they are asked for are imported once more, for type checkers alone."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and "TYPE" in ast.unparse(n.test))
    said = {a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    for name, home in said.items():
        assert getattr(dn, name) is getattr(importlib.import_module(home), name)
    assert {*said, "__version__"} == set(dn.__all__)


def test_a_checkout_holds_no_package_but_its_own():
    """`dualnet.models` is found beside the package, and what else is there is not `dualnet.` it."""
    program = (
        "import dualnet, pkgutil, dualnet.models.mlp as mlp\n"
        "from importlib.util import find_spec\n"
        "assert dualnet.models.MLP is mlp.MLP\n"
        "walked = [m.name for m in pkgutil.walk_packages(dualnet.__path__, 'dualnet.')]\n"
        "outside = ('dualnet', 'experiments', 'tests', 'train')\n"
        "assert not [name for name in outside if find_spec(f'dualnet.{name}')]\n"
        "print(len(walked), mlp.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    number, _, file = done.stdout.strip().partition(" ")
    assert int(number) < len(MODULES) and Path(file) == ROOT / "models" / "mlp.py"


def test_models_that_are_not_there_are_not_found(tmp_path, monkeypatch):
    """So that Python says `No module named 'dualnet.models'`, and names no file inside."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    find_models_in(str(tmp_path))
    assert sys.meta_path[0].find_spec("dualnet.models") is None
    find_models_in(str(ROOT))
    assert sys.meta_path[0].find_spec("dualnet.models").origin == str(ROOT / "models/__init__.py")


def test_modules_come_when_they_are_asked_for():
    program = (
        "import sys, dualnet as dn\n"
        "late = ('nn', 'learning', 'data', 'optim', 'schedules', 'analysis')\n"
        "assert not [n for n in late if f'dualnet.{n}' in sys.modules]\n"
        "assert set(late) < set(dir(dn)) and dn.nn.Linear and dn.data.load and dn.learning.RULES\n"
        "print(dn.__version__)\n"
        "dn.nowhere\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stderr.endswith("AttributeError: module 'dualnet' has no attribute 'nowhere'\n")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{done.stdout.strip()}"\n' in project


# --- the story -----------------------------------------------------------------------------------


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


EXAMPLES = re.compile(r'(?s)("""(?:(?!""").)*?)\n\n *Examples:\n(?:(?!""").)*(\n *""")')
"""A docstring that ends with examples: what stands before them, and its last line."""


def without_examples(text):
    """The text of a file as it would be without the examples in its docstrings."""
    return EXAMPLES.sub(lambda m: m[1] + (m[2] if "\n" in m[1] else '"""'), text)


def test_examples_are_taken_out_of_docstrings():
    one = '    """Add."""\n    return\n'
    several = '    """Add.\n\n    Returns:\n        It.\n    """\n    return\n'
    assert without_examples(one + several) == one + several
    shown = "\n\n    Examples:\n        >>> 1 + 1\n        2"
    with_one = one.replace('Add."""', f'Add.{shown}\n    """')
    with_several = several.replace("It.", f"It.{shown}")
    assert without_examples(with_one + with_several) == one + several


def test_the_story_of_the_core_is_read_in_an_hour():
    """Examples in docstrings are not counted: they are read on the pages of the functions."""
    texts = {n: (PACKAGE / "core" / f"{n}.py").read_text(encoding="utf-8") for n in STORY}
    story = {name: len(without_examples(text).splitlines()) for name, text in texts.items()}
    core = sum(lines(path) for path in (PACKAGE / "core").rglob("*.py"))
    print(f"story {sum(story.values())} lines {story}, core with tables {core}")
    assert max(story.values()) <= 260
    assert sum(story.values()) <= 1100
    text = (PACKAGE / "core" / "README.md").read_text(encoding="utf-8")
    order = [re.search(rf"`{name}\.py`", text).start() for name in STORY]
    assert order == sorted(order)


# --- the way of a call ---------------------------------------------------------------------------


def calls(function):
    """The Python calls that a call makes, as frames, and how deep each is; once it is warm."""
    function()
    found, depth = [], 0

    def profile(frame, event, _arg):
        nonlocal depth
        if event == "call":
            found.append((depth, frame.f_code))
            depth += 1
        elif event == "return":
            depth -= 1

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return found


X, W = np.ones((4, 3)), np.ones((3, 2))


def loss(w):
    return np.tanh(X @ w).sum()


@pytest.mark.parametrize(
    ("name", "run", "most"),
    [
        ("jvp", lambda: dn.jvp(loss, (W,), (W,)), 85),
        ("grad", lambda: dn.grad(loss)(W), 160),
    ],
)
def test_python_calls_of_a_transform(name, run, most):
    count = len(calls(run))
    print(f"{name}: {count} Python calls, allowed {most}")
    assert count <= most


def in_the_story(code):
    """Whether a frame is one that the core's README tells of."""
    path = Path(code.co_filename)
    core = PACKAGE / "core"
    return (
        path.parent in (core, core / "tables")
        and path.stem not in ("arguments", "refusals")
        and not re.search(r"<(listcomp|genexpr|dictcomp)>|__(enter|exit|init)__", code.co_qualname)
    )


def test_the_page_of_the_core_follows_a_call_as_it_is():
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 knows no qualified names of code; Python 3.11 does")
    told, stack = [], []
    for depth, code in itertools.islice(calls(lambda: dn.jvp(loss, (W,), (W,))), 1, None):
        while stack and stack[-1] >= depth:
            stack.pop()
        if in_the_story(code):
            name = code.co_qualname.replace(".<locals>", "")
            told.append(f"{'  ' * len(stack)}{Path(code.co_filename).stem}.{name}")
            stack.append(depth)
    text = (PACKAGE / "core" / "README.md").read_text(encoding="utf-8")
    (page,) = re.findall(r"```calls\n(.*?)```", text, re.S)
    page = "\n".join(re.sub(r"\s*#.*", "", line) for line in page.splitlines())
    assert page == "\n".join(told)


# --- tests ---------------------------------------------------------------------------------------


def test_every_skip_says_why():
    """Each call has a reason; those for want of a package say what installs it."""
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            name, where = node.func.attr, f"{path.name}:{node.lineno}"
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name in ("skipif", "importorskip"):
                assert "reason" in given, where
            elif name == "skip" and ast.unparse(node.func) in ("pytest.skip", "pytest.mark.skip"):
                assert node.args or "reason" in given, where
            if name == "importorskip":
                assert "pip install" in given["reason"], where
