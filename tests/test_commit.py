"""The commit in `config.json` is that of the package's own checkout, or there is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dualnet"
PROJECT = '[project]\nname = "dualnet"\nversion = "1.2.3"\n'
ASK = "from dualnet.training.surroundings import _commit, __file__; print(__file__, _commit())"

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *command):
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for role in ("AUTHOR", "COMMITTER"):
        own |= {f"GIT_{role}_NAME": "A", f"GIT_{role}_EMAIL": "a@example.org"}
    known = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", folder, *command], env=known | own, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def repository(folder):
    """A repository in a folder with all that lies there; its commit."""
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "all")
    return git(folder, "rev-parse", "HEAD")


def commit_of(place, **variables):
    """What the package in a folder says in a process of its own."""
    known = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment = known | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"} | variables
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    file, commit = done.stdout.split()
    assert Path(file).is_relative_to(place)
    return commit


@pytest.fixture
def checkout(tmp_path):
    """A folder with the package and its project file."""
    folder = tmp_path / "checkout"
    shutil.copytree(PACKAGE, folder / "dualnet", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pyproject.toml").write_text(PROJECT)
    return folder


def test_a_checkout_has_its_commit_whatever_gits_variables_say(checkout, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    ours = repository(checkout)
    (other / "file").write_text("theirs")
    assert repository(other) != ours
    assert commit_of(checkout) == ours
    assert commit_of(checkout, GIT_DIR=str(other / ".git"), GIT_WORK_TREE=str(other)) == ours


def test_an_environment_within_somebodys_repository_has_none(checkout, tmp_path):
    """Whether they ignore the environment or keep it in their repository."""
    place = tmp_path / "theirs" / ".venv" / "lib"
    place.mkdir(parents=True)
    shutil.move(checkout / "dualnet", place / "dualnet")
    (tmp_path / "theirs" / ".gitignore").write_text(".venv\n")
    repository(tmp_path / "theirs")
    assert commit_of(place) == "None"
    git(tmp_path / "theirs", "add", "-f", ".venv")
    assert commit_of(place) == "None"


def test_a_checkout_within_somebodys_repository_has_none(checkout):
    (checkout.parent / ".gitignore").write_text("checkout\n")
    repository(checkout.parent)
    assert commit_of(checkout) == "None"
    git(checkout.parent, "add", "-f", "checkout")
    assert commit_of(checkout) == "None"


def test_a_copy_in_the_root_of_somebodys_project_has_none(checkout):
    (checkout / "pyproject.toml").write_text(PROJECT.replace("dualnet", "theirs"))
    repository(checkout)
    assert commit_of(checkout) == "None"


def test_no_program_of_the_repositorys_is_run(checkout, tmp_path):
    ours = repository(checkout)
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    for name in ("core.fsmonitor", "core.pager", "core.sshCommand", "alias.rev-parse"):
        git(checkout, "config", name, f"!{program}" if "alias" in name else str(program))
    hooks = checkout / ".git" / "hooks"
    for name in ("post-index-change", "reference-transaction"):
        shutil.copy(program, hooks / name)
    assert commit_of(checkout) == ours
    assert not ran.exists()


def test_without_git_there_is_none(checkout):
    repository(checkout)
    assert commit_of(checkout, PATH="") == "None"
