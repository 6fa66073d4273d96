"""Random command lines, valid ones with a few values changed, and what must hold of each.

    python tests/random_command_lines.py SEED FIRST LAST

runs those from number FIRST to LAST - 1 in processes of their own and prints what failed.  A line
is a function of the seed and its number alone.
"""

import contextlib
import json
import os
import random
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dualnet import data, naming
from dualnet.command import train
from dualnet.command.main import run_command
from dualnet.learning import WEIGHT_AGGREGATIONS, WEIGHT_SAMPLERS
from dualnet.training.assemble import TABLES
from dualnet.training.flags import make_parser
from dualnet.training.settings import option_table

FIRST_WORD, AFTER_IT, AT_THE_END = 10.0, 0.5, 20.0
"""Seconds: until something is said, until the line is ended by SIGTERM, until it then ends."""
MEMORY = 6 * 2**30
CODES = (0, 2, 3, 4, 5, 130)

HOSTILE = (
    *(
        "",
        " ",
        "-",
        "--",
        "-1",
        "0",
        "1",
        "2",
        "3",
        "nan",
        "-inf",
        "inf",
        "1e999",
        "1e-320",
        "1e308",
    ),
    *("1.5", "0x10", "1_000", "½", "٣", "true", "None", "none", "yes", "[1", "{0}", "{}", "%s%n"),
    *(
        "%(prog)s",
        "'",
        '"',
        "`",
        "$(x)",
        "a b",
        "--epochs",
        "--x",
        "=",
        "a=b",
        "\\",
        "*",
        "[",
        "é😀",
    ),
    *(
        "10000",
        "1000000",
        "100000000",
        "10000000000",
        "10000000000000000000",
        "9" * 400,
        "9" * 5000,
    ),
    *("a\0b", "\x1b[2J\x1b]0;x\x07", "a\nb", "\r", "\x7f\x9b", "\udce4\udcff", "\ud800", "\u202e"),
    *("a" * 300, "x" * 1_000_000, "a/" * 1000, "/" * 5000, "../" * 100, ".", "/", "~", "/dev/zero"),
    *("/dev/full", "/dev/null", "/proc/self/mem", "/proc/self", "fifo", "folder", "nowhere"),
    *(
        "good",
        "seeds",
        "x.npz",
        "zeros.npz",
        "own.py",
        "wrong.py",
        "settings.toml",
        "brackets.toml",
    ),
    *("15C5-P2-128", "1-" * 5000 + "1", "9999999999C3", "P0", "rank-one:9999999999", "angle:x"),
    *("varying:100000000", "normal:unit", "angle:1e300", "rank-one:-1", "rank-one:1e3", "cupy"),
)
NUMBERS = (
    *(
        "-1",
        "0",
        "1",
        "2",
        "3",
        "8",
        "1e-30",
        "0.5",
        "1e30",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e-320",
    ),
    *("10000", "1000000", "100000000", "10000000000", "9223372036854775807", "1e308", "9" * 30),
)
LITERALS = (
    *("0", "-1", "1", "2.5", "nan", "inf", "1e300", '"x"', '""', "true", "[]", "[1, 2]", "[[]]"),
    *('["a"]', "{a = 1}", "1979-05-27", '"a\\u0000b"', '"\\u001b[2J"', "99999999999999999999"),
    *("0x" + "f" * 6000, "100000000", "1e400", '"' + "y" * 5000 + '"', "[" * 500 + "]" * 500),
)
"""Values in a file of settings."""


def environment(root):
    """The variables of a process that imports this checkout, and computes on one thread."""
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(root)}


class Line:
    """A command line.

    Attributes:
        words: what stands behind `dualnet`.
        changed: flags and names, one of which the message must have if it is about an argument.
    """

    def __init__(self, words, changed):
        self.words, self.changed = words, changed


class Flag(NamedTuple):
    """A flag of `train` that takes values.

    Attributes:
        name: as `--width`.
        many: whether it takes many values.
        hostile: values that it may well refuse.
        good: values that may do.
        users: flags with values, such as `--model mlp`, with one of which it is of use.
    """

    name: str
    many: bool
    hostile: tuple
    good: tuple
    users: tuple


