"""Output that cannot be written never costs a run, and signals end commands without a traceback."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dualnet as dn
from dualnet import console
from dualnet.console import answer, exit_code, say
from dualnet.errors import DualnetError, UsageError
from dualnet.progress import progress_bar

ROOT = Path(__file__).parent.parent
TRAIN = (sys.executable, str(ROOT / "train.py"))
TINY = "--epochs 2 --limit-train 40 --limit-test 20 --width 8 --run-dir run".split()
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)  # what fails only when it is flushed is harder
unix = pytest.mark.skipif(os.name == "nt", reason="Windows has neither /dev/full nor SIGHUP")


@pytest.fixture(autouse=True)
def nothing_here(elsewhere):
    """An empty folder to work in."""


def in_shell(command, *flags):
    """The exit code of `train.py *flags` with the redirections of a shell, and its two outputs."""
    words = " ".join((*TRAIN, *flags))
    shell = f"{words} {command}; echo ${{PIPESTATUS[0]}} > code"
    out = subprocess.run(
        ["bash", "-c", shell], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    return int(Path("code").read_text()), out.stdout, out.stderr


# --- outputs -------------------------------------------------------------------------------------


@unix
@pytest.mark.parametrize(
    ("outputs", "flags", "code"),
    [
        (">&-", [], 1),
        ("2>&-", ["--json"], 0),
        ("2>/dev/full", ["--json"], 0),
        ("| head -1", [], 1),
        pytest.param(">&- 2>&-", ["--json"], 1, marks=pytest.mark.slow),
        pytest.param(">/dev/full", ["--json"], 1, marks=pytest.mark.slow),
        pytest.param(">/dev/full 2>/dev/full", [], 1, marks=pytest.mark.slow),
        pytest.param("| head -1", ["--json"], 0, marks=pytest.mark.slow),
    ],
)
def test_a_run_ends_whatever_becomes_of_its_outputs(outputs, flags, code):
    got, out, err = in_shell(outputs, *TINY, *flags)
    assert got == code
    assert json.loads(Path("run/summary.json").read_text())["epochs"] == 2
    assert len(Path("run/metrics.csv").read_text().splitlines()) == 3
    assert "Traceback" not in err and "Exception" not in err
    if code == 0:
        assert json.loads(out.splitlines()[-1])["epochs"] == 2
    elif "2>" not in outputs:
        why = r"train\.py: standard output cannot be written to: .*run/summary\.json"
        assert re.fullmatch(why, err.splitlines()[-1])


@unix
@pytest.mark.parametrize("flag", ["--list", "--help", "--describe"])
def test_an_answer_that_is_lost_is_said_in_one_line(flag):
    code, _, err = in_shell(">/dev/full", flag)
    assert (code, err) == (
        1,
        "train.py: standard output cannot be written to: No space left on device\n",
    )


@unix
def test_no_file_takes_the_place_of_a_closed_output():
    program = (
        "import os\nfrom dualnet.console import exit_code\n"
        "def main(argv, program):\n"
        "    opened = os.open('file', os.O_RDWR | os.O_CREAT)\n"
        "    os.write(opened, b'ours')\n"
        "    os.system('echo library >&2; echo library')\n"
        "    return 0 if opened > 2 else 7\n"
        "os._exit(exit_code('a', main, []))\n"
    )
    Path("program.py").write_text(program)
    shell = f"{sys.executable} program.py <&- >&- 2>&-"
    done = subprocess.run(["bash", "-c", shell], env=ENVIRONMENT, timeout=60)
    assert (done.returncode, Path("file").read_text()) == (0, "ours")


class Broken(io.StringIO):
    """A stream that cannot be written to."""

    def __init__(self, error, terminal=False):
        super().__init__()
        self.error, self.terminal = error, terminal

    def isatty(self):
        return self.terminal

    def write(self, text):
        raise self.error


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "stream",
    [None, closed(), Broken(OSError(28, "full")), Broken(BrokenPipeError(32, "gone"), True)],
)
def test_a_program_in_python_trains_whatever_becomes_of_its_outputs(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    small = {"epochs": 1, "limit_train": 40, "limit_test": 20, "width": 4}
    assert len(dn.fit(**small).history) == 1
    assert list(progress_bar([1, 2], desc="bar")) == [1, 2]
    say("lost")
    say("lost", aside=True)
    with pytest.raises((DualnetError, BrokenPipeError)):
        answer("wanted")


def test_nothing_steers_the_terminal(capsys):
    def main(argv, program):
        say("a\x1b[2Jb\r\nc")
        answer("\x9b1m")
        raise UsageError("first\nsecond\x07 \udce4 \u202e" + 3000 * "x" + " end")

    assert exit_code("name", main, []) == 2
    out, err = capsys.readouterr()
    assert out == "a\\x1b[2Jb\\r\nc\n\\x9b1m\n"
    assert err.startswith(r"name: first\nsecond\x07 \xe4 \u202exx") and err.endswith("x end\n")
    assert len(err) <= console.LONGEST + len("name: \n") and err.count("\n") == 1


# --- signals -------------------------------------------------------------------------------------


@unix
def test_signals_that_are_ignored_stay_so_and_others_end_once():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = []

    def main(argv, program):
        os.kill(os.getpid(), signal.SIGHUP)
        reached.append("after the ignored one")
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGTERM)  # which would stop the checkpoint
            reached.append("checkpoint")
            raise

    try:
        assert exit_code("name", main, []) == 130
        assert reached == ["after the ignored one", "checkpoint"]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@unix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("late", [0.05, 0.2])
def test_a_command_that_is_ended_while_it_imports(number, late):
    flags = "--epochs 1000000 --quiet --run-dir run".split()
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored\n"
        "from dualnet.command.main import run_command\n"
        f"print(flush=True); sys.exit(run_command(['train', *{flags}]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        child.stdout.readline()
        time.sleep(late)
        child.send_signal(number)
        try:
            out, err = child.communicate(timeout=60)
        finally:
            child.kill()
    assert (child.returncode, out) == (130, "")
    assert re.fullmatch(r"dualnet train: interrupted[^\n]*\n", err)
