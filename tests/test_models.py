"""The papers' networks: parameter counts to the unit, what they are made of, that every learning
rule trains every one of them, and the command line's defaults for them.

tests/test_models_peers.py holds them against torch.
"""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from learning_problems import Problem, drawn_until, every_relu_is_on

from dualnet import Key, tree
from dualnet.command import train
from dualnet.errors import UsageError
from dualnet.learning import RULES, Task
from dualnet.models import (
    CNN,
    CNN4,
    MLP,
    MODELS,
    AlexNet,
    LeNet5,
    LocalMixer,
    MLPMixer,
    ResNet,
    ResNet18,
    ViT,
)
from dualnet.nn import Context, LocalHead, StopGradient, couples_examples, softmax_cross_entropy
from dualnet.training.resolve import fitting_options, locality

MNIST, CIFAR, IMAGENET = (28, 28, 1), (32, 32, 3), (224, 224, 3)


def initial(model, in_shape, classes=10):
    return model.network(in_shape, classes).init(Key(0), in_shape)


# --- counts --------------------------------------------------------------------------------------

PUBLISHED = [
    (MLP(width=512, depth=0), MNIST, 10, 784 * 10 + 10),
    (MLP(width=512, depth=2), MNIST, 10, 669_706),
    (LocalMixer(width=256, patches=1, groups=1, depth=1), MNIST, 10, 271_892),
    (LocalMixer(width=512, patches=1, groups=16, depth=1), MNIST, 10, 429_076),
    (LocalMixer(width=512, patches=8, groups=16, depth=4), CIFAR, 10, 918_770),
    (LocalMixer(width=2048, patches=8, groups=64, depth=4), CIFAR, 10, 13_074_674),
    (ResNet18(), IMAGENET, 1000, 11_689_512),
    (ResNet18(stem="large"), MNIST, 10, 11_175_370),
    (ResNet18(), MNIST, 10, 11_175_370 - 64 * (49 - 9)),
]
"""What the papers say, and torchvision; the recipes' other networks are in test_recipes."""

WRITTEN = {
    "mlp": [(MLP(batch_norm=True), MNIST, 10, 669_706 + 2 * 2 * 512)],
    "cnn": [
        (CNN(), MNIST, 10, 15 * 26 + 40 * (15 * 25 + 1) + 128 * (4 * 4 * 40 + 1) + 10 * 129),
        (
            CNN("15C5-40C5-P2-128", batch_norm=True),
            MNIST,
            10,
            15 * (26 + 2) + 40 * (15 * 25 + 1 + 2) + 128 * (10 * 10 * 40 + 1 + 2) + 10 * 129,
        ),
        (CNN4(), MNIST, 10, 64 * 10 + 3 * 64 * (64 * 9 + 1) + 1024 * 1025 + 10 * 1025),
    ],
    "lenet5": [(LeNet5(), MNIST, 10, 6 * 28 + 16 * (6 * 25 + 3) + 120 * 257 + 84 * 121 + 10 * 85)],
    # torchvision's 61,100,840 with 900 classes less, and gain and bias for 1152 channels
    "alexnet": [
        (AlexNet(), IMAGENET, 100, 61_100_840 - 900 * 4097 + 2 * 1152),
        (AlexNet(linear_norm=True), IMAGENET, 100, 61_100_840 - 900 * 4097 + 2 * (1152 + 8192)),
    ],
    "resnet": [(ResNet(), MNIST, 10, 32 * 10 + 4 * 32 * (32 * 9 + 1) + 10 * 33)],
    "vit": [
        (
            ViT(),
            MNIST,
            10,
            (16 + 1 + 1 + 50) * 256  # patches, class token, positions of 49 tokens and it
            + 6 * (4 * 256 * 257 + 512 * 257 + 256 * 513 + 4 * 256)
            + (2 * 256 + 10 * 257),
        )
    ],
    "mlp_mixer": [
        (
            MLPMixer(),
            CIFAR,
            10,
            512 * 49
            + 8 * (256 * 65 + 64 * 257 + 2048 * 513 + 512 * 2049 + 4 * 512)
            + (2 * 512 + 10 * 513),
        )
    ],
}
"""By arithmetic, for each file of models."""

