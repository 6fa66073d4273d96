"""What the prose of docs/results.md derives from results, and what it takes from elsewhere.

`DERIVED`: section → phrase → what computes its numbers, from the committed rows.
`SAID`: section → phrase → why its numbers are in no result.
In a phrase, code spans are left out, as they are in `prose_numbers.prose`.
"""

from collections import defaultdict
from math import sqrt
from statistics import fmean, stdev

from dualnet import Key, tree
from dualnet.models import LocalMixer
from dualnet.training.recipes import RECIPES
from dualnet.training.resolve import LR, LR_DEFAULTS
from experiments import networks
from experiments.page import results

F = "frog-functions"
WORDS = dict(enumerate("zero one two three four five six seven eight nine".split()))


def by(name, *settings):
    """Return the results of an experiment by some of its settings."""
    found = {}
    for row in results(name)["rows"]:
        key = tuple(row["settings"].get(s) for s in settings)
        found[key if len(key) > 1 else key[0]] = row["results"]
    return found


def rate(x):
    """Return a learning rate as it is written: 1e-3."""
    return f"{x:.0e}".replace("e-0", "e-")


def beyond(dataset, rule):
    """Return how many points are between a rule and `bp`, and how many standard errors that is."""
    found = defaultdict(list)
    for row in results("beyond-bp")["rows"]:
        if row["settings"]["dataset"] == dataset:
            found[row["settings"]["rule"]].append(100 * row["results"]["test_accuracy"])
    ours, bp = found[rule], found["bp"]
    apart = abs(fmean(bp) - fmean(ours))
    error = sqrt(stdev(bp) ** 2 / len(bp) + stdev(ours) ** 2 / len(ours))
    return apart, WORDS[round(apart / error)]


def above_published(experiment):
    """Return by how many points each recipe's accuracy is above the published one."""
    found = defaultdict(list)
    for row in results(experiment)["rows"]:
        found[row["settings"]["recipe"]].append(row["results"]["test_accuracy"])
    return {recipe: 100 * (fmean(a) - RECIPES[recipe].accuracy) for recipe, a in found.items()}


def worst_of_mlps():
    """Return the largest distance of an accuracy from the published one, but of `fg-w` at the
    rate of the text."""
    found = above_published("fdfa-mlp").items()
    return max(abs(points) for recipe, points in found if "code" in recipe or "fg-w" not in recipe)


def behind_of_weights():
    """Return how far `fg-w` is behind the published accuracies on both data sets, in points."""
    found = above_published("fdfa-mlp")
    return tuple(-found[f"fdfa-mlp2-{dataset}-fg-w"] for dataset in ("mnist", "fashion-mnist"))


def convolutional(rule):
    """Return how far a rule is behind the published accuracy on MNIST, in points."""
    return -above_published("fdfa-cnn")[f"fdfa-cnn-mnist-{rule}"]


def loss_of_dkp(epoch):
    """Return the training loss of `dkp` on the network of the text after an epoch."""
    found = by("fdfa-cnn", "recipe")["fdfa-cnn-mnist-dkp"]
    return found["curves"]["train_loss"][epoch - 1]


RULES_OF_MIXERS = ("bp", "lg-bp", "fg-a", "lg-fg-w", "lg-fg-a")


def above_of_mixers():
    """Return how far the rules are above the published accuracies, in points."""
    found = above_published("ren-mnist")
    return tuple(found[f"ren-s-1-1-mnist-{rule}"] for rule in RULES_OF_MIXERS)


def nearer(layer):
    """Return how many degrees `fdfa` is nearer than the better of `dfa` and `dkp`."""
    means = {rule: fmean(r["degrees"][layer]) for rule, r in by("fdfa-alignment", "rule").items()}
    return min(means["dfa"], means["dkp"]) - means["fdfa"]


def added(rule):
    """Return the variance that a rule adds, by layers and epochs."""
    found = by("fdfa-variance", "layers", "epochs")
    return {place: r["rules"][rule]["added"] for place, r in found.items()}


def larger(rule):
    """Return how many times larger its variance is with four layers, least and most."""
    found = added(rule)
    return sorted(found[4, epochs] / found[2, epochs] for epochs in (0, 1))