def valued_flags():
    """Return every flag of `train` that takes values."""
    known = {f"--{kind}": tuple(table) for kind, table in TABLES.items()}
    known |= {"--dataset": ("digits",), "--backend": ("numpy",), "--dtype": ("float64",)}
    known |= {"--augment": tuple(data.AUGMENTATIONS), "--pixels": tuple(data.PIXEL_SCALES)}
    known |= {"--sampler": tuple(WEIGHT_SAMPLERS), "--aggregate": tuple(WEIGHT_AGGREGATIONS)}
    users = {}
    for kind, table in TABLES.items():
        for option, (_, owners) in option_table(table).items():
            users[naming.flag(option)] = tuple((f"--{kind}", owner) for owner in owners)
    flags = []
    for action in make_parser(TABLES, "x")._actions:
        name = action.option_strings[-1]
        if action.nargs != 0 and name != "--help":
            numeric = action.type is not None
            hostile = HOSTILE + (10 * NUMBERS if numeric else ())
            good = known.get(name, ("1", "2", "4", "0.5") if numeric else ("zeros", "relu", "own"))
            flags.append(Flag(name, action.nargs == "+", hostile, good, users.get(name, ())))
    return flags


def write_files():
    """Write what lines name into the working folder."""
    small = [*SMALL, "--quiet"]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        train.main([*small, "--run-dir", "good"])
        train.main([*small, "--seeds", "1", "2", "--run-dir", "seeds"])
    os.mkfifo("fifo")
    os.mkdir("folder")
    np.savez("x.npz", x=np.zeros((3, 8, 8, 1), np.uint8), y=np.arange(3))
    np.savez("zeros.npz", a=np.zeros(3))
    Path("own.py").write_text(OWN)
    Path("wrong.py").write_text("1 / 0\n")
    Path("settings.toml").write_text("epochs = 1\nwidth = 8\n")
    Path("brackets.toml").write_text("a = " + "[" * 100_000)


SMALL = "--limit-train 40 --limit-test 20 --width 8 --epochs 1".split()
OWN = (
    "from dataclasses import dataclass\nfrom dualnet.learning import RULES, Backprop\n"
    "@dataclass(frozen=True)\nclass Mine(Backprop):\n    '''One of my own.'''\n"
    'RULES["mine"] = Mine\n'
)
OTHERS = {
    "evaluate": (["good"], ("--data", "--data-dir", "--backend", "--plugin", "--sheet")),
    "predict": (["good", "x.npz"], ("--backend", "--plugin")),
    "compare": (["good", "seeds"], ("--picture",)),
    "list": ([], ("--plugin",)),
    "check": (["--only", "np.exp"], ("--only", "--plugin", "--seed", "--backend")),
}
"""Command → a valid line, and its flags that take a value."""


def line_number(seed, number, flags):
    """Return a line."""
    draw = random.Random(f"{seed} {number}")
    kind = draw.random()
    if kind < 0.2:
        return of_another_command(draw)
    if kind < 0.3:
        return with_a_file(draw, number, flags)
    words, changed = [*SMALL, "--run-dir", f"run-{number}"], []
    for _ in range(draw.choice((1, 1, 1, 1, 2, 3))):
        flag = draw.choice(flags)
        values = [draw.choice(flag.good if draw.random() < 0.2 else flag.hostile)]
        if flag.many:
            values += [draw.choice(flag.good + flag.hostile) for _ in range(draw.choice((0, 1, 2)))]
        words = without(words, flag.name)
        if flag.users and draw.random() < 0.9:
            kind, user = draw.choice(flag.users)
            words = [*without(words, kind), kind, user]
            changed += [kind, "--width"] if kind == "--model" else [kind]
            if kind == "--model" and user != "mlp":
                words = without(words, "--width")
        name = flag.name
        changed += [name, "--width"] if name == "--model" else [name]
        words += [f"{name}={values[0]}"] if draw.random() < 0.3 else [name, *values]
    if draw.random() < 0.1:
        words.insert(draw.randrange(len(words) + 1), draw.choice(HOSTILE))
        changed = []  # whose value the next word is cannot be said
    words += [flag for flag in ("--json", "--describe", "--list") if draw.random() < 0.05]
    command = ["rates", "1e-3", "1e-2"] if draw.random() < 0.1 else ["train"]
    return Line([*command, *words], changed)


