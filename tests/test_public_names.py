"""Every public name says what it is, and what has a docstring has an example that runs.

Functions, classes and linear maps have an example in their docstring: `>>>` lines under the heading
`Examples:`, by which the site's generator finds them.  They run here in an empty folder with `np`
and `dn` at hand, and print what stands below them.  What they print must not depend on NumPy's
version, so they print rounded numbers, lists, or shapes.

Constants and type aliases cannot have a docstring of their own.  They have one where they are
assigned: a string on the line after it.
"""

import ast
import doctest
import importlib
import inspect
import re
from types import ModuleType

import numpy as np
import peers
import pytest

import dualnet as dn

MODULES = {
    "dn": dn,
    **{f"dn.{n}": m for n in dn.__all__ if isinstance(m := getattr(dn, n), ModuleType)},
    "dn.models": importlib.import_module("dualnet.models"),
    "dn.random": importlib.import_module("dualnet.random"),
}
"""All that users import, but for `dualnet.scipy`, because SciPy may be missing."""


def names():
    """Every public name that is no module, as `dn.nn.Linear`, and what it means."""
    for path, module in MODULES.items():
        # What else dn.numpy has stands in the place of NumPy's, which describes it.
        for name in ("add_at", "put_at") if module is dn.numpy else module.__all__:
            thing = getattr(module, name)
            if not isinstance(thing, ModuleType):
                yield f"{path}.{name}", thing


NAMES = dict(names())
NEEDED = {"dn.special.register": ("scipy", "scipy")}
"""Name → the package that its example needs, and the extra that brings it."""

WITHOUT_CORE = {}
"""Names that have no example, or no docstring, yet."""


def has_docstring(thing):
    """Whether it is a function, class, or linear map of ours, and no constant or alias."""
    return callable(thing) and (getattr(thing, "__module__", None) or "").startswith("dualnet")


def docstring(thing):
    """Its own docstring; one that it inherits speaks of another."""
    return (vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__) or ""


def comment(module, name):
    """The string behind the assignment of a constant, in the module or where it imports it from."""
    tree = ast.parse(inspect.getsource(module))
    for body in (tree.body, *(node.body for node in tree.body if isinstance(node, ast.If))):
        for node, after in zip(body, [*body[1:], None], strict=True):
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                return after.value.value if said else ""
            if isinstance(node, ast.ImportFrom) and name in (alias.name for alias in node.names):
                return comment(importlib.import_module(node.module), name)
    return ""


def examples(name, thing):
    """The examples of its docstring, and of those of its methods."""
    found = doctest.DocTestFinder().find(
        thing, name, module=False, globs={"np": np, "dn": dn, "__name__": "example"}
    )
    return [test for test in found if test.examples]


def is_described(name):
    thing = NAMES[name]
    if not has_docstring(thing):
        path, _, own = name.rpartition(".")
        return bool(comment(MODULES[path], own))
    return re.search(r"\n *Examples:\n +>>> ", docstring(thing)) is not None


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_described_with_an_example(name):
    """A docstring with `>>>` lines, or, for a constant, a string behind its assignment."""
    assert is_described(name) != (name in WITHOUT_CORE)


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_a_public_name_print_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name in NEEDED:
        peers.peer(*NEEDED[name])
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False
    )
    report = []
    for test in examples(name, NAMES[name]) if has_docstring(NAMES[name]) else ():
        runner.run(test, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_print_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finder = doctest.DocTestFinder(recurse=False)
    report = []
    for test in finder.find(MODULES[name], name, globs={"np": np, "dn": dn}):
        doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert not report, "".join(report)


def test_the_names_that_are_walked_are_there():
    assert len(NAMES) > 200
    assert {"dn.jvp", "dn.nn.Linear", "dn.linear.scale", "dn.numpy.put_at", "dn.models.MLP"} < set(
        NAMES
    )
    assert not has_docstring(NAMES["dn.tree.Tree"]) and not has_docstring(NAMES["dn.data.NAMES"])