COUNTS = PUBLISHED + [row for rows in WRITTEN.values() for row in rows]


@pytest.mark.parametrize(("model", "in_shape", "classes", "count"), COUNTS, ids=str)
def test_parameter_counts(model, in_shape, classes, count):
    params, _, out_shape = initial(model, in_shape, classes)
    assert tree.size(params) == count
    assert out_shape == (classes,)


@pytest.mark.parametrize("file", [*WRITTEN, "local_mixer"])
def test_counts_in_docstrings(file):
    """What a file says of its networks is what is counted here, or follows."""
    text = (Path(__file__).parent.parent / "models" / f"{file}.py").read_text().split('"""')[1]
    rows = WRITTEN.get(file, [row for row in PUBLISHED if isinstance(row[0], LocalMixer)])
    for *_, count in rows:
        assert f"{count:,}" in text


# --- what they are made of -----------------------------------------------------------------------


def mixer_by_formula(params, images, patches, groups, depth, norms):
    """LocalMixer's last readout and outputs by definition, without any of dualnet's layers."""

    def norm(x, axis=-1):
        variance = x.var(axis=axis, keepdims=True)
        return (x - x.mean(axis=axis, keepdims=True)) / np.sqrt(variance + 1e-5)

    def by_group(f, x):
        return f(x.reshape(*x.shape[:-1], groups, -1)).reshape(x.shape)

    def linear(p, x):
        return norm(norm(x) @ p["w"] + p["b"])

    def grouped(p, x):
        parts = by_group(norm, x).reshape(*x.shape[:-1], groups, -1)
        return by_group(norm, np.einsum("npgc,gcd->npgd", parts, p["w"]).reshape(x.shape) + p["b"])

    n, height, width, channels = images.shape
    h, w = height // patches, width // patches
    cut = images.reshape(n, patches, h, patches, w, channels).transpose(0, 1, 3, 2, 4, 5)
    x = cut.reshape(n, patches**2, h * w * channels)
    x = np.maximum(linear(params["block1"]["linear"], x), 0)
    x = np.maximum(grouped(params["block1"]["groups"], x), 0)
    for i in range(2, depth + 1):
        block = params[f"block{i}"]["residual"]["block"]
        mixing = block["tokens"]["mix"]["linear"]
        y = np.einsum("npc,pq->nqc", norm(x), mixing["w"]) + mixing["b"][:, None]
        y = np.maximum(norm(y), 0)
        y = np.maximum(linear(block["channels"]["linear"], y), 0)
        x = np.maximum(grouped(block["groups"]["linear"], y) + x, 0)
    read = by_group(norm, x) if norms else x
    last, head = x.mean(axis=1), params[f"head{depth}"]["linear"]
    last = norm(last) if norms else last
    readout = read.mean(axis=1) @ head["w"] + head["b"]
    return readout, last @ params["output"]["w"] + params["output"]["b"]


