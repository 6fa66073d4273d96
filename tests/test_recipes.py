"""Recipes: that each says what its source says, that nothing in it is misspelled or forgotten on
the way to a run, and what the command line makes of them.

The numbers here are typed from the papers, not taken from the table that is tested.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from unsealed import unseal

from dualnet import Key, data, tree
from dualnet.command import train
from dualnet.command.describe import describe
from dualnet.errors import UsageError
from dualnet.learning import RULES
from dualnet.nn import LocalHead
from dualnet.nn.initial import INITIALIZERS
from dualnet.schedules import SCHEDULES
from dualnet.training.assemble import network_of
from dualnet.training.published import published
from dualnet.training.recipes import RECIPES, find_recipe
from dualnet.training.resolve import by_name
from dualnet.training.settings import build

pytestmark = pytest.mark.usefixtures("elsewhere")

IN_WORDS = {"initial weights", "read-out", "local outputs", "network"}
"""What recipes call ours that is no setting."""


def resolve(*argv):
    return train.settings_of(train.parse([str(a) for a in argv]))


# --- the table -----------------------------------------------------------------------------------

SCORES = {
    "fdfa-mlp2-mnist-bp": 0.9825,
    "fdfa-mlp2-cifar10-fdfa": 0.5574,
    "fdfa-mlp3-fashion-mnist-lg-fg-a": 0.8241,
    "fdfa-mlp4-mnist-dkp": 0.9827,
    "fdfa-mlp4-fashion-mnist-fg-w": 0.7172,
    "fdfa-mlp4-cifar10-dfa": 0.5361,
    "fdfa-cnn-mnist-fg-a": 0.9663,
    "fdfa-cnn-cifar10-fdfa": 0.6696,
    "fdfa-cnn-code-cifar10-fdfa": 0.6696,
    "fdfa-cnn-code-mnist-dkp": 0.9908,
    "fdfa-alexnet-cifar100-fdfa": 0.5727,
    "fdfa-alexnet-tiny-imagenet-lg-fg-a": 0.0290,
    "ren-s-1-1-mnist-lg-fg-a": 1 - 0.0324,
    "ren-m-1-16-mnist-lg-fg-w": 1 - 0.0566,
    "ren-m-8-16-cifar10-lg-fg-a": 1 - 0.3068,
    "ren-m-8-16-cifar10-fa": 1 - 0.3994,
    "ren-l-32-64-imagenet-bp": 1 - 0.3682,
    "ren-l-32-64-imagenet-lg-fg-a": 1 - 0.5837,
    "ren-contrastive-lg-fg-a": 1 - 0.3288,
    "ren-contrastive-dfa": 1 - 0.4609,
}


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_those_of_the_papers(name):
    assert find_recipe(name).accuracy == pytest.approx(SCORES[name], abs=1e-9)


def test_all_rows_are_there():
    rules = {"bp", "fg-w", "fg-a", "lg-fg-a", "dfa", "dkp", "fdfa"}
    small = ("mnist", "fashion-mnist", "cifar10")
    rows = {
        f"fdfa-{network}-{dataset}-{rule}"
        for network in ("mlp2", "mlp3", "mlp4", "cnn", "cnn-code")
        for dataset in small
        for rule in rules
        if (network, rule) != ("mlp2", "lg-fg-a")  # the one that the paper does not have
    }
    rows |= {  # the rules that the published code has
        f"fdfa-mlp{depth}-code-{dataset}-{rule}"
        for depth in (2, 3, 4)
        for dataset in small
        for rule in ("bp", "fg-w", "dfa", "dkp", "fdfa")
    }
    large = ("cifar100", "tiny-imagenet")
    rows |= {f"fdfa-alexnet-{dataset}-{rule}" for dataset in large for rule in rules}
    chained = {"bp", "l-bp", "lg-bp", "fa", "l-fa", "lg-fa", "dfa"}
    perturbing = {"fg-w", "fg-a", "lg-fg-w", "lg-fg-a"}
    sizes = ("s-1-1-mnist", "m-1-16-mnist", "m-8-16-cifar10", "l-8-64-cifar10", "l-32-64-imagenet")
    rows |= {f"ren-{size}-{rule}" for size in sizes for rule in chained | perturbing}
    rows |= {f"ren-contrastive-{rule}" for rule in (chained - {"l-fa"}) | perturbing}
    assert {name for name in RECIPES if name.startswith(("fdfa-", "ren-"))} == rows


def test_the_papers_differ_in_what_activity_perturbation_perturbs():
    """FDFA: activities, after the non-linearity; Ren et al.: before it."""
    for name in RECIPES:
        if name.endswith("-fg-a"):  # lg-fg-a too
            perturbed = "before" if name.startswith("ren") else "after"
            assert by_name(resolve("--recipe", name), train.TABLES)["perturb"] == perturbed


def test_every_recipe_says_which_directions_it_draws():
    """So that another default changes no recipe: all of them drew normal numbers in their papers,
    unless directions of weights are named otherwise."""
    for name, recipe in RECIPES.items():
        fields = {field.name for field in dataclasses.fields(RULES[recipe.settings["rule"]])}
        assert ("sampler" in fields) == ("sampler" in recipe.settings), name
        if "perturb" in fields or "fdfa" in recipe.settings["rule"]:
            assert recipe.settings["sampler"] == "normal", name


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_of_a_recipe_reaches_the_run(name):
    recipe, settings = RECIPES[name], resolve("--recipe", name)
    assert name.endswith(f"-{recipe.settings['rule']}")
    assert recipe.accuracy is None or 0 < recipe.accuracy < 1
    assert (recipe.accuracy is None) == ("l-8-64" in name) or not name.startswith("ren")
    reached = by_name(settings, train.TABLES)
    assert {key: reached[key] for key in recipe.settings} == recipe.settings
    assert set(recipe.ours) <= set(recipe.settings) | IN_WORDS and all(recipe.ours.values())
    # Whatever else a run depends on is at rest.
    for key in ("limit_train", "limit_test", "validation", "early_stop"):
        assert reached[key] == recipe.settings.get(key)
    assert published(settings)["recipe"]["changed"] == []
    trainer_schedule = build(SCHEDULES, "schedule", settings.schedule, settings.schedule_options)
    assert 0 < trainer_schedule(0, 100, 10) <= 1


@pytest.mark.parametrize("name", RECIPES)
def test_only_what_the_source_says_is_called_published(name):
    """FDFA gives everything, but two networks by one name; Ren et al. give ImageNet's;
    FROG's code all but what its own images are; of DKH little is known."""
    ours = set(RECIPES[name].ours) - IN_WORDS
    paper, *_ = name.split("-")
    if paper == "fdfa":
        network = name.split("-")[1]
        rate = {"lr"} if "-code-" in name and name.endswith("-fg-w") else set()
        assert ours == {"cnn": {"plan"}, "alexnet": {"augment"}}.get(network, set()) | rate
    elif paper == "frog":
        assert ours >= {"validation", "early_stop"}
        assert ours <= {*"validation early_stop lr perturb batch_loss independent".split()}
    elif paper == "dkh":
        assert ours >= {"batch_size", "epochs", "schedule", "pixels"}
        assert ("lr" in ours) == ("cifar10" in name)
        assert not ours & {"model", "width", "optimizer", "rule", "batch_norm"}
    elif paper == "baydin":
        assert ours == {"plan", "epochs", "pixels"}
    elif "imagenet" in name:
        start = {"feedback_start"} if name.endswith("-dfa") else set()
        assert ours == {"augment", "weight_decay", "output_lr", *start}
    else:
        assert ours >= {"optimizer", "lr", "schedule", "epochs", "batch_size", "weight_decay"}


