"""Trees: order, structure, and messages that name the place where two trees differ."""

import dataclasses
from collections import Counter, OrderedDict, defaultdict, namedtuple
from typing import Any, NamedTuple

import numpy as np
import pytest

import dualnet as dn
from dualnet import tree
from dualnet.errors import TangentError, TreeError, UsageError

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
    assert tree.size({**a, "rate": 0.5, "none": None}) == 11
    with pytest.raises(TreeError, match="expected arrays, numbers or None as leaves, got str"):
        tree.size({"name": "w"})


@pytest.mark.parametrize("key", ["a/b", ""])
def test_two_leaves_of_one_path_are_refused(key):
    t = {key: {"a/b": 1} if key == "" else 1, "a": {"b": 2}}
    with pytest.raises(TreeError, match="two leaves have the path 'a/b'; give one of the keys"):
        tree.items(t)
    with pytest.raises(TreeError, match="two leaves have the path '1'"):
        tree.map_with_path(lambda path, leaf: path, {1: 3, "1": 4})
    assert tree.map(abs, {1: 3, "1": 4}) == {1: 3, "1": 4}


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ({"x": 1}, {"y": 1}, r"at the root: expected \{x: int\}, got \{y: int\}"),
        ({"x": 1}, {"x": 1, "y": 1}, r"the root: expected \{x: int\}, got \{x: int, y: int\}"),
        ({"x": [1, 2]}, {"x": [1]}, r"differ at x: expected \[int, int\], got \[int\]"),
        ({"x": [1]}, {"x": (1,)}, r"differ at x: expected \[int\], got \(int\)"),
        ([{"w": 1}], [{"w": {"v": 1}}], r"differ at 0/w: expected int, got \{v: int\}"),
        ([{"w": {"v": 1}}], [{"w": None}], r"at 0/w: expected \{v: int\}, got NoneType"),
        (Pair(1, 2), (1, 2), r"the root: expected Pair\(int, int\), got \(int, int\)"),
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


# --- subclasses keep their types -----------------------------------------------------------------


class Attributes(dict):
    """A dict whose keys can be read as attributes."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class SelfDict(dict):
    """The other usual way to write one: the object's attributes are its items."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.__dict__ = self


class Named(dict):
    """A dict with an attribute beside its items, and a constructor of its own."""

    def __init__(self, name):
        self.name = name


class Layers(list):
    """A list with a constructor that takes its items one by one."""

    def __init__(self, *layers, note=None):
        super().__init__(layers)
        self.note = note


class Point(NamedTuple):
    x: Any
    y: Any

    @property
    def length(self):
        return np.sqrt(self.x**2 + self.y**2)


class Checked(namedtuple("Checked", "w")):
    """A named tuple whose constructor converts."""

    def __new__(cls, w):
        return super().__new__(cls, np.asarray(w, float))


@tree.register_dataclass
@dataclasses.dataclass
class Dense:
    w: Any
    b: Any


@dataclasses.dataclass(frozen=True)
class Model:
    name: str
    layers: tuple
    scale: Any = 1.0
    count: int = dataclasses.field(init=False, default=0)

    def __post_init__(self):
        object.__setattr__(self, "count", len(self.layers))


tree.register_dataclass(Model, static=("name",))


def named(name, **items):
    made = Named(name)
    made.update(items)
    return made


A, B = np.array([1.0, -2.0]), np.array([[0.5, 2.0], [3.0, 1.0]])

KEPT = {
    "OrderedDict": OrderedDict(b=A, a=B),
    "defaultdict": defaultdict(list, b=A, a=B),
    "attributes": Attributes(b=A, a=B),
    "self dict": SelfDict(b=A, a=B),
    "named dict": named("n", b=A, a=B),
    "list subclass": Layers(A, [B], note="here"),
    "named tuple": Point(A, B),
    "typed tuple": Checked(A),
    "dataclass": Dense(A, B),
    "frozen dataclass": Model("m", (Dense(A, B), {"s": A})),
    "nested": {"l": [Dense(OrderedDict(u=A), Point(B, A))]},
}


