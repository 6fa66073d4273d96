"""Folders of runs: one process has each to itself, and whatever a kill has left goes on."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dualnet as dn
from dualnet import data
from dualnet.data.fingerprint import fingerprint
from dualnet.errors import DivergedError, UsageError
from dualnet.files import OWNER_ALONE, open_regular, read_file, sweep, write_file
from dualnet.locks import LOCK, FolderLock
from dualnet.training import run as run_module
from dualnet.training import side_by_side
from dualnet.training.checkpoint_interval import CheckpointInterval
from dualnet.training.run_folder import RunFolder
from dualnet.training.surroundings import what_differs

HOW = {"rule": "bp", "epochs": 2, "width": 8, "limit_train": 90, "limit_test": 20, "quiet": True}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fit(run_dir, **more):
    return dn.fit("mlp", "digits", run_dir=run_dir, **{**HOW, **more})


def arrays(file):
    with np.load(file) as archive:
        # Neither the seconds of the present epoch nor those of others are the same twice.
        cut = {"sums:": slice(3), "history:": (slice(None), slice(6))}
        return {n: archive[n][cut.get(n, ...)].copy() for n in archive.files}


def assert_same(one, other, names=("checkpoint.npz", "best.npz")):
    for name in names:
        ours, theirs = (arrays(Path(folder, name)) for folder in (one, other))
        assert ours.keys() == theirs.keys()
        assert all(ours[n].tobytes() == theirs[n].tobytes() for n in ours), name


# --- files ---------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all():
    file = Path("file")
    write_file(file, b"old")

    def fails(stream):
        stream.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(file, fails)
    assert file.read_bytes() == b"old" and os.listdir() == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_new_file_is_for_its_owner_alone_and_an_old_one_keeps_its_permissions():
    write_file(Path("file"), b"")
    assert Path("file").stat().st_mode & 0o777 == OWNER_ALONE
    Path("file").chmod(0o644)
    write_file(Path("file"), b"")
    assert Path("file").stat().st_mode & 0o777 == 0o644


def test_a_link_is_replaced_and_not_followed():
    Path("victim").write_text("as it was")
    Path("file").symlink_to("victim")
    write_file(Path("file"), b"new")
    assert Path("victim").read_text() == "as it was"
    assert not Path("file").is_symlink() and Path("file").read_bytes() == b"new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders here")
def test_what_is_no_regular_file_is_refused_at_once():
    os.mkfifo("pipe")
    for path in ("pipe", ".", "/dev/zero"):
        with pytest.raises(OSError, match=r"no regular file|directory"):
            open_regular(path)


def test_a_file_that_is_too_long_is_refused():
    Path("file").write_bytes(b"1234")
    assert read_file("file", 4) == b"1234"
    with pytest.raises(ValueError, match="more than 3 bytes"):
        read_file("file", 3)


def test_only_what_was_left_is_swept():
    left = f".config.json.{'0f' * 8}.partial"
    for name in (left, ".config.json.partial", "config.json", f"config.json.{'0f' * 8}.partial"):
        Path(name).write_text("")
    sweep(Path("."))
    assert not Path(left).exists() and len(os.listdir()) == 3


# --- one run for a folder ------------------------------------------------------------------------


def test_a_folder_has_one_lock():
    lock = FolderLock(Path("."))
    with pytest.raises(BlockingIOError, match=rf"process {os.getpid()} on .* has it since"):
        FolderLock(Path("."))
    lock.release()
    assert not Path(LOCK).exists()
    FolderLock(Path(".")).release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_does_not_take_the_lock_along():
    lock = FolderLock(Path("."))
    child = os.fork()
    if not child:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(BlockingIOError):
        FolderLock(Path("."))
    lock.release()


def test_a_lock_goes_with_its_process():
    code = "import os; from pathlib import Path; from dualnet.locks import FolderLock; "
    code += "lock = FolderLock(Path('.')); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert Path(LOCK).exists()
    FolderLock(Path(".")).release()


@pytest.mark.skipif(os.name == "nt", reason="Windows has other locks")
def test_a_file_system_without_locks_costs_no_run(monkeypatch, capsys):
    def refused(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("dualnet.locks.fcntl.flock", refused)
    assert fit("run").summary["epochs"] == 2
    err = capsys.readouterr().err
    assert err == "run: its file system has no locks; start no other run in it\n"


@pytest.mark.parametrize("said", ["", "{}", "[" * 100_000, '{"process": "x"}', "1" * 2000])
def test_a_lock_whose_file_says_nothing(said):
    lock = FolderLock(Path("."))
    Path(LOCK).write_text(said)
    with pytest.raises(BlockingIOError, match="another process has it"):
        FolderLock(Path("."))
    lock.release()


def test_a_folder_in_use_is_refused():
    fit("run")
    for resume in (False, True):
        with (
            RunFolder("run").claimed(),
            pytest.raises(UsageError, match=r"run_dir=.*run. is in use: process \d+ on"),
        ):
            fit("run", resume=resume, epochs=3)


def test_a_seed_of_a_folder_in_use_is_refused(dualnet_train):
    dualnet_train("--seeds", 0, 1, "--run-dir", "all")
    with RunFolder("all/seed-1").claimed():
        code, _, err = dualnet_train("--resume", "all", "--epochs", 3, base=())
    assert code == 2 and "--run-dir all/seed-1 is in use: process" in err and err.count("\n") == 1


@pytest.fixture
def dualnet_train(capsys):
    """Run `dualnet train`, small and quiet, and return its code and its output."""
    from dualnet.command.train import main
    from dualnet.console import exit_code

    small = "--rule bp --epochs 2 --width 8 --limit-train 90 --limit-test 20".split()

    def ask(*argv, base=small):
        code = exit_code("dualnet train", main, [*base, *map(str, argv), "--quiet"])
        return code, *capsys.readouterr()

    return ask


def test_a_folder_that_was_made_for_nothing_is_deleted(dualnet_train):
    code, _, err = dualnet_train("--limit-train", 10**7)
    assert code == 2 and "--limit-train" in err and os.listdir() == []


def test_a_folder_that_was_there_stays(dualnet_train):
    Path("run").mkdir()
    assert dualnet_train("--limit-train", 10**7, "--run-dir", "run")[0] == 2
    assert os.listdir() == ["run"] and os.listdir("run") == []


def test_thousands_of_levels_of_folders_are_refused():
    with pytest.raises(UsageError, match="File name too long"):
        fit("d/" * 5000)
    assert os.listdir() == []
    assert RunFolder(Path("d/" * 1100)).make()  # deeper than Python recurses
    for levels in range(1100, 0, -1):
        Path("d/" * levels).rmdir()


def test_a_name_that_no_folder_can_have():
    with pytest.raises(UsageError, match=r"run_dir='a.x00b': .*embedded null"):
        fit("a\0b")


def test_folders_get_numbers():
    paths = [RunFolder.new(Path("runs/name")).path.name for _ in range(3)]
    assert paths == ["name", "name-2", "name-3"]


# --- going on ------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: no code of ours answers to it."""


