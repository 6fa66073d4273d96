"""The wheel, installed alone in an empty folder beside files of a user's own."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SETUPTOOLS = 77  # as `requires` in pyproject.toml has it
BUILD = "from setuptools import build_meta; build_meta.build_wheel('dist')"
USERS_OWN = "raise SystemExit('the file of the user was run')\n"


def run(*command, cwd, path=None):
    """Standard output of a command of Python that succeeds; PYTHONPATH is `path` alone."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DUALNET"))}
    inherited |= {} if path is None else {"PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**inherited, "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def installed(name):
    """The distribution of a name that is installed here; None if there is none."""
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of what is in the checkout, built from a copy, which leaves nothing behind there."""
    setuptools = installed("setuptools")
    if setuptools is None or int(setuptools.version.partition(".")[0]) < SETUPTOOLS:
        pytest.skip(f"building needs it: pip install 'setuptools>={SETUPTOOLS}'")
    copy = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    for name in ("dualnet", "models"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    run("-c", BUILD, cwd=copy, path=setuptools.locate_file(""))
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def user(wheel, tmp_path_factory):
    """`user(*command)`: what Python answers in a user's folder, which has the wheel alone."""
    if installed("pip") is None:
        pytest.skip("installing needs pip: python -m ensurepip")
    folder, packages = tmp_path_factory.mktemp("user"), tmp_path_factory.mktemp("packages")
    quiet = "--quiet --no-deps --no-index --no-compile --disable-pip-version-check".split()
    run("-m", "pip", "install", *quiet, "--target", packages, wheel, cwd=folder)
    for name in ("models.py", "train.py"):
        (folder / name).write_text(USERS_OWN)

    def user(*command):
        return run(*command, cwd=folder, path=packages)

    user.folder, user.packages = folder, packages
    return user


def test_what_is_in_a_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        assert b"dualnet = dualnet.command.main:script" in archive.read(entry_points)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"dualnet"}
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "dualnet").rglob("*")
        if path.is_file() and path.suffix in (".py", ".cu", ".typed")
    }
    files |= {f"dualnet/models/{path.name}" for path in (ROOT / "models").glob("*.py")}
    assert files <= names and any(name.startswith("dualnet/data/digits/") for name in names)


def test_it_is_the_wheel_that_runs(user):
    where = "import dualnet, dualnet.models, dualnet.training.fit as f; print(dualnet.__file__)"
    program = f"{where}; print(dualnet.models.__file__, f.__file__, dualnet.__version__)"
    first, rest = user("-c", program).splitlines()
    assert Path(first).parent == user.packages / "dualnet"
    models, fit, version = rest.split()
    assert Path(models).parent == user.packages / "dualnet" / "models"
    assert Path(fit).is_relative_to(user.packages)
    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text("utf-8")


def test_a_user_trains_checks_evaluates_and_predicts(user):
    command = "-m", "dualnet"
    assert re.fullmatch(r"dualnet [\d.]+\n", user(*command, "--version"))
    small = "--epochs 1 --width 16 --limit-train 300 --quiet --json --run-dir run".split()
    trained = json.loads(user(*command, "train", *small))
    evaluated = json.loads(user(*command, "evaluate", "run", "--json"))
    assert evaluated["accuracy"] == trained["test_accuracy"]
    np.save(user.folder / "digits.npy", np.zeros((2, 8, 8), np.uint8))
    assert user(*command, "predict", "run", "digits.npy").startswith("digits.npy[0] ")
    assert "0 failed" in user(*command, "check", "--only", "np.exp")
    assert "local-mixer" in user(*command, "list")
    made = {path.name for path in user.folder.iterdir()}
    assert made == {"models.py", "train.py", "run", "digits.npy"}


def test_the_script_is_there(user):
    (script,) = (user.packages / "bin").glob("dualnet*")
    assert "dualnet train" in user(script, "train", "--help")


def test_no_message_names_a_page_that_a_wheel_lacks():
    """Texts with a `docs/` or a `README` are in docstrings and comments alone."""
    found = [
        f"{path.name}: {line.strip()}"
        for path in (ROOT / "dualnet").rglob("*.py")
        for line in re.sub(r'""".*?"""', "", path.read_text("utf-8"), flags=re.S).splitlines()
        if re.search(r"docs/|README", line.partition("#")[0])
    ]
    assert not found
