"""Several processes that share a run: what they sum up, by threads that stand for them, and by MPI.

The tests of MPI start `mpiexec`; they skip where the extra `mpi` is not installed.
"""

import contextlib
import json
import sys
import threading
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import pytest
from learning_problems import EVERY_RULE, assert_close, problem
from mpi_runs import SHARED, SHORT, kept

from dualnet import console, stop_gradient, tree
from dualnet.backends import NumpyBackend, mpi
from dualnet.backends.processes import ALONE, part_of
from dualnet.command import train
from dualnet.console import exit_code
from dualnet.errors import UsageError
from dualnet.learning import (
    WEIGHT_AGGREGATIONS,
    ActivityPerturbation,
    Backprop,
    Batch,
    ControlVariate,
    GreedyWeightPerturbation,
    LearnerState,
    Plan,
    Task,
    WeightPerturbation,
    estimate_gradient,
)
from dualnet.learning.differences import Differences
from dualnet.nn import (
    Activation,
    BatchNorm,
    Conv2d,
    Flatten,
    InfoNCE,
    Layer,
    Linear,
    Sequential,
    softmax_cross_entropy,
    tanh,
)
from dualnet.training.examples import Examples
from dualnet.training.objective import Supervised, TrainedNetwork, require_whole_batches
from dualnet.training.shared_run import first_goes_ahead

SIZES = (2, 3, 4)
WITH_NORM = (
    ("hidden", Linear(5)),
    ("norm", BatchNorm()),
    ("tanh", Activation(tanh)),
    ("output", Linear(3)),
)
NORM_BEHIND = (WITH_NORM[0], WITH_NORM[2], WITH_NORM[1], WITH_NORM[3])
"""A perturbed unit before a norm, where each example answers to the losses of all."""


class Pretended:
    """One of several threads that stand for processes, and meet at a barrier."""

    local_rank = None

    def __init__(self, rank, size, barrier, table, shares="batch", statistics="process"):
        self.rank, self.size, self._barrier, self._table = rank, size, barrier, table
        self.shares, self.statistics = shares, statistics
        self.bytes_given = 0

    def part(self, items):
        return part_of(items, self.rank, self.size)

    def _of_all(self, one):
        self._table[self.rank] = one
        self._barrier.wait(60)
        of_all = [self._table[rank] for rank in range(self.size)]
        self._barrier.wait(60)
        return of_all

    def add(self, one):
        first, *others = self._of_all(one)
        for other in others:
            first = tree.add(first, other)
        return first

    def of_first(self, one):
        return self._of_all(one)[0]

    def telling_of_errors(self):
        return nullcontext()


def together(size, f, shares="batch", statistics="process"):
    """What `f(processes)` returns in each of so many pretended processes."""
    barrier, table, results = threading.Barrier(size), {}, {}

    def one(rank):
        try:
            results[rank] = f(Pretended(rank, size, barrier, table, shares, statistics))
        except BaseException as error:
            results[rank] = error
            barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results.values():
        if isinstance(result, BaseException):
            raise result
    return [results[rank] for rank in range(size)]


def test_parts_are_consecutive_of_nearly_equal_length_and_together_all():
    for size in range(1, 6):
        for n in range(9):
            parts = [part_of(range(n), rank, size) for rank in range(size)]
            assert [i for part in parts for i in part] == list(range(n))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def estimated(p, rule, key, processes=ALONE):
    """One step of the whole batch, shared by processes."""
    at = p.plan, p.learner(p.rule_state(rule)), p.batch, key, NumpyBackend()
    return estimate_gradient(rule, *at, processes=processes)


def assert_alike(done, alone, bound):
    """The same rule state to a relative error, and the same figures."""
    if tree.leaves(alone.rule_state):
        assert_close(done.rule_state, alone.rule_state, bound)
    assert np.isclose(done.loss, alone.loss, rtol=1e-12, atol=0)
    assert done.correct == alone.correct