def less_than_the_data():
    """Return how many times less the variance of what `fdfa` remembers is, least and most."""
    ours = added("fdfa, other directions before")
    data = by("fdfa-variance", "layers", "epochs")
    ratios = (data[n, 1]["rules"]["bp"]["data"] / ours[n, 1] for n in (2, 4))
    return tuple(round(r, -2) for r in sorted(ratios))


def theory():
    """Return the variance that theory has for each form of `lg-fg-w`."""
    found = by("ren-losses", "losses", "output_layers")
    return {key: r["theory"]["mean"] for key, r in found.items()}


def grouped_share():
    """Return what share in % of the weights of LocalMixer M/1/16's block its grouped map has."""
    network = LocalMixer(width=512, patches=1, groups=16, depth=1).network((28, 28, 1), 10)
    params = network.init(Key(0), (28, 28, 1))[0]
    sizes = {path: w.size for path, w in tree.items(params) if path.startswith("block")}
    weights = sizes["block1/linear/w"] + sizes["block1/groups/w"]
    return 100 * sizes["block1/groups/w"] / weights


def bias_of_losses():
    """Return the bias of the published form of `lg-fg-w` over the gradient's length."""
    return by("ren-losses", "losses", "output_layers")["through-norms", "exact"]["bias"]["mean"]


def paper_group():
    """Return how many channels a group of the paper's LocalMixer M/8/16 has."""
    settings = RECIPES["ren-m-8-16-cifar10-lg-fg-a"].settings
    return settings["width"] // settings["groups"]


def sites(a, b):
    """Return how many times less noise there is with the local losses b than with a."""
    found = by("ren-sites", "losses")
    return found[a]["added"] / found[b]["added"]


def falls(stop):
    """Return by how much the contrastive loss of `lg-fg-a` falls."""
    losses = by("ren-stop", "rule", "stop")["lg-fg-a", stop]["train_loss"]
    return losses[0] - losses[-1]


def read_out():
    """Return how much worse the read-out is without the stop-gradient, in points and errors."""
    found = by("ren-stop", "rule", "stop")
    shares = [found["lg-fg-a", stop]["test_accuracy"] for stop in ("stop-gradient", "none")]
    behind, p = shares[0] - shares[1], fmean(shares)
    return WORDS[round(100 * behind)], WORDS[round(behind / sqrt(2 * p * (1 - p) / 2000))]


def apart(*rules):
    """Return how many points lie between the best and the worst of some contrastive rules."""
    found = by("ren-contrastive", "rule")
    shares = [found[rule]["test_accuracy"] for rule in rules]
    return 100 * (max(shares) - min(shares))


def last_curve():
    """Return the test accuracies of the training on CIFAR-10."""
    (row,) = (row for row in results("networks") if "curve" in row)
    return networks.curve_line(row)


def noise_of_its_size():
    """Return what noise costs that is as large as the error of `fdfa`."""
    found = by("fdfa-noise", "noise", "rule")
    error = found[None, "fdfa"]["variance"]["mean"]
    noises = [noise for noise, _ in found if noise]
    near = min(noises, key=lambda noise: abs(noise**2 - error))
    return found[near, None]["loss"]["mean"] - found[0.0, None]["loss"]["mean"]


def checkpointing():
    """Return by how much less memory and by how much longer backpropagation is with it, in %."""
    plain, with_it = (by("cost", "rule")[rule] for rule in ("bp", "bp --checkpointing"))
    less = 1 - with_it["pass_bytes"] / plain["pass_bytes"]
    return 100 * less, 100 * (with_it["step_ms"] / plain["step_ms"] - 1)