def both(t):
    return sum(np.sum(leaf**3) for leaf in tree.leaves(t))


def same(a, b):
    """Whether two trees have the same types all the way and equal leaves."""
    if not isinstance(a, (int, float, np.ndarray)) and type(a) is not type(b):
        return False
    if dataclasses.is_dataclass(a):
        a, b = vars(a), vars(b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b if isinstance(a, str) else np.allclose(a, b, rtol=1e-12)


def cubed_slope(t):
    """The gradient of `both`, written without tree.map."""
    return tree.unflatten(t, [3 * leaf**2 for leaf in tree.leaves(t)])


@pytest.mark.parametrize("name", KEPT)
def test_every_transform_keeps_the_type_of_a_tree(name):
    t = KEPT[name]
    ones = tree.map(np.ones_like, t)
    assert same(tree.map(lambda x: x * 1.0, t), t)
    assert same(tree.map_with_path(lambda _path, x: x, t), t)
    assert same(tree.unflatten(t, tree.leaves(t)), t)
    wanted = cubed_slope(t)
    assert type(wanted) is type(t) and not same(wanted, t)
    assert same(dn.grad(both)(t), wanted)
    assert same(dn.vjp(both, t)[1](np.array(1.0))[0], wanted)
    assert same(dn.jacrev(both)(t), wanted)
    assert same(dn.jacfwd(both)(t), wanted)
    slope = dn.jvp(both, (t,), (ones,))[1]
    assert slope == pytest.approx(sum(np.sum(x) for x in tree.leaves(wanted)))
    out, moved = dn.jvp(lambda t: tree.map(lambda x: 2.0 * x, t), (t,), (ones,))
    assert same(out, tree.map(lambda x: 2.0 * x, t)) and same(
        moved, tree.map(lambda x: 2.0 * x, ones)
    )
    again = dn.hvp(both, (t,), (ones,))[0]
    assert same(again, tree.map(lambda x: 6 * x, t))


def test_what_belongs_to_a_subclass_stays():
    double = {name: tree.map(lambda x: 2.0 * x, t) for name, t in KEPT.items()}
    assert double["defaultdict"].default_factory is list and double["defaultdict"]["new"] == []
    assert double["attributes"].a is double["attributes"]["a"]
    made = double["self dict"]
    assert made.a is made["a"] and np.array_equal(made.a, 2 * B)
    made["a"] = 1
    assert made.a == 1 and np.array_equal(KEPT["self dict"].a, B)
    assert double["named dict"].name == "n"
    assert double["list subclass"].note == "here"
    assert double["frozen dataclass"].name == "m" and double["frozen dataclass"].count == 2
    assert np.array_equal(double["named tuple"].length, 2 * KEPT["named tuple"].length)
    assert Counter(a=1.0, b=2.0) == tree.map(lambda x: x, Counter(a=1.0, b=2.0))


def test_the_function_itself_sees_the_type():
    assert same(dn.grad(lambda p: p.length)(Point(3.0, 4.0)), Point(0.6, 0.8))
    slope = dn.grad(lambda m: (m.layers[0].w * m.scale).sum() * m.count)(KEPT["frozen dataclass"])
    assert slope.scale == 2 * A.sum() and np.array_equal(slope.layers[0].w, [2.0, 2.0])
    assert dn.grad(lambda d: d.a[0] ** 2)(SelfDict(a=A)).a[0] == 2.0


def test_paths_and_descriptions_name_fields_and_types():
    assert [path for path, _ in tree.items(KEPT["frozen dataclass"])] == [
        "layers/0/w",
        "layers/0/b",
        "layers/1/s",
        "scale",
    ]
    assert (
        tree.describe(Dense(1, OrderedDict(x=None))) == "Dense(w: int, b: OrderedDict{x: NoneType})"
    )


def test_a_dataclass_differs_from_others_at_a_named_place():
    a = Dense(1, [2])
    for b, message in [
        (Dense(1, 2), r"differ at b: expected \[int\], got int"),
        ({"w": 1, "b": [2]}, r"at the root: expected Dense\(w: int, b: \[int\]\), got \{w: int"),
        (3, r"at the root: expected Dense"),
    ]:
        with pytest.raises(TreeError, match=message):
            tree.map(lambda *_: None, a, b)
        with pytest.raises(TreeError):
            tree.map(lambda *_: None, b, a)


class Scaled(list):
    """A list that changes what is put into it."""

    def __setitem__(self, key, value):
        super().__setitem__(key, [2.0 * x for x in value] if isinstance(key, slice) else value)


class Mirrored(dict):
    """A dict that keeps a second reference to its values."""

    def __init__(self, **items):
        super().__init__(**items)
        self.__dict__.update(items)


class NoCopy(dict):
    def __copy__(self):
        raise RuntimeError("one only")


@tree.register_dataclass
@dataclasses.dataclass
class Normalized:
    w: Any

    def __post_init__(self):
        self.w = self.w / 2.0


@tree.register_dataclass
@dataclasses.dataclass
class Converting:
    w: Any

    def __post_init__(self):
        self.w = np.asarray(self.w)


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (Scaled([A]), "of type Scaled cannot be rebuilt .*it changes what it is given"),
        (Mirrored(a=A), "of type Mirrored cannot be rebuilt .*attributes repeat its values"),
        (NoCopy(a=A), "of type NoCopy cannot be rebuilt .*RuntimeError: one only"),
        (Normalized(A), "of type Normalized cannot be rebuilt .*it changes what it is given"),
        (Converting(A), "of type Converting cannot be rebuilt .*DualConversionError: .*"),
    ],
)
def test_what_cannot_be_rebuilt_is_refused(t, message):
    with pytest.raises(TreeError, match=message):
        dn.grad(both)(t)
    with pytest.raises(TreeError, match=message):
        dn.jvp(both, (t,), (t,))


