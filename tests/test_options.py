"""Constructors: what a newcomer gives them is what is meant, or is refused with what to write."""

import copy
import dataclasses
import pickle
import re
from dataclasses import dataclass

import numpy as np
import pytest
from learning_problems import problem

import dualnet as dn
from dualnet import schedules
from dualnet.errors import UsageError
from dualnet.learning import RULES, ActivityPerturbation, Backprop, WeightPerturbation
from dualnet.nn import (
    Activation,
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Context,
    Conv2d,
    Dropout,
    Flatten,
    GroupedLinear,
    GroupNorm,
    InfoNCE,
    Layer,
    LayerNorm,
    Linear,
    LocalHead,
    MaxPool,
    MultiHeadAttention,
    Patches,
    Residual,
    SelectToken,
    Sequential,
    TokenMixing,
    mixer_block,
    relu,
    softmax,
    table,
)
from dualnet.optim import SGD, Adam
from dualnet.options import Options
from models import MODELS

INSIDE = "; how many features come in is no option, as init\\(key, in_shape\\) gets to know it$"

REFUSED = [
    # options by their place: other libraries put the inputs first
    (
        lambda: Linear(784, 16),
        "Linear: takes only features without a name, got 784, 16; write bias=..., weights=..."
        + INSIDE,
    ),
    (
        lambda: Conv2d(3, 64, 3),
        "only features and kernel without a name, got 3, 64, 3; write s",
    ),
    (
        lambda: GroupNorm(8, 64),
        "only groups without a name, got 8, 64; write gain",
    ),
    (lambda: GroupedLinear(64, 8), "write groups=..., bias="),
    (lambda: BatchNorm(1), "BatchNorm: takes nothing without a name, got 1; write momentum=..."),
    (lambda: LayerNorm(64), "LayerNorm: takes nothing without a name, got 64; write axes=..."),
    (lambda: MaxPool(3, 2), "MaxPool: takes only window without a name, got 3, 2; write stride"),
    (lambda: AveragePool(3, 2), "write stride"),
    (lambda: MultiHeadAttention(64, 4), "takes only heads without a name, got 64, 4; how many"),
    (lambda: LocalHead(10, 4), "write groups=..., weights=..."),
    (lambda: Flatten(1), "Flatten: takes nothing without a name, got 1; how many"),
    (lambda: InfoNCE(0.1), "InfoNCE: takes nothing without a name, got 0.1; write temperature"),
    (lambda: Adam(1e-3), "Adam: .* got 0.001; .*; the learning rate is an argument of update$"),
    (lambda: Adam(lr=1e-3), "Adam: no option lr; it has beta1, .*; the learning rate is an arg"),
    (lambda: schedules.Cosine(0.1), "Cosine: takes nothing without a name, got 0.1; write final"),
    (lambda: WeightPerturbation(8, "rank-one"), "takes only tangents without a name, got 8, 'rank"),
    (lambda: Backprop(True), "Backprop: takes nothing without a name, got True; write checkp"),
    (lambda: MODELS["mlp"](784, 10), "MLP: takes nothing without a name, got 784, 10; write width"),
    # names that are not there
    (lambda: Linear(16, activation=relu), "Linear: no option activation; it has features, bias, w"),
    (lambda: Flatten(start_dim=1), "Flatten: no option start_dim; it has none; how many"),
    # values of another type
    (lambda: Linear(16, bias=16), "Linear: bias: expected True or False, got 16"),
    (lambda: Linear(16, bias="no"), "Linear: bias: expected True or False, got 'no'"),
    (lambda: Linear(True), "Linear: features: expected an int or None, got True"),
    (lambda: Linear("16"), "Linear: features: expected an int or None, got '16'"),
    (lambda: Linear((16,)), r"Linear: features: expected an int or None, got \(16,\)"),
    (lambda: Linear(np.ones(2)), "Linear: features: expected an int or None, got array"),
    (lambda: GroupNorm(8, gain=64), "GroupNorm: gain: expected True or False, got 64"),
    (lambda: LayerNorm(epsilon="1e-5"), "LayerNorm: epsilon: expected a number, got '1e-5'"),
    (lambda: BatchNorm(momentum=True), "BatchNorm: momentum: expected a number, got True"),
    (lambda: Dropout(False), "Dropout: rate: expected a number, got False"),
    (lambda: SelectToken(1.0), "SelectToken: index: expected an int, got 1.0"),
    (lambda: LocalHead(10, norm=1), "LocalHead: norm: expected True or False, got 1"),
    (lambda: InfoNCE(stop="no"), "InfoNCE: stop: expected True or False, got 'no'"),
    (lambda: Adam(weight_decay=True), "Adam: weight_decay: expected a number, got True"),
    (lambda: SGD(weight_decay="0.1"), "SGD: weight_decay: expected a number, got '0.1'"),
    (lambda: schedules.Linear(final=True), "Linear: final: expected a number, got True"),
    (lambda: schedules.Exponential(every=2), "Exponential: every: expected a string, got 2"),
    (lambda: WeightPerturbation(2.0), "WeightPerturbation: tangents: expected an int, got 2.0"),
    (lambda: WeightPerturbation("rank-one"), "tangents: expected an int, got 'rank-one'"),
    (
        lambda: ActivityPerturbation(independent="no"),
        "expected True or False, got 'no'",
    ),
    (lambda: MODELS["mlp"](width=16.0), "MLP: width: expected an int, got 16.0"),
    # values out of range, when a layer is made and not when it is used
    (lambda: Linear(0), "Linear: features: expected an int of at least 1, got 0"),
    (lambda: Linear(4, weights="He"), "Linear: weights: expected one of kaiming, .*, got 'He'"),
    (lambda: GroupedLinear(4, groups=2, weights="He"), "GroupedLinear: weights: expected one of"),
    (lambda: Conv2d(0, 3), "Conv2d: features: expected an int of at least 1, got 0"),
    (lambda: Conv2d(8, "3"), "Conv2d: kernel: expected an int or two, got '3'"),
    (lambda: Conv2d(8, True), "Conv2d: kernel: expected an int or two, got True"),
    (lambda: Conv2d(8, 3, stride=0), "Conv2d: stride: expected at least 1, got 0"),
    (lambda: Conv2d(8, 3, padding="same"), "Conv2d: padding: expected an int or two, got 'same'"),
    (lambda: Conv2d(8, 3, weights="He"), "Conv2d: weights: expected one of"),
    (lambda: MaxPool(0), "MaxPool: window: expected at least 1, got 0"),
    (lambda: MaxPool(2, padding=2), "MaxPool: padding must be less than the window"),
    (lambda: AveragePool(2, stride=1.5), "AveragePool: stride: expected an int or two, got 1.5"),
    (lambda: AdaptiveAveragePool(0), "AdaptiveAveragePool: size: expected at least 1, got 0"),
    (lambda: LayerNorm(epsilon=np.inf), "LayerNorm: epsilon must be positive and finite, got inf"),
    (lambda: Patches(True), "Patches: size: expected an int of at least 1, .* got True"),
    (lambda: LocalHead(10, weights="He"), "weights: expected one of"),
    # functions and layers
    (
        lambda: Activation("gelu"),
        r"Activation: expected a function .* got 'gelu'; write Activation\(nn.gelu\)",
    ),
    (lambda: Activation("ReLU"), r"got 'ReLU'; write Activation\(nn.relu\)"),
    (lambda: Activation(Flatten), r"got <class .*Flatten'>; write Activation\(nn.relu\)"),
    (lambda: Activation(Flatten()), r"got Flatten\(\); write Activation\(nn.relu\)"),
    (
        lambda: Sequential([Linear(4)]),
        r"Sequential: expected pairs of a name and a layer, got Linear at position 1; write "
        r'Sequential\(\(\("linear1", Linear\(...\)\), ...\)\)',
    ),
    (lambda: Sequential(Linear(4)), r"got Linear at position 1; write Sequential\(\(\(\"linear1\""),
    (lambda: Sequential(Linear(4), Linear(3)), r'write Sequential\(\(\("name", layer\), ...\)\)$'),
    (lambda: Sequential((("a", Linear),)), r"got <class .*Linear'> for 'a'; write Linear\(...\)"),
    (lambda: Sequential(("a", Linear(4))), "got str at position 1"),
    (lambda: Sequential((("a", relu),)), "expected layers that derive from Layer, got <.*relu"),
    (lambda: Sequential(((1, Linear(4)),)), r"got \(int, Linear\) at position 1"),
    (lambda: Sequential((("a", Linear(4)), ("a", Linear(4)))), "names must differ"),
    (lambda: Residual(Linear(4)), "Residual: expected pairs of a name and a layer, got Linear"),
    (lambda: TokenMixing([Linear(4)]), "TokenMixing: expected pairs of a name and a layer"),
    # keys
    (lambda: dn.Key(0).fold_in(1.0), "Key.fold_in: expected an int or a string, got 1.0"),
    (lambda: dn.Key(0).fold_in(None), "Key.fold_in: expected an int or a string, got None"),
    (lambda: dn.Key(0).split(2.0), "Key.split: n: expected an int of at least 1, got 2.0"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_is_refused_says_what_to_write(call, message):
    with pytest.raises(UsageError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_blocks_take_their_sizes_by_name():
    with pytest.raises(TypeError, match="positional"):
        mixer_block(4, 6, 2)
    assert mixer_block(tokens=4, channels=6, groups=2).init(dn.Key(0), (4, 6))[2] == (4, 6)


@pytest.mark.parametrize(
    "made",
    [
        lambda: (Linear(np.int64(4)), Linear(4)),
        lambda: (Dropout(np.float32(0.5)), Dropout(0.5)),
        lambda: (BatchNorm(momentum=1), BatchNorm(momentum=1.0)),
        lambda: (LayerNorm(axes=[-1]), LayerNorm()),
        lambda: (Sequential([("a", Linear(4))]), Sequential((("a", Linear(4)),))),
        lambda: (Sequential([["a", Linear(4)]]), Sequential((("a", Linear(4)),))),
        lambda: (Sequential({"a": Linear(4)}), Sequential((("a", Linear(4)),))),
        lambda: (Residual({"block": Linear(4)}), Residual((("block", Linear(4)),))),
        lambda: (TokenMixing([("mix", Linear(4))]), TokenMixing((("mix", Linear(4)),))),
        lambda: (Conv2d(4, [3, 3]), Conv2d(4, (3, 3))),
        lambda: (MaxPool([2, 2], stride=[1, 1]), MaxPool((2, 2), stride=(1, 1))),
        lambda: (Patches([2, 2]), Patches((2, 2))),
    ],
)
def test_what_is_meant_is_done(made):
    given, meant = made()
    assert given == meant and hash(given) == hash(meant)


@pytest.mark.parametrize("family", [*RULES.values(), *MODELS.values()])
def test_no_option_of_a_rule_or_model_that_can_be_misread_is_taken_by_its_place(family):
    by_place = [f.name for f in dataclasses.fields(family) if not f.kw_only]
    assert set(by_place) <= {"tangents", "plan"}
    with pytest.raises(UsageError, match="without a name"):
        family(*(["1"] * (len(by_place) + 1)))


@dataclass(frozen=True)
class Scale(Layer):
    """A layer of a user's, with an option of a type that is not checked."""

    by: float = 1.0
    shape: "tuple[int, ...] | None" = None

    def init(self, key, in_shape):
        return {}, {}, in_shape

    def apply(self, params, state, x, context):
        return x * self.by, state


class Plain(Scale):
    """A layer with a constructor of its own."""

    def __init__(self, first, *others, **named):
        super().__init__(by=first)


def test_layers_of_a_user_are_checked_by_their_own_constructor():
    assert Scale(2).by == 2 and Scale(2.0, (1, 2)).shape == (1, 2) and Plain(3.0, 4, a=5).by == 3.0
    with pytest.raises(UsageError, match="Scale: by: expected a number, got '2'"):
        Scale("2")
    with pytest.raises(UsageError, match="Scale: takes only by and shape without a name, got 1, 2"):
        Scale(1, 2, 3)
    with pytest.raises(TypeError, match="abstract"):
        Layer()


def test_what_is_made_with_options_can_be_copied():
    network = Sequential((("a", Linear(4, bias=False)), ("b", Activation(softmax))))
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert copied == network
    assert dataclasses.replace(network.layers[0][1], features=5) == Linear(5, bias=False)
    assert network.layers[1][1].row_groups == 1 and Activation(relu).row_groups == 0
    assert isinstance(network, Options) and Context().train is False


# --- init, and errors inside a layer --------------------------------------------------------------


NETWORK = Sequential({"a": Residual({"block": Sequential({"b": Linear(4)})}), "out": Linear(3)})


@pytest.mark.parametrize("layer", [NETWORK, Linear(3), Flatten(), Scale()])
@pytest.mark.parametrize(
    ("key", "in_shape", "message"),
    [
        (0, (4,), r"init: expected a Key, got 0; write dn.Key\(0\)"),
        (7, (4,), r"got 7; write dn.Key\(7\)"),
        (None, (4,), r"got None; write dn.Key\(0\)"),
        (dn.Key(0), 4, r"init: expected the shape of one example, .* got 4; write \(4,\)"),
        (dn.Key(0), np.zeros((2, 4)), r"got float64\(2, 4\); write x.shape\[1:\]"),
        (dn.Key(0), (4.0,), r"got \(float\); write x.shape\[1:\]"),
        (dn.Key(0), None, r"got NoneType; write x.shape\[1:\]"),
    ],
)
def test_init_says_what_to_give_it(layer, key, in_shape, message):
    with pytest.raises(UsageError, match=message):
        layer.init(key, in_shape)


def test_init_takes_a_list_and_integers_of_numpy():
    assert NETWORK.init(dn.Key(0), [np.int64(4)])[2] == (3,)


@dataclass(frozen=True)
class Broken(Layer):
    """A layer of a user's that fails where it is told to."""

    where: str = "apply"

    def init(self, key, in_shape):
        if self.where == "init":
            return {"gain": np.ones(in_shape[3])}, {}, in_shape
        return ({}, in_shape) if self.where == "returned by init" else ({"gian": 1}, {}, in_shape)

    def apply(self, params, state, x, context):
        return x * params["gain"], state


def within(layer):
    """A network that has a layer at block/block/inner."""
    block = Residual({"block": Sequential({"first": Linear(4), "inner": layer})})
    return Sequential({"block": block, "output": Linear(3)})


def said(error):
    """What Python 3.11 and later print of an error."""
    return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])


def test_an_error_in_a_layer_says_where_it_was_and_what_was_expected():
    network = within(Broken())
    params, state, _ = network.init(dn.Key(0), (4,))
    with pytest.raises(KeyError) as raised:
        network.apply(params, state, np.ones((2, 4), np.float32), Context())
    assert said(raised.value) == (
        "KeyError: 'gain'\n"
        "in layer block/block/inner (Broken.apply): apply(params, state, x, context) got params "
        "{gian: int} and x float32(2, 4); it returns (y, new state) for a batch x (N, *in_shape)"
    )
    with pytest.raises(IndexError) as raised:
        within(Broken("init")).init(dn.Key(0), (4,))
    assert said(raised.value) == (
        "IndexError: tuple index out of range\n"
        "in layer block/block/inner (Broken.init): init(key, in_shape) got (4,); it returns "
        "(params, state, out_shape)"
    )


def test_an_error_of_dualnet_in_a_layer_says_where_it_was():
    network = within(Linear(4))
    params, state, _ = network.init(dn.Key(0), (4,))
    params["block"]["block"]["inner"]["w"] = np.ones((5, 4))
    expected = (
        "Linear: weights (5, 4) expect inputs (..., 5), got (2, 4); init gets the shape of one "
        "example, without the batch; in layer block/block/inner (Linear.apply)"
    )
    x = np.ones((2, 4))
    with pytest.raises(UsageError) as raised:
        network.apply(params, state, x, Context())
    assert str(raised.value) == expected
    with pytest.raises(UsageError) as raised:
        dn.grad(lambda x: network.apply(params, state, x, Context())[0].sum())(x)
    assert str(raised.value) == expected
    with pytest.raises(UsageError) as raised:
        within(GroupNorm(3)).init(dn.Key(0), (4,))
    assert str(raised.value) == (
        "GroupNorm: groups must divide the last axis, got 3 groups and examples of shape (4,); "
        "in layer block/block/inner (GroupNorm.init)"
    )
    with pytest.raises(UsageError, match=r"Broken.init: expected \(params, .*; in layer block/bl"):
        within(Broken("returned by init")).init(dn.Key(0), (4,))


def test_an_error_of_a_tap_is_not_laid_to_the_layers_around_it():
    def tap(path, y):
        if path == "block/block/first":
            raise OSError("full")
        return y

    network = within(Flatten())
    params, state, _ = network.init(dn.Key(0), (4,))
    with pytest.raises(OSError, match="full") as raised:
        network.apply(params, state, np.ones((2, 4)), Context(tap=tap))
    (note,) = raised.value.__notes__
    assert note == (
        "in layer block/block/first (the tap of its output): tap(path, y) returns what flows on"
    )


def test_parameters_of_another_network_are_refused():
    params, state, _ = NETWORK.init(dn.Key(0), (4,))
    for other in ({"b": {}}, None, [1.0]):
        with pytest.raises(UsageError, match="params and state with an entry for layer a, got "):
            NETWORK.apply(other, state, np.ones((2, 4)), Context())
    assert NETWORK.apply(params, state, np.ones((2, 4)), Context())[0].shape == (2, 3)


def test_a_step_wants_a_key(rng, key):
    p = problem(rng, key)
    with pytest.raises(UsageError, match=r"estimate_gradient: expected a Key, got 3; write dn.Key"):
        p.step(Backprop(), 3)


# --- what is printed -----------------------------------------------------------------------------


def test_a_network_is_printed_as_a_table():
    network = Sequential(
        {
            "conv": Conv2d(4, 3, padding=1),
            "relu": Activation(relu),
            "flatten": Flatten(),
            "mlp": Sequential({"hidden": Linear(16, bias=False), "norm": LayerNorm(gain=False)}),
            "output": Linear(3, weights="zeros"),
        }
    )
    assert repr(network) == (
        "Sequential:\n"
        "  conv        Conv2d(4, 3, padding=1)\n"
        "  relu        Activation(relu)\n"
        "  flatten     Flatten()\n"
        "  mlp/hidden  Linear(16, bias=False)\n"
        "  mlp/norm    LayerNorm(gain=False)\n"
        "  output      Linear(3, weights='zeros')"
    )
    counted = table(network, (4, 4, 1)).splitlines()
    assert counted[0] == "conv        Conv2d(4, 3, padding=1)        40  w 3×3×1×4, b 4"
    assert counted[3] == "mlp/hidden  Linear(16, bias=False)      1,024  w 64×16"
    numbers = [re.findall(r" ([\d,]+)(?:  w.*|  bias .*)?$", line)[0] for line in counted]
    assert numbers == ["40", "0", "0", "1,024", "16", "51", "1,131"]
    params, _, _ = network.init(dn.Key(0), (4, 4, 1))
    assert counted[-1].split() == ["total", f"{dn.tree.size(params):,}"]
    assert repr(Linear(3)) == "Linear(features=3, bias=True, weights='kaiming')"
    assert repr(Residual({"block": Activation(np.tanh)})) == "Residual:\n  block  Activation(tanh)"


def test_data_sets_and_tangents_are_printed_in_a_line():
    digits = dn.data.load("digits")
    counts = len(digits.train_labels), len(digits.test_labels)
    assert repr(digits) == (
        f"<Dataset digits: {counts[0]:,} training and {counts[1]} test images 8x8x1, 10 classes>"
    )
    seen = []

    def f(x):
        seen.append(repr(x))
        return x

    dn.jvp(f, (np.ones((30, 20)),), (np.ones((3, 30, 20)),))
    dn.jvp(f, (np.ones((30, 20)),), (dn.RankOne(np.ones((2, 30)), np.ones((2, 20))),))
    dn.jvp(f, (1.5,), (2.0,))
    assert seen == [
        "Dual(primal=float64(30, 20), tangent=float64(3, 30, 20))",
        "Dual(primal=float64(30, 20), tangent=RankOne(k=2, float64(30, 20)))",
        "Dual(primal=array(1.5), tangent=array([2.]))",
    ]