@pytest.mark.parametrize("norms", [True, False])
@pytest.mark.parametrize(("patches", "depth"), [(1, 1), (2, 1), (2, 3)])
def test_local_mixer_is_its_definition(patches, depth, norms, key, rng):
    model = LocalMixer(
        width=12, patches=patches, groups=3, depth=depth, head_norm=norms, output_norm=norms
    )
    network = model.network((4, 6, 2), 5)
    params, state, _ = network.init(key, (4, 6, 2))
    params = tree.map(lambda p: p + rng.normal(0, 0.5, p.shape), params)
    images = rng.standard_normal((3, 4, 6, 2))
    readout, outputs = mixer_by_formula(params, images, patches, 3, depth, norms)
    seen = {}

    def tap(path, y):
        seen[path] = y
        return y

    y, _ = network.apply(params, state, images, Context(tap=tap))
    np.testing.assert_allclose(y, outputs, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(seen[f"head{depth}/linear"], readout, rtol=1e-9, atol=1e-9)


def test_local_mixer_starts_as_published():
    params, _, _ = initial(LocalMixer(width=512, patches=4, groups=4, depth=2), CIFAR)
    block = params["block2"]["residual"]["block"]
    for w, fan_in in [
        (params["block1"]["linear"]["w"], 8 * 8 * 3),
        (params["block1"]["groups"]["w"], 128),
        (block["tokens"]["mix"]["linear"]["w"], 16),
        (block["channels"]["linear"]["w"], 512),
        (params["head1"]["linear"]["w"], 512),
        (params["head2"]["linear"]["w"], 512),
    ]:
        expected = min(2 / math.sqrt(fan_in), 0.1)
        assert np.std(w) == pytest.approx(expected, rel=5 / math.sqrt(2 * w.size))
    assert not np.any(params["output"]["w"])


def test_local_mixer_has_a_head_after_each_block():
    network = LocalMixer(width=8, patches=2, groups=2, depth=3).network(CIFAR, 10)
    names = [name for name, _ in network.layers]
    blocks = ["block1", "head1", "block2", "head2", "block3", "head3"]
    assert names == ["patches", *blocks, "average", "norm", "stop", "output"]
    kinds = {name: type(layer) for name, layer in network.layers}
    assert kinds["head2"] is LocalHead and kinds["stop"] is StopGradient
    trains = LocalMixer(width=8, patches=2, groups=2, depth=3, readout=False).network(CIFAR, 10)
    assert [name for name, _ in trains.layers] == [name for name in names if name != "stop"]


def test_an_mlp_may_start_as_in_torch():
    for weights, bound in (("kaiming", math.sqrt(6 / 784)), ("torch", math.sqrt(1 / 784))):
        params, _, _ = initial(MLP(width=256, weights=weights), MNIST)
        w, b = params["hidden1"]["w"], params["hidden1"]["b"]
        assert 0.99 * bound < np.abs(w).max() <= bound * (1 + 1e-6)
        assert np.any(b) == np.any(params["output"]["b"]) == (weights == "torch")


def test_batch_norm_is_after_each_hidden_layer():
    for model in (MLP(width=8, depth=2, batch_norm=True), CNN("2C3-P2-4-5", batch_norm=True)):
        names = [name for name, _ in model.network(MNIST, 10).layers]
        hidden = [i for i, name in enumerate(names) if name.startswith(("conv", "hidden"))]
        assert len(hidden) > 1 and couples_examples(model.network(MNIST, 10))
        for i in hidden:
            assert names[i + 1].startswith("norm") and names[i + 2].startswith("relu")
        assert names[-1] == "output"


def test_small_images_keep_their_size_longer():
    large, small = (ResNet18(width=4).network(shape, 10).layers for shape in ((64, 64, 3), CIFAR))
    assert "pool" in dict(large) and "pool" not in dict(small)
    assert (dict(large)["conv"].kernel, dict(small)["conv"].kernel) == (7, 3)
    for patch, side in [(4, 32), (4, 60), (16, 64), (16, 224)]:
        params, _, _ = initial(ViT(width=8, depth=1, heads=2, mlp_width=8), (side, side, 3))
        assert params["embed"]["linear"]["w"].shape[0] == patch**2 * 3


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(width=0), "expected width >= 1 and depth >= 0, got 0 and 2"),
        (lambda: MLP(depth=-1), "depth >= 0, got 512 and -1"),
        (lambda: MLP(activation="step"), "one of relu, tanh, gelu, sigmoid, got 'step'"),
        (lambda: MLP(weights="ones"), "mlp: weights: expected one of kaiming, .*, got 'ones'"),
        (lambda: CNN("15C5-x"), "cnn: plan must be .* got '15C5-x'"),
        (lambda: CNN("128-15C5"), "cnn: plan must be convolutions and pools, then linear layers"),
        (lambda: CNN4("64C"), "cnn: plan must be"),
        (lambda: LocalMixer(width=10, groups=4), "groups must divide width, got 4 and 10"),
        (lambda: LocalMixer(width=4, groups=4), "a group of one channel is always 0, got 4 gro"),
        (lambda: LocalMixer(depth=0), "local-mixer: depth: expected an int of at least 1, got 0"),
        (lambda: LocalMixer().network(MNIST, 10), r"8 by 8 patches, got \(28, 28, 1\); choose"),
        (lambda: LocalMixer().network((64,), 10), "expected images"),
        (lambda: ViT(width=10, heads=4), "vit: heads must divide width, got 4 and 10"),
        (lambda: ViT(depth=0), "vit: depth: expected an int of at least 1"),
        (lambda: MLPMixer(token_width=0), "mlp-mixer: token_width: expected an int of at least 1"),
        (lambda: ResNet(width=0), "resnet: width: expected an int of at least 1"),
        (lambda: ResNet18(width=0), "resnet18: width: expected an int of at least 1"),
        (lambda: ResNet18(stem="7x7"), "resnet18: stem: expected one of auto, .*, got '7x7'"),
        (lambda: AlexNet(channels=0), "alexnet: channels: expected an int of at least 1"),
        (lambda: AlexNet().network(CIFAR, 10), "alexnet: expected images .* at least 63 by 63"),
        (lambda: LeNet5().network((8, 8, 1), 10), "lenet5: expected images .* at least 16 by 16"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    ("model", "smallest"), [(LeNet5(), 16), (AlexNet(channels=1, width=2), 63)]
)
def test_the_smallest_images_are_large_enough(model, smallest):
    _, _, out_shape = initial(model, (smallest, smallest, 1))
    assert out_shape == (10,)
    with pytest.raises(UsageError, match=f"at least {smallest}"):
        initial(model, (smallest, smallest - 1, 1))