@contextmanager
def killed_after(steps, stepper, monkeypatch):
    """Within, the process is killed after so many steps of a run, or of several together."""
    real, made = stepper.step, []

    def step(self, *args):
        if len(made) == steps:
            raise Killed
        made.append(1)
        return real(self, *args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(stepper, "step", step)
        yield


@pytest.mark.parametrize("every", ["1", "2", "0.000001s"])
@pytest.mark.parametrize("step", [0, 1, 2, 4])
def test_a_killed_run_loses_no_more_than_its_interval(every, step, monkeypatch):
    """There are three steps in an epoch."""
    fit("whole")
    with killed_after(step, dn.training.loop.Trainer, monkeypatch):
        fit("parts", checkpoint_every=every)
    epoch, batch = arrays("parts/checkpoint.npz")["position:"]
    kept = 3 * epoch + batch
    assert step - kept < (2 if every == "2" else 1)
    fit("parts", resume=True)
    assert_same("whole", "parts")


@pytest.mark.parametrize("step", [1, 4, 5])
def test_killed_runs_of_several_seeds_lose_no_more_than_their_interval(
    step, dualnet_train, monkeypatch
):
    dualnet_train("--seeds", 3, 4, "--run-dir", "whole")
    with killed_after(step, side_by_side._Group, monkeypatch):
        dualnet_train("--seeds", 3, 4, "--run-dir", "parts", "--checkpoint-every", 1)
    for seed in (3, 4):
        epoch, batch = arrays(f"parts/seed-{seed}/checkpoint.npz")["position:"]
        assert 3 * epoch + batch == step
    assert dualnet_train("--resume", "parts", base=())[0] == 0
    for seed in (3, 4):
        assert_same(f"whole/seed-{seed}", f"parts/seed-{seed}")


def test_a_run_that_is_killed_before_its_first_checkpoint_goes_on(dualnet_train, monkeypatch):
    fit("whole")
    for resume in (
        lambda: dualnet_train("--resume", "parts", base=()),
        lambda: fit("parts", resume=True),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "write_checkpoint", lambda *_: (_ for _ in ()).throw(Killed()))
            with pytest.raises(Killed):
                fit("parts")
        assert sorted(os.listdir("parts")) == ["config.json", "network.json"]
        resume()
        assert_same("whole", "parts")
        shutil.rmtree("parts")


@pytest.mark.parametrize("killed_in", ["write_checkpoint", "_write_best", "write_metrics"])
def test_a_run_that_is_killed_between_two_files_goes_on(killed_in, monkeypatch):
    fit("whole", epochs=3)
    fit("parts")
    owner = run_module.KeptRun if killed_in == "_write_best" else RunFolder
    real, count = getattr(owner, killed_in), iter(range(9))

    def killed(self, *args):
        if next(count) == 1:  # the first is when the run goes on
            raise Killed
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, killed_in, killed)
        with pytest.raises(Killed):
            fit("parts", epochs=3, resume=True)
    fit("parts", epochs=3, resume=True)
    once = fit("once", epochs=2)
    assert once.summary["epochs"] == 2
    fit("once", epochs=3, resume=True)
    assert_same("once", "parts")
    lines = Path("parts/metrics.csv").read_text().splitlines()
    assert len(lines) == 4