def test_the_code_of_fdfa_has_norms_and_a_rate_of_its_own_for_weight_perturbation():
    for network, without in (
        ("mlp2-code-mnist", ("fg-w",)),
        ("mlp3-code-fashion-mnist", ("fg-w",)),
        ("mlp4-code-cifar10", ()),
        ("cnn-code-mnist", ()),
    ):
        for rule in ("bp", "fg-w", "fdfa"):
            settings = by_name(resolve("--recipe", f"fdfa-{network}-{rule}"), train.TABLES)
            assert settings["lr"] == (1e-3 if rule == "fg-w" else 1e-4)
            assert settings["batch_norm"] == (rule not in without)
            if settings["model"] == "mlp":
                assert settings["weights"] == "torch"


def test_the_rate_falls_as_published():
    settings = resolve("--recipe", "fdfa-mlp4-mnist-bp")
    fall = build(SCHEDULES, "schedule", settings.schedule, settings.schedule_options)
    assert settings.lr == 1e-4
    assert [fall(n, 938_00, 938) for n in (0, 937, 938, 1876)] == [1, 1, 0.95, 0.95**2]
    settings = resolve("--recipe", "ren-l-32-64-imagenet-lg-fg-a")
    rise = build(SCHEDULES, "schedule", settings.schedule, settings.schedule_options)
    per_epoch = 5005
    factors = [rise(n * per_epoch, 120 * per_epoch, per_epoch) for n in (5, 10, 65)]
    assert factors == pytest.approx([0.5, 1.0, 0.5], abs=1e-4)
    assert resolve("--recipe", "ren-contrastive-bp").lr == pytest.approx(0.8)


