"""Trees: order, structure, and messages that name the place where two trees differ."""

from collections import namedtuple

import numpy as np
import pytest

from dualnet import tree
from dualnet.errors import TreeError

Pair = namedtuple("Pair", "left right")

NESTED = {"b": [1, (2, 3)], "a": {"w": 4, "none": None}, "pair": Pair(5, [])}


def test_items_are_depth_first_in_insertion_order():
    assert list(tree.items(NESTED)) == [
        ("b/0", 1),
        ("b/1/0", 2),
        ("b/1/1", 3),
        ("a/w", 4),
        ("a/none", None),
        ("pair/left", 5),
    ]
    assert next(iter(tree.items(NESTED, "top"))) == ("top/b/0", 1)


def test_a_single_leaf_is_a_tree_with_an_empty_path():
    assert list(tree.items(7)) == [("", 7)]
    assert tree.leaves(None) == [None]
    assert tree.map(lambda x: x + 1, 7) == 8


@pytest.mark.parametrize("empty", [{}, [], ()])
def test_an_empty_container_has_no_leaves_and_stays_what_it_is(empty):
    assert tree.leaves(empty) == []
    assert tree.map(lambda x: x + 1, empty) == empty
    assert type(tree.map(lambda x: x, empty)) is type(empty)


def test_map_keeps_the_structure_and_every_container_type():
    mapped = tree.map(lambda x: None if x is None else 10 * x, NESTED)
    assert mapped == {"b": [10, (20, 30)], "a": {"w": 40, "none": None}, "pair": Pair(50, [])}
    assert type(mapped["pair"]) is Pair and type(mapped["b"][1]) is tuple
    assert NESTED["b"] == [1, (2, 3)]  # nothing is changed in place


def test_map_passes_corresponding_leaves_even_if_dicts_differ_in_order():
    first, second = {"x": 1, "y": {"u": 2, "v": 3}}, {"y": {"v": 30, "u": 20}, "x": 10}
    mapped = tree.map(lambda a, b: (a, b), first, second)
    assert mapped == {"x": (1, 10), "y": {"u": (2, 20), "v": (3, 30)}}
    assert tree.map(lambda a, b: (a, b), {"w": None}, {"w": 3}) == {"w": (None, 3)}
    assert list(mapped) == ["x", "y"] and list(mapped["y"]) == ["u", "v"]  # the first tree's order


def test_map_with_path_numbers_leaves_by_the_first_tree():
    seen = tree.map_with_path(lambda p, a, b: f"{p}={a}{b}", {"x": 1, "y": [2]}, {"y": [3], "x": 4})
    assert seen == {"x": "x=14", "y": ["y/0=23"]}


def test_unflatten_is_the_inverse_of_leaves():
    assert tree.unflatten(NESTED, tree.leaves(NESTED)) == NESTED
    other = tree.unflatten({"x": 0, "p": Pair(0, 0)}, ["a", "b", "c"])
    assert other == {"x": "a", "p": Pair("b", "c")}


def test_add_and_size():
    a = {"w": np.ones((2, 3)), "b": [np.zeros(4)]}
    total = tree.add(a, a)
    assert np.array_equal(total["w"], np.full((2, 3), 2.0))
    assert tree.size(a) == 10


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ({"x": 1}, {"y": 1}, r"at the root: expected \{x: int\}, got \{y: int\}"),
        ({"x": 1}, {"x": 1, "y": 1}, r"the root: expected \{x: int\}, got \{x: int, y: int\}"),
        ({"x": [1, 2]}, {"x": [1]}, r"differ at x: expected \[int, int\], got \[int\]"),
        ({"x": [1]}, {"x": (1,)}, r"differ at x: expected \[int\], got \(int\)"),
        ([{"w": 1}], [{"w": {"v": 1}}], r"differ at 0/w: expected int, got \{v: int\}"),
        ([{"w": {"v": 1}}], [{"w": None}], r"at 0/w: expected \{v: int\}, got NoneType"),
        (Pair(1, 2), (1, 2), r"the root: expected \(int, int\), got \(int, int\)"),
        (
            {"w": np.zeros((3, 2), np.float32)},
            {"w": [np.zeros(2)]},
            r"at w: expected float32\(3, 2\), got \[float64\(2,\)\]",
        ),
    ],
)
def test_a_mismatch_names_the_place_and_both_sides(a, b, message):
    for trees in ((a, b), (a, a, b)):
        with pytest.raises(TreeError, match=message):
            tree.map(lambda *_: None, *trees)


def test_unflatten_says_how_many_leaves_it_wants():
    with pytest.raises(TreeError, match=r"has 2 leaves, got 3"):
        tree.unflatten({"x": 0, "y": 0}, [1, 2, 3])


def test_describe():
    t = {"w": np.zeros((3, 2), np.float32), "rest": [None, (1.5,)]}
    assert tree.describe(t) == "{w: float32(3, 2), rest: [NoneType, (float)]}"