# --- every rule trains every network -------------------------------------------------------------

REDUCED = {
    "mlp": (MLP(width=32), MNIST),
    "mlp, batch norm": (MLP(width=32, batch_norm=True), MNIST),
    "cnn": (CNN("8C5-P2-8C5-P2-16"), MNIST),
    "cnn, published code": (CNN("3C5-4C5-P2-16", batch_norm=True), CIFAR),
    "cnn4": (CNN4("8C3-8C3-P2-8C3-8C3-P2-16"), CIFAR),
    "lenet5": (LeNet5(), MNIST),
    "alexnet": (AlexNet(channels=3, width=16), (64, 64, 3)),
    "resnet": (ResNet(width=3), MNIST),
    "resnet, batch norm": (ResNet(width=3, depth=2, batch_norm=True), MNIST),
    "resnet18": (ResNet18(width=1), CIFAR),
    "resnet18, large stem": (ResNet18(width=1, stem="large"), CIFAR),
    "vit": (ViT(width=8, depth=2, heads=2, mlp_width=12), MNIST),
    "mlp-mixer": (MLPMixer(width=8, depth=2, token_width=6, mlp_width=12), MNIST),
    "local-mixer": (LocalMixer(width=16, patches=2, groups=4, depth=2), CIFAR),
}
FULL = {
    "cnn": (CNN(), MNIST),
    "cnn, published code": (CNN("15C5-40C5-P2-128", batch_norm=True), CIFAR),
    "cnn4": (CNN4(), MNIST),
    "alexnet": (AlexNet(linear_norm=True), IMAGENET),
    "resnet": (ResNet(), MNIST),
    "resnet18": (ResNet18(), CIFAR),
    "vit": (ViT(), CIFAR),
    "mlp-mixer": (MLPMixer(), CIFAR),
    "local-mixer": (LocalMixer(), CIFAR),
}


def network_of(model, in_shape, rule):
    """The network that training would use."""
    (name,) = (name for name, cls in MODELS.items() if type(model) is cls)
    settings = train.settings_of(train.parse(["--model", name, "--rule", rule]))
    options = dataclasses.asdict(model) | fitting_options(MODELS, name, "none", rule)
    return train.network_of(dataclasses.replace(settings, model_options=options), in_shape, 10)