FROG_RATES = {  # as published, but for the digits behind
    "fc256-mnist-bp": 0.0260507,
    "fc256-mnist-mean-1-fg-a": 0.000559027,
    "fc256-mnist-mean-16-fg-a": 0.001428663,
    "fc256-mnist-projection-16-fg-a": 0.0423211,
    "fc1024-mnist-bp": 0.0333689,
    "fc1024-mnist-mean-1-fg-a": 0.000157181,
    "fc1024-mnist-mean-4-fg-a": 0.000790930,
    "fc1024-mnist-mean-16-fg-a": 0.002689818,
    "fc1024-mnist-projection-2-fg-a": 0.2311213,
    "fc1024-mnist-projection-4-fg-a": 0.2002228,
    "fc1024-mnist-projection-16-fg-a": 0.1269773,
    "fc4096-mnist-bp": 0.0386683,
    "fc4096-mnist-mean-1-fg-a": 7.060228e-05,
    "fc4096-mnist-projection-16-fg-a": 0.2517256,
    "resnet18-mnist-mean-2-fg-a": 0.0002834512,
    "resnet18-cifar10-mean-16-fg-a": 0.0025174358,
    "vit-mnist-mean-4-fg-a": 3.5768481e-05,
    "vit-cifar10-projection-4-fg-a": 1.0,
}


@pytest.mark.parametrize("name", FROG_RATES)
def test_the_rates_of_frog_are_the_published_ones(name):
    settings = resolve("--recipe", f"frog-{name}")
    assert settings.lr == pytest.approx(FROG_RATES[name], rel=1e-4)
    assert (settings.validation, settings.early_stop, settings.epochs) == (10_000, 10, 200)
    assert settings.batch_size == (64 if "-mnist-" in name else 128)
    fall = build(SCHEDULES, "schedule", settings.schedule, settings.schedule_options)
    assert (fall(0, 10**6, 782), fall(10**5, 10**6, 782)) == (1, 1)
    if settings.rule == "fg-a":
        options = settings.rule_options
        assert name.endswith(f"-{options['aggregate']}-{options['tangents']}-fg-a")


def test_the_rates_of_dkh_and_baydin_are_those_of_their_papers():
    rates = {name: resolve("--recipe", name).lr for name in RECIPES if name.startswith("dkh")}
    assert len(rates) == 6 + 10 + 4 + 4 + 3 + 3  # Figures 2 to 4, CIFAR-10, CNN, Figure 5
    for name, lr in rates.items():
        assert lr == (2e-3 if "-2e-3-" in name else 2e-4 if "-2e-4-" in name else 2e-5)
        named = by_name(resolve("--recipe", name), train.TABLES)
        assert named["batch_norm"] == ("norm" in name or "resnet" in name)
    settings = resolve("--recipe", "baydin-cnn4-fg-w")
    fall = build(SCHEDULES, "schedule", settings.schedule, settings.schedule_options)
    lrs = [settings.lr * fall(i, 10**5, 938) for i in (0, 1, 10_000)]
    assert lrs == pytest.approx([2e-4, 2e-4 * np.exp(-1e-4), 2e-4 * np.exp(-1)], rel=1e-9)