def test_what_can_be_derived_is_written_anew():
    fit("run", grad_stats=2)
    names = ("metrics.csv", "gradients.csv", "summary.json", "best.npz", "curve.png")
    before = {name: Path("run", name).read_bytes() for name in names}
    for name in names:
        Path("run", name).write_bytes(b"damaged")
    fit("run", grad_stats=2, resume=True)
    for name in ("metrics.csv", "gradients.csv", "curve.png"):
        assert Path("run", name).read_bytes() == before[name], name
    old, new = (
        json.loads(x) for x in (before["summary.json"], Path("run/summary.json").read_text())
    )
    measured = [n for n in new if "second" in n or n.endswith("bytes")]
    assert all(old[n] == new[n] for n in old if n not in measured)
    assert new["seconds"] > 0
    # What was measured is kept.
    Path("run/summary.json").write_bytes(before["summary.json"])
    fit("run", grad_stats=2, resume=True)
    assert json.loads(Path("run/summary.json").read_text()) == old


def test_a_summary_of_fewer_epochs_is_not_reported():
    fit("run")
    stale = Path("run/summary.json").read_bytes()
    fit("run", epochs=3, resume=True)
    Path("run/summary.json").write_bytes(stale)
    assert fit("run", epochs=3, resume=True).summary["epochs"] == 3
    assert json.loads(Path("run/summary.json").read_text())["epochs"] == 3