def test_a_subclass_of_a_registered_dataclass_is_registered_by_itself():
    @dataclasses.dataclass
    class Wider(Dense):
        c: Any = None

    with pytest.raises(TreeError, match=r"Wider is a subclass .* decorate it by @dn.tree.register"):
        dn.grad(both)(Wider(A, B, A))
    tree.register_dataclass(Wider)
    assert same(dn.grad(both)(Wider(A, B, A)), Wider(3 * A**2, 3 * B**2, 3 * A**2))


def test_a_dataclass_that_is_not_registered_is_a_leaf_and_refused_by_name():
    @dataclasses.dataclass
    class Loose:
        w: Any

    with pytest.raises(TangentError, match=r"got Loose; .*dn\.tree\.register_dataclass"):
        dn.grad(lambda p: p.w.sum())(Loose(A))
    with pytest.raises(TangentError, match=r"got Loose; .*dn\.tree\.register_dataclass"):
        dn.jvp(lambda p: p.w.sum(), (Loose(A),), (Loose(A),))


def test_only_dataclasses_and_their_fields_can_be_registered():
    with pytest.raises(UsageError, match="expected a dataclass, got Layers"):
        tree.register_dataclass(Layers)
    with pytest.raises(UsageError, match=r"fields of Dense \(w, b\), got \('size',\)"):
        tree.register_dataclass(Dense, static=("size",))
    with pytest.raises(UsageError, match="got 'w'"):
        tree.register_dataclass(Dense, static="w")


@pytest.mark.parametrize("path", ["a/b", "b", "a/", "c/d"])
def test_a_path_that_leads_nowhere_is_named(path):
    with pytest.raises(KeyError, match=f"tree.subtree: .* of '{path}' is not in"):
        tree.subtree({"a": np.ones(2), "c": {}}, path)