def test_ren_et_al_read_out_as_published():
    """Norms before heads and read-out, a tenth of the rate; none in contrastive heads."""
    names = ("head_norm", "output_norm", "output_lr", "head_lr")
    for name in RECIPES:
        if name.startswith("ren"):
            settings = by_name(resolve("--recipe", name), train.TABLES)
            supervised = settings["objective"] == "supervised"
            expected = (True, True, 0.1, 1.0) if supervised else (False, False, 1.0, 1.0)
            assert tuple(settings[name] for name in names) == expected
            if not supervised:
                assert settings["negatives"] == "both-views" and settings["readout_norm"]
                assert settings["stop"] and settings["temperature"] == 0.5
    flips = {
        name: resolve("--recipe", f"ren-{name}-bp").augment
        for name in ("m-1-16-mnist", "m-8-16-cifar10")
    }
    assert flips == {"m-1-16-mnist": "none", "m-8-16-cifar10": "flip"}


def test_ren_et_al_perturb_no_read_out_and_have_a_loss_for_each_group():
    for name in RECIPES:
        rule = RECIPES[name].settings["rule"]
        if name.startswith("ren") and rule.endswith("fg-w"):
            options = resolve("--recipe", name).rule_options
            assert options["output_layers"] == "exact"
            assert options.get("losses") == (None if rule == "fg-w" else "through-norms")


def test_ren_et_al_send_one_error_to_all_tokens():
    names = ("feedback_tokens", "feedback_error", "feedback_start")
    for name in RECIPES:
        if name.endswith("-dfa"):
            settings = by_name(resolve("--recipe", name), train.TABLES)
            ren = ("shared", "own", "scaled-normal")
            fdfa = ("own", "outputs", "kaiming-activities")
            expected = ren if name.startswith("ren") else fdfa
            assert tuple(settings[option] for option in names) == expected


def test_forward_gradients_see_views_that_differ_less():
    augment = {n: resolve("--recipe", f"ren-contrastive-{n}").augment for n in ("lg-bp", "lg-fg-a")}
    assert augment == {"lg-bp": "contrastive", "lg-fg-a": "contrastive-large"}
    crops = {name: data.AUGMENTATIONS[name]().steps[0].area[0] for name in augment.values()}
    assert crops == {"contrastive": 0.08, "contrastive-large": 0.3}


# --- networks ------------------------------------------------------------------------------------

PARAMETERS = {
    "fdfa-mlp2-mnist": 636_010,
    "fdfa-mlp2-fashion-mnist": 636_010,
    "fdfa-mlp2-cifar10": 3_083_010,
    "fdfa-mlp3-mnist": 1_276_810,
    "fdfa-mlp3-fashion-mnist": 1_276_810,
    "fdfa-mlp3-cifar10": 4_084_010,
    "fdfa-mlp4-mnist": 1_917_610,
    "fdfa-mlp4-fashion-mnist": 1_917_610,
    "fdfa-mlp4-cifar10": 5_085_010,
    "fdfa-mlp4-code-mnist": 1_917_610 + 3 * 2 * 800,
    "fdfa-mlp4-code-mnist-fg-w": 1_917_610,
    **{f"dkh-mlp512-sgd-2e-{i}": 669_706 for i in (3, 4, 5)},
    "dkh-mlp512-adam-2e-4": 669_706,
    **{f"dkh-mlp512-norm-{optimizer}-2e-4": 671_754 for optimizer in ("sgd", "adam")},
    **{f"dkh-cnn4-sgd-2e-{i}": 1_171_274 for i in (3, 4, 5)},
    "baydin-cnn4": 1_171_274,
    **{f"dkh-resnet-{optimizer}-2e-3": 37_642 + 5 * 2 * 32 for optimizer in ("sgd", "adam")},
    "frog-fc256-mnist": 269_322,
    "frog-fc1024-mnist": 1_863_690,
    "frog-fc4096-mnist": 20_037_642,
    "frog-lenet5-mnist": 44_470,
    "frog-resnet18-mnist": 11_175_370,
    "fdfa-cnn-code-mnist": 529_214,
    "fdfa-cnn-code-fashion-mnist": 529_214,
    "fdfa-cnn-code-cifar10": 529_214 + 15 * 25 * 2 + 128 * 40 * (12 * 12 - 10 * 10),
    "ren-s-1-1-mnist": 271_892,
    "ren-m-1-16-mnist": 429_076,
    "ren-m-8-16-cifar10": 918_770,
    "ren-l-8-64-cifar10": 13_074_674,
    "ren-l-32-64-imagenet": 26_556_296,
}
"""As the papers say; those of the convolutions and the last by arithmetic."""


