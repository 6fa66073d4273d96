"""Run folders that are damaged, or made to do harm: refused in one line, or the same numbers.

Every folder is read by what reads folders: `compare`, `evaluate`, `load_run` and `train --resume`.
The quick forms take some of the damages, the long ones all.
"""

import contextlib
import errno
import io
import json
import os
import re
import resource
import shutil
import time
import tracemalloc
from pathlib import Path

import hostile_runs as hostile
import numpy as np
import pytest
from unsealed import unseal

from dualnet.command import compare, evaluate, predict, train
from dualnet.console import exit_code
from dualnet.errors import BackendError, DataError, DivergedError, DualnetError, UsageError
from dualnet.training.comparison import compare_runs
from dualnet.training.json_files import sealed
from dualnet.training.loop import Trainer
from dualnet.training.run_folder import RunFolder
from dualnet.training.trained import load_run

pytestmark = pytest.mark.usefixtures("elsewhere")

TINY = "--limit-train 96 --limit-test 32 --width 8 --batch-size 32 --epochs 2 --quiet".split()
RUNS = {
    "norm": "--rule bp --batch-norm",
    "contrastive": "--rule fg-a --objective contrastive --augment contrastive",
    "compared": "--rule fg-w --grad-stats 2 --on-nan skip --epochs 3",
    "feedback": "--rule fdfa",
    "seeds": "--rule lg-fg-a --seeds 1 2",
}
SECONDS, BYTES = 20, 500 << 20
"""What one reading may take at most."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run of each kind; `compared` was interrupted in its third epoch."""
    folder = tmp_path_factory.mktemp("runs")
    step = Trainer.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dualnet.training.run.draw_curve", lambda *_: False)
        patch.setattr("dualnet.training.run.draw_gradients", lambda *_: False)
        for name, flags in RUNS.items():
            if name == "compared":
                patch.setattr(Trainer, "step", interrupted(step))
            with contextlib.redirect_stdout(io.StringIO()):
                try:
                    train.main([*TINY, *flags.split(), "--run-dir", str(folder / name)])
                except DualnetError as error:
                    assert error.exit_code == 130 and name == "compared"
            patch.setattr(Trainer, "step", step)
    return folder


def interrupted(step):
    def stop(self, now, advance, batch, per_epoch):
        if now.position.tolist() == [2, 2]:
            raise KeyboardInterrupt
        return step(self, now, advance, batch, per_epoch)

    return stop


class RefusedError(Exception):
    """What a command says where it ends with a code."""


class Judge:
    """Reads folders, and holds what is read against what the undamaged one gives."""

    def __init__(self, runs, capsys):
        self.runs, self.capsys, self.right = runs, capsys, {}
        self.refused = self.read = 0

    def copy(self, name):
        """Put a copy of a run into this folder, and return its path."""
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(self.runs / name, "run")
        return Path("run")

    def __call__(self, name, what, same=True):
        """Read the folder `run` in every way.

        Args:
            name: of the run that it is a copy of.
            what: was done to it.
            same: whether all numbers must be those of that run, where it is not refused.
        """
        if name not in self.right:
            shutil.move("run", "damaged")
            self.copy(name)
            self.right[name] = [read() for read in self.ways()]
            assert not any(isinstance(one, Exception) for one in self.right[name])
            shutil.rmtree("run")
            shutil.move("damaged", "run")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i, read in enumerate(self.ways()):
            began = time.monotonic()
            try:
                found = read()
            except (DualnetError, RefusedError) as error:
                refused = str(error)
                assert refused.isprintable() and len(refused) < 1000, (what, refused)
                self.refused += 1
            else:
                self.read += 1
                if same:
                    np.testing.assert_equal(found, self.right[name][i], err_msg=what)
            assert time.monotonic() - began < SECONDS, what
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert taken << 10 < BYTES, what
        assert not Path("ran").exists(), what

    def ways(self):
        return (self.compared, self.evaluated, self.evaluated_best, self.loaded, self.resumed)

    def compared(self):
        return self.printed(compare.main, "run", "--json")

    def evaluated(self):
        return self.printed(evaluate.main, "run", "--json")

    def evaluated_best(self):
        return self.printed(evaluate.main, "run", "--json", "--best")

    def loaded(self):
        folder = next(p for p in (Path("run/seed-1"), Path("run")) if p.is_dir())
        network = load_run(folder)
        x = np.arange(128, dtype=np.uint8).reshape(2, 8, 8) % 17
        return network.outputs(x), network.classes, network.predict(x)

    def resumed(self):
        told = self.printed(train.main, "--resume", "run", "--epochs", "3", "--quiet", "--json")
        arrays = {}
        for file in sorted(Path("run").rglob("*.npz")):
            arrays |= {f"{file}:{n}": a for n, a in hostile.arrays_in(file).items()}
        for name, array in arrays.items():  # all but the seconds
            if name.endswith("history:"):
                arrays[name] = array[:, :-1]
            if name.endswith("sums:"):
                arrays[name] = array[:-1]
        return without_seconds(told), arrays

    def printed(self, main, *argv):
        """What a command prints on one line as JSON."""
        self.capsys.readouterr()
        code = exit_code("dualnet", main, argv)
        out, err = self.capsys.readouterr()
        if code:
            assert code in (2, 3, 4, 5) and err.endswith("\n"), (code, err)
            raise RefusedError(err[:-1])
        return json.loads(out)


