"""What commands print is readable on consoles whose encoding lacks characters of ours."""

import codecs
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dualnet.console import ASCII, in_ascii, make_readable

ROOT = Path(__file__).parent.parent
CONSOLES = {
    "Windows": {"PYTHONIOENCODING": "cp1252"},
    "C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
HAS_HELP = sorted(
    f"{folder}.{path.stem}".removesuffix(".__main__")
    for folder in ("benchmarks", "experiments")
    for path in (ROOT / folder).glob("*.py")
    if "ArgumentParser(" in path.read_text(encoding="utf-8")
)
WITHOUT_PEERS = """
import runpy, sys
for name in ("torch", "jax"):
    sys.modules[name] = None
_, modules, *arguments = sys.argv
for module in modules.split():
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code or len(modules.split()) == 1:
            raise
"""


def answer(*arguments, **variables):
    """Exit code, standard output and standard error, as bytes, of `python *arguments`."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONUTF8", "PYTHONIOENCODING")}
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        timeout=120,
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **variables},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("console", CONSOLES)
@pytest.mark.parametrize(
    "command",
    ["train.py --list", "-m dualnet.check --only np.exp", "-m experiments --list"],
)
def test_a_command_is_readable_on_every_console(command, console):
    code, out, err = answer(*command.split(), **CONSOLES[console])
    assert code == 0, err
    text = (out + err).decode("cp1252" if console == "Windows" else "ascii")
    assert "Traceback" not in text and "\\x" not in text and "\\u" not in text


def test_help_is_shown_on_an_ascii_console_and_without_torch_and_jax():
    code, out, err = answer(
        "-c", WITHOUT_PEERS, " ".join(HAS_HELP), "--help", **CONSOLES["C locale"]
    )
    assert code == 0, err
    text = out.decode("ascii")
    assert text.count("usage:") == len(HAS_HELP) > 15 and "\\u" not in text


@pytest.mark.parametrize("module", ["benchmarks.layers", "benchmarks.mlp_jvp"])
def test_a_benchmark_says_what_to_install(module):
    code, out, err = answer("-c", WITHOUT_PEERS, module)
    assert (code, out) == (1, b"")
    assert err.decode().splitlines() == [
        f"{module} needs torch and jax, which cannot be imported; "
        'run python -m pip install -e ".[bench]" in the checkout'
    ]


def test_an_error_names_a_file_whose_name_is_no_text():
    code, out, err = answer("train.py", "--resume", b"/no\xe4t", **CONSOLES["C locale"])
    assert code > 0 and out == b""
    assert err.startswith(b"train.py: ") and rb"/no\xe4t" in err


def test_characters_are_spelled_in_ascii(monkeypatch, tmp_path):
    stream = open(tmp_path / "out", "w", encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    make_readable()
    print("94.7 ± 0.2 %, 10⁻¹¹ x², ‖∇f‖ ⟨u, Jv⟩ → Σ cᵢ Flügel λ Ω 中 \udce4 …")
    stream.close()
    assert (tmp_path / "out").read_bytes().rstrip() == (
        b"94.7 +- 0.2 %, 10^-11 x^2, ||grad f|| <u, Jv> -> Sigma ci Flugel lambda Omega "
        b"\\u4e2d \xe4 ..."
    )


def test_everything_that_is_printed_has_a_spelling():
    """No character of our sources ends as an escape, and none of the table is a letter lost."""
    folders = ("dualnet", "experiments", "benchmarks", "models")
    files = [ROOT / "train.py", *(p for f in folders for p in (ROOT / f).rglob("*.py"))]
    characters = set("".join(path.read_text(encoding="utf-8") for path in files))
    spelled = {c: in_ascii(c) for c in characters | ASCII.keys()}
    assert {c for c, text in spelled.items() if "\\" in text and c != "\\"} == set()
    assert all(text.isascii() and text for text in spelled.values())


def test_streams_that_cannot_be_changed_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as under pythonw
    monkeypatch.setattr(sys, "stderr", codecs.StreamWriter(sys.__stderr__))
    make_readable()