def check_step(model, in_shape, rule, key, rng, batch=4):
    """Every parameter learns from its first steps.

    Heads that start at zero send nothing back, so all parameters are moved a little.
    """
    network = network_of(model, in_shape, rule)

    def draw(i):
        params, state, _ = network.init(key.fold_in("init").fold_in(i), in_shape)
        params = tree.map(lambda p: p + 0.05 * rng.standard_normal(p.shape, np.float32), params)
        return params, state, rng.standard_normal((batch, *in_shape), np.float32)

    # of few units now and then all are off
    at = drawn_until(lambda at: every_relu_is_on(network, *at, key), draw)
    p = Problem(Task(network, softmax_cross_entropy), *at, rng.integers(0, 10, batch))
    # signs of few units may cancel, so that a bias stays where it is
    draws = any(field.name == "sampler" for field in dataclasses.fields(RULES[rule]))
    chosen = RULES[rule](**({"sampler": "normal"} if draws else {}))
    rule_state = chosen.init(key.fold_in("learned"), p.plan, p.params)
    for i in range(2):  # matrices that start at zero have learned something by the second
        made = p.step(chosen, key.fold_in(i), rule_state=rule_state)
        rule_state = made.rule_state
    assert np.isfinite(made.loss)
    idle = set()
    for path, g in tree.items(made.gradients):
        assert g.dtype == np.float32 and np.isfinite(g).all(), path
        if not np.any(g):
            idle.add(path)
    heads = {path for path, _ in tree.items(p.params) if path.startswith("head")}
    if locality(rule) == "global":
        assert idle <= heads  # a rule without local losses has no use for local heads
    else:
        assert not idle


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", REDUCED)
def test_every_rule_trains_every_network(name, rule, key, rng):
    check_step(*REDUCED[name], rule, key, rng)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", FULL)
def test_every_rule_trains_every_network_in_full_size(name, rule, key, rng):
    check_step(*FULL[name], rule, key, rng, batch=2)


# --- the command line ----------------------------------------------------------------------------


DATASETS = ("digits", "mnist", "cifar10")
TOO_SMALL = {("lenet5", "digits"), *(("alexnet", name) for name in DATASETS)}


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("model", MODELS)
def test_describe(model, dataset, ask):
    code, out, err = ask("--describe", "--model", model, "--dataset", dataset)
    if (model, dataset) in TOO_SMALL:
        assert code == 2 and f"{model}: expected images" in err
        return
    assert (code, err) == (0, "")
    described = json.loads(out)
    shapes = [s for layer in described["layers"] for s in layer["parameters"].values()]
    assert described["parameters"] == sum(map(math.prod, shapes)) > 0
    assert described["model"] == model


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("--model", "local-mixer", "--dataset", "mnist"), 429_076),
        (("--model", "local-mixer", "--dataset", "mnist", "--width", 256, "--groups", 1), 271_892),
        (("--model", "mlp", "--dataset", "mnist"), 669_706),
        (("--model", "mlp", "--dataset", "mnist", "--batch-norm"), 671_754),
        (("--model", "cnn", "--dataset", "mnist"), 98_768),
        (
            (*("--model", "cnn", "--dataset", "mnist"), "--batch-norm", "--plan=15C5-40C5-P2-128"),
            529_214,
        ),
    ],
)
def test_published_networks_by_flags(arguments, count, ask):
    code, out, err = ask("--describe", *arguments)
    assert (code, err) == (0, "")
    assert json.loads(out)["parameters"] == count


@pytest.mark.parametrize(
    ("arguments", "readout"),
    [
        (("--rule", "lg-fg-a"), True),
        (("--rule", "l-bp"), True),
        (("--rule", "bp"), False),
        (("--rule", "wp"), False),
        (("--rule", "bp", "--readout"), True),
        (("--rule", "lg-bp", "--no-readout"), False),
    ],
)
def test_local_losses_make_the_output_a_readout(arguments, readout, ask):
    code, out, _ = ask("--describe", "--model", "local-mixer", *arguments)
    described = json.loads(out)
    assert (code, described["readout"]) == (0, readout)
    assert ("stop" in [layer["name"] for layer in described["layers"]]) == readout


def test_a_mixer_learns_by_local_losses_and_goes_on(elsewhere, ask):
    flags = "--model local-mixer --width 64 --limit-train 1000 --groups 4 --rule lg-fg-a".split()
    code, _, _ = ask(*flags, "--epochs", 1, "--quiet", "--run-dir", "run")
    summary = json.loads(Path("run/summary.json").read_text())
    assert code == 0 and summary["test_accuracy"] > 0.5  # by chance 0.1
    code, _, _ = ask("--resume", "run", "--epochs", 2, "--quiet")
    config = json.loads(Path("run/config.json").read_text())
    assert code == 0 and json.loads(Path("run/summary.json").read_text())["epochs"] == 2
    assert config["settings"]["model_options"]["readout"] is True