@pytest.fixture
def no_numbers(monkeypatch):
    """Weights take no memory and no time, so that the largest networks are built at once."""
    for name in INITIALIZERS:
        monkeypatch.setitem(
            INITIALIZERS, name, lambda _key, shape, _fan_in: np.broadcast_to(np.float32(0), shape)
        )


@pytest.mark.parametrize("name", RECIPES)
def test_every_network_is_the_published_one(name, no_numbers):
    settings = resolve("--recipe", name)
    if settings.dataset == "imagenet-folder":
        in_shape, classes = (224, 224, 3), 1000
    else:
        in_shape, classes = data.outline(settings.dataset, None, settings.image_size)
    network = network_of(settings, in_shape, classes)
    params, _, out_shape = network.init(Key(0), in_shape)
    assert out_shape == ((128,) if settings.objective == "contrastive" else (classes,))
    group = name.removesuffix(f"-{settings.rule}").partition("-mean")[0].partition("-proj")[0]
    count = tree.size(params)
    if name.startswith("fdfa"):  # in Ren et al. every network has its heads, used or not
        heads = {path: layer for path, layer in network.layers if isinstance(layer, LocalHead)}
        assert bool(heads) == (settings.rule == "lg-fg-a")
        assert all(head.reads == "all" for head in heads.values())
        count -= sum(tree.size(params[head]) for head in heads)
    if group in PARAMETERS:
        assert count == PARAMETERS.get(name, PARAMETERS[group])
    if "alexnet" in name:
        assert in_shape == (224, 224, 3)
        assert params["conv1"]["w"].shape == (11, 11, 3, 64)
        assert params["hidden6"]["w"].shape == (6 * 6 * 256, 4096)
        assert params["output"]["w"].shape == (4096, {"cifar100": 100}.get(settings.dataset, 200))
    if "cnn-code" in name:
        assert params["conv2"]["w"].shape == (5, 5, 15, 40)
        side = {28: 10, 32: 12}[in_shape[0]]
        assert params["hidden4"]["w"].shape == (side * side * 40, 128)
        assert {"norm1", "norm2", "norm4"} <= set(params)
    elif "fdfa-cnn" in name:
        side = {28: 4, 32: 5}[in_shape[0]]
        assert params["hidden5"]["w"].shape == (side * side * 40, 128)
    if "imagenet" in group and name.startswith("ren"):
        assert params["block1"]["linear"]["w"].shape == (7 * 7 * 3, 2048)


@pytest.mark.parametrize("name", RECIPES)
def test_describe_prints_every_setting_and_whose_it_is(name, no_numbers, monkeypatch):
    real = data.outline
    folder = {"imagenet-folder": ((224, 224, 3), 1000)}  # it has no files here
    monkeypatch.setattr(data, "outline", lambda name, *rest: folder.get(name) or real(name, *rest))
    settings, recipe = resolve("--recipe", name), RECIPES[name]
    described = describe(settings, None)
    assert json.loads(json.dumps(described)) == described
    assert described["settings"] == by_name(settings, train.TABLES)
    of_recipe = described["recipe"]
    assert of_recipe["published"].items() <= described["settings"].items()
    assert of_recipe["published"].keys() == recipe.settings.keys() - recipe.ours.keys()
    assert (of_recipe["ours"], of_recipe["changed"]) == (recipe.ours, [])


