"""The model of docs/scale-model.md: its formulas, its fit, and every number of the page."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from prose_numbers import numbers_in, prose, unheld

import dualnet as dn
from benchmarks import scale, scale_model, scale_page
from benchmarks.pages import filled, results
from benchmarks.performance import PAGES, TABLES
from benchmarks.scale_model import LINKS, MLP, NETWORKS, RESNET18, TRANSFORMER, WORKER, Link, Worker
from dualnet import backends, tree
from dualnet.backends.mpi import FEW
from dualnet.learning import Backprop, Batch, Task, WeightPerturbation, estimate_gradient
from dualnet.nn import Linear, mean_squared_error, softmax_cross_entropy

ROOT = Path(__file__).parent.parent
PAGE = PAGES[2].read_text(encoding="utf-8")
EVERYWHERE = [
    (noise, wanted)
    for wanted in scale_model.VARIANCES
    for noise in scale_model.NOISE_SCALES
    if noise >= 2 * wanted
]
"""S and V of the predictions."""


# --- networks and bytes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "of", "in_shape"),
    [
        (MLP, dn.models.MLP(width=512, depth=2), (28, 28, 1)),
        (RESNET18, dn.models.ResNet18(), (32, 32, 3)),
    ],
    ids=["mlp", "resnet18"],
)
def test_the_networks_are_those_of_dualnet(network, of, in_shape):
    task = Task(of.network(in_shape, 10), softmax_cross_entropy)
    images = np.zeros((1, *in_shape), np.float32)
    plan, learner = Backprop().start(task, images, dn.Key(0))
    assert scale.outline(network.name, plan, learner.params) == network


def test_the_bytes_are_those_that_were_counted():
    link, p = Link(0.0, 1.0), 2
    for row in results("processes")["rows"]:
        network = MLP._replace(parameters=row["parameters"])
        words = row["rule"].split()
        if words[0] == "fg-w":
            k = int(words[words.index("--tangents") + 1])
            seconds = scale_model.forward_exchange(link, k, p)
        else:
            seconds = scale_model.backprop_exchange(link, network, p)
        assert seconds == row["bytes"]  # each of two gets the bytes of the other


# --- limits ---------------------------------------------------------------------------------------


def test_one_worker_sends_nothing():
    link = Link(1.0, 1.0)
    for k in (1, 10**6):
        assert scale_model.forward_exchange(link, k, 1) == 0
    assert scale_model.backprop_exchange(link, MLP, 1) == 0


def test_one_worker_has_all_examples_and_all_directions():
    at = Worker(1e9, 1e-9, 1e-9, 1e-3), MLP, 1, 64, 16
    by_batch, by_tangents = (
        scale_model.forward_step(*at, share) for share in ("batch", "tangents")
    )
    assert by_batch == by_tangents


def test_more_workers_do_not_make_the_update_faster():
    k, never = 1000, 2 * 1000 * MLP.parameters / WORKER.rate
    for share in ("batch", "tangents"):
        assert scale_model.forward_step(WORKER, MLP, 10**9, 1, k, share) >= never


def test_with_very_many_directions_the_variance_is_that_of_backpropagation():
    few, many = (scale_model.SPREADS["normal"](100, k) for k in (1, 10**12))
    plain = scale_model.variance(50.0, 10)
    assert plain == 5 and scale_model.variance(50.0, 10, few) == 5 + 101 * 6
    assert scale_model.variance(50.0, 10, many) == pytest.approx(plain, rel=1e-9)


def test_a_direction_of_one_parameter_by_signs_is_exact():
    assert scale_model.SPREADS["rademacher"](1, 1) == 0
    assert scale_model.SPREADS["orthogonal"](7, 7) == 0
    assert scale_model.examples_needed(50.0, 5.0, 0.0) == 10


def test_no_batch_makes_up_for_too_few_directions():
    assert math.isinf(scale_model.examples_needed(50.0, 5.0, 5.0))
    batch = scale_model.examples_needed(50.0, 5.0, 4.0)
    assert scale_model.variance(50.0, batch, 4.0) <= 5
    assert scale_model.variance(50.0, batch - 1, 4.0) > 5


# --- variance -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", sorted(scale_model.SPREADS))
def test_the_variance_is_that_of_the_rule(sampler, rng):
    """Batches of two from eight examples, drawn with replacement; three directions of 3 × 4."""
    x, targets = rng.normal(size=(8, 3)), rng.normal(size=(8, 4))
    task, backend, k, repeats = (
        Task(Linear(4, bias=False), mean_squared_error),
        backends.get("numpy"),
        3,
        4000,
    )
    rule = WeightPerturbation(k, sampler=sampler)
    start = Backprop().start(task, x, dn.Key(0))
    each = [
        tree.leaves(
            estimate_gradient(
                Backprop(), *start, Batch(x[i : i + 1], targets[i : i + 1]), dn.Key(0), backend
            ).gradients
        )[0]
        for i in range(8)
    ]
    exact = np.mean(each, axis=0)
    square = np.sum(exact**2)
    noise = np.mean([np.sum((one - exact) ** 2) for one in each]) / square
    found = []
    for step in range(repeats):
        which = rng.integers(0, 8, 2)
        batch = Batch(x[which], targets[which])
        done = estimate_gradient(rule, *start, batch, dn.Key(step), backend)
        found.append(np.sum((tree.leaves(done.gradients)[0] - exact) ** 2) / square)
    says = scale_model.variance(noise, 2, scale_model.SPREADS[sampler](12, k))
    uncertain = np.std(found) / math.sqrt(repeats)
    # How far single estimates lie apart depends on the data: 0.066 was the most of 3,000 draws.
    assert abs(np.mean(found) - says) < 5 * uncertain and uncertain < 0.1 * says


def test_the_best_single_step_is_that_of_the_page():
    n, noise, wanted = 10_000, 1e6, 3.0
    k = np.linspace(2_000, 60_000, 100_000)
    batch = noise * (1 + (n - 1) / k) / (wanted - (n - 1) / k)
    batch = np.where(batch > 0, batch, np.inf)
    root = math.sqrt(1 + wanted) - 1
    best = int(np.argmin(k * batch))
    assert k[best] == pytest.approx((n - 1) / root, rel=0.01)
    assert batch[best] == pytest.approx(noise / root, rel=0.01)


@pytest.mark.parametrize(("noise", "wanted"), EVERYWHERE)
def test_the_fastest_way_has_the_variance_and_keeps_to_the_bounds(noise, wanted):
    for network, p in itertools.product(NETWORKS, (8, 10_000)):
        at = WORKER, LINKS["10 Gbit/s"], network, p, noise, wanted
        way, n = scale_model.fastest_forward(*at, True), network.parameters
        spread = scale_model.SPREADS["rank-one"](n, way.directions)
        reached = scale_model.variance(noise, way.batch, spread) / way.steps
        assert 0.5 * wanted < reached <= wanted * (1 + 1e-9)
        assert way.steps * way.directions >= (n - 1) / wanted
        assert way.steps * way.directions * way.batch >= (n - 1) * noise / wanted
        assert way.seconds <= scale_model.fastest_forward(*at, False).seconds


# --- the fit --------------------------------------------------------------------------------------


def test_the_fit_finds_the_costs_that_made_the_rows():
    link, worker = Link(3e-5, 2e-9), Worker(5e10, 1e-9, 7e-9, 2e-3)
    networks, rows = {n.name: n for n in (MLP, RESNET18)}, []
    for p, network, (rule, shares) in itertools.product(
        (1, 2, 4), networks, scale.NETWORKS["MLP 784-512-512-10"][1].items()
    ):
        for share in shares:
            row = {"processes": p, "network": network, "rule": rule, "share": share, "batch": 12}
            at = worker, link if p > 1 else scale.FREE, networks[network], row, 2
            rows.append({**row, "seconds": scale.step_seconds(*at)})
    sent = [
        {
            "processes": p,
            "bytes": size,
            "seconds": min(float(w(link, size, p)) for w in scale_model.ways_to_add(size)),
        }
        for p in (2, 4)
        for size in scale.SIZES
    ]
    found = {"exchanges": sent, "steps": rows, "networks": networks, "cores": 2}
    links, fitted = scale.fit(found)
    for p in (2, 4):
        assert links[p].alpha == pytest.approx(link.alpha)
        assert links[p].beta == pytest.approx(link.beta)
    assert fitted.rate == pytest.approx(worker.rate)
    assert (fitted.touch, fitted.draw) == pytest.approx((worker.touch, worker.draw))
    assert fitted.overhead == pytest.approx(worker.overhead)


def test_a_file_keeps_the_fastest_time_of_each_row():
    slow, fast, other = (
        {"processes": p, "bytes": 8, "seconds": seconds}
        for p, seconds in ((2, 2.0), (2, 1.0), (1, 3.0))
    )
    assert scale.merged([slow], [fast, other]) == scale.merged([fast], [slow, other])
    assert scale.merged([slow], [fast, other]) == [other, fast]


def test_the_committed_costs_are_the_fit_to_the_committed_rows():
    found, links, worker, networks = scale_page.measured()
    refitted, again = scale.fit(found)
    for p, link in links.items():
        assert (link.alpha, link.beta) == pytest.approx(
            (refitted[p].alpha, refitted[p].beta), rel=1e-6
        )
    assert vars(worker) == pytest.approx(vars(again), rel=1e-6)
    assert networks[MLP.name] == MLP


def test_the_model_is_as_near_to_what_was_measured_as_the_page_says():
    assert scale_page.of_exchanges().keys() == {2, 3, 4}
    for by_size in scale_page.of_exchanges().values():
        assert scale_page.errors(by_size.values())[0] < 0.3
    pairs = [pair for by_p in scale_page.of_steps().values() for pair in by_p.values()]
    assert scale_page.errors(pairs)[0] < 0.2
    assert {p for by_p in scale_page.of_steps().values() for p in by_p} == {1, 2, 3, 4}


# --- the page -------------------------------------------------------------------------------------


def test_the_page_has_the_tables():
    assert all(f"<!-- end of {name} -->" in PAGE for name in scale_page.TABLES)
    assert filled(PAGE, TABLES) == PAGE


def lead(network):
    """Return by which factor backpropagation is faster at least, if all workers work."""
    return min(
        scale_model.fastest_forward(*at, False).seconds
        / scale_model.fastest_backprop(*at, False).seconds
        for link, p, of in itertools.product(LINKS.values(), scale_model.WORKERS, EVERYWHERE)
        for at in [(WORKER, link, network, p, *of)]
    )


DERIVED = {
    "it is at least {:.1f} times": lambda: lead(RESNET18),
    "and {:,.0f} times as fast": lambda: 1000 * (lead(TRANSFORMER) // 1000),
    "up to {:.0f} KiB": lambda: FEW / 2**10,
    "8 bytes to {:.0f} MiB": lambda: scale.SIZES[-1] / 2**20,
    "fewer than about {:,.0f} parameters": lambda: 3 * scale_model.WORKERS[-1],
    "of n: {:,} for the MLP": lambda: 512 + 512,
    "n/(1 + V) numbers, which is half a gradient at V = {:.0f}": lambda: 1,
}
"""Phrases with numbers that follow from others."""


def test_every_number_of_the_page_is_in_a_table_or_a_setting():
    text = prose(PAGE)
    for phrase, derive in DERIVED.items():
        told = phrase.format(derive())
        assert told in text, f"the page should say: {told}"
        text = text.replace(told, " ")
    text = re.sub(r"arXiv:\S+|√?\(?[\w/]* ?[−+] \d\)?|\d[·√(]|[=√²³] \d|\d ?[−+]", " ", text)
    settings = "".join(
        (ROOT / f"benchmarks/{name}.py").read_text(encoding="utf-8")
        for name in ("scale", "scale_model", "scale_page")
    )
    tables = "\n".join(re.findall(r"(?m)^\|.*", PAGE))
    left = unheld(text, numbers_in(tables), numbers_in(settings))
    assert not left, "\n".join(left)


def test_at_a_variance_of_one_or_less_backpropagation_wins_on_every_link():
    for network, p, (noise, wanted) in itertools.product(NETWORKS, scale_model.WORKERS, EVERYWHERE):
        if wanted <= 1:
            assert scale_model.tie_speed(WORKER, 20e-6, network, p, noise, wanted) is None


def test_backpropagation_on_as_many_workers_as_is_fastest_wins_everywhere():
    for network, link, of in itertools.product(NETWORKS, LINKS.values(), EVERYWHERE):
        assert scale_model.overtaken(WORKER, link, network, *of, True) is None


def test_only_the_mlp_is_overtaken_where_a_step_is_mostly_noise_and_one_worker_is_faster():
    for network, link, (noise, wanted) in itertools.product(NETWORKS, LINKS.values(), EVERYWHERE):
        if p := scale_model.overtaken(WORKER, link, network, noise, wanted, False):
            assert network is MLP and wanted > 1
            at = WORKER, link, network, p, noise, wanted
            assert scale_model.fastest_backprop(*at, True).workers == 1


def test_against_one_worker_alone_it_takes_a_third_as_many_workers_as_parameters_or_more():
    for network in (*scale_page.SMALL, *NETWORKS):
        n, a, first = network.parameters, network.operations, network.of_inputs
        for noise in scale_model.NOISE_SCALES:
            p = scale_model.workers_to_beat_one(WORKER, network, noise, 1.0)
            if p is not None:
                assert p >= (n - 1) * (a - first) / (3 * a - first) and 3 * p >= n
                assert 2 * n * (n - 1) < noise * (3 * a - first)


def test_with_ten_thousand_workers_gathering_takes_longer_than_an_allreduce():
    for link in LINKS.values():
        numbers, count = scale_model.NUMBER * 65, scale_model.COUNT
        gathered = scale_model.forward_exchange(link, 64, 10_000)
        assert gathered == scale_model.gathered(link, numbers + count, 10_000)
        apart = (scale_model.reduced(link, nbytes, 10_000) for nbytes in (numbers, count))
        assert gathered > sum(apart)