def without_seconds(told):
    if isinstance(told, dict):
        return {n: without_seconds(x) for n, x in told.items() if not n.startswith(MEASURED)}
    return [without_seconds(x) for x in told] if isinstance(told, list) else told


MEASURED = ("seconds", "peak_memory")


@pytest.fixture
def judge(runs, capsys):
    return Judge(runs, capsys)


def of(name, file):
    """The path of a file of a run, or of one of its seeds."""
    return Path("run", "seed-2" if name == "seeds" and file != "seeds.json" else "", file)


# --- checkpoints ---------------------------------------------------------------------------------


def flipped(judge, rng, n):
    names = list(RUNS)
    for i in range(n):
        name, file = names[i % len(names)], ("checkpoint.npz", "best.npz")[i // len(names) % 2]
        judge.copy(name)
        path = of(name, file)
        path.write_bytes(hostile.random_damage(path.read_bytes(), rng))
        judge(name, f"{name}/{file}: random damage {i}")


def test_some_random_damage_to_checkpoints(judge, rng):
    flipped(judge, rng, 6)


@pytest.mark.slow
def test_random_damage_to_checkpoints(judge, rng):
    flipped(judge, rng, 1000)
    assert judge.refused > 1000  # of 5,000 readings: the damage does reach the checks


def crafted(runs):
    """Every crafted checkpoint: `(run, file, what, how to write it)`."""
    for name in RUNS:
        for file in ("best.npz", "checkpoint.npz"):
            arrays = hostile.arrays_in(runs / name / of(name, file).relative_to("run"))
            tables = [hostile.crafted_arrays(arrays)]
            tables += [(hostile.crafted_states if file[0] == "c" else hostile.crafted_best)(arrays)]
            for table in tables:
                for what, changed in table:
                    yield name, file, what, lambda p, a=changed: hostile.write_arrays(p, a)
            for what, make in hostile.crafted_archives(arrays):
                yield name, file, what, lambda p, make=make: p.write_bytes(make())


def refused_by(judge, name, file, what, write):
    judge.copy(name)
    path = of(name, file)
    write(path)
    refused = judge.refused
    judge(name, f"{name}/{file}: {what}")
    # A run that goes on needs the best network only if it was not the last one.
    assert judge.refused > refused or file[0] == "b", f"{name}/{file}: {what} is taken as it is"


def test_some_crafted_checkpoints(judge, runs, rng):
    every = list(crafted(runs))
    for i in rng.choice(len(every), 6, replace=False):
        refused_by(judge, *every[i])


WITHIN_SECONDS = {
    "epoch -1": "it is at step 2 of epoch 0",
    "epoch 1": "history: is float64(2, 7), expected float64(1, 7)",
    "batch 4": "it is at step 4 of epoch 3, and epochs have 3 steps",
    "sums[2] 7.5": "it has sums",
    "sums[1] 1000000000.0": "it has sums",
    "history[0, 0] 2": "row 1 has the epoch 2",
    "history[0, 2] 1.1": "row 1 has the train_accuracy 1.1",
    "skipped -1": "it has left out -1 of 8 steps",
    "comparisons 0 2": "it compares gradients and finds a cosine of 2.0",
    "fewer comparisons": "comparisons: is float64(3, 7, 3), expected float64(4, 7, 3)",
    "params:hidden1/w with nan": "params:hidden1/w holds a number that is not finite",
    "opt_state:second_moment/hidden1/w with inf": "hidden1/w holds a number that is not finite",
    "history: with nan": "row 2 has the seconds nan",
    "params:hidden1/w as objects": "params:hidden1/w is object(64, 8), expected float32(64, 8)",
    "params:hidden1/w of other bytes": "params:hidden1/w is >f4(64, 8), expected float32(64, 8)",
    "one more": "more:x is on one side only",
    "compressed": "is compressed",
    "a name twice": "it holds two arrays of one name",
    "a bomb": "is compressed",
    "very many": "it lists more arrays than it is to hold",
    "shape (10000000000": "expected float32(64, 8)",
    "a locked member": "is encrypted",
    "more behind": "params:hidden1/w has 11176 bytes, expected 2176",
    "cut short": "params:hidden1/w has 1128 bytes, expected 2176",
}


def test_what_no_run_writes_is_said(judge, runs):
    every = {what: write for name, *_, what, write in crafted(runs) if name == "compared"}
    for what, said in WITHIN_SECONDS.items():
        judge.copy("compared")
        every[what](Path("run/checkpoint.npz"))
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match=re.escape(said)):
                train.main(["--resume", "run", "--quiet"])
            assert tracemalloc.get_traced_memory()[1] < 50 << 20, what
        finally:
            tracemalloc.stop()


