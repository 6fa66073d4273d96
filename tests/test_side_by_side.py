"""Runs of several seeds side by side: each is the run that it is alone, whatever befalls others."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_training import (
    KINDS,
    SETTINGS,
    STEPS_PER_EPOCH,
    assert_same_run,
    each_step,
    interrupt_at,
    raising,
    stored,
)

import dualnet.training.seeds as seeds_module
from dualnet import data
from dualnet.errors import DataError, DivergedError, UsageError
from dualnet.models import MLP
from dualnet.training.assemble import make_trainer
from dualnet.training.loop import Trainer
from dualnet.training.run import run
from dualnet.training.run_folder import RunFolder
from dualnet.training.seeds import run_seeds
from dualnet.training.side_by_side import train_side_by_side

pytestmark = pytest.mark.usefixtures("elsewhere")

SEEDS = (4, 0, 9)
SHORT = replace(SETTINGS, epochs=2)
FLAGS = "--limit-train 100 --limit-test 40 --epochs 2 --batch-size 22 --width 8 --depth 2 --lr 1e-2"
FLAGS = f"{FLAGS} --schedule constant --quiet".split()
"""`SHORT` as flags."""


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", limit_train=100, limit_test=40)


@pytest.fixture
def together(digits):
    """`together(settings)`: quiet runs of all seeds in the folder `all`; gives their summary."""

    def together(settings=SHORT, resume=False):
        network = MLP(**settings.model_options).network((8, 8, 1), 10)
        folder = RunFolder("all")
        return run_seeds(settings, network, digits, folder, SEEDS, resume=resume, quiet=True)

    return together


@pytest.fixture
def alone(digits):
    """`alone(settings)`: runs of all seeds by themselves, in the folders `4`, `0` and `9`."""

    def alone(settings=SHORT):
        network = MLP(**settings.model_options).network((8, 8, 1), 10)
        for seed in SEEDS:
            folder = RunFolder(str(seed))
            run(replace(settings, seed=seed), network, digits, folder, quiet=True)

    return alone


def assert_as_alone(seeds=SEEDS):
    """But for the seconds, all files of a run say what they say of the run alone."""
    for seed in seeds:
        here, there = Path(f"all/seed-{seed}"), Path(str(seed))
        assert_same_run(there, here)
        assert {p.name for p in here.iterdir()} == {p.name for p in there.iterdir()}
        metrics = [
            [line.rpartition(",")[0] for line in (folder / "metrics.csv").read_text().splitlines()]
            for folder in (here, there)
        ]
        assert metrics[0] == metrics[1]
        summaries = [json.loads((f / "summary.json").read_text()) for f in (here, there)]
        differing = {k for k in summaries[0] if summaries[0][k] != summaries[1][k]}
        assert summaries[0].keys() == summaries[1].keys()
        assert differing <= {"run_dir", "seconds", "seconds_per_step", "peak_memory_bytes"}


@pytest.mark.parametrize("kind", [*KINDS, "compared gradients"])
def test_every_run_is_the_run_alone(kind, together, alone):
    settings = replace(SHORT, **KINDS.get(kind, {"rule": "fa", "grad_stats": 3}))
    summary = together(settings)
    alone(settings)
    assert_as_alone()
    assert summary["seed"] == list(SEEDS)
    assert len({one["test_loss"] for one in summary["runs"]}) == 3
    if settings.grad_stats:
        gradients = [Path(f"{folder}/gradients.csv").read_text() for folder in ("0", "all/seed-0")]
        assert gradients[0] == gradients[1] and gradients[0].count("\n") > 4


@pytest.mark.parametrize("step", [0, 3, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH - 1])
@pytest.mark.parametrize("of_run", range(len(SEEDS)))
def test_interrupted_runs_go_on_to_the_same_numbers(of_run, step, together, alone, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, len(SEEDS) * step + of_run)
        with pytest.raises(KeyboardInterrupt):
            together()
    for seed in SEEDS:
        position = stored(Path(f"all/seed-{seed}"))["position:"]
        assert position[0] * STEPS_PER_EPOCH + position[1] == step
    together(resume=True)
    alone()
    assert_as_alone()


def test_runs_that_were_not_all_saved_go_on(together, alone, monkeypatch):
    """As after a second interruption, while the first was being answered."""
    alone()
    with monkeypatch.context() as patch:
        interrupt_at(patch, len(SEEDS) * 7)
        with pytest.raises(KeyboardInterrupt):
            together()
    early = Path("all/seed-0/checkpoint.npz").read_bytes()
    with monkeypatch.context() as patch:
        interrupt_at(patch, len(SEEDS) * 2)
        with pytest.raises(KeyboardInterrupt):
            together(resume=True)
    Path("all/seed-0/checkpoint.npz").write_bytes(early)
    positions = [stored(Path(f"all/seed-{seed}"))["position:"].tolist() for seed in SEEDS]
    assert positions == [[1, 4], [1, 2], [1, 4]]
    sizes = []
    train = seeds_module.train_side_by_side
    monkeypatch.setattr(
        seeds_module,
        "train_side_by_side",
        lambda trainers, *more: (sizes.append(len(trainers)), train(trainers, *more))[1],
    )
    together(resume=True)
    assert sizes == [2, 1]
    assert_as_alone()


@pytest.mark.parametrize("of_run", [1, 2])
@pytest.mark.parametrize("killed_in", ["write_settings", "write_checkpoint"])
def test_runs_that_had_not_all_begun_go_on(killed_in, of_run, together, alone, ask, monkeypatch):
    """The others are there, and this one and those behind it have no state yet."""
    settings = replace(SHORT, limit_train=100, limit_test=40)  # for the command line
    real, calls = getattr(RunFolder, killed_in), iter(range(10**6))

    def killed(self, *args):
        if next(calls) == of_run:
            raise KeyboardInterrupt
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, killed_in, killed)
        with pytest.raises(KeyboardInterrupt):
            together(settings)
    assert not Path(f"all/seed-{SEEDS[of_run]}/checkpoint.npz").exists()
    assert Path(f"all/seed-{SEEDS[of_run]}/config.json").exists() == (killed_in != "write_settings")
    code, _, err = ask("--resume", "all", "--quiet", "--json")
    assert (code, err) == (0, "")
    alone(settings)
    assert_as_alone()


def test_a_lost_checkpoint_is_not_begun_anew_in_silence(together):
    together()
    Path("all/seed-0/checkpoint.npz").unlink()
    with pytest.raises(DataError, match=r"all/seed-0/checkpoint\.npz: no checkpoint was written"):
        together(resume=True)


def test_a_summary_of_fewer_epochs_is_not_taken_for_that_of_more(together, alone):
    """As after a run was given more epochs and killed before it wrote its summary."""
    together(replace(SHORT, epochs=1))
    early = Path("all/seed-0/summary.json").read_bytes()
    together(resume=True)
    Path("all/seed-0/summary.json").write_bytes(early)
    summary = together(resume=True)
    assert [one["epochs"] for one in summary["runs"]] == [2, 2, 2]
    alone()
    assert_as_alone((4, 9))


def test_a_file_that_cannot_be_written_stops_all(together, monkeypatch):
    monkeypatch.setattr(RunFolder, "write_metrics", raising(UsageError("no space")))
    with pytest.raises(UsageError, match="no space"):
        together()
    assert not Path("all/summary.json").exists()


# --- divergence ----------------------------------------------------------------------------------


def lose(patch, seed, step):
    """Let the loss of one run be no number in a step."""
    runs = list(SEEDS)

    def do(number, make, *args):
        done = make(*args)
        lost = number == len(SEEDS) * step + runs.index(seed)
        return done._replace(loss=np.float32(np.nan)) if lost else done

    each_step(patch, do)


@pytest.mark.parametrize("step", [0, 2, STEPS_PER_EPOCH - 1, STEPS_PER_EPOCH])
def test_a_run_that_diverges_does_not_stop_the_others(step, together, alone, monkeypatch):
    with monkeypatch.context() as patch:
        lose(patch, 0, step)
        summary = together()
    alone()
    assert_as_alone((4, 9))
    assert summary["seed"] == [4, 9] and len(summary["runs"]) == 2
    (why,) = summary["diverged"].values()
    assert why.startswith(f"diverged at step {step + 1}: the loss is nan; lower lr")
    assert list(summary["diverged"]) == [0] and not Path("all/seed-0/summary.json").exists()
    # what was saved of it is from the epoch before, and it can be tried again
    assert stored(Path("all/seed-0"))["position:"].tolist() == [step // STEPS_PER_EPOCH, 0]
    assert together(resume=True)["seed"] == list(SEEDS)
    assert_as_alone()


def test_a_run_that_diverges_in_the_evaluation(together, alone, monkeypatch):
    evaluate = Trainer.evaluate

    def lost(self, now):
        loss, accuracy = evaluate(self, now)
        return (np.inf if self.seed == 4 and now.position[0] == 1 else loss), accuracy

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "evaluate", lost)
        summary = together()
    assert summary["seed"] == [0, 9]
    assert summary["diverged"][4].startswith("diverged in epoch 2: the test loss is inf")
    alone()
    assert_as_alone((0, 9))


def test_an_interruption_after_a_divergence(together, alone, monkeypatch):
    with monkeypatch.context() as patch:
        evaluate = Trainer.evaluate

        def lost(self, now):
            if now.position[0] == 1:
                raise KeyboardInterrupt
            return (np.inf, 0.0) if self.seed == 4 else evaluate(self, now)

        patch.setattr(Trainer, "evaluate", lost)
        with pytest.raises(KeyboardInterrupt):
            together()
    positions = [stored(Path(f"all/seed-{seed}"))["position:"].tolist() for seed in SEEDS]
    assert positions == [[0, 0], [1, STEPS_PER_EPOCH], [1, STEPS_PER_EPOCH]]
    together(resume=True)
    alone()
    assert_as_alone()


def test_if_all_diverge_there_is_no_summary(together):
    settings = replace(SHORT, optimizer="sgd", lr=1e38)
    with pytest.raises(DivergedError, match=r"^3 of 3 seeds diverged \(4, 0, 9\); seed 4 diverged"):
        together(settings)
    assert not Path("all/summary.json").exists()


# --- the command line ----------------------------------------------------------------------------


def test_each_seed_has_a_line_and_all_have_one(ask):
    code, out, err = ask(*FLAGS, "--seeds", *SEEDS, "--run-dir", "all")
    assert (code, err) == (0, "")
    *rows, together, where = out.splitlines()
    accuracies = []
    for seed, row in zip(SEEDS, rows, strict=True):
        found = re.fullmatch(rf"seed {seed:<8} test accuracy (0\.\d{{4}})", row)
        accuracies.append(float(found[1]))
    found = re.fullmatch(
        r"test accuracy (0\.\d{4}) ± (0\.\d{4}) after 2 epochs "
        r"\(mean ± sample deviation, 3 seeds\)",
        together,
    )
    assert float(found[1]) == pytest.approx(np.mean(accuracies), abs=1e-4)
    assert float(found[2]) == pytest.approx(np.std(accuracies, ddof=1), abs=1e-4)
    assert where == "run folder    all"


def test_resume_goes_on_with_all_seeds(ask):
    for seed in SEEDS:
        ask(*FLAGS, "--seed", seed, "--run-dir", seed)
    ask(*FLAGS, "--epochs", 1, "--seeds", *SEEDS, "--run-dir", "all")
    code, out, _ = ask("--resume", "all", "--epochs", 2, "--quiet", "--json")
    summary = json.loads(out)
    assert_as_alone()
    assert (code, summary["seed"], summary["epochs"]) == (0, list(SEEDS), 2)
    before = {path: path.read_bytes() for path in Path("all").rglob("*") if path.is_file()}
    code, out, _ = ask("--resume", "all", "--quiet", "--json")  # there is nothing left to do
    assert json.loads(out) == summary
    assert before == {path: path.read_bytes() for path in Path("all").rglob("*") if path.is_file()}


def test_an_interruption_names_the_folder_of_all(ask, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 10)
        code, out, err = ask(*FLAGS, "--seeds", *SEEDS, "--run-dir", "all")
    assert (code, out) == (130, "")
    assert err == "train.py: interrupted; go on with --resume all\n"
    assert ask("--resume", "all", "--quiet")[0] == 0


def test_a_divergence_is_told_after_the_outcome(ask, monkeypatch):
    lose(monkeypatch, 9, 3)
    code, out, err = ask(*FLAGS, "--seeds", *SEEDS, "--run-dir", "all")
    assert code == DivergedError.exit_code
    assert re.fullmatch(
        r"train\.py: 1 of 3 seeds diverged \(9\); seed 9 diverged at step 4: [^\n]*\n", err
    )
    assert [line.split()[:2] for line in out.splitlines()[:2]] == [["seed", "4"], ["seed", "0"]]
    summary = json.loads(Path("all/summary.json").read_text())
    assert list(summary["diverged"]) == ["9"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{", "damaged"),
        ("[1]", "damaged"),
        ('{"seeds": []}', "damaged: it holds no seeds"),
        ('{"seeds": [1, "2"]}', "damaged: it holds no seeds"),
        ('{"seeds": [true]}', "damaged: it holds no seeds"),
        ('{"seed": [1]}', "damaged"),
    ],
)
def test_seeds_that_make_no_sense(content, what, ask):
    Path("all").mkdir()
    Path("all/seeds.json").write_text(content)
    code, out, err = ask("--resume", "all")
    assert (code, out) == (DataError.exit_code, "")
    assert re.fullmatch(rf"train\.py: all/seeds\.json is {what}[^\n]*\n", err), err


def test_runs_that_no_longer_belong_together_go_on_alone(ask):
    ask(*FLAGS, "--epochs", 1, "--seeds", *SEEDS, "--run-dir", "all")
    assert ask("--resume", "all/seed-0", "--epochs", 2, "--quiet")[0] == 0
    code, _, err = ask("--resume", "all")
    assert code == 2 and "differ in more than their seeds" in err
    assert err.endswith("--resume all/seed-4\n")
    assert ask("--resume", "all", "--epochs", 2, "--quiet")[0] == 0  # now they do again
    for seed in SEEDS:
        shutil.rmtree(f"all/seed-{seed}")
    assert ask("--resume", "all", "--quiet")[0] == 0  # as after a kill before the first began
    assert all(Path(f"all/seed-{seed}/summary.json").exists() for seed in SEEDS)


def test_seeds_that_have_done_more_epochs_say_so(ask):
    assert ask(*FLAGS, "--epochs", 2, "--seeds", 0, 1, "--run-dir", "all")[0] == 0
    kept = {file: file.read_bytes() for file in Path("all").rglob("*") if file.is_file()}
    code, _, err = ask("--resume", "all", "--epochs", 1)
    assert code == 2 and err.endswith("--epochs 1: the run has done 2 epochs already\n")
    assert kept == {file: file.read_bytes() for file in Path("all").rglob("*") if file.is_file()}


def test_a_seed_whose_folder_is_taken(ask):
    ask(*FLAGS, "--run-dir", "all/seed-0")
    code, _, err = ask(*FLAGS, "--seeds", *SEEDS, "--run-dir", "all")
    assert code == 2 and "--run-dir all/seed-0 holds a run already" in err
    assert not Path("all/seeds.json").exists()


# --- mistakes in calls ---------------------------------------------------------------------------


def test_runs_must_be_alike_but_for_their_seeds(digits):
    network = MLP(width=8, depth=1).network((8, 8, 1), 10)
    trainer = make_trainer(SHORT, network, digits)
    trainers = [trainer, replace(trainer, seed=1, lr=0.5)]
    starts = [one.start() for one in trainers]
    with pytest.raises(UsageError, match="expected Trainers that differ in their seeds alone"):
        train_side_by_side(trainers, starts, print, print)
    starts[1] = replace(starts[1], position=np.array([0, 1]))
    trainers[1] = replace(trainer, seed=1)
    with pytest.raises(UsageError, match=r"at one position, got \[\(0, 0\), \(0, 1\)\]"):
        train_side_by_side(trainers, starts, print, print)


def test_data_are_converted_once_for_all(digits, monkeypatch):
    made = []
    monkeypatch.setattr(
        seeds_module, "make_trainer", lambda *args: made.append(make_trainer(*args)) or made[-1]
    )
    taken = []
    monkeypatch.setattr(
        seeds_module,
        "train_side_by_side",
        lambda trainers, *more: (taken.extend(trainers), train_side_by_side(trainers, *more))[1],
    )
    network = MLP(width=8, depth=1).network((8, 8, 1), 10)
    run_seeds(replace(SHORT, epochs=1), network, digits, RunFolder("all"), SEEDS, quiet=True)
    assert len(made) == 1 and len(taken) == 3
    assert all(one.dataset is made[0].dataset for one in taken)