def of_another_command(draw):
    """Return a line of a command that does not train."""
    command = draw.choice(list(OTHERS))
    words, names = list(OTHERS[command][0]), OTHERS[command][1]
    changed = []
    if draw.random() < 0.5:
        changed = [draw.choice(names)]
        words += [*changed, draw.choice(HOSTILE)]
    else:
        words.insert(draw.randrange(len(words) + 1), draw.choice(HOSTILE))
    if draw.random() < 0.03:
        command = draw.choice(HOSTILE)
        changed = []
    return Line([command, *words], changed)


def with_a_file(draw, number, flags):
    """Return a line with a file of settings, one of which is changed."""
    name = draw.choice(flags).name[2:]
    Path("changed.toml").write_text(f"{name} = {draw.choice(LITERALS)}\n", encoding="utf-8")
    words = without([*SMALL, "--run-dir", f"run-{number}"], f"--{name}")
    changed = [name, name.replace("-", "_"), "--config"]
    return Line(["train", *words, "--config", "changed.toml"], changed)


def without(words, name):
    """Return words without a flag and its value."""
    if name not in words:
        return words
    at = words.index(name)
    return words[:at] + words[at + 2 :]


def run(line):
    """Run a line in a process of its own; return its exit code, first word's time, and outputs."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.dup2(out_write, 1)
        os.dup2(err_write, 2)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = 99
        try:
            code = run_command(line.words)
        except SystemExit as end:  # of --help
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    os.close(out_write)
    os.close(err_write)
    texts, first, ended = {out_read: b"", err_read: b""}, None, None
    is_open = set(texts)
    while is_open:
        now = time.monotonic() - began
        if first is None and now > FIRST_WORD + AT_THE_END:
            os.kill(child, signal.SIGKILL)
        elif ended is not None and now > ended + AT_THE_END:
            os.kill(child, signal.SIGKILL)
        elif ended is None and first is not None and now > first + AFTER_IT:
            ended = now
            os.kill(child, signal.SIGTERM)
        for stream in select.select(list(is_open), [], [], 0.05)[0]:
            part = os.read(stream, 1 << 16)
            texts[stream] += part
            if not part:
                is_open.discard(stream)
            elif first is None:
                first = time.monotonic() - began
    _, status = os.waitpid(child, 0)
    os.close(out_read)
    os.close(err_read)
    code = os.waitstatus_to_exitcode(status)
    return code, first or time.monotonic() - began, *(t.decode("utf-8") for t in texts.values())


def wrong(line, code, first, out, err):
    """Return what is wrong with the outcome of a line; None for nothing."""
    said = err.splitlines()[-1] if err.strip() else ""
    if "Traceback" in err:
        return "a traceback"
    if code not in CODES and not (code == 1 and line.words[0] == "check"):
        return f"exit code {code}"
    if first > FIRST_WORD:
        return f"no word for {first:.1f} s"
    if code and not said.startswith("dualnet"):
        return "no line for the error"
    if not (out + err).replace("\n", "").isprintable():
        return "characters that are not printable"
    if any(len(text) >= 1000 for text in err.splitlines()):
        return "a line of 1,000 characters"
    # What begins with a dash is no value to a parser, which names the word then.
    words_alone = "expected a flag, got" in said or "there is no flag" in said
    if (
        code == 2
        and line.changed
        and not words_alone
        and not any(name in said for name in line.changed)
    ):
        return "a message that names no flag of those that were changed"
    return None


def main(seed, first, last):
    flags = valued_flags()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_files()
        codes, slowest = {}, 0.0
        for number in range(first, last):
            line = line_number(seed, number, flags)
            code, word, out, err = run(line)
            codes[code] = codes.get(code, 0) + 1
            slowest = max(slowest, word)
            if (what := wrong(line, code, word, out, err)) is not None:
                words = [w if len(w) < 60 else f"{w[:20]}…{len(w)}" for w in line.words]
                said = err[-1500:] if "Traceback" in err else err[-300:]
                print(json.dumps({"number": number, "what": what, "words": words, "said": said}))
                sys.stdout.flush()
        os.chdir("/")
    print(json.dumps({"lines": last - first, "codes": codes, "slowest first word": slowest}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