def test_a_run_that_goes_on_has_no_summary_of_fewer_epochs(dualnet_train, monkeypatch):
    dualnet_train("--seeds", 1, 2, "--run-dir", "all")
    with monkeypatch.context() as patch:
        patch.setattr(side_by_side._Group, "step", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            dualnet_train("--resume", "all", "--epochs", 3, base=())
    assert not list(Path("all").rglob("summary.json"))
    dualnet_train("--resume", "all", base=())
    assert len(list(Path("all").rglob("summary.json"))) == 3


def test_a_best_network_that_is_lost_is_told_of(capsys, monkeypatch):
    losses = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(dn.training.loop.Trainer, "evaluate", lambda *_: (next(losses), 0.5))
    fit("run")
    Path("run/best.npz").unlink()
    again = fit("run", epochs=3, resume=True)
    said = "run: its best network, of epoch 1, is lost; until a better epoch, it is the last one\n"
    assert capsys.readouterr().err == said
    assert (again.best.params["output"]["w"] == again.params["output"]["w"]).all()


# --- the same data, and surroundings -------------------------------------------------------------


def test_one_other_pixel_is_noticed():
    digits = data.load("digits", limit_train=90, limit_test=20)
    how = {"rule": "bp", "epochs": 1, "width": 8, "quiet": True}
    dn.fit("mlp", digits, run_dir="run", **how)
    images = digits.test_images[:].copy()
    images[3, 4, 5] //= 2
    other = replace(digits, test_images=images)
    assert fingerprint(other) != fingerprint(digits)
    with pytest.raises(UsageError, match=r"expected the data set that the run began with, whose "):
        dn.fit("mlp", other, run_dir="run", resume=True, **{**how, "epochs": 2})


def test_a_fingerprint_reads_what_is_read_and_some_of_what_is_too_large(monkeypatch):
    digits = data.load("digits", limit_train=90, limit_test=20)
    whole = fingerprint(digits)
    rows = data.dataset.Rows(digits.train_images[:], np.arange(90))
    assert fingerprint(replace(digits, train_images=rows)) == whole
    monkeypatch.setattr("dualnet.data.fingerprint._MOST_BYTES", 64 * 30)
    some = fingerprint(digits)
    images = digits.train_images[:].copy()
    images[1] = 0
    assert fingerprint(replace(digits, train_images=images)) == some != whole
    images[3] = 0
    assert fingerprint(replace(digits, train_images=images)) != some


def test_other_surroundings_are_said(capsys):
    fit("run", epochs=1)
    config = Path("run/config.json")
    told = json.loads(config.read_text())
    told["versions"]["numpy"], told["blas_threads"] = "1.0", 64
    config.write_text(json.dumps(told))
    fit("run", epochs=2, resume=True, quiet=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(
        rf"differs blas threads 64 → \d+, numpy 1.0 → {np.__version__}; numbers", shown
    )


@pytest.mark.parametrize("before", [None, {}, [], {"versions": 3}, {"versions": {"numpy": [1]}}])
def test_surroundings_that_nobody_knows(before):
    now = {"versions": {"numpy": "2.0"}, "machine": {}, "blas_threads": 2}
    assert "blas threads unknown → 2" in what_differs(before, now)
    assert what_differs(now, now) == ""


# --- what costs no run ---------------------------------------------------------------------------


def test_a_picture_that_cannot_be_drawn_costs_no_run(monkeypatch, capsys):
    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "draw_curve", fails)
    assert fit("run").summary["epochs"] == 2
    assert Path("run/summary.json").exists()
    err = capsys.readouterr().err
    assert err == "run: no picture could be drawn: OSError: [Errno 28] No space left on device\n"


def test_an_infinite_parameter_is_a_divergence(monkeypatch):
    """That of a unit which no loss sees."""
    real = dn.training.loop.Trainer.step

    def blown_up(self, now, *args):
        now = real(self, now, *args)
        if now.position.tolist() != [1, 3]:
            return now
        opt_state = dn.tree.map(lambda a: a + np.float32(np.inf), now.carried.opt_state)
        return replace(now, carried=now.carried._replace(opt_state=opt_state))

    monkeypatch.setattr(dn.training.loop.Trainer, "step", blown_up)
    with pytest.raises(DivergedError, match="in epoch 2, although the loss is finite"):
        fit("run", checkpoint_every="1", rule="bp", optimizer="momentum", lr=1e-30)
    assert arrays("run/checkpoint.npz")["position:"].tolist() == [1, 2]
    assert Path("run/diverged.json").exists()


# --- intervals -----------------------------------------------------------------------------------


def test_intervals_of_steps(monkeypatch):
    interval = CheckpointInterval("3")
    assert [interval.is_due() for _ in range(3)] == [False, False, True]
    interval.begin()
    assert [interval.is_due() for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(("every", "seconds"), [("30s", 30), ("5m", 300), ("1.5h", 5400)])
def test_intervals_of_time(every, seconds, monkeypatch):
    now = [7.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    interval = CheckpointInterval(every)
    now[0] += seconds - 0.25
    assert not interval.is_due()
    now[0] += 0.25
    assert interval.is_due()


@pytest.mark.parametrize("every", ["", "0", "0m", "-1", "1d", "5 m", "nan", "1e3s", "٣", "m"])
def test_what_is_no_interval(every):
    with pytest.raises(UsageError, match="expected a number of steps from 1 up, or a time such as"):
        CheckpointInterval(every)


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 3, 5, 6])])
def test_a_checkpoint_is_written_once(every, expected, monkeypatch):
    """Within an epoch of three steps it is due, and after each epoch there is one."""
    saved, real = [], RunFolder.write_checkpoint

    def write(self, trees, *name):
        if not name:
            epoch, batch = trees["position"]
            saved.append(3 * epoch + batch)
        real(self, trees, *name)

    monkeypatch.setattr(RunFolder, "write_checkpoint", write)
    fit("run", checkpoint_every=every)
    assert sorted(set(saved)) == [0, *expected]


def test_an_interval_is_remembered(dualnet_train):
    dualnet_train("--run-dir", "run", "--checkpoint-every", "7")
    assert RunFolder("run").where()["checkpoint_every"] == "7"
    dualnet_train("--resume", "run", "--epochs", 3, base=())
    assert RunFolder("run").where()["checkpoint_every"] == "7"
    dualnet_train("--resume", "run", "--epochs", 4, "--checkpoint-every", "1h", base=())
    assert RunFolder("run").where()["checkpoint_every"] == "1h"
    code, _, err = dualnet_train("--resume", "run", "--checkpoint-every", "soon", base=())
    assert code == 2 and "--checkpoint-every soon: expected a number of steps" in err
