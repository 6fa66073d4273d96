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
import importlib.util
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
"""All that users import."""
if importlib.util.find_spec("scipy"):
    MODULES["dn.scipy"] = importlib.import_module("dualnet.scipy")


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


def is_described(name):
    """Whether a docstring has an example, or the assignment of a constant has words."""
    if has_docstring(NAMES[name]):
        return re.search(r"\n *Examples:\n +>>> ", docstring(NAMES[name])) is not None
    path, _, own = name.rpartition(".")
    return bool(comment(MODULES[path], own))


def failures(name, thing, recurse=True):
    """What the examples of a docstring, and of those of its methods, print otherwise."""
    finder = doctest.DocTestFinder(recurse=recurse)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report = []
    for test in finder.find(thing, name, module=False, globs={"np": np, "dn": dn}):
        runner.run(test, out=report.append)
    return "".join(report) if runner.failures else ""


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_described_with_an_example(name):
    assert is_described(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_a_public_name_print_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name in NEEDED:
        peers.peer(*NEEDED[name])
    assert not has_docstring(NAMES[name]) or not failures(name, NAMES[name])


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_print_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not failures(name, MODULES[name], recurse=False)


def wrong():
    """Say two.

    Examples:
        >>> 1 + 1
        3
    """


def test_a_wrong_example_is_found():
    assert "Expected:\n    3\nGot:\n    2\n" in failures("wrong", wrong)


def test_the_names_that_are_walked_are_there():
    assert len(NAMES) > 200
    assert {"dn.jvp", "dn.nn.Linear", "dn.linear.scale", "dn.numpy.put_at", "dn.models.MLP"} < set(
        NAMES
    )
    assert not has_docstring(NAMES["dn.tree.Tree"]) and not has_docstring(NAMES["dn.data.NAMES"])