@pytest.mark.slow
def test_crafted_checkpoints(judge, runs):
    every = list(crafted(runs))
    assert len(every) >= 200
    for one in every:
        refused_by(judge, *one)


# --- JSON, and the table of figures --------------------------------------------------------------


def texts_of(runs, name):
    """The files of a run that are text."""
    files = ("config.json", "network.json", "summary.json", "metrics.csv", "seeds.json")
    paths = [of(name, file) for file in files]
    return [path for path in paths if (runs / name / path.relative_to("run")).exists()]


def damaged_texts(judge, rng, n):
    names = list(RUNS)
    for i in range(n):
        name = names[i % len(names)]
        paths = texts_of(judge.runs, name)
        path = paths[i // len(names) % len(paths)]
        judge.copy(name)
        before, same = path.read_text(), True
        if path.suffix == ".json" and i % 3:
            # A file that is sealed anew, or was not sealed, may be that of another run.
            same = i % 3 == 1 and "sha256" in before
            path.write_bytes(hostile.damaged_value(json.loads(before), rng, seal=not same))
        else:
            path.write_bytes(hostile.damaged_text(before, rng))
        judge(name, f"{path}: damage {i}: {path.read_bytes()[:3000]}", same)


def test_some_damaged_texts(judge, rng):
    damaged_texts(judge, rng, 6)


@pytest.mark.slow
def test_damaged_texts(judge, rng):
    damaged_texts(judge, rng, 600)


SETTINGS = ("config.json", "network.json")
NEITHER_TEXT_NOR_JSON = {
    "a pipe": (os.mkfifo, "expected a file, got a folder, a pipe or a device"),
    "a folder": (os.mkdir, "expected a file, got a folder, a pipe or a device"),
    "an endless file": (
        lambda path: os.symlink("/dev/zero", path),
        "expected a file, got a folder, a pipe or a device",
    ),
    "a large file": (lambda path: sparse(path, 1 << 34), "has more than"),
    "a link to itself": (lambda path: os.symlink(path.name, path), "Too many levels of symbolic"),
    "brackets": (lambda path: path.write_text("[" * 100_000), "nested more than"),
    "a deep tree": (lambda path: path.write_text(f'{{"a": {hostile.nested(300)}}}'), "more than"),
    "a long number": (lambda path: path.write_text(f'{{"a": {"9" * 5000}}}'), "of 5000 digits"),
    "a large number": (lambda path: path.write_text('{"a": 1e400}'), "too large"),
    "twice the same": (lambda path: path.write_text('{"a": 1, "a": 2}'), "it has 'a' twice"),
}


def sparse(path, size):
    """Make a file that takes no room on the disk."""
    with open(path, "wb") as out:
        out.truncate(size)


@pytest.mark.parametrize("what", NEITHER_TEXT_NOR_JSON)
@pytest.mark.parametrize("file", [*SETTINGS, "summary.json", "metrics.csv"])
def test_what_is_no_file_of_a_run_is_refused_at_once(file, what, judge):
    make, said = NEITHER_TEXT_NOR_JSON[what]
    path = judge.copy("feedback") / file
    path.unlink()
    (path.parent / "checkpoint.npz").unlink()  # in which figures are looked up first
    make(path)
    reads = {"network.json": lambda: load_run("run")}.get(file, lambda: compare_runs(["run"]))
    tracemalloc.start()
    try:
        with pytest.raises(DualnetError) as raised:
            reads()
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    expected = "metrics.csv is damaged" if path.suffix == ".csv" and "number" in what else said
    if path.suffix == ".json" or "file" in said or "has more" in said:
        assert expected in str(raised.value)
    assert str(path) in str(raised.value) and str(raised.value).isprintable()


@pytest.mark.parametrize("file", ["checkpoint.npz", "best.npz"])
def test_a_checkpoint_that_is_no_file_is_refused_at_once(file, judge):
    path = judge.copy("feedback") / file
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=f"{file}: expected a file, got a folder, a pipe or a devi"):
        load_run("run", best=file == "best.npz")


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.EACCES, UsageError, "Permission denied; ask for the permission to read it"),
        (errno.EIO, DataError, "Input/output error; its disk fails"),
        (errno.EMFILE, UsageError, "Too many open files; let fewer"),
    ],
)
@pytest.mark.parametrize("file", [*SETTINGS, "checkpoint.npz"])
def test_what_cannot_be_read_is_not_called_damaged(file, number, kind, said, judge, monkeypatch):
    judge.copy("feedback")
    opened = os.open

    def refuse(path, *how):
        if Path(path).name == file:
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *how)

    monkeypatch.setattr(os, "open", refuse)
    reads = {"config.json": RunFolder("run").settings}.get(file, lambda: load_run("run"))
    with pytest.raises(kind, match=f"{file} cannot be read: {said}") as raised:
        reads()
    assert "damaged" not in str(raised.value) and "anew" not in str(raised.value)