DERIVED = {
    "beyond-bp": {
        "{:.2f} points above it, {} standard error": lambda: beyond("mnist", "fdfa"),
        "{:.2f} points behind, {} standard errors": lambda: beyond("fashion-mnist", "fdfa"),
        "{:.2f} behind backpropagation": lambda: beyond("mnist", "fdfa --sampler normal")[0],
        "{:.2f} points on MNIST, {} standard errors of the difference": lambda: beyond(
            "mnist", "fg-a-cv --sampler normal"
        ),
        "{:.2f} on Fashion-MNIST, {} of them": lambda: beyond(
            "fashion-mnist", "fg-a-cv --sampler normal"
        ),
    },
    "cost": {"holds {:.0f} % less and takes {:.0f} % longer": checkpointing},
    "fdfa-alignment": {
        "by {:.0f} degrees and more in the first layer": lambda: nearer("hidden1"),
        "and by {:.0f} in the last": lambda: nearer("hidden4"),
    },
    "fdfa-cnn": {
        "within {:.2f} points": lambda: max(convolutional("bp"), convolutional("fdfa")),
        "{:.2f} points behind it": lambda: convolutional("dkp"),
        "loss is {:.1f} after the first epoch and {:.1f} at the end": lambda: (
            loss_of_dkp(1),
            loss_of_dkp(100),
        ),
    },
    "fdfa-estimates": {
        "at β = {} by {:.0f} · 10⁻⁴, where": lambda: (0.001, 1e4 * 0.001 / (2 - 0.001)),
    },
    "fdfa-mlp": {
        "to {:.2f} points or better": worst_of_mlps,
        "by {:.2f} points behind the paper on MNIST, and by {:.2f} on": behind_of_weights,
    },
    "fdfa-noise": {"noise that costs {:.2f}": noise_of_its_size},
    "fdfa-variance": {
        "{:.1f} to {:.1f} times as large": lambda: tuple(larger("fg-w")),
        "{:.1f} to {:.1f} times. Local": lambda: tuple(larger("fg-a")),
        "{:.0f} to {:.0f} times less than that of the data": less_than_the_data,
    },
    "frog-functions": {
        "The table: {} functions": lambda: len({(n, f) for f, n in by(F, "function", "n")}),
        "is −{:.2f} n": lambda: -results(F)["published"]["least value of styblinski-tang / n"],
    },
    "networks": {"the test accuracies {} %": last_curve},
    "ren-mnist": {
        "by {:.2f} points, by {:.2f}, by {:.2f}, by {:.2f} and by {:.2f}": above_of_mixers
    },
    "ren-contrastive": {
        "No more than {:.1f} points": lambda: apart("fg-w", "fg-a", "lg-fg-w"),
    },
    "ren-groups": {"The paper's groups have {} channels": paper_group},
    "ren-losses": {
        "It has {:.0f} times less": lambda: (
            theory()["one", "perturbed"] / theory()["through-norms", "exact"]
        ),
        "those of the blocks, {:.0f} % here": lambda: (
            100 * (theory()["one", "perturbed"] / theory()["one", "exact"] - 1)
        ),
        "carries {:.1f} % of": lambda: 100 * bias_of_losses(),
        "weights, {:.0f} % of all": grouped_share,
    },
    "ren-sites": {
        "blocks by a factor of {:.1f}": lambda: sites("the output alone", "blocks"),
        "groups by {:.1f} and": lambda: sites("blocks", "blocks, groups"),
        "patches by {:.0f}, together by {:.0f}.": lambda: (
            sites("blocks", "blocks, patches"),
            sites("the output alone", "blocks, patches, groups"),
        ),
    },
    "ren-stop": {
        "falls by {:.2f}": lambda: falls("none"),
        "instead of {:.2f}": lambda: falls("stop-gradient"),
        "worse by {} percent, {} standard errors": read_out,
    },
    "rules": {"Adam at {} ( : {})": lambda: (rate(LR), rate(LR_DEFAULTS["fg-w"]))},
}
SAID = {
    "contrastive": {"the 10,000 test images": "CIFAR-10 has so many"},
    "fdfa-alignment": {
        "Adam at 1e-4": "a setting of `steps.py`, as in the recipes of the paper",
    },
    "fdfa-estimates": {"Proposition 2 has 10⁻⁶": "the paper's formula: the square of β = 0.001"},
    "frog-functions": {"a value near 4": "known of Rosenbrock's function"},
    "ren-stop": {"chance is 10 %": "ten classes"},
}
