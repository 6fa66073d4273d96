"""`train.py`: its flags, its output, its exit codes, and one line for every mistake."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from unsealed import unseal

from dualnet import data
from dualnet.command import train
from dualnet.learning import RULES, WEIGHT_AGGREGATIONS, WEIGHT_SAMPLERS
from dualnet.models import MODELS
from dualnet.optim import OPTIMIZERS
from dualnet.schedules import SCHEDULES
from dualnet.training import run
from dualnet.training.flags import OPTION_HELP
from dualnet.training.resolve import by_name
from dualnet.training.settings import Settings, option_table

ROOT = Path(__file__).parent.parent
TRAIN = ROOT / "train.py"
TINY = "--epochs 1 --limit-train 64 --limit-test 20 --width 8 --quiet".split()

KEYS = {
    *("best_epoch", "best_test_loss", "best_test_accuracy"),
    "test_accuracy",
    "test_loss",
    "train_accuracy",
    "train_loss",
    "epochs",
    "seconds_per_step",
    "seconds",
    "peak_memory_bytes",
    "seed",
    "dataset",
    "tested_on",
    "model",
    "parameters",
    "objective",
    "rule",
    "run_dir",
}


@pytest.fixture(autouse=True)
def as_at_first(elsewhere):
    """An empty folder to work in, and signals as they were."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def mistake(ask):
    """`mistake(code, pattern, *argv)`: exit code, and one line that matches the pattern."""

    def mistake(code, pattern, *argv):
        got, out, err = ask(*argv)
        assert (got, out) == (code, ""), err
        assert re.fullmatch(r"train\.py: [^\n]+\n", err), err
        assert re.search(pattern, err), err

    return mistake


def start(*command):
    """A process of Python, with buffered output, which fails only when it is flushed, as users
    have it."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        [sys.executable, *command],
        env={**inherited, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(TRAIN.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def seconds_of_children():
    """What the children that have ended computed: on a busy machine they wait for longer."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# --- what it does ------------------------------------------------------------------------------


def test_without_flags_it_learns_the_digits_by_a_forward_gradient():
    before = seconds_of_children()
    child = start(TRAIN, "--json")
    out, err = child.communicate(timeout=600)
    assert child.returncode == 0, err
    assert seconds_of_children() - before < 60
    summary = json.loads(out.splitlines()[-1])
    assert summary["rule"].startswith("fg-") and summary["dataset"] == "digits"
    assert summary["test_accuracy"] >= 0.93
    assert "Traceback" not in err and "Warning" not in err
    names = {path.name for path in Path(summary["run_dir"]).iterdir()}
    assert names >= {"config.json", "metrics.csv", "checkpoint.npz", "summary.json"}


def test_the_summary_is_the_last_line_and_progress_goes_elsewhere(ask):
    code, out, err = ask(*TINY[:-1], "--json", "--run-dir", "run")
    assert code == 0
    summary = json.loads(out)  # nothing else on standard output
    assert out.count("\n") == 1
    assert summary.keys() == KEYS | {
        *(f"rule_{name}" for name in ("tangents", "sampler", "perturb", "aggregate")),
        *(f"rule_{name}" for name in ("batch_loss", "independent", "output_layers")),
    }
    assert (summary["epochs"], summary["run_dir"], summary["seed"]) == (1, "run", 0)
    assert summary["parameters"] == (64 + 1) * 8 + (8 + 1) * 8 + (8 + 1) * 10
    assert summary == json.loads(Path("run/summary.json").read_text())
    assert err.startswith("data       digits, 64 training and 20 test examples")
    assert re.search(r"^ +1/1 ", err, re.M)  # the line of the epoch


def test_quiet_says_nothing_on_the_way(ask):
    code, out, err = ask(*TINY, "--run-dir", "run")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"test accuracy 0\.\d{4} after 1 epoch\nrun folder    run\n", out)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("more", [(), ("--threads", "2", "--dtype", "float64")])
