"""Trees that are deeper than Python can recurse: refused in one line, which says how deep."""

from collections import namedtuple

import numpy as np
import pytest

import dualnet as dn
from dualnet import tree
from dualnet.errors import TreeError

Pair = namedtuple("Pair", "left right")


def nested(levels, wrap, leaf):
    for _ in range(levels):
        leaf = wrap(leaf)
    return leaf


WRAPPERS = (lambda x: {"a": x}, lambda x: [x], lambda x: (x,), lambda x: Pair(x, 0))
WALKS = {
    "map": lambda t: tree.map(lambda x: x, t),
    "map of two": lambda t: tree.map(lambda x, y: x, t, t),
    "map_with_path": lambda t: tree.map_with_path(lambda path, x: x, t),
    "items": tree.items,
    "leaves": tree.leaves,
    "leaves_like": lambda t: tree.leaves_like(t, t),
    "unflatten": lambda t: tree.unflatten(t, [1]),
    "outline": lambda t: tree.outline(t, type),
    "add": lambda t: tree.add(t, t),
    "size": tree.size,
    "grad": dn.grad(lambda p: tree.leaves(p)[0].sum()),
    "jvp": lambda t: dn.jvp(lambda p: 1.0, (t,), (t,)),
    "result of jvp": lambda t: dn.jvp(lambda x: t, (1.0,), (1.0,)),
    "aux of vjp": lambda t: dn.vjp(lambda x: (x, t), 1.0, has_aux=True),
    "stop_gradient": dn.stop_gradient,
}


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS.keys())
@pytest.mark.parametrize("wrap", WRAPPERS, ids=("dict", "list", "tuple", "named"))
def test_too_deep_a_tree_is_refused_with_its_depth(walk, wrap):
    with pytest.raises(TreeError, match=r"the tree has 100,00\d levels, and a tree has"):
        walk(nested(100_000, wrap, np.ones(2)))


@pytest.mark.parametrize("walk", [WALKS["map"], WALKS["grad"]], ids=("map", "grad"))
def test_a_tree_that_contains_itself_is_refused(walk):
    endless = {}
    endless["again"] = endless
    with pytest.raises(TreeError, match="or contains itself"):
        walk(endless)


@pytest.mark.parametrize("wrap", WRAPPERS[:3], ids=("dict", "list", "tuple"))
def test_trees_of_some_hundred_levels_work(wrap):
    deep = nested(700, wrap, 2.0)
    assert tree.leaves(tree.map(lambda x: x + 1, deep)) == [3.0]
    assert tree.leaves(dn.grad(lambda p: tree.leaves(p)[0] ** 2)(deep)) == [4.0]
    assert len(tree.outline(deep, type)) == 3


def test_where_deep_trees_differ_is_said_in_one_short_line():
    one, other = (nested(500, WRAPPERS[0], leaf) for leaf in (1, {"b": 2}))
    with pytest.raises(TreeError, match=r"trees differ at a/a/.*/…/.*/a: expected int") as caught:
        tree.map(lambda x, y: x, one, other)
    assert len(str(caught.value)) < 200
    assert tree.describe(one) == "{a: " * 20 + "{…}" + "}" * 20


def test_recursion_of_others_is_not_taken_for_depth():
    def endless(x):
        return endless(x)

    with pytest.raises(RecursionError):
        tree.map(endless, {"a": 1})
