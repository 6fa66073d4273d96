"""Constructors: what a newcomer gives them is what is meant, or is refused with what to write."""

import copy
import dataclasses
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

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
    (lambda: Linear(16, bias=16), "Linear: bias must be True or False, got 16"),
    (lambda: Linear(16, bias="no"), "Linear: bias must be True or False, got 'no'"),
    (lambda: Linear(True), "Linear: features must be an int or None, got True"),
    (lambda: Linear("16"), "Linear: features must be an int or None, got '16'"),
    (lambda: Linear((16,)), r"Linear: features must be an int or None, got \(16,\)"),
    (lambda: Linear(np.ones(2)), "Linear: features must be an int or None, got array"),
    (lambda: GroupNorm(8, gain=64), "GroupNorm: gain must be True or False, got 64"),
    (lambda: LayerNorm(epsilon="1e-5"), "LayerNorm: epsilon must be a number, got '1e-5'"),
    (lambda: BatchNorm(momentum=True), "BatchNorm: momentum must be a number, got True"),
    (lambda: Dropout(False), "Dropout: rate must be a number, got False"),
    (lambda: SelectToken(1.0), "SelectToken: index must be an int, got 1.0"),
    (lambda: LocalHead(10, norm=1), "LocalHead: norm must be True or False, got 1"),
    (lambda: InfoNCE(stop="no"), "InfoNCE: stop must be True or False, got 'no'"),
    (lambda: Adam(weight_decay=True), "Adam: weight_decay must be a number, got True"),
    (lambda: SGD(weight_decay="0.1"), "SGD: weight_decay must be a number, got '0.1'"),
    (lambda: schedules.Linear(final=True), "Linear: final must be a number, got True"),
    (lambda: schedules.Exponential(every=2), "Exponential: every must be a string, got 2"),
    (lambda: WeightPerturbation(2.0), "WeightPerturbation: tangents must be an int, got 2.0"),
    (lambda: WeightPerturbation("rank-one"), "tangents must be an int, got 'rank-one'"),
    (lambda: ActivityPerturbation(independent="no"), "independent must be True or False, got 'no'"),
    (lambda: MODELS["mlp"](width=16.0), "MLP: width must be an int, got 16.0"),
    # values out of range, when a layer is made and not when it is used
    (lambda: Linear(0), "Linear: features must be an int of at least 1, got 0"),
    (lambda: Linear(4, weights="He"), "Linear: weights must be one of kaiming, .*, got 'He'"),
    (lambda: GroupedLinear(4, groups=2, weights="He"), "GroupedLinear: weights must be one of"),
    (lambda: Conv2d(0, 3), "Conv2d: features must be an int of at least 1, got 0"),
    (lambda: Conv2d(8, "3"), "Conv2d: kernel must be an int or two, got '3'"),
    (lambda: Conv2d(8, True), "Conv2d: kernel must be an int or two, got True"),
    (lambda: Conv2d(8, 3, stride=0), "Conv2d: stride must be at least 1, got 0"),
    (lambda: Conv2d(8, 3, padding="same"), "Conv2d: padding must be an int or two, got 'same'"),
    (lambda: Conv2d(8, 3, weights="He"), "Conv2d: weights must be one of"),
    (lambda: MaxPool(0), "MaxPool: window must be at least 1, got 0"),
    (lambda: MaxPool(2, padding=2), "MaxPool: padding must be less than the window"),
    (lambda: AveragePool(2, stride=1.5), "AveragePool: stride must be an int or two, got 1.5"),
    (lambda: AdaptiveAveragePool(0), "AdaptiveAveragePool: size must be at least 1, got 0"),
    (lambda: LayerNorm(epsilon=np.inf), "LayerNorm: epsilon must be positive and finite, got inf"),
    (lambda: Patches(True), "Patches: size must be an int of at least 1, .* got True"),
    (lambda: LocalHead(10, weights="He"), "weights must be one of"),
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
    (lambda: dn.Key(0).split(2.0), "Key.split: n must be an int of at least 1, got 2.0"),
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
    with pytest.raises(UsageError, match="Scale: by must be a number, got '2'"):
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
