"""Perturbed activities by finite differences, and experiments on what estimates are worth."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from learning_problems import (
    BACKEND,
    NETWORKS,
    WITH_BATCH_NORM,
    Problem,
    assert_close,
    assert_unbiased,
    flat,
    problem,
)

from dualnet import tree
from dualnet.errors import UsageError
from dualnet.learning import (
    ActivityDifferences,
    ActivityPerturbation,
    Backprop,
    ForwardDirectFeedback,
    GreedyActivityPerturbation,
    GreedyBackprop,
    Task,
)
from dualnet.models.local_mixer import LocalMixer
from dualnet.nn import (
    Activation,
    BatchNorm,
    InfoNCE,
    Linear,
    LocalHead,
    StopGradient,
    relu,
    softmax_cross_entropy,
    tanh,
    walk,
)
from dualnet.optim import Adam
from experiments import (
    fdfa_alignment,
    fdfa_convergence,
    fdfa_estimates,
    fdfa_noise,
    fdfa_variance,
    heads,
    ren_groups,
    ren_norms,
    ren_sites,
    ren_stop,
)
from experiments.experiment import Form, read_rows
from experiments.steps import Images, Learner, mlp

# --- perturbed activities by finite differences --------------------------------------------------

OPTIONS = (
    {"tangents": 3},
    {"perturb": "after", "sampler": "rademacher"},
    {"tangents": 3, "aggregate": "projection", "output_layers": "perturbed"},
)
APPLIED = {
    **NETWORKS,
    "batch norm": ((6,), WITH_BATCH_NORM),
}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", APPLIED)
def test_differences_of_activities_tend_to_derivatives(name, options, rng, key):
    """With the directions of `fg-a`, and so small an ε that no unit passes a kink."""
    in_shape, layers = APPLIED[name]
    p = problem(rng, key, *layers, in_shape=in_shape)
    exact = p.step(ActivityPerturbation(**options), key)
    small = p.step(ActivityDifferences(**options, difference=1e-8), key)
    assert_close(small.gradients, exact.gradients, 1e-3, name)
    assert np.isclose(small.loss, exact.loss, rtol=1e-12) and small.correct == exact.correct


def test_differences_of_a_network_of_a_single_layer(rng, key):
    task = Task(Linear(3), softmax_cross_entropy)
    params, state, _ = task.network.init(key, (4,))
    params = tree.map(lambda p: p.astype(np.float64), params)
    p = Problem(task, params, state, rng.standard_normal((5, 4)), rng.integers(0, 3, 5))
    options = {"tangents": 2, "output_layers": "perturbed"}
    exact = p.step(ActivityPerturbation(**options), key).gradients
    small = p.step(ActivityDifferences(**options, difference=1e-8), key).gradients
    assert_close(small, exact, 1e-3)
    assert np.abs(exact["w"]).max() > 0.01


def test_a_difference_is_that_of_the_losses_of_moved_activities(rng, key):
    """By hand, with a large ε, at which a derivative would be something else."""
    layers = (("hidden", Linear(5)), ("tanh", Activation(tanh)), ("output", Linear(3)))
    p = problem(rng, key, *layers)
    rule = ActivityDifferences(difference=2.0)
    done = p.step(rule, key)
    z = p.x @ p.params["hidden"]["w"] + p.params["hidden"]["b"]
    directions = rule.sample(key, p.plan, p.params, BACKEND, len(p.x))
    (u,) = directions.draw_array(
        directions.key.fold_in("hidden").fold_in(1).fold_in(0), z.shape, z.dtype, 0
    )[None]

    def losses(z):
        y = np.tanh(z) @ p.params["output"]["w"] + p.params["output"]["b"]
        return np.log(np.exp(y).sum(1)) - y[np.arange(len(y)), p.labels]

    d = (losses(z + 2.0 * u) - losses(z)) / 2.0
    expected = p.x.T @ (d[:, None] * u) / len(p.x)
    np.testing.assert_allclose(done.gradients["hidden"]["w"], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("difference", [0.0, -1.0, np.inf, np.nan])
def test_a_difference_must_be_a_number_above_0(difference):
    with pytest.raises(UsageError, match="ap: difference must be above 0 and finite, got"):
        ActivityDifferences(difference=difference)


def test_differences_are_refused_where_gradients_stop(rng, key):
    stopped = (("hidden", Linear(5)), ("relu", Activation(relu)), ("stop", StopGradient()))
    p = problem(rng, key, *stopped, ("output", Linear(3)))
    with pytest.raises(
        UsageError, match=r"ap: .* the stop-gradient at stop; use rule='fg-a', or readout=F"
    ):
        p.step(ActivityDifferences(), key)
    p = problem(rng, key)
    p = type(p)(type(p.task)(p.task.network, InfoNCE()), p.params, p.state, p.x, p.labels)
    with pytest.raises(
        UsageError, match=r"ap: .* of the contrastive loss; use rule='fg-a', or stop=False"
    ):
        p.step(ActivityDifferences(), key, rule_state={})


# --- what the experiments compute ----------------------------------------------------------------

RESULTS = Path(__file__).parent.parent / "benchmarks/results"


def committed(experiment):
    return read_rows(experiment, RESULTS / f"{experiment.name}.json")


def test_the_committed_variances_are_those_of_theory():
    """Within 30 % for a few hundred draws of numbers with long tails, and the slopes closely."""
    rows = committed(fdfa_estimates.EXPERIMENT)
    for row in rows:
        results = row["results"]
        assert np.isclose(results["variance"]["mean"], results["theory"], rtol=0.3), row["settings"]
    slopes = {of: fdfa_estimates.slope(*s) for of, s in fdfa_estimates.series(rows).items()}
    assert abs(slopes["one update"] - 2) < 0.05 and abs(slopes["moving average"] - 1) < 0.1
    assert abs(slopes["fg-w"] - 1) < 0.05 and abs(slopes["fg-a"] - 1) < 0.05


def test_what_the_page_says_of_noise_and_variance_is_in_the_committed_rows():
    rows = committed(fdfa_noise.EXPERIMENT)
    noisy = [r["results"] for r in rows if "noise" in r["settings"]]
    losses = [results["loss"]["mean"] for results in noisy]
    assert losses == sorted(losses) and losses[-1] > 5 * losses[0]
    rules = {r["settings"]["rule"]: r["results"] for r in rows if "rule" in r["settings"]}

    def of_noise(name):
        """The loss of as much noise in backpropagation, on the line between two that were tried."""
        off = [results["variance"]["mean"] for results in noisy[1:]]
        return np.exp(
            np.interp(np.log(rules[name]["variance"]["mean"]), np.log(off), np.log(losses[1:]))
        )

    assert rules["fdfa"]["loss"]["mean"] < losses[0] < of_noise("fdfa") - 0.04
    assert 0.5 * of_noise("fg-a") < rules["fg-a"]["loss"]["mean"] < of_noise("fg-a")
    assert np.isclose(rules["fg-w"]["loss"]["mean"], of_noise("fg-w"), rtol=0.05)
    for row in committed(fdfa_variance.EXPERIMENT):
        results = row["results"]
        added = {name: found["added"] for name, found in results["rules"].items()}
        assert 0.7 < added["fg-w"] / results["weights"] < 1.3
        assert added["fg-w"] > 100 * added["fg-a"] > 100 * added["lg-fg-a"]
        assert added["bp"] == added["dfa"] == added["dkp"] == added["fdfa"] == 0
        if row["settings"]["epochs"]:
            assert 400 * added[fdfa_variance.HISTORIES] < results["rules"]["bp"]["data"]


def test_fdfa_is_the_nearest_to_the_gradient_in_every_layer():
    rows = {r["settings"]["rule"]: r for r in committed(fdfa_alignment.EXPERIMENT)}
    angles = {rule: row["results"]["degrees"] for rule, row in rows.items()}
    for layer in ("hidden1", "hidden2", "hidden3", "hidden4"):
        for other in ("dfa", "dkp"):
            apart = np.subtract(angles[other][layer], angles["fdfa"][layer])
            assert 15 < apart.min() and 30 < apart.mean(), (layer, other)


def test_each_kind_of_local_loss_takes_variance_away():
    rows = {r["settings"]["losses"]: r["results"] for r in committed(ren_sites.EXPERIMENT)}
    alone, blocks, groups, patches, all_of_them = (rows[s]["added"] for s in ren_sites.SITES)
    assert alone > 3 * blocks > 6 * groups and blocks > 10 * patches and alone > 100 * all_of_them
    assert rows["blocks, patches, groups"]["loss"] < rows["blocks"]["loss"] - 0.05


def test_norms_before_heads_and_output_help_although_they_add_variance():
    rows = {r["settings"]["heads"]: r["results"] for r in committed(heads.EXPERIMENT)}
    published, none = rows["as published"], rows["no norm before heads and output"]
    assert published["added"] > 1.5 * none["added"]
    assert published["test_accuracy"] > none["test_accuracy"] + 0.03  # of 2,000 images
    assert rows["heads start at 0"]["added"] < published["added"] / 5
    everything, *averages = (rows[name] for name in heads.OF_CNN)
    for average in averages:
        assert everything["parameters"] > average["parameters"]
        assert everything["added"] < average["added"] / 1.2


def test_groups_take_variance_away_unless_they_are_tiny():
    rows = {
        tuple(r["settings"].values())[:2]: r["results"] for r in committed(ren_groups.EXPERIMENT)
    }
    one, four, sixteen = (rows["lg-fg-a", groups]["added"] for groups in (1, 4, 16))
    assert 1.5 * four < one < sixteen / 10
    for rule in ("lg-bp", "lg-fg-a"):
        assert rows[rule, 16]["loss"] > rows[rule, 4]["loss"] + 0.05


def test_forward_gradients_need_the_stop_gradient_and_exact_ones_do_not():
    fell = {}
    for row in committed(ren_stop.EXPERIMENT):
        first, *_, last = row["results"]["train_loss"]
        fell[row["settings"]["rule"], row["settings"]["stop"]] = first - last
    assert fell["lg-fg-a", "stop-gradient"] > 1.5 * fell["lg-fg-a", "none"]
    assert np.isclose(fell["lg-bp", "stop-gradient"], fell["lg-bp", "none"], rtol=0.1)


def test_what_the_page_says_of_norms_is_in_the_committed_rows():
    rows = {
        (row["settings"]["rule"], row["settings"]["norms"]): row["results"]
        for row in committed(ren_norms.EXPERIMENT)
    }
    for rule, best in (("lg-bp", "batch norm"), ("lg-fg-a", "before and after")):
        losses = {norms: found["loss"] for (of, norms), found in rows.items() if of == rule}
        assert min(losses, key=losses.__getitem__) == best
        assert min(losses["after alone"], losses["none"]) > losses["before alone"] + 0.03
    added = {norms: found["added"] for (of, norms), found in rows.items() if of == "lg-fg-a"}
    assert added["batch norm"] > 1000 * added["before and after"]
    assert min(added, key=added.__getitem__) == "after alone"


def quick_images(rng, n=64):
    """Images of noise in the form of the digits, in the place of a data set."""
    images = Images("digits", Form(quick=True, seeds=(0,)))
    images.inputs, images.labels = images.inputs[:n], images.labels[:n]
    return images


def test_noise_has_its_deviation_and_none_changes_nothing(rng, key):
    learner = Learner(images := quick_images(rng), Backprop(), mlp(images, Backprop(), 800, 2), 0)
    gradients = learner.estimate(next(learner.batches(1))).gradients
    assert fdfa_noise.noisy(gradients, 0.0, key, learner) is gradients
    noise = flat(fdfa_noise.noisy(gradients, 0.1, key, learner)) - flat(gradients)
    n = len(noise)  # about 60,000
    assert abs(noise.mean()) < 7 * 0.1 / np.sqrt(n)
    assert abs(noise.std() / 0.1 - 1) < 7 / np.sqrt(2 * n)


def test_a_learner_makes_the_steps_of_the_published_settings(rng, monkeypatch):
    rates = []
    update = Adam.update
    monkeypatch.setattr(
        Adam, "update", lambda self, g, s, p, lr: rates.append(lr) or update(self, g, s, p, lr)
    )
    images = quick_images(rng, 128)
    learner = Learner(images, Backprop(), mlp(images, Backprop(), 8, 2), 0)
    numbers = []
    for batch in learner.batches(3):
        numbers.append(batch.inputs)
        learner.follow(learner.estimate(batch))
    assert np.allclose(rates, [1e-4] * 2 + [0.95e-4] * 2 + [0.95**2 * 1e-4] * 2, rtol=1e-12)
    for first, second in (numbers[:2], numbers[2:4]):
        seen = np.sort(np.concatenate([first, second]).sum(axis=(1, 2, 3)))
        np.testing.assert_array_equal(seen, np.sort(images.inputs.sum(axis=(1, 2, 3))))
    assert not np.array_equal(numbers[0], numbers[2])


def test_variance_over_histories_is_that_of_the_gradients_of_each(rng, key):
    row = {"width": 8, "layers": 2, "epochs": 1, "batches": 2, "histories": 3}
    images, rule = quick_images(rng, 128), ForwardDirectFeedback(feedback_rate=0.1)
    learner = fdfa_variance.learner_of(images, Backprop(), row, 0)
    (unit,) = learner.plan.units
    histories = [{unit.after: rng.normal(size=(10, 8)).astype(np.float32)} for _ in range(3)]
    found = fdfa_variance.over_histories(learner, rule, histories, row)
    added, squares = 0.0, 0.0
    for batch in fdfa_variance.some_batches(learner, row):
        g = np.array([flat(learner.estimate(batch, rule, b).gradients) for b in histories])
        added += g.var(axis=0, ddof=1).sum()
        squares += np.square(flat(learner.estimate(batch).gradients)).sum()
    assert np.isclose(found, added / squares, rtol=1e-4)
    assert fdfa_variance.over_histories(learner, rule, histories, {**row, "epochs": 0}) is None


# --- local losses by site, and norms -------------------------------------------------------------


def mixer_problem(rng, key, groups):
    """A LocalMixer whose heads have so many groups; its weights do not depend on the number."""
    network = LocalMixer(width=8, patches=2, groups=4, depth=2, head_norm=False).network(
        (4, 4, 1), 3
    )
    layers = tuple(
        (name, replace(layer, groups=groups) if isinstance(layer, LocalHead) else layer)
        for name, layer in network.layers
    )
    return problem(rng, key, *layers, in_shape=(4, 4, 1))


@pytest.mark.parametrize(
    ("rule", "groups", "same"),
    [
        (ren_sites.AtSites(), 4, GreedyActivityPerturbation()),
        (ren_sites.AtSites(by_patch=False, by_group=False), 4, "one"),
        (ren_sites.AtSites(by_group=False), 4, None),
    ],
    ids=["patches, groups", "neither", "patches"],
)
def test_local_losses_by_site_are_those_of_the_rule(rule, groups, same, rng, key):
    """Both is the rule, neither is one loss, and patches alone is heads of a single group."""
    p = mixer_problem(rng, key, groups)
    other = p
    if same == "one":
        same = GreedyActivityPerturbation(losses="one")
    if same is None:
        same, one_group = GreedyActivityPerturbation(), mixer_problem(rng, key, 1)
        other = replace(p, task=one_group.task)
    found, expected = p.step(rule, key).gradients, other.step(same, key).gradients
    assert_close(found, expected, 1e-9)


def test_losses_by_group_alone_are_unbiased_and_less_noisy_than_one(rng, key):
    p = mixer_problem(rng, key, 4)
    exact = p.step(GreedyBackprop(), key).gradients
    assert_unbiased(p.repeated(20), ren_sites.AtSites(by_patch=False), key, 200, exact)


@pytest.mark.parametrize(
    ("variant", "left"),
    [
        ("before and after", 4 + 6),
        ("before alone", 2 + 3),
        ("after alone", 2 + 3),
        ("none", 0),
        ("over all channels, not groups", 4 + 6),
        ("batch norm", 4 + 6),
    ],
)
def test_norms_in_blocks_are_changed_as_named(variant, left):
    network = LocalMixer(width=8, patches=2, groups=4, depth=2).network((4, 4, 1), 3)
    changed = ren_norms.changed_blocks(network, ren_norms.VARIANTS[variant])
    norms = [
        (path, layer)
        for path, layer in walk(changed)
        if layer.normalizes and path.startswith("block")
    ]
    assert len(norms) == left
    names = {path.rpartition("/")[2] for path, _ in norms}
    if variant == "before alone":
        assert names == {"norm1", "norm3", "before"}
    if variant == "after alone":
        assert names == {"norm2", "norm4", "after"}
    if variant == "batch norm":
        assert all(isinstance(layer, BatchNorm) for _, layer in norms)
    if variant.startswith("over all"):
        assert all(layer.groups == 1 for _, layer in norms)
    if variant == "before and after":
        assert changed == network


# --- curves of other experiments -----------------------------------------------------------------


def test_convergence_takes_the_curves_of_trainings_that_are_there(tmp_path, monkeypatch):
    curves = {"train_loss": [2.0, 1.0], "test_accuracy": [0.5, 0.97]}
    row = {"settings": {"recipe": "fdfa-mlp2-mnist-fdfa"}, "seeds": "0", "backend": "numpy"}
    content = {"experiment": "fdfa-mlp", "rows": [{**row, "results": {"curves": curves}}]}
    (tmp_path / "fdfa-mlp.json").write_text(json.dumps(content))
    trained = []
    monkeypatch.setattr(
        fdfa_convergence,
        "trained",
        lambda flags, form: trained.append((flags, form.seeds)) or [{"curves": curves}],
    )
    form = Form(quick=False, seeds=(0, 3), work=tmp_path / "fdfa-convergence")
    found = fdfa_convergence.measure(row["settings"], form)
    assert found == [{"curves": curves}] * 2
    assert trained == [("--recipe fdfa-mlp2-mnist-fdfa", (3,))]
    table = fdfa_convergence.table([{**row, "results": found[0]}])
    assert "| MNIST, 2 layers | `fdfa` | 2 | 2 | 2 | – |" in table
