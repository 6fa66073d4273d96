"""The training loop and run folders: exact resuming, divergence, and files that are damaged."""

import csv
import json
import random
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from data_files import mutate
from peers import peer
from unsealed import unseal

import dualnet.training.loop as loop_module
from dualnet import Key, data, tree
from dualnet.errors import DataError, DivergedError, TreeError, UsageError
from dualnet.learning import RULES, Batch
from dualnet.models import MLP, LocalMixer
from dualnet.nn import Context, softmax_cross_entropy
from dualnet.training import evaluation, run_folder
from dualnet.training.assemble import make_trainer
from dualnet.training.epoch import course
from dualnet.training.loop import Trainer
from dualnet.training.measured import seconds_per_step
from dualnet.training.run import run
from dualnet.training.run_folder import COLUMNS, RunFolder
from dualnet.training.settings import Settings, build

pytestmark = pytest.mark.usefixtures("no_curve")

STEPS_PER_EPOCH = 5

SETTINGS = Settings(
    dataset="digits",
    model="mlp",
    rule="fg-a",
    optimizer="adam",
    schedule="constant",
    lr=1e-2,
    epochs=4,
    batch_size=22,  # the last batch of 100 examples has 12
    model_options={"width": 8, "depth": 2, "activation": "relu"},
)

KINDS = {
    "bp": {"rule": "bp", "optimizer": "nesterov"},
    "fg-a": {},
    "fg-w": {
        "rule": "fg-w",
        "optimizer": "momentum",
        "rule_options": {"tangents": 4, "sampler": "rank-one", "aggregate": "projection"},
    },
    "augmented": {"augment": "flip-crop"},
    "clipped": {"rule": "bp", "optimizer": "momentum", "clip_norm": 0.5},
    "float64 on two threads": {"dtype": "float64", "threads": 2, "schedule": "cosine"},
}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", limit_train=100, limit_test=40)


@pytest.fixture
def train(digits, tmp_path):
    """`train(name, **changes)`: one quiet run in the folder of that name; gives its summary."""

    def one(name, resume=False, **changes):
        settings = replace(SETTINGS, **changes)
        network = MLP(**settings.model_options).network((8, 8, 1), 10)
        folder = RunFolder(tmp_path / name)
        return run(settings, network, digits, folder, resume=resume, quiet=True).summary

    return one