def rounding(rule, bound):
    """A bound on relative errors; a difference by ε has lost the digits of ε."""
    return bound / rule.difference if isinstance(rule, Differences) else bound


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_processes_estimate_together_what_one_does(rule, size, rng, key):
    p = problem(rng, key, n=7)
    alone = estimated(p, rule, key)
    for done in together(size, lambda processes: estimated(p, rule, key, processes)):
        assert_close(done.gradients, alone.gradients, rounding(rule, 1e-12))
        assert_alike(done, alone, 1e-12)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_processes_keep_float32(rule, rng, key):
    p = problem(rng, key, n=7, dtype=np.float32)
    alone = estimated(p, rule, key)
    for done in together(3, lambda processes: estimated(p, rule, key, processes)):
        assert_close(done.gradients, alone.gradients, rounding(rule, 1e-5))
        for ours, its in ((done, alone), (done.gradients, p.params)):
            dtypes = [[leaf.dtype for leaf in tree.leaves(one)] for one in (ours, its)]
            assert dtypes[0] == dtypes[1]


SHARING_TANGENTS = [
    *(rule for rule in EVERY_RULE if getattr(rule, "tangents", 1) > 1),
    *(WeightPerturbation(5, aggregate=name) for name in WEIGHT_AGGREGATIONS),
    WeightPerturbation(5, tangent_chunk=2),
    WeightPerturbation(5, sampler="rank-one", tangent_chunk=2, aggregate="projection"),
    GreedyWeightPerturbation(5, aggregate="projection"),
    ControlVariate(tangents=3, guess="last", feedback_rate=0.5),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layers", [WITH_NORM, NORM_BEHIND], ids=["norm first", "norm behind"])
@pytest.mark.parametrize("rule", SHARING_TANGENTS, ids=str)
def test_processes_that_share_directions_estimate_what_one_does(rule, layers, size, rng, key):
    p = problem(rng, key, *layers, n=7)
    alone = estimated(p, rule, key)
    share = lambda: together(  # noqa: E731
        size, lambda processes: estimated(p, rule, key, processes), "tangents"
    )
    for done in share():
        assert_close(done.gradients, alone.gradients, rounding(rule, 1e-11))
        assert_close(done.model_state, alone.model_state, 1e-15)
        assert_alike(done, alone, 1e-11)


def test_a_rule_without_directions_shares_the_batch_alone(rng, key):
    p = problem(rng, key)
    with pytest.raises(UsageError, match="Backprop has no directions that processes could share"):
        together(2, lambda processes: estimated(p, Backprop(), key, processes), "tangents")


@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_a_process_without_examples_adds_nothing(rule, rng, key):
    p = problem(rng, key, n=2)
    alone = estimated(p, rule, key)
    for done in together(4, lambda processes: estimated(p, rule, key, processes)):
        assert_close(done.gradients, alone.gradients, rounding(rule, 1e-12))
        assert done.correct == alone.correct


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layers", [WITH_NORM, NORM_BEHIND], ids=["norm first", "norm behind"])
@pytest.mark.parametrize("rule", EVERY_RULE, ids=str)
def test_statistics_of_all_processes_are_those_of_the_whole_batch(rule, layers, size, rng, key):
    p = problem(rng, key, *layers, n=7)
    alone = estimated(p, rule, key)
    share = lambda processes: estimated(p, rule, key, processes)  # noqa: E731
    for done in together(size, share, statistics="all"):
        assert_close(done.gradients, alone.gradients, rounding(rule, 1e-11))
        assert_close(done.model_state, alone.model_state, 1e-14)
        assert_alike(done, alone, 1e-11)


def test_each_process_normalizes_by_its_own_examples_and_has_the_first_one_s_statistics(rng, key):
    p = problem(rng, key, *WITH_NORM, n=6)
    halves = [replace(p, x=p.x[part], labels=p.labels[part]) for part in (slice(0, 3), slice(3, 6))]
    one, other = (estimated(half, Backprop(), key) for half in halves)
    for done in together(2, lambda processes: estimated(p, Backprop(), key, processes)):
        mean = tree.map(lambda a, b: (a + b) / 2, one.gradients, other.gradients)
        assert_close(done.gradients, mean, 1e-12)
        assert_close(done.model_state, one.model_state, 1e-15)


@dataclass(frozen=True)
class Remembers(Layer):
    """A layer whose state depends on the examples, although no example moves another's output."""

    def init(self, key, in_shape):
        return {}, {"last": np.zeros(in_shape)}, in_shape

    def apply(self, params, state, x, context=None):
        return x, {"last": stop_gradient(x)[-1]}


def test_all_processes_have_the_first_one_s_state_of_a_network(rng, key):
    p = problem(rng, key, ("remembers", Remembers()), ("output", Linear(3)), n=6)
    for done in together(2, lambda processes: estimated(p, Backprop(), key, processes)):
        assert np.array_equal(done.model_state["remembers"]["last"], p.x[2])


def test_where_the_first_process_fails_the_others_go_on():
    def read(processes):
        with contextlib.suppress(ValueError), first_goes_ahead(processes):
            if not processes.rank:
                raise ValueError("no file")
        with first_goes_ahead(processes):  # which all of them come to
            return "read"

    assert together(3, read) == ["read"] * 3


def test_other_processes_do_not_say_that_they_are_at_work(monkeypatch):
    late = threading.Timer(1000.0, print)
    monkeypatch.setattr(console, "_late", late)
    train.answer_to(["--list"], "dualnet train", Pretended(1, 2, None, {}))
    assert late.finished.is_set()


def test_a_loss_that_needs_the_whole_batch_is_not_shared(rng, key):
    network = Sequential({"output": Linear(3)})
    params, state, _ = network.init(key, (4,))
    x = rng.normal(size=(6, 4)).astype(np.float32)
    plan = Plan.of(Task(network, InfoNCE()), params, state, x)
    at = plan, LearnerState(params, state, {}), Batch(x, np.arange(6)), key, NumpyBackend()
    with pytest.raises(UsageError, match="InfoNCE needs the whole batch; let them share dir"):
        together(2, lambda processes: estimate_gradient(Backprop(), *at, processes=processes))


def test_statistics_of_all_need_an_example_in_each_process(rng, key):
    p = problem(rng, key, *WITH_NORM, n=3)
    share = lambda processes: estimated(p, Backprop(), key, processes)  # noqa: E731
    with pytest.raises(UsageError, match="the examples of all 4 processes, and a batch has 3"):
        together(4, share, statistics="all")


@dataclass(frozen=True)
class Centered(Layer):
    """A layer that couples examples, and knows of no process."""

    couples_examples = True

    def init(self, key, in_shape):
        return {}, {}, in_shape

    def apply(self, params, state, x, context=None):
        return x - np.mean(x, axis=0), state


class Around(Sequential):
    """A container that couples examples as what is in it does."""

    couples_examples = True


def test_statistics_of_all_are_for_batch_norm_alone(rng, key):
    p = problem(rng, key, ("center", Centered()), ("output", Linear(3)))
    share = lambda processes: estimated(p, Backprop(), key, processes)  # noqa: E731
    together(2, share)  # each process centers its own examples
    with pytest.raises(UsageError, match="the layer center, of Centered, couples examples in anot"):
        together(2, share, statistics="all")
    p = problem(rng, key, ("block", Around(WITH_NORM[:2])), ("output", Linear(3)))
    together(2, share, statistics="all")


@pytest.mark.parametrize(("images", "last"), [(41, 1), (43, 3)])
def test_a_last_batch_without_an_example_for_each_process_is_refused_at_once(images, last, key):
    """Also where a norm has many values of one example."""
    layers = {"convolution": Conv2d(2, 2), "norm": BatchNorm(), "flatten": Flatten()}
    network, x = Sequential(layers), np.zeros((1, 4, 4, 1))
    trained = TrainedNetwork(network, *network.init(key, x.shape[1:])[:2])
    at = Supervised(), Task(network, softmax_cross_entropy), trained, x, images, 10
    with pytest.raises(UsageError, match=f"last batch of {last} of {images} images, and none to"):
        require_whole_batches(*at, Pretended(0, 4, None, {}, statistics="all"))
    require_whole_batches(*at, Pretended(0, 4, None, {}))  # each normalizes by its own


class Read:
    """A data set that notes which examples are read of it."""

    train_images, train_labels = np.zeros((9, 1)), np.zeros(9, int)

    def __init__(self):
        self.indices = []

    def training_batches(self, order):
        self.indices += map(list, order)
        yield from order


@pytest.mark.parametrize(("shares", "counts"), [("batch", [3, 2, 1]), ("tangents", [7, 5, 1])])
def test_a_process_reads_no_example_of_another_one(shares, counts):
    order = [np.array([3, 1, 4, 0, 5, 2, 6]), np.array([8, 7, 6, 5, 4]), np.array([0])]
    read = Read()
    processes = Pretended(2, 3, None, {}, shares)  # the last one of three
    batches = [*Examples(read, NumpyBackend(), processes).batches(order)]
    assert [len(indices) for indices in read.indices] == counts
    for batch, whole in zip(batches, order, strict=True):
        assert list(batch) == list(whole[len(whole) - len(batch) :])


def test_a_part_of_a_batch_is_estimated_as_within_it(rng, key):
    p = problem(rng, key, n=7)
    alone = estimated(p, ActivityPerturbation(), key)

    def estimated_of_part(processes):
        part = processes.part(range(7)) or range(1)
        own = Batch(*(x[part.start : part.stop] for x in p.batch))
        at = p.plan, p.learner({}), own, key, NumpyBackend()
        return estimate_gradient(ActivityPerturbation(), *at, processes=processes, examples=7)

    for size in (2, 3, 8):
        for done in together(size, estimated_of_part):
            assert_close(done.gradients, alone.gradients, 1e-12)


@pytest.mark.parametrize(
    ("shares", "examples", "says"),
    [
        ("batch", 7, "expected 3 of 7 examples in process 0, got 7; give it its own part"),
        ("batch", 1, "expected 1 of 1 examples in process 0, got 7"),
        ("tangents", 14, "expected 14 of 14 examples in process 0, got 7"),
    ],
)
def test_a_batch_that_is_no_part_of_so_many_examples_is_refused(shares, examples, says, rng, key):
    p = problem(rng, key, n=7)
    at = p.plan, p.learner({}), p.batch, key, NumpyBackend()
    with pytest.raises(UsageError, match=says):
        estimate_gradient(
            *(WeightPerturbation(2), *at),
            processes=Pretended(0, 2, None, {}, shares),
            examples=examples,
        )


# --- by MPI ---------------------------------------------------------------------------------------


RUNS = {
    "fg-w": ("--rule", "fg-w", "--tangents", 4, "--sampler", "rank-one"),
    "fg-a": ("--rule", "fg-a", "--dtype", "float64"),
    "fdfa, batch of 7": ("--rule", "fdfa", "--dtype", "float64", "--batch-size", 7),
    "dkp, whose sums have numbers of Python's": ("--rule", "dkp"),
    "fg-a, shared tangents": (
        *("--rule", "fg-a", "--tangents", 5, "--dtype", "float64", "--share", "tangents"),
    ),
    "fg-a, changed images and exact gradients": (
        *("--rule", "fg-a", "--dtype", "float64", "--augment", "flip-crop", "--grad-stats", 3),
    ),
    "batch norm of all, batch of 47": (
        *("--rule", "fg-a", "--dtype", "float64", "--batch-norm", "--batch-size", 47),
        # Adam makes steps of what rounding leaves of the gradient of a bias before a norm.
        *("--statistics", "all", "--optimizer", "sgd"),
    ),
    "two views of each image, shared tangents": (
        *("--objective", "contrastive", "--augment", "flip-crop", "--batch-size", 47),
        *("--rule", "fg-w", "--tangents", 4, "--dtype", "float64", "--share", "tangents"),
    ),
    "bp, large sums": ("--rule", "bp", "--dtype", "float64", "--width", 128),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_processes_share_is_that_of_one(name, mpiexec, tmp_path):
    """To rounding, which a whole run enlarges.  Few numbers are added as by shards: bit for bit."""
    flags = RUNS[name]
    of_one = [*flags]
    for flag in ("--share", "--statistics"):
        if flag in of_one:
            del of_one[(at := of_one.index(flag)) : at + 2]
    train.main([*map(str, (*SHORT, *of_one, "--run-dir", tmp_path / "one"))])
    alone = kept(tmp_path / "one")
    for size in (2, 3):
        folder = tmp_path / str(size)
        done = mpiexec(size, *SHARED, *flags, "--run-dir", folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("accuracy") == 1  # the first process alone prints
        for path, x in kept(folder).items():
            bound = 1e-4 if "float64" not in flags else 1e-9
            assert x.dtype == alone[path].dtype, path
            if path == "comparisons:":
                bound = 1e-5  # angles near 0 have half the digits of their cosines
            np.testing.assert_allclose(x, alone[path], rtol=bound, atol=bound, err_msg=path)
    if name == "fg-w":
        shards = tmp_path / "shards"
        train.main([*map(str, (*SHORT, *flags, "--shards", 3, "--run-dir", shards))])
        for path, x in kept(shards).items():
            assert np.array_equal(x, kept(tmp_path / "3")[path]), path


def test_fg_w_gives_k_slopes_a_loss_and_a_count(mpiexec, tmp_path):
    flags = ("--rule", "fg-w", "--tangents", 64, "--run-dir", tmp_path / "run", "--json")
    summary = json.loads(mpiexec(2, *SHARED, *flags).stdout)
    assert summary["processes"] == 2
    slopes_loss_and_count = 64 * 4 + 4 + 8
    of_evaluation_and_names = 8 + 8 + 100  # once an epoch
    steps = 10  # of 32 examples
    assert 0 <= summary["bytes_per_step"] - slopes_loss_and_count < of_evaluation_and_names / steps


def test_a_run_goes_on_with_another_number_of_processes(mpiexec, tmp_path):
    flags = ("--rule", "fg-a", "--dtype", "float64", "--schedule", "constant")
    half, whole = tmp_path / "half", tmp_path / "whole"
    assert mpiexec(3, *SHARED, *flags, "--run-dir", half).returncode == 0
    resume = ("-m", "dualnet", "train", "--resume", half, "--epochs", 3, "--quiet")
    done = mpiexec(2, *resume, "--processes", "mpi")
    assert done.returncode == 0, done.stderr
    again = mpiexec(2, *resume, "--processes", "mpi")  # it has reached its end
    assert again.returncode == 0 and "after 3 epochs" in again.stdout, again.stderr
    train.main([*map(str, (*SHORT, *flags, "--epochs", 3, "--run-dir", whole))])
    for path, x in kept(half).items():
        np.testing.assert_allclose(x, kept(whole)[path], rtol=1e-9, atol=1e-9, err_msg=path)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--processes", "mpi", "--share", "halves"), "expected one of batch, tangents, got 'hal"),
        (("--share", "tangents"), "--share tangents is of no use to one process; add --processes"),
        (("--statistics", "all"), "--statistics all is of no use to one process; add --processes"),
        (("--processes", "mpi", "--statistics", "some"), "expected one of process, all, got 'some"),
        (
            ("--processes", "mpi", "--share", "tangents", "--statistics", "all"),
            "--statistics all is of no use to --share tangents, where every process has all",
        ),
        (("--processes", "threads"), "--processes: expected one of mpi, got 'threads'"),
    ],
    ids=str,
)
def test_what_cannot_be_shared_is_refused(flags, says, capsys):
    assert exit_code("dualnet train", train.main, flags) == 2
    assert says in capsys.readouterr().err


def test_without_mpi_the_flag_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    mpi.world.cache_clear()
    code = exit_code("dualnet train", train.main, ["--processes", "mpi"])
    assert code == 5
    said = capsys.readouterr().err
    assert 'pip install "dualnet[mpi]"' in said and "mpiexec -n 4 dualnet train" in said
