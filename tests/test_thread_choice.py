"""`--threads auto`: it chooses the quicker of two ways, keeps nothing, and runs go on with it."""

import re

import numpy as np
import pytest

import dualnet as dn
from dualnet import tree
from dualnet.command import train
from dualnet.errors import DivergedError, UsageError
from dualnet.training import thread_choice
from dualnet.training.run_folder import RunFolder

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
Y = np.arange(40) % 3
OPTIONS = {"width": 8, "depth": 1, "epochs": 2, "batch_size": 8, "schedule": "constant"}


@pytest.fixture
def tries(monkeypatch):
    """`tries(seconds of one piece, seconds of shards)` are what steps seem to take, on two cores.

    The list that it returns gets the number of threads of each step of a trial.
    """
    made = []

    def pretend(whole, shards, cores=2):
        real = thread_choice._step_of

        def step_of(trainer, threads):
            step = real(trainer, threads)

            def pretended():
                made.append(threads)
                step()
                return whole if threads == 1 else shards

            return pretended

        monkeypatch.setattr(thread_choice, "_step_of", step_of)
        monkeypatch.setattr(thread_choice, "cores", lambda: cores)
        monkeypatch.setattr(thread_choice, "FEWEST_STEPS", 10)
        return made

    return pretend


def fitted(**settings):
    return dn.fit("mlp", (X, Y), quiet=True, **{**OPTIONS, **settings})


def assert_same(one, other):
    for a, b in zip(tree.leaves(one.params), tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rule", ["bp", "fg-a", "fdfa", "fg-w"])
@pytest.mark.parametrize("seconds, threads", [((0.02, 0.01), 2), ((0.01, 0.02), 1)])
def test_the_quicker_way_is_chosen_and_the_run_is_that_of_its_number(rule, seconds, threads, tries):
    made = tries(*seconds)
    chosen, same = fitted(rule=rule, threads="auto"), fitted(rule=rule, threads=threads)
    assert made == [1, 1, *[1, 1, 2, 2] * thread_choice.ROUNDS]
    assert chosen.settings.threads == threads and chosen.settings == same.settings
    assert_same(chosen, same)


def test_what_saves_less_than_it_may_cost_is_not_chosen(tries):
    tries(0.01, 0.0099)
    assert fitted(threads="auto").settings.threads == 1


NO_TRIAL = {
    "a short step": ({}, (0.001, 0.0001), 2, "not worth a trial", [1, 1]),
    "few steps": ({"epochs": 1}, (1.0, 0.1), 2, "so few steps as 5", []),
    "one core": ({}, (1.0, 0.1), 1, "one core", []),
    "one example": ({"batch_size": 1}, (1.0, 0.1), 2, "one example", []),
    "batch norm": (
        {"plan": "4C3-P2-8", "batch_norm": True, "model": "cnn"},
        (1.0, 0.1),
        2,
        "a batch in one piece",
        [],
    ),
}


@pytest.mark.parametrize("name", NO_TRIAL)
def test_where_there_is_nothing_to_gain_nothing_is_tried(name, tries, capsys):
    more, seconds, cores, why, expected = NO_TRIAL[name]
    made = tries(*seconds, cores)
    settings = {**OPTIONS, "threads": "auto", **more}
    model, x = settings.pop("model", "mlp"), X
    if model == "cnn":
        settings = {n: v for n, v in settings.items() if n not in ("width", "depth")}
        x = X.reshape(40, 6, 1, 1).repeat(6, 2)
    run = dn.fit(model, (x, Y), **settings)
    assert run.settings.threads == 1 and made == expected
    assert re.search(rf"(?s)\nthreads +auto: 1, .*{why}", capsys.readouterr().out)


def test_the_choice_is_told_with_both_times(tries, capsys):
    tries(0.0523, 0.0312)
    dn.fit("mlp", (X, Y), **OPTIONS, threads="auto")
    told = "threads    auto: 2, 52.3 ms a step, 31.2 ms with 2 shards at a time\n"
    assert told in capsys.readouterr().out


def test_the_word_is_a_value_on_the_command_line_and_in_a_file(tmp_path):
    (tmp_path / "mine.toml").write_text('threads = "auto"\n')
    for line in ("--threads auto", f"--config {tmp_path}/mine.toml"):
        assert train.settings_of(train.parse(line.split())).threads == "auto"


def test_runs_of_several_seeds_have_one_choice(tries, tmp_path):
    made = tries(0.02, 0.01)
    flags = "--width 8 --limit-train 64 --epochs 6 --batch-size 32 --quiet --threads auto"
    train.main([*flags.split(), "--seeds", "0", "1", "--run-dir", str(tmp_path / "runs")])
    folder = RunFolder(tmp_path / "runs")
    assert [folder.of_seed(seed).settings().threads for seed in (0, 1)] == [2, 2]
    assert len(made) == 2 + 4 * thread_choice.ROUNDS


def test_a_run_goes_on_with_what_was_chosen(tries, tmp_path):
    made = tries(0.02, 0.01)
    fitted(threads="auto", run_dir=tmp_path / "run")
    assert RunFolder(tmp_path / "run").settings().threads == 2
    del made[:]
    tries(0.01, 0.02)  # it would be chosen otherwise now
    more = fitted(threads="auto", run_dir=tmp_path / "run", resume=True, epochs=4)
    assert more.settings.threads == 2 and made == []
    whole = fitted(threads=2, epochs=4)
    assert_same(more, whole)


def test_a_real_trial_keeps_nothing(monkeypatch):
    monkeypatch.setattr(thread_choice, "FEWEST_STEPS", 10)
    monkeypatch.setattr(thread_choice, "SHORT", 0.0)
    run = fitted(threads="auto")
    assert run.settings.threads in (1, 2)
    same = fitted(threads=run.settings.threads)
    assert_same(run, same)


def test_a_run_that_diverges_at_once_says_so_in_its_first_step(tries):
    tries(0.02, 0.01)
    with pytest.raises(DivergedError):
        fitted(threads="auto", rule="bp", optimizer="sgd", lr=1e38, epochs=20)


def test_another_word_is_refused():
    with pytest.raises(UsageError, match="threads: expected an int of at least 1"):
        fitted(threads="all")