def stored(folder):
    """What a run's checkpoint says, without the seconds, which no two runs share."""
    with np.load(folder / "checkpoint.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["sums:"] = arrays["sums:"][:-1]
    arrays["history:"] = arrays["history:"][:, :-1]
    return arrays


def each_step(monkeypatch, do):
    """Call `do(number, step, *args)` instead of each step, which it may make by `step(*args)`."""
    real, count = loop_module.estimate_gradient, iter(range(10**6))
    monkeypatch.setattr(
        loop_module, "estimate_gradient", lambda *args: do(next(count), real, *args)
    )


def interrupt_at(monkeypatch, number):
    """Raise KeyboardInterrupt instead of making step `number`, counted from 0."""

    def do(n, step, *args):
        if n == number:
            raise KeyboardInterrupt
        return step(*args)

    each_step(monkeypatch, do)


def assert_same_run(a, b):
    one, other = stored(a), stored(b)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


# --- resuming ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_two_and_two_epochs_equal_four(kind, train, tmp_path):
    # Only the constant schedule does not look at how long the whole run will be.
    changes = {**KINDS[kind], "schedule": "constant"}
    train("whole", **changes)
    train("parts", **changes, epochs=2)
    assert len(stored(tmp_path / "parts")["history:"]) == 2
    train("parts", **changes, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_goes_on_to_the_same_numbers(kind, train, tmp_path, monkeypatch):
    changes = {**KINDS[kind], "epochs": 3, "schedule": KINDS[kind].get("schedule", "linear")}
    train("whole", **changes)
    # The very first step, the middle and the last of an epoch, the first of the next, the last.
    for number in (0, 2, STEPS_PER_EPOCH - 1, STEPS_PER_EPOCH, 3 * STEPS_PER_EPOCH - 1):
        name = f"at-{number}"
        with monkeypatch.context() as patch:
            interrupt_at(patch, number)
            with pytest.raises(KeyboardInterrupt):
                train(name, **changes)
        position = stored(tmp_path / name)["position:"]
        assert position[0] * STEPS_PER_EPOCH + position[1] == number
        train(name, **changes, resume=True)
        assert_same_run(tmp_path / "whole", tmp_path / name)


def test_a_run_may_be_interrupted_again_and_again(train, tmp_path, monkeypatch):
    train("whole", epochs=2)
    for i in range(2 * STEPS_PER_EPOCH):
        with monkeypatch.context() as patch:
            interrupt_at(patch, 1)
            if i == 2 * STEPS_PER_EPOCH - 1:  # one step at a time; the last leaves no second
                train("parts", epochs=2, resume=True)
            else:
                with pytest.raises(KeyboardInterrupt):
                    train("parts", epochs=2, resume=i > 0)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def raising(error):
    def raises(*_):
        raise error

    return raises


def no_space(patch):
    """Fail to write the second checkpoint, that of the first epoch."""
    real, count = run_folder.write_checkpoint, iter(range(10**6))
    full = raising(OSError("no space left on device"))
    patch.setattr(
        run_folder, "write_checkpoint", lambda *a: full() if next(count) == 1 else real(*a)
    )


def lost_in_step_14(patch):
    """A loss that is no number."""

    def do(number, step, *args):
        done = step(*args)
        return done._replace(loss=np.float32(np.nan)) if number == 13 else done

    each_step(patch, do)


@pytest.mark.parametrize(
    ("stop", "error", "message", "position"),
    [
        (
            lambda patch: patch.setattr(Trainer, "evaluate", raising(KeyboardInterrupt)),
            *(KeyboardInterrupt, None, [0, STEPS_PER_EPOCH]),
        ),
        (no_space, UsageError, r"run_dir=.*parts': no space", [0, 0]),
        (lost_in_step_14, DivergedError, "diverged at step 14: the loss is nan", [2, 0]),
        (
            lambda patch: patch.setattr(Trainer, "evaluate", lambda *_: (np.inf, 0.1)),
            *(DivergedError, "diverged in epoch 1: the test loss is inf", [0, 0]),
        ),
    ],
)
def test_what_stops_a_run_leaves_the_checkpoint_before(
    stop, error, message, position, train, tmp_path, monkeypatch
):
    train("whole")
    with monkeypatch.context() as patch:
        stop(patch)
        with pytest.raises(error, match=message):
            train("parts")
    assert stored(tmp_path / "parts")["position:"].tolist() == position
    train("parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_run_folder_with_the_old_name_of_early_stop_is_read(train, tmp_path):
    stop = {"early_stop": 2, "validation": 40}
    train("run", epochs=1, **stop)
    file = tmp_path / "run" / "config.json"
    unseal(file)
    file.write_text(file.read_text().replace('"early_stop"', '"patience"'))
    assert '"patience": 2' in file.read_text()
    settings = RunFolder(file.parent).settings(lambda _: None)
    assert settings == replace(SETTINGS, epochs=1, **stop)


def test_a_longer_run_is_written_down(train, tmp_path):
    train("run", epochs=1)
    train("run", epochs=2, resume=True)
    folder = RunFolder(tmp_path / "run")
    assert folder.settings(lambda _: None) == replace(SETTINGS, epochs=2)
    assert json.loads((folder.path / "summary.json").read_text())["epochs"] == 2


# --- ending early -----------------------------------------------------------------------------


def judged(monkeypatch, losses):
    """Let the evaluation after epoch i give the test loss `losses[i]`, counted from 0."""
    monkeypatch.setattr(
        Trainer,
        "evaluate",
        lambda _self, now: (losses[int(now.position[0])], 0.1 * now.position[0]),
    )


@pytest.mark.parametrize(
    ("losses", "early_stop", "epochs", "best"),
    [
        ([5, 4, 4, 3.5, 3.6, 3.5, 3.0, 1, 1, 1], 2, 6, 4),  # an equal loss is no lower one
        ([5, 4, 4, 3.5, 3.6, 3.5, 3.0, 1, 1, 1], 3, 10, 8),
        ([1, 2, 3, 0], 1, 2, 1),
        ([4, 3, 2, 1], 1, 4, 4),
        ([4, 5, 5, 5], 9, 4, 1),
    ],
)
def test_a_run_without_lower_losses_is_stopped_early(
    losses, early_stop, epochs, best, train, tmp_path, monkeypatch
):
    judged(monkeypatch, losses)
    early = {"early_stop": early_stop, "validation": 40, "epochs": len(losses)}
    summary = train("run", **early)
    assert (summary["epochs"], summary["best_epoch"]) == (epochs, best)
    assert summary["best_test_accuracy"] == pytest.approx(0.1 * (best - 1))
    assert len(stored(tmp_path / "run")["history:"]) == epochs
    assert train("run", resume=True, **early) == summary  # it is over, and stays so
    longer = {**early, "epochs": 99}
    if epochs < len(losses):
        assert train("run", resume=True, **longer)["epochs"] == epochs
    assert train("all", epochs=len(losses))["epochs"] == len(losses)


@pytest.mark.parametrize("number", [0, 2 * STEPS_PER_EPOCH, 4 * STEPS_PER_EPOCH - 1])
def test_the_epochs_before_an_interruption_count_for_an_early_stop(
    number, train, tmp_path, monkeypatch
):
    judged(monkeypatch, [5, 4, 6, 6, 6, 6])
    early = {"early_stop": 2, "validation": 40, "epochs": 6}
    train("whole", **early)
    with monkeypatch.context() as patch:
        interrupt_at(patch, number)
        with pytest.raises(KeyboardInterrupt):
            train("parts", **early)
    assert train("parts", resume=True, **early)["epochs"] == 4
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


# --- the best epoch -------------------------------------------------------------------------------


def arrays_in(file):
    with np.load(file) as archive:
        return {name: archive[name] for name in archive.files}


def test_the_best_epoch_is_kept_beside_the_last(train, tmp_path, monkeypatch):
    judged(monkeypatch, [5, 3, 4, 3])  # an equal loss is no lower one
    summary = train("whole")
    assert (summary["best_epoch"], summary["best_test_loss"]) == (2, 3.0)
    assert summary["best_test_accuracy"] == pytest.approx(0.1)
    train("two", epochs=2)
    best, after_two = (
        arrays_in(tmp_path / "whole" / "best.npz"),
        arrays_in(tmp_path / "two" / "checkpoint.npz"),
    )
    assert best.pop("epoch:") == 2
    assert set(best) == {n for n in after_two if n.split(":")[0] in ("params", "model_state")}
    for name, array in best.items():
        np.testing.assert_array_equal(array, after_two[name])


@pytest.mark.parametrize("number", [1, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH + 1])
def test_an_interrupted_run_keeps_the_same_best_epoch(number, train, tmp_path, monkeypatch):
    judged(monkeypatch, [5, 3, 4, 3])
    train("whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, number)
        with pytest.raises(KeyboardInterrupt):
            train("parts")
    train("parts", resume=True)
    one, other = (arrays_in(tmp_path / name / "best.npz") for name in ("whole", "parts"))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_the_best_epoch_of_a_run_that_was_killed_before_its_checkpoint(
    train, tmp_path, monkeypatch
):
    """The epoch is made again, now with other numbers, and is the best one no more.

    Its network was written after its checkpoint; so it is the one before that is there.
    """
    judged(monkeypatch, [5, 3])
    train("run", epochs=1)
    first = (tmp_path / "run" / "checkpoint.npz").read_bytes()
    train("run", epochs=2, resume=True)
    (tmp_path / "run" / "checkpoint.npz").write_bytes(first)
    judged(monkeypatch, [5, 6, 7])
    assert train("run", epochs=3, resume=True)["best_epoch"] == 1
    assert arrays_in(tmp_path / "run" / "best.npz")["epoch:"] == 1
    judged(monkeypatch, [5, 6, 7, 2])
    train("run", epochs=4, resume=True)
    assert arrays_in(tmp_path / "run" / "best.npz")["epoch:"] == 4


def test_a_damaged_best_epoch_is_refused(train, tmp_path, monkeypatch):
    """Unless it is the last one, which the checkpoint has."""
    judged(monkeypatch, [3, 5])
    train("run", epochs=2)
    file = tmp_path / "run" / "best.npz"
    good = arrays_in(file)
    cut = {n: a for n, a in good.items() if n != "params:hidden1/w"}
    for content, said in (
        (b"not an archive", "is damaged"),
        (file.read_bytes()[:-40], "is damaged"),
        (cut, "does not fit this run: params:hidden1/w is on one side only"),
        (good | {"params:hidden1/w": np.zeros(3)}, r"hidden1/w is float64\(3,\), expected float32"),
    ):
        if isinstance(content, dict):
            np.savez(file, **content)
        else:
            file.write_bytes(content)
        with pytest.raises(DataError, match=rf"best\.npz .*{said}.*; delete it to go on"):
            train("run", epochs=3, resume=True)
    file.unlink()
    judged(monkeypatch, [3, 5, 2])
    assert train("run", epochs=3, resume=True)["best_epoch"] == 3
    best = arrays_in(file)
    file.write_bytes(b"not an archive")
    train("run", epochs=3, resume=True)
    again = arrays_in(file)
    assert again.keys() == best.keys() and all((again[n] == best[n]).all() for n in best)


# --- what a run leaves -------------------------------------------------------------------------


def test_a_run_folder_holds_what_it_should(train, tmp_path, digits):
    summary = train("run", epochs=2)
    folder = tmp_path / "run"
    names = {"config.json", "metrics.csv", "checkpoint.npz", "best.npz", "summary.json"}
    names.add("network.json")
    assert {path.name for path in folder.iterdir()} == names  # nothing *.partial
    assert json.loads((folder / "summary.json").read_text()) == summary
    config = json.loads((folder / "config.json").read_text())
    assert config.keys() == {
        *("settings", "data", "where", "versions", "machine", "blas_threads", "command", "sha256")
    }
    assert Settings.from_json(config["settings"]) == replace(SETTINGS, epochs=2)
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"] and tuple(rows[0]) == COLUMNS
    assert float(rows[1]["test_accuracy"]) == pytest.approx(summary["test_accuracy"], rel=1e-5)

    # The reported numbers, anew from the stored parameters.
    network = MLP(**SETTINGS.model_options).network((8, 8, 1), 10)
    params, state, _ = network.init(Key(0), (8, 8, 1))
    arrays = stored(folder)
    params = tree.map_with_path(lambda path, _: arrays[f"params:{path}"], params)
    images = digits.pixels(digits.test_images, np.float32, SETTINGS.pixels)
    outputs, _ = network.apply(params, state, images, Context())
    losses = softmax_cross_entropy(outputs, digits.test_labels)
    assert summary["test_loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert summary["test_accuracy"] == np.mean(outputs.argmax(1) == digits.test_labels)
    assert summary["parameters"] == tree.size(params)


def test_large_images_are_judged_in_smaller_batches(train, monkeypatch, digits):
    whole = train("whole", epochs=1)
    counts, inputs = [], Trainer.prepare

    def counted(self, images, key=None, start=0):
        if key is None:
            counts.append(len(images))
        return inputs(self, images, key, start)

    monkeypatch.setattr(Trainer, "prepare", counted)
    monkeypatch.setattr(evaluation, "_PIXELS", 7 * 64)
    parts = train("parts", epochs=1)
    _, _, *judged = counts  # the first two were one image, for its shape
    assert set(judged[:-1]) == {7} and sum(judged) == len(digits.test_images)
    assert parts["test_loss"] == pytest.approx(whole["test_loss"], rel=1e-5)


def test_a_folder_with_other_files_is_used(train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    train("run", epochs=1)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_every_step_has_randomness_of_its_own_and_every_epoch_an_order(train, monkeypatch):
    seen = []
    each_step(monkeypatch, lambda _, step, *args: seen.append(args) or step(*args))
    train("run")
    keys = [next(a for a in args if isinstance(a, Key)) for args in seen]
    assert len(set(keys)) == len(keys) == SETTINGS.epochs * STEPS_PER_EPOCH
    labels = [next(a for a in args if isinstance(a, Batch)).targets for args in seen]
    epochs = [np.concatenate(labels[i : i + STEPS_PER_EPOCH]) for i in (0, STEPS_PER_EPOCH)]
    assert not np.array_equal(*epochs)
    assert np.array_equal(*map(np.sort, epochs))  # the same examples, each once


def test_the_median_step_leaves_the_first_five_out():
    assert seconds_per_step([9.0] * 5 + [1.0, 2.0, 7.0]) == 2.0
    assert seconds_per_step([9.0] * 5) is None


def test_the_curve_is_a_picture(tmp_path):
    peer("matplotlib", "plot")
    from dualnet.training.pictures.curve import draw_curve

    history = np.arange(2.0 * len(COLUMNS)).reshape(2, -1)
    assert draw_curve(history, "title", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: np.float64(g), r"gradient of hidden1/w: expected float32\(64, 8\), as its p"),
        (lambda g: g[:1], r"gradient of hidden1/w: expected float32\(64, 8\), as its parameter"),
        (lambda g: {"w": g}, "gradient: trees differ at hidden1/w: expected float32"),
    ],
)
def test_gradients_unlike_the_parameters_are_refused_in_the_first_step(
    change, message, train, monkeypatch
):
    """A float64 array would make the parameters float64, a smaller one would be broadcast."""

    def do(_, step, *args):
        done = step(*args)
        return done._replace(gradients=tree.map(change, done.gradients))

    each_step(monkeypatch, do)
    with pytest.raises((UsageError, TreeError), match=message):
        train("run")


# --- clipping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_an_update_is_no_longer_than_the_norm_allows(rule, digits):
    """Of sgd at rate 0.25, |p' - p| = 0.25 min(|g|, clip norm), whatever the rule."""
    network = LocalMixer(width=8, patches=2, groups=2, depth=1, readout=False).network(
        (8, 8, 1), 10
    )
    moved = {}
    for norm in (None, 1e-3, 1e6):
        settings = replace(
            SETTINGS, rule=rule, optimizer="sgd", lr=0.25, dtype="float64", clip_norm=norm
        )
        trainer = make_trainer(settings, network, digits)
        start = trainer.start()
        now = next(course(trainer, start, [], True))
        steps = tree.map(np.subtract, now.carried.params, start.carried.params)
        moved[norm] = np.concatenate([x.ravel() for x in tree.leaves(steps)])
    assert np.linalg.norm(moved[1e-3]) == pytest.approx(0.25e-3, rel=1e-6)
    expected = moved[None] * (0.25e-3 / np.linalg.norm(moved[None]))  # the same direction
    np.testing.assert_allclose(moved[1e-3], expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(moved[1e6], moved[None])


# --- divergence --------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rule", ["bp", "fg-w", "fg-a"])
def test_a_rate_far_too_high_is_said_to_be(rule, threads, train, tmp_path):
    # Warnings are errors here: an overflow on the way must not be one.
    with pytest.raises(DivergedError, match=r"diverged .* lower lr \(now 1e\+38\)"):
        train("run", rule=rule, optimizer="sgd", lr=1e38, threads=threads, epochs=20)
    assert not list((tmp_path / "run").glob("*.partial"))
    for name, array in stored(tmp_path / "run").items():
        assert np.isfinite(array).all(), name


# --- damaged checkpoints -----------------------------------------------------------------------


@pytest.fixture
def finished(train, tmp_path):
    """A finished run of one epoch: its checkpoint, and a function that resumes it."""
    train("run", epochs=1)
    file = tmp_path / "run" / "checkpoint.npz"
    return file, lambda: train("run", epochs=1, resume=True)


def test_a_damaged_checkpoint_is_found_out_or_does_no_harm(finished, key):
    file, resume = finished
    good, content = stored(file.parent), file.read_bytes()
    found_out, rng = 0, random.Random(key.bits)
    for i in range(200):
        # Half of the mutations hit the directory at the end of the archive.
        start = len(content) - 1500 if i % 2 else 0
        file.write_bytes(content[:start] + mutate(content[start:], rng, head=1500))
        try:
            resume()
        except DataError as error:
            found_out += 1
            assert "\n" not in str(error) and str(file) in str(error)
        else:  # a time stamp or the like: then what was read is what had been written
            for name, array in stored(file.parent).items():
                np.testing.assert_array_equal(array, good[name], err_msg=name)
    assert found_out > 100


def test_damage_in_the_header_of_an_array_is_found_out(finished, rng):
    """Every byte of one header in turn: here zipfile's checksum may never be looked at."""
    file, resume = finished
    good, content = stored(file.parent), file.read_bytes()
    start = content.index(b"\x93NUMPY", content.index(b"history"))
    for at in range(start, start + 128):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                resume()
            except DataError:
                continue
        np.testing.assert_array_equal(stored(file.parent)["history:"], good["history:"])


def test_what_is_no_archive_is_refused(finished):
    file, resume = finished
    for content in (b"", b"not an archive", b"PK\x03\x04", b"\x93NUMPY\x01\x00"):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"is damaged: .* start the run anew"):
            resume()
    file.unlink()
    with pytest.raises(DataError, match="no checkpoint was written yet"):
        resume()


def change(file, **changes):
    """Write a checkpoint anew with some arrays replaced, or left out where None."""
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays = {n: a for n, a in {**arrays, **changes}.items() if a is not None}
    np.savez(file, **arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params:hidden1/w": np.zeros((64, 9), np.float32)}, r"w is float32\(64, 9\), expected"),
        ({"params:hidden1/w": np.zeros((64, 8))}, r"w is float64\(64, 8\), expected float32"),
        ({"params:hidden1/w": None}, "params:hidden1/w is on one side only"),
        ({"extra:": np.zeros(3)}, "extra: is on one side only"),
        ({"history:": np.zeros((1, 3))}, r"history: is float64\(1, 3\), expected float64\(1, 7\)"),
        ({"history:": np.zeros((0, 7))}, r"history: is float64\(0, 7\), expected float64\(1, 7\)"),
        ({"history:": np.array([["a"] * 7])}, "history: is <U1"),
    ],
)
def test_a_checkpoint_of_another_run_does_not_fit(changes, message, finished):
    file, resume = finished
    change(file, **changes)
    with pytest.raises(DataError, match=message):
        resume()


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_checkpoint_with_pickled_objects_is_refused_unread(finished, tmp_path):
    file, resume = finished
    change(file, **{"history:": np.array([[Payload(tmp_path / "ran")]], object)})
    with pytest.raises(DataError, match="does not fit this run: history: is object"):
        resume()
    assert not (tmp_path / "ran").exists()


def test_a_member_that_is_no_array_is_refused(finished):
    file, resume = finished
    change(file, **{"sums:": None})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("sums:.npy", b"four numbers")
    with pytest.raises(DataError, match="is damaged"):
        resume()


# --- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 3}, r"unknown \['speed'\], missing none"),
        ({"lr": None}, r"settings: lr: expected a number, got None"),
        ({"epochs": 2.0}, r"settings: epochs: expected an int, got 2.0"),
        ({"seed": True}, r"settings: seed: expected an int, got True"),
        ({"limit_train": "all"}, r"settings: limit_train: expected an int or None, got 'all'"),
        ({"lr": ..., "epochs": ...}, r"missing \['epochs', 'lr'\]"),
        ({"dtype": "float16"}, "dtype: expected one of float32, float64, got 'float16'; did"),
        ({"rule_options": [1]}, r"settings: rule_options: expected a dict, got \[1\]"),
    ],
)
def test_settings_from_a_strange_file_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        as_json = {**SETTINGS.as_json(), **changes}
        Settings.from_json({name: value for name, value in as_json.items() if value is not ...})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cnn", {}, "model: expected one of mlp, got 'cnn'"),
        ("mlp", {"widht": 3}, "model mlp: it has no option 'widht'"),
        ("mlp", {"width": 8.0}, "model mlp: width: expected an int, got 8.0"),
        ("mlp", {"activation": None}, "model mlp: activation: expected a string, got None"),
        ("mlp", {"width": 0}, "mlp: expected width >= 1"),
    ],
)
def test_build_says_what_cannot_be_built(name, options, message):
    with pytest.raises(UsageError, match=message):
        build({"mlp": MLP}, "model", name, options)