def test_every_rule_trains(rule, more, ask):
    code, out, _ = ask(*TINY, "--json", "--rule", rule, *more)
    assert code == 0 and json.loads(out)["rule"] == rule


@pytest.mark.parametrize(
    "flag", ["optimizer", "schedule", "sampler", "aggregate", "activation", "augment"]
)
def test_every_choice_trains(flag, ask):
    choices = {
        "optimizer": OPTIMIZERS,
        "augment": data.AUGMENTATIONS,
        "schedule": SCHEDULES,
        "sampler": WEIGHT_SAMPLERS,
        "aggregate": WEIGHT_AGGREGATIONS,
        "activation": ("relu", "tanh", "gelu", "sigmoid"),
    }
    for choice in choices[flag]:
        code, out, err = ask(*TINY, "--json", "--rule", "fg-w", f"--{flag}", choice)
        assert code == 0, err
        assert np.isfinite(json.loads(out)["test_loss"])


def test_runs_at_the_same_second_get_folders_of_their_own(ask):
    for _ in range(3):
        assert ask(*TINY)[0] == 0
    assert len(list(Path("runs").glob("digits-mlp-fg-a-*"))) == 3


def test_several_seeds_are_summed_up(ask):
    code, out, _ = ask(*TINY, "--json", "--seeds", 3, 5, "--run-dir", "both")
    summary = json.loads(out)
    singles = [json.loads(Path(f"both/seed-{s}/summary.json").read_text()) for s in (3, 5)]
    assert code == 0 and summary["seed"] == [3, 5] and summary["runs"] == singles
    accuracies = [s["test_accuracy"] for s in singles]
    assert summary["test_accuracy"] == pytest.approx(np.mean(accuracies))
    assert summary["test_accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    # No figure of one seed stands among those of both.
    for name in ("test_loss", "train_loss", "train_accuracy"):
        of_each = [s[name] for s in singles]
        assert summary[name] == pytest.approx(np.mean(of_each))
        assert summary[f"{name}_std"] == pytest.approx(np.std(of_each, ddof=1))
    for name in ("best_epoch", "best_test_loss", "best_test_accuracy"):
        assert summary[name] == [s[name] for s in singles]
    for name in ("epochs", "seconds", "seconds_per_step", "peak_memory_bytes"):
        of_each = [s[name] for s in singles if s[name] is not None]
        assert summary[name] == max(of_each, default=None)
    same = {name for name in singles[0] if singles[0][name] == singles[1][name]}
    assert {"rule", "dataset", "parameters", "model"} < same
    for name in same - {"epochs"}:
        assert summary[name] == singles[0][name] or name.startswith("best_")
    assert summary == json.loads(Path("both/summary.json").read_text())
    _, out, _ = ask(*TINY, "--json", "--seed", 5)
    assert json.loads(out)["test_loss"] == singles[1]["test_loss"] != singles[0]["test_loss"]


def test_one_of_several_seeds_has_no_deviation(ask):
    _, out, _ = ask(*TINY, "--seeds", 3, "--run-dir", "one")
    assert "±" not in out
    assert json.loads(Path("one/summary.json").read_text())["test_accuracy_std"] is None


def test_each_of_several_seeds_ends_when_it_would_alone(ask):
    early = (
        "--validation 100 --early-stop 1 --epochs 12 --lr 0.03 --limit-train 300 --quiet".split()
    )
    flags = [*early, "--width", 16, "--rule", "fg-a", "--json"]
    _, out, _ = ask(*flags, "--seeds", 1, 2, 3, 4, "--run-dir", "all")
    together = json.loads(out)
    epochs = [one["epochs"] for one in together["runs"]]
    assert len(set(epochs)) > 1 and min(epochs) < 12 and together["epochs"] == max(epochs)
    assert together["best_epoch"] == [one["best_epoch"] for one in together["runs"]]
    for seed, of_group in zip((1, 2, 3, 4), together["runs"], strict=True):
        _, out, _ = ask(*flags, "--seed", seed, "--run-dir", f"alone-{seed}")
        alone = json.loads(out)
        for name in ("epochs", "best_epoch", "best_test_accuracy", "test_loss", "train_loss"):
            assert alone[name] == of_group[name], name
    # Whoever is over stays so, whatever the others still have to do.
    code, out, _ = ask("--resume", "all", "--epochs", 13, "--json", "--quiet")
    again = [one["epochs"] for one in json.loads(out)["runs"]]
    assert code == 0 and again == [n if n < 12 else 13 for n in epochs]


def test_the_best_epoch_is_reported(ask):
    flags = "--validation 50 --early-stop 3 --epochs 2 --limit-train 100 --width 8 --quiet".split()
    code, out, _ = ask(*flags, "--run-dir", "run")
    summary = json.loads(Path("run/summary.json").read_text())
    assert code == 0 and summary["tested_on"] == "validation"
    best = f"after epoch {summary['best_epoch']}, with accuracy {summary['best_test_accuracy']:.4f}"
    assert f"lowest loss   seed 0: {best}" in out


def test_list_names_everything(ask):
    code, out, err = ask("--list")
    assert (code, err) == (0, "")
    first_words = [line.split()[0] for line in out.splitlines()]
    tables = (RULES, OPTIMIZERS, SCHEDULES, WEIGHT_SAMPLERS, WEIGHT_AGGREGATIONS)
    for table in (*tables, MODELS, data.SOURCES, data.AUGMENTATIONS):
        for name in table:
            assert name in first_words
    assert all(len(line.split()) > 1 for line in out.splitlines() if line.startswith(" "))


def test_describe_needs_no_data(ask):
    code, out, err = ask("--describe", "--dataset", "mnist", "--width", 512)
    assert (code, err, out.count("\n")) == (0, "", 1)
    described = json.loads(out)
    assert described["parameters"] == 669_706
    assert described["input_shape"] == [28, 28, 1] and described["classes"] == 10
    assert (described["model"], described["width"], described["depth"]) == ("mlp", 512, 2)
    layers = {layer["name"]: layer for layer in described["layers"]}
    assert list(layers) == ["flatten", "hidden1", "relu1", "hidden2", "relu2", "output"]
    assert layers["relu1"] == {"name": "relu1", "kind": "Activation", "parameters": {}}
    assert layers["hidden1"]["parameters"] == {"w": [784, 512], "b": [512]}
    shapes = [s for layer in layers.values() for s in layer["parameters"].values()]
    assert sum(int(np.prod(shape)) for shape in shapes) == 669_706
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--rule fg-w --tangents 5 --sampler rank-one --optimizer momentum --momentum 0.3 "
        "--clip-norm 0.5",
        "--schedule step --times 0.25 0.5 --batch-size 17 --validation 60 --early-stop 3",
        "--objective contrastive --temperature 0.7 --dtype float64 --shards 2 --seed 9",
    ],
)
def test_describe_prints_the_settings_that_a_run_has(flags, ask, monkeypatch):
    small = [*"--limit-train 200 --width 8 --epochs 1".split(), *flags.split()]
    code, out, err = ask("--describe", *small)
    assert code == 0, err
    described = json.loads(out)["settings"]
    made = []
    real = run.make_trainer
    monkeypatch.setattr(run, "make_trainer", lambda *args: made.append(real(*args)) or made[0])
    code, _, err = ask(*small, "--quiet", "--run-dir", "run")
    assert code == 0, err
    settings = Settings.from_json(json.loads(Path("run/config.json").read_text())["settings"])
    assert described == json.loads(json.dumps(by_name(settings, train.TABLES)))
    # What trains has them, too.
    (trainer,) = made
    of_run = ("lr", "epochs", "batch_size", "seed", "pixels", "shards", "early_stop", "grad_stats")
    of_run = (*of_run, "clip_norm")
    assert {name: getattr(trainer, name) for name in of_run} == {n: described[n] for n in of_run}
    assert trainer.dtype == described["dtype"]
    for kind in ("rule", "optimizer", "schedule", "objective"):
        part = getattr(trainer, kind)
        assert type(part) is train.TABLES[kind][described[kind]]
        for name, value in vars(part).items():
            assert described[name] == (list(value) if isinstance(value, tuple) else value)


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as done:
        train.main(["--help"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    for flag in ("--rule", "--tangents", "--tangent-chunk", "--momentum", "--resume", "--describe"):
        assert f"{flag} " in out


def test_every_option_of_ours_has_a_help_text():
    options = {name for table in train.TABLES.values() for name in option_table(table)}
    assert set(OPTION_HELP) == options


def test_a_reader_that_goes_away_is_no_error_worth_a_traceback():
    child = start(TRAIN, "--list")
    child.stdout.close()
    with child.stderr:
        assert child.stderr.read() == ""
    assert child.wait(timeout=60) == 1


# --- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "pattern"),
    [
        ("--bogus 3", "there is no flag --bogus, --help shows all of them"),
        ("--batch_size 3", "there is no flag --batch_size, .*; did you mean --batch-size[?]"),
        ("--Batch-Size=3", "there is no flag --Batch-Size, .*; did you mean --batch-size"),
        ("--limit_test 3", "there is no flag --limit_test, .*; did you mean --limit-test"),
        ("--rule backprop", "--rule: expected one of bp, .*fg-w.*, got 'backprop'$"),
        ("--rule FG_W", "--rule: expected one of bp, .*; did you mean fg-w"),
        ("--dataset minst", "--dataset: expected one of digits, .*; did you mean mnist"),
        ("--model localmixer", "--model: expected one of mlp, .*; did you mean local-mixer"),
        ("--augment flips", "--augment: expected one of none, .*; did you mean flip"),
        (
            "--rule l-bp --head-reads ALL",
            "--head-reads: expected one of average, all, .*; did you mean all",
        ),
        ("--dtype float16", "--dtype: expected one of float32, float64, got 'float16'; did you"),
        ("--width 8 9", "expected a flag, got '9'; --help shows the flags"),
        # No abbreviations: they would change with flags.
        ("--tang 3", "there is no flag --tang, .*; did you mean --tangents"),
        ("--rule", "^train.py: --rule: expected a value, got none$"),
        ("--epochs two", "--epochs: expected an int, got 'two'"),
        ("--epochs 1.5", "--epochs: expected an int, got '1.5'"),
        ("--tangents 8 --rule bp", "--tangents is of no use to --rule bp; it is for fdfa, fg-w"),
        ("--sampler normal --rule bp", "--sampler is of no use to --rule bp"),
        ("--tangent-chunk 8", "--tangent-chunk is of no use to --rule fg-a; it is for fg-w"),
        ("--shrink 0.5 --rule fg-a", "--shrink is of no use to --rule fg-a; it is for fg-a-cv"),
        ("--momentum 0.9 --optimizer adam", "--momentum is of no use to --optimizer adam"),
        ("--beta1 0.9 --optimizer sgd", "--beta1 is of no use to --optimizer sgd"),
        ("--epochs 0", "--epochs: expected an int of at least 1, got 0"),
        ("--batch-size 0", "--batch-size: expected an int of at least 1, got 0"),
        ("--batch-size -5", "--batch-size: expected an int of at least 1, got -5"),
        ("--threads 0", "--threads: expected an int of at least 1, got 0"),
        ("--lr nan", "--lr: expected a positive number, got nan"),
        ("--lr 0", "--lr: expected a positive number, got 0"),
        ("--lr -1", "--lr: expected a positive number, got -1"),
        ("--lr inf", "--lr: expected a positive number, got inf"),
        ("--clip-norm 0", "--clip-norm: expected a number from 1e-30 to 1e30, got 0.0"),
        ("--clip-norm nan", "--clip-norm: expected a number from 1e-30 to 1e30, got nan"),
        ("--width 0", "--width, --depth: mlp: expected width >= 1"),
        ("--depth -1", "depth >= 0"),
        ("--activation step", "activation: expected one of relu, tanh, gelu, sigmoid, got 'step'"),
        ("--tangents 0", "tangents: expected an int of at least 1, got 0"),
        (
            "--tangents 0 --rule fg-w",
            "--tangents: fg-w: tangents: expected an int of at least 1, got 0",
        ),
        (
            "--tangent-chunk 0 --rule fg-w",
            "fg-w: tangent-chunk: expected an int of at least 1, got 0",
        ),
        ("--sampler gauss --rule fg-w", "sampler: expected one of normal, .*got 'gauss'"),
        ("--sampler rank-one", "sampler: expected one of normal, rademacher, got 'rank-one'"),
        ("--sampler Rank_One --rule fg-w", "--sampler: .*, got 'Rank_One'; did you mean rank-one"),
        ("--sampler norm", "--sampler: fg-a: sampler: expected .*; did you mean normal"),
        ("--aggregate means --rule fg-w", "--aggregate: fg-w: .*, got 'means'; did you mean mean"),
        ("--activation ReLU", "--activation: mlp: .*, got 'ReLU'; did you mean relu"),
        ("--weights Torch", "--weights: mlp: .*, got 'Torch'; did you mean torch"),
        ("--aggregate best --rule fg-w", "aggregate: expected one of mean, sum, .* got 'best'"),
        ("--aggregate sum --rule fg-a", "aggregate: expected one of mean, projection, got 'sum'"),
        ("--momentum 1 --optimizer momentum", "--momentum: .* below 1, got 1.0"),
        ("--weight-decay nan", "--weight-decay: .* weight_decay at least .*got nan"),
        ("--seed 1 --seeds 2 3", "give --seed or --seeds, not both"),
        ("--seeds 1 2 1", "--seeds must differ, got 1 2 1"),
        ("--data-dir .", "--data-dir is of no use to --dataset digits"),
        ("--tf32", "--tf32 is of no use to --backend numpy; it is for cupy"),
        ("--bf16 --dtype float64", "--bf16 is of no use to --dtype float64; it is for float32"),
        ("--tf32 --bf16", "--tf32 and --bf16: give one of them"),
        ("--seeds", "--seeds: expected one or more values, got none"),
        ("--warmup 0.1", "--warmup is of no use to --schedule cosine; it is for warmup-cosine"),
        ("--schedule exponential --every day", 'expected every "epoch" or "step", got \'day\''),
        (
            "--model vit --batch-norm",
            "--batch-norm is of no use to --model vit; it is for mlp, cnn",
        ),
        ("--limit-train 0", "--limit-train: expected an int of at least 1, got 0"),
        (
            "--limit-train 100000",
            r"--limit-train: expected a whole number from 1 to \d+, got 100000",
        ),
        ("--early-stop 0 --validation 9", "--early-stop: expected an int of at least 1, got 0"),
        ("--early-stop 5", "--early-stop goes by the loss on validation images; .*--validation N"),
        ("--limit-test -1", "--limit-test: expected an int of at least 1, got -1"),
        ("--describe --width 0", "expected width >= 1"),
        ("--dtype float64 --tf32", "--tf32 is of no use to --dtype float64; it is for float32"),
        ("--no-graph", "--no-graph is of no use to --backend numpy; it is for cupy"),
        ("--graph", "there is no flag --graph, .*; did you mean --no-graph"),
        (
            "--batch-norm --limit-train 33 --batch-size 32",
            "--batch-size 32 leaves a last batch of one of 33 images",
        ),
        *(
            (
                f"--objective contrastive --batch-size {batch} --limit-train {images}",
                f"--batch-size {batch} leaves a last batch of 1 of {images} images, and the .*"
                "contrastive loss tells 2 or more apart",
            )
            for batch, images in ((1, 20), (19, 20), (32, 1))
        ),
        ("--objective contrastive --rule wp", "use --rule fg-w, or --no-stop"),
        ("--resume nowhere", "--resume nowhere: no run there"),
        ("--resume nowhere --lr 1", "--lr cannot be changed on --resume"),
        ("--resume nowhere --lr=1", "--lr cannot be changed on --resume"),
        ("--resume nowhere --seeds 1 2", "--seeds cannot be changed on --resume"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(argv, pattern, mistake):
    mistake(2, pattern, *argv.split())
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("first", "then", "pattern"),
    [
        ("", "", "holds a run already; go on with it by --resume run"),
        ("", "--seeds 0 1", "--run-dir run holds a run already"),
        (
            "--seeds 0 1",
            "",
            "run holds runs of several seeds already; go on with them by --resume run",
        ),
        (
            "--seeds 0 1",
            "--seeds 2 3",
            "--run-dir run holds runs of several seeds already",
        ),
        ("--epochs 2", "--resume run --epochs 1", "the run has done 2 epochs already"),
        ("", "--resume run", None),  # a finished run, to which nothing is added
    ],
)
def test_a_run_that_is_there_is_not_changed(first, then, pattern, ask, mistake):
    def files():
        return {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}

    code, _, err = ask(*TINY, *first.split(), "--run-dir", "run")
    assert code == 0, err
    before = files()
    then = then.split() if "--resume" in then else [*TINY, *then.split(), "--run-dir", "run"]
    if pattern is None:
        assert ask(*then, "--quiet")[0] == 0
    else:
        mistake(2, pattern, *then)
    assert files() == before


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_run_folder_that_cannot_be_one(place, mistake):
    Path("file").write_text("")
    mistake(2, f"--run-dir {place}: ", *TINY, "--run-dir", place)
    mistake(2, f"--resume {place}: no run there", "--resume", place)


def test_a_run_folder_that_cannot_be_written_to(mistake):
    mistake(2, "--run-dir a+: File name too long", *TINY, "--run-dir", 300 * "a")
    Path("run/gradients.csv").mkdir(parents=True)  # stands for any refusal, to root as well
    mistake(2, "--run-dir run: ", *TINY, "--grad-stats", 1, "--run-dir", "run")


def test_a_model_that_does_not_fit_into_memory_cannot_be_described(mistake):
    mistake(5, "backend numpy: out of memory", "--describe", "--width", 10**10)


def test_divergence_is_exit_code_4(mistake):
    more = "--rule bp --optimizer sgd --lr 1e38 --epochs 20 --run-dir run".split()
    mistake(4, r"diverged .* lower --lr \(now 1e\+38\)", *TINY, *more)
    assert {p.name for p in Path("run").iterdir()} >= {"config.json", "checkpoint.npz"}


# --- going on ----------------------------------------------------------------------------------


def test_resume_goes_on_with_the_settings_of_the_run(ask):
    whole = "--rule fg-w --tangents 3 --schedule constant".split()
    ask(*TINY, *whole, "--run-dir", "parts")
    code, out, _ = ask("--resume", "parts", "--epochs", 3, "--quiet", "--json")
    resumed = json.loads(out)
    _, out, _ = ask(*TINY, *whole, "--epochs", 3, "--json", "--run-dir", "whole")
    expected = json.loads(out)
    differing = {k for k in expected if expected[k] != resumed[k]}
    assert code == 0 and resumed["epochs"] == 3
    assert differing <= {"run_dir", "seconds", "seconds_per_step", "peak_memory_bytes"}


@pytest.mark.parametrize("graph", (False, True, None))
def test_a_run_from_before_steps_were_recorded_by_default_goes_on(graph, ask):
    """Its settings say that no step is recorded, or nothing."""
    ask(*TINY, "--run-dir", "run")
    file = Path("run/config.json")
    config = unseal(file)
    assert config["settings"].pop("graph") is True
    config["settings"] |= {} if graph is None else {"graph": graph}
    file.write_text(json.dumps(config))
    code, out, err = ask("--resume", "run", "--epochs", 3, "--quiet", "--json")
    assert code == 0 and json.loads(out)["epochs"] == 3, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_can_go_on(number, ask):
    # A shell may start its children with SIGINT ignored; this child is to be as in a terminal.
    code = (
        "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"sys.argv[0] = {str(TRAIN)!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    flags = "--rule bp --width 8 --epochs 100000 --schedule constant --quiet --run-dir run".split()
    child = start("-c", code, *flags)
    deadline = time.monotonic() + 60
    while not Path("run/metrics.csv").exists():
        assert child.poll() is None and time.monotonic() < deadline, child.communicate()
        time.sleep(0.02)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, "")
    assert re.fullmatch(r"train\.py: interrupted; go on with --resume [^\n ]+\n", err)
    with np.load("run/checkpoint.npz") as archive:
        epoch = int(archive["position:"][0])
    assert epoch >= 1
    code, out, err = ask("--resume", "run", "--epochs", epoch + 1, "--json", "--quiet")
    assert code == 0, err
    assert json.loads(out)["epochs"] == epoch + 1
    assert len(Path("run/metrics.csv").read_text().splitlines()) == epoch + 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"digits"', '"digitt"'),
        ('"mlp"', '"mlq"'),
        ('"fg-w"', '"fg-v"'),
        ('"adam"', '"atom"'),
        ('"cosine"', '"cosinus"'),
        ('"numpy"', '"mumpy"'),
        ('"width": 8', '"width": 8.5'),
        ('"width": 8', '"width": 0'),
        ('"tangents": 1', '"tangents": null'),
        ('"beta1"', '"beta3"'),
        ('"epochs": 1', '"epochs": 0'),
        ('"seed": 0', '"seed": "0"'),
        ('"seed": 0,', ""),
        ('"settings": {', '"settings": [], "x": {'),
        ("{", "["),
        ("}", ""),
        (None, "[1, 2]"),
    ],
)
def test_settings_that_make_no_sense_are_exit_code_3(old, new, ask, mistake):
    ask(*TINY, "--rule", "fg-w", "--run-dir", "run")
    file = Path("run/config.json")
    unseal(file)
    text = file.read_text()
    assert old is None or old in text
    file.write_text(new if old is None else text.replace(old, new, 1))
    if old == '"seed": 0,':  # it has a default, so it may be absent
        assert ask("--resume", "run", "--quiet")[0] == 0
    else:
        what = "it holds no object" if old is None else ""
        what = "it holds no settings" if new.startswith('"settings"') else what
        mistake(3, rf"run/config\.json is damaged: {what}", "--resume", "run")


def test_a_config_with_a_wrong_byte_never_ends_in_a_traceback(ask, rng):
    ask(*TINY, "--rule", "fg-w", "--run-dir", "run")
    file = Path("run/config.json")
    content = file.read_bytes()
    end = content.index(b'"versions"')  # the settings stand before
    checkpoint = Path("run/checkpoint.npz").read_bytes()
    codes = []
    for i in range(150):
        at = int(rng.integers(end))
        # Half of them are characters that may well give another valid file.
        byte = rng.integers(256) if i % 2 else rng.choice(list(b'0123456789.-e"{}[],: nx'))
        file.write_bytes(content[:at] + bytes([byte]) + content[at + 1 :])
        Path("run/checkpoint.npz").write_bytes(checkpoint)
        code, _, err = ask("--resume", "run", "--quiet")
        # 0: another number that makes sense; 2: a limit above what there is; 4: another rate.
        assert code in (0, 2, 3, 4), err
        assert code == 0 or re.fullmatch(r"train\.py: [^\n]+\n", err), err
        codes.append(code)
    assert codes.count(3) > 50
