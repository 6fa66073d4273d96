"""HIPS/autograd's own tests, run on dualnet: how many pass, and why the others do not.

    python -m benchmarks.autograd_tests [--tests FOLDER] [--json FILE]

The tests are fetched from the package index into a temporary folder, and nothing of them is kept.
In their place of `autograd` stands `benchmarks.autograd_standin`: every check is made in forward
mode with three directions at once, nested once, and in reverse mode.  Complex inputs are off.

Left out are the files about autograd's inside (boxes, vector spaces, `defvjp`) or about functions
that are complex throughout (np.fft), those that need SciPy or xarray, and the tests of `ITS_OWN`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import autograd_standin
from benchmarks.peers import require

VERSION = "1.9.1"
FILES = (
    *("binary_ops", "core", "dict", "direct", "graphs", "jacobian", "linalg", "list", "logic"),
    *("numpy", "scalar_ops", "systematic", "truediv", "tuple", "wrappers"),
)
ITS_OWN = {
    "wrappers: deprecated_defgrad_wrapper": "a rule by vjp for a primitive",
    "wrappers: deprecated_defvjp_wrapper": "a rule by vjp for a primitive",
    "wrappers: deprecated_defvjp_is_zero_wrapper": "a rule by vjp for a primitive",
    "wrappers: custom_where": "condition= by keyword, which NumPy refuses",
    "wrappers: custom_where_dtypes[int-True-1-2]": "np.where returns an int, unlike NumPy's",
    "wrappers: custom_where_dtypes[float-True-3.0-4.0]": "np.where returns a float",
    "wrappers: custom_where_dtypes[float-False-1-2.0]": "np.where returns a float",
    "wrappers: custom_where_dtypes[list-True-x3-y3]": "np.where returns a list",
    "wrappers: wrapped_name_and_docs": "the docstring of autograd.grad",
}
"""Tests of what autograd alone has or does, with what that is."""
NEEDED = 372 / 385
"""Which share of the tests is to pass, of those that have a real input."""
SEED = 1
"""Of the tests' random numbers; that of their own `conftest.py` draws two that all but tie."""


def fetch(folder: Path) -> Path:
    """Download autograd's sources into a folder, and return the folder of its tests."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary"]
    command += [":all:", "--dest", str(folder), f"autograd=={VERSION}"]
    subprocess.run(command, check=True)
    (archive,) = folder.glob("autograd-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / f"autograd-{VERSION}" / "tests"


class Outcomes:
    """A plugin of pytest that keeps what became of every test, by its name."""

    def __init__(self) -> None:
        self.of: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list) -> None:
        items[:] = [item for item in items if name_of(item) not in ITS_OWN]

    def pytest_runtest_call(self, item: Any) -> None:
        autograd_standin.checks.update(real=0, complex=0)
        np.random.seed(SEED)  # noqa: NPY002, the tests draw from this generator

    def pytest_runtest_makereport(self, item: Any, call: Any) -> Any:
        import pytest

        report = yield
        if call.when != "call" and report.outcome == "passed":
            return report
        name = name_of(item)
        done = autograd_standin.checks
        if call.excinfo is None:
            only_complex = done["complex"] and not done["real"]
            self.of[name] = ("complex", "all inputs are") if only_complex else ("passed", "")
        elif call.excinfo.errisinstance(pytest.skip.Exception):
            self.of[name] = ("skipped", str(call.excinfo.value))
        else:
            error = call.excinfo.value
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            off = isinstance(error, autograd_standin.Complex) or re.search(r"\bcomplex", text)
            self.of[name] = ("complex" if off else "failed", text[:300])
        return report


def name_of(item: Any) -> str:
    """Name a test by its file and its function, without what all names have."""
    return f"{item.path.stem.removeprefix('test_')}: {item.name.removeprefix('test_')}"


def run(tests: Path) -> dict[str, tuple[str, str]]:
    """Run the tests in a folder, and return what became of each."""
    import pytest  # here, so that --help works without it

    pytest.hookimpl(wrapper=True)(Outcomes.pytest_runtest_makereport)
    settings = tests / "pytest.ini"
    settings.write_text("[pytest]\n")
    outcomes = Outcomes()
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "-W", "ignore"]
    paths = [str(tests / f"test_{name}.py") for name in FILES]
    with autograd_standin.installed(), np.errstate(all="ignore"):
        pytest.main([*options, "-c", str(settings), *paths], plugins=[outcomes])
    return outcomes.of


def summary(outcomes: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Return all figures, as one JSON-able dict, and print them."""
    counts = Counter(kind for kind, _ in outcomes.values())
    rest = {name: why for name, (kind, why) in outcomes.items() if kind == "failed"}
    complex_ones = {name: why for name, (kind, why) in outcomes.items() if kind == "complex"}
    for title, group in (("complex", complex_ones), ("failed", rest)):
        print(f"\n{title}: {len(group)}")
        for name, why in group.items():
            print(f"  {name}: {why}")
    total = counts["passed"] + counts["failed"] + counts["complex"]
    real = counts["passed"] + counts["failed"]
    print(f"\n{counts['passed']} of {total} pass; {total - real} are complex")
    print(f"of the {real} others at least {math.ceil(NEEDED * real)} are to pass")
    return {
        "autograd": VERSION,
        "numpy": importlib.metadata.version("numpy"),
        "seed": SEED,
        "tests": total,
        "passed": counts["passed"],
        "complex": complex_ones,
        "failed": rest,
        "left out": ITS_OWN,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tests", type=Path, help="a folder of the tests; fetched if not given")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    require("benchmarks.autograd_tests", "pytest", "scipy", extra="dev")
    with tempfile.TemporaryDirectory() as folder:
        result = summary(run(args.tests or fetch(Path(folder))))
    if args.json:
        args.json.write_text(
            json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return 0 if result["passed"] >= NEEDED * (result["passed"] + len(result["failed"])) else 1


if __name__ == "__main__":
    sys.exit(main())