def test_memory_that_is_lacking_is_not_damage(judge, monkeypatch):
    judge.copy("feedback")

    def refuse(*_, **__):
        raise MemoryError("no room for an array")

    monkeypatch.setattr(np.lib.format, "read_array", refuse)
    with pytest.raises(BackendError, match=r"network\.json: out of memory: no room for an array"):
        load_run("run")
    code = exit_code("train.py", train.main, ["--resume", "run", "--epochs", "3", "--quiet"])
    said = judge.capsys.readouterr().err
    assert code == 5 and "out of memory" in said and "damaged" not in said


# --- networks ------------------------------------------------------------------------------------


def layers(data):
    return data["network"]["fields"]["layers"]


HUGE = 10**12
UNFIT = {
    "features": lambda d: layers(d)[1][1]["fields"].update(features=HUGE),
    "more features": lambda d: layers(d)[1][1]["fields"].update(features=9),
    "shape": lambda d: d["preparation"].update(shape=[HUGE, HUGE, 1]),
    "a longer shape": lambda d: d["preparation"].update(shape=[1] * 31),
    "a shape of none": lambda d: d["preparation"].update(shape=[8, 0, 1]),
    "image_size": lambda d: d["preparation"].update(image_size=10**5),
    "mean": lambda d: d["preparation"].update(mean=[0.0, 1.0]),
    "an endless mean": lambda d: d["preparation"].update(mean=[float("inf")]),
    "std": lambda d: d["preparation"].update(std=[0.0]),
    "a std of nothing": lambda d: d["preparation"].update(std=[]),
    "a std that is NaN": lambda d: d["preparation"].update(std=[float("nan")]),
    "white": lambda d: d["preparation"].update(white=0),
    "labels": lambda d: d.update(labels=d["labels"][:-1]),
    "labels of two kinds": lambda d: d["labels"].__setitem__(0, "a"),
    "a label twice": lambda d: d["labels"].__setitem__(0, 1),
    "a class more": lambda d: d.update(labels=[*d["labels"], 10], classes=[*d["classes"], "ten"]),
    "a class that is no text": lambda d: d["classes"].__setitem__(0, 3),
    "no classes": lambda d: d.update(labels=[], classes=[]),
    "targets": lambda d: d.update(labels=[], classes=[], real_targets=HUGE),
    "dtype": lambda d: d.update(dtype="float16"),
    "an objective": lambda d: d.update(objective={"name": "\x1b[2J" * 999}),
    "an option": lambda d: d["objective"].update(temperature=3),
    "a layer": lambda d: layers(d)[0][1].update(layer="\x1b[2J" * 999),
    "layers that are none": lambda d: d["network"]["fields"].update(layers=["x" * 10**5] * 2),
    "a name with a slash": lambda d: layers(d)[0].__setitem__(0, "/" * 10**5),
    "padding": lambda d: layers(d).insert(
        0, ["pool", {"layer": "MaxPool", "fields": {"window": 2, "padding": 10**6}}]
    ),
    "a large image": lambda d: (
        d["preparation"].update(shape=[HUGE, HUGE, 1]),
        layers(d).insert(0, ["pool", {"layer": "AdaptiveAveragePool", "fields": {"size": 8}}]),
    ),
    "cells": lambda d: layers(d).insert(
        0, ["pool", {"layer": "AdaptiveAveragePool", "fields": {"size": HUGE}}]
    ),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_network_that_does_not_fit_its_parameters_takes_no_memory(what, judge):
    file = judge.copy("feedback") / "network.json"
    data = unseal(file)
    UNFIT[what](data)
    file.write_text(json.dumps(sealed(data)))
    tracemalloc.start()
    try:
        with pytest.raises((DataError, UsageError)) as raised:
            load_run("run")
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    said = str(raised.value)
    assert said.isprintable() and len(said) < 700 and re.search(r"run/\w+\.(json|npz)", said)


def test_classes_do_not_steer_the_terminal(judge):
    file = judge.copy("feedback") / "network.json"
    data = unseal(file)
    data["classes"][3] = "\x1b]0;x\x07\n\u202e"
    file.write_text(json.dumps(sealed(data)))
    np.savez("x.npz", x=np.zeros((2, 8, 8, 1), np.uint8), y=np.arange(2))
    for main, *argv in (
        (evaluate.main, "run", "--data", "x.npz"),
        (predict.main, "run", "x.npz"),
    ):
        assert exit_code("dualnet", main, argv) == 0
        out, err = judge.capsys.readouterr()
        assert out.replace("\n", "").isprintable() and not err


def test_parameters_that_overflow_are_not_an_answer(judge):
    file = judge.copy("feedback") / "checkpoint.npz"
    arrays = hostile.arrays_in(file)
    for name, array in arrays.items():
        if name.startswith("params:"):
            array[...] = 3e38
    hostile.write_arrays(file, arrays)
    network = load_run("run")
    with pytest.raises(DivergedError, match="predict: an output is not finite"):
        network.predict(np.full((2, 8, 8), 16, np.uint8))
    with pytest.raises(DivergedError, match=r"evaluate: the loss is \w+; the parameters or the ex"):
        network.evaluate((np.full((2, 8, 8), 16, np.uint8), np.arange(2)))


def test_settings_that_ask_for_another_network_take_no_memory(judge):
    file = judge.copy("feedback") / "config.json"
    data = unseal(file)
    for width in (10**6, 10**9, HUGE):
        data["settings"]["model_options"]["width"] = width
        file.write_text(json.dumps(sealed(data)))
        tracemalloc.start()
        try:
            with pytest.raises(DualnetError):
                train.main(["--resume", "run", "--epochs", "3", "--quiet"])
            assert tracemalloc.get_traced_memory()[1] < 50 << 20
        finally:
            tracemalloc.stop()


def test_a_seal_is_for_what_numbers_depend_on(judge):
    folder = judge.copy("feedback")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"lr": 0.001', '"lr": 0.003'))
    with pytest.raises(DataError, match="is not as it was written; if you have changed it, delete"):
        RunFolder(folder).settings()
    assert unseal(folder / "config.json")["settings"]["lr"] == 0.003
    assert RunFolder(folder).settings().lr == 0.003
    (folder / "config.json").write_text(text.replace('"python": "3', '"python": "4'))
    assert RunFolder(folder).settings().lr == 0.001