def test_the_local_outputs_of_a_convolution_are_of_all_of_its_pixels():
    """One linear output after each layer, as FDFA's appendix A says; else one of their average."""

    def heads(*flags):
        settings = resolve("--recipe", "fdfa-cnn-mnist-lg-fg-a", *flags)
        network = network_of(settings, (28, 28, 1), 10)
        params, _, _ = network.init(Key(0), (28, 28, 1))
        found = [name for name, layer in network.layers if isinstance(layer, LocalHead)]
        return [params[name]["linear"]["w"].shape for name in found]

    assert heads() == [(12 * 12 * 15, 10), (4 * 4 * 40, 10), (128, 10)]
    assert heads("--head-reads", "average") == [(15, 10), (4 * 4 * 40, 10), (128, 10)]


def test_what_heads_read_is_refused_where_it_is_of_no_use():
    with pytest.raises(UsageError, match="--head-reads is of no use to --rule fg-a"):
        resolve("--rule", "fg-a", "--head-reads", "all")
    settings = resolve("--model", "local-mixer", "--rule", "lg-fg-a", "--head-reads", "all")
    with pytest.raises(UsageError, match="head_reads='all' is of no use to model='local-mixer'"):
        network_of(settings, (8, 8, 1), 10)
    assert resolve("--recipe", "fdfa-cnn-mnist-lg-fg-a", "--rule", "fg-a").head_reads == "average"


# --- flag beats recipe beats default -------------------------------------------------------------


def test_a_flag_beats_a_recipe_and_a_recipe_a_default():
    plain, recipe = resolve("--dataset", "mnist"), resolve("--recipe", "fdfa-mlp4-mnist-fdfa")
    both = resolve("--recipe", "fdfa-mlp4-mnist-fdfa", "--lr", 0.5, "--width", 7, "--tangents", 3)
    assert (plain.lr, recipe.lr, both.lr) == (1e-3, 1e-4, 0.5)
    assert (plain.epochs, recipe.epochs, both.epochs) == (10, 100, 100)
    assert (plain.pixels, recipe.pixels, both.pixels) == ("standard", "symmetric", "symmetric")
    widths = [s.model_options["width"] for s in (plain, recipe, both)]
    assert widths == [512, 800, 7] and both.model_options["depth"] == 3
    assert (recipe.rule_options["tangents"], both.rule_options["tangents"]) == (1, 3)
    assert (plain.recipe, recipe.recipe, both.recipe) == (None, *["fdfa-mlp4-mnist-fdfa"] * 2)
    changed = published(both)["recipe"]["changed"]
    assert sorted(changed) == ["lr", "tangents", "width"]


def test_what_a_recipe_says_of_one_optimizer_is_not_for_another():
    recipe = "ren-l-32-64-imagenet-bp"
    assert resolve("--recipe", recipe).optimizer_options["weight_decay"] == 1e-4
    other = resolve("--recipe", recipe, "--optimizer", "sgd", "--rule", "fg-w")
    assert other.optimizer_options == {"weight_decay": 0.0}
    assert (other.lr, other.schedule_options["warmup"]) == (0.05, 10 / 120)
    assert other.rule_options["tangents"] == 1
    assert {"optimizer", "rule", "weight_decay"} <= set(published(other)["recipe"]["changed"])


def test_where_and_from_which_seed_a_recipe_runs_does_not_change_it():
    flags = "--seed 3 --threads 2 --shards 4 --grad-stats 10".split()
    settings = resolve("--recipe", "ren-s-1-1-mnist-bp", *flags)
    assert (settings.seed, settings.threads) == (3, 2)
    assert published(settings)["recipe"]["changed"] == []
    settings = resolve("--recipe", "ren-s-1-1-mnist-bp", "--limit-test", 10, "--dtype", "float64")
    assert sorted(published(settings)["recipe"]["changed"]) == ["dtype", "limit_test"]
    on_device = ("--backend", "cupy", "--no-graph", "--bf16")
    settings = resolve("--recipe", "ren-s-1-1-mnist-bp", *on_device)
    assert published(settings)["recipe"]["changed"] == ["bf16"]


def test_a_schedule_falls_by_its_options(ask):
    flags = "--width 4 --lr 0.1 --limit-train 64 --limit-test 20 --epochs 3 --quiet --run-dir run"
    fall = "--schedule exponential --factor 0.5".split()
    code, _, err = ask(*flags.split(), *fall)
    assert code == 0, err
    rows = [line.split(",") for line in Path("run/metrics.csv").read_text().splitlines()]
    assert [float(row[rows[0].index("lr")]) for row in rows[1:]] == [0.1, 0.05, 0.025]


def test_schedules_have_flags():
    settings = resolve("--schedule", "step", "--times", 0.2, 0.6, 0.9, "--factor", 0.5)
    assert settings.schedule_options == {"factor": 0.5, "times": (0.2, 0.6, 0.9)}


# --- the command line ----------------------------------------------------------------------------

SHORT = "--dataset digits --limit-train 96 --limit-test 50 --epochs 1 --batch-size 32 --quiet"


def test_a_run_says_what_it_reached_and_what_was_to_be_reached(ask):
    flags = [*SHORT.split(), "--width", 16, "--run-dir", "run"]
    code, out, err = ask("--recipe", "fdfa-mlp4-mnist-dkp", *flags)
    assert code == 0, err
    settings = json.loads(Path("run/config.json").read_text())["settings"]
    assert settings["recipe"] == "fdfa-mlp4-mnist-dkp"
    assert settings["model_options"]["depth"] == 3 and settings["lr"] == 1e-4
    assert settings["schedule_options"] == {"factor": 0.95, "every": "epoch"}
    summary = json.loads(Path("run/summary.json").read_text())
    changed = ["dataset", "epochs", "batch_size", "limit_train", "limit_test", "width"]
    assert summary["recipe"]["changed"] == changed
    assert summary["recipe"]["test_accuracy"] == 0.9827
    assert "Table 1" in summary["recipe"]["source"]
    assert summary["recipe"]["ours"] == {}
    last = out.splitlines()[-1]
    assert f"reached {summary['test_accuracy']:.4f}, published 0.9827" in last
    assert last.endswith(
        "changed here: --dataset, --epochs, --batch-size, --limit-train, --limit-test, --width"
    )

    code, out, _ = ask("--resume", "run", "--epochs", 2, "--quiet", "--json")
    summary = json.loads(out)
    assert (code, summary["epochs"]) == (0, 2)
    assert summary["recipe"]["name"] == "fdfa-mlp4-mnist-dkp"
    code, out, err = ask("--resume", "run", "--recipe", "fdfa-mlp4-mnist-dkp")
    assert (code, out) == (2, "") and "--recipe cannot be changed on --resume" in err


def test_several_seeds_of_a_recipe(ask):
    flags = [*SHORT.split(), "--width", 8, "--seeds", 1, 2]
    code, out, err = ask("--recipe", "fdfa-mlp2-cifar10-bp", *flags)
    assert code == 0, err
    assert "published 0.5620" in out.splitlines()[-1]


def test_a_recipe_without_a_published_accuracy_runs(ask):
    small = "--width 16 --groups 4 --patches 2 --depth 1".split()
    code, out, err = ask("--recipe", "ren-l-8-64-cifar10-lg-fg-a", *SHORT.split(), *small)
    assert code == 0, err
    assert "without a published accuracy" in out.splitlines()[-1]


@pytest.mark.parametrize("rule", ["bp", "dfa", "lg-fg-w", "lg-fg-a"])
def test_a_contrastive_recipe_runs(rule, ask):
    small = "--width 16 --groups 4 --patches 2 --depth 2 --json".split()
    code, out, err = ask("--recipe", f"ren-contrastive-{rule}", *SHORT.split(), *small)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["objective"] == "contrastive" and np.isfinite(summary["train_loss"])


def test_list_shows_recipes_by_network(ask):
    code, out, _ = ask("--list")
    (line,) = [line for line in out.splitlines() if line.split()[0] == "fdfa-mlp4-mnist"]
    assert code == 0 and line.split(maxsplit=1)[1] == (
        "bp 98.46, fg-w 80.03, fg-a 83.40, lg-fg-a 86.89, dfa 98.15, dkp 98.27, fdfa 98.32"
    )
    # Each is named by its line and one of the rules there.
    shown = {
        f"{line.split()[0]}-{row.split()[0]}"
        for line in out.partition("recipes")[2].splitlines()[1:]
        for row in line.split(maxsplit=1)[1].split(", ")
    }
    assert shown == set(RECIPES)


def test_describe_says_what_is_ours(ask):
    code, out, _ = ask("--describe", "--recipe", "fdfa-mlp4-mnist-dfa")
    described = json.loads(out)
    assert code == 0 and described["parameters"] == 1_917_610
    assert described["recipe"]["ours"] == find_recipe("fdfa-mlp4-mnist-dfa").ours != {}


def test_describe_says_what_flags_changed(ask):
    flags = "--lr 0.3 --tangents 2 --optimizer adam".split()
    code, out, _ = ask("--describe", "--recipe", "dkh-mlp512-sgd-2e-4-fg-w", *flags)
    described = json.loads(out)
    settings, recipe = described["settings"], described["recipe"]
    assert code == 0 and set(recipe["changed"]) >= {"lr", "tangents", "optimizer"}
    assert (settings["lr"], settings["tangents"], settings["optimizer"]) == (0.3, 2, "adam")
    assert (recipe["published"]["lr"], recipe["published"]["optimizer"]) == (2e-4, "sgd")
    assert "batch_size" in recipe["ours"] and "batch_size" not in recipe["published"]


def test_a_recipe_without_a_score_says_so(ask):
    flags = [*SHORT.split(), "--width", 8]
    code, out, err = ask("--recipe", "dkh-mlp512-adam-2e-4-bp", *flags)
    assert code == 0, err
    last = out.splitlines()[-1]
    assert ", without a published accuracy (Daprato, Jain and Hung, " in last
    assert last.endswith("--limit-train, --limit-test, --width")
    code, out, err = ask("--recipe", "dkh-mlp512-adam-2e-4-bp", *flags, "--json")
    assert code == 0 and json.loads(out)["recipe"]["test_accuracy"] is None


def test_a_recipe_that_ends_early_does(ask):
    small = "--dataset digits --validation 200 --early-stop 1 --width 8 --quiet --json".split()
    code, out, err = ask("--recipe", "frog-fc256-mnist-bp", *small, "--lr", 3)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["tested_on"] == "validation" and summary["epochs"] < 200
    assert summary["epochs"] == summary["best_epoch"] + 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "fdfa-mlp4-mnst-dkp",
            "there is no 'fdfa-mlp4-mnst-dkp'; did you mean fdfa-mlp4-mnist-dkp",
        ),
        ("ren-m-8-16-lg-fg-a", "did you mean .*ren-m-8-16-cifar10-lg-fg-a"),
        (
            "?",
            "there is no '\\?'; they are fdfa-…, ren-…, frog-…, dkh-…, baydin-…; dualnet list",
        ),
    ],
)
def test_an_unknown_recipe(name, says, ask):
    with pytest.raises(UsageError, match=says):
        find_recipe(name)
    code, out, err = ask("--recipe", name)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_a_config_that_names_an_unknown_recipe(ask):
    flags = [*SHORT.split(), "--width", 8, "--run-dir", "run"]
    assert ask("--recipe", "fdfa-mlp2-mnist-bp", *flags)[0] == 0
    config = Path("run/config.json")
    unseal(config)
    config.write_text(config.read_text().replace("fdfa-mlp2-mnist-bp", "fdfa-mlp2-mnist-pb"))
    code, _, err = ask("--resume", "run")
    assert code != 0 and "there is no 'fdfa-mlp2-mnist-pb'" in err
