"""What the documents say, run: the blocks of the pages, the list of functions."""

import contextlib
import io
import itertools
import json
import re
from pathlib import Path

import numpy as np
import peers
import pytest

import dualnet as dn
from dualnet import learning, tree
from dualnet.check import ROWS
from dualnet.check.conventions import CONVENTIONS
from dualnet.check.listing import listing
from dualnet.core.dual import RULES
from dualnet.core.refusals import name_of
from dualnet.core.tables.kinks import BENT
from dualnet.data import SOURCES
from dualnet.nn import Context, walk
from dualnet.training.assemble import TABLES
from experiments import contrastive, rules

ROOT = Path(__file__).parent.parent


PAGES = [
    page
    for page in ("README.md", "CONTRIBUTING.md", *ROOT.glob("d*/**/*.md"), *ROOT.glob("b*/**/*.md"))
    if "```python" in (ROOT / page).read_text(encoding="utf-8")
]
NEEDED = {"docs/looking.md": (("matplotlib", "plot"), ("tensorboardX", "tensorboard"))}
"""Page → the packages that its blocks need, each with the extra that brings it."""
GOES_ON = "# After the blocks above.\n"
"""The first line of a block that needs those before it on its page; all others run alone.  On a
page of the tutorial, all blocks are one program."""
TUTORIAL = ROOT / "docs/tutorial"
BLOCK = re.compile(r"```python\n(.*?)```(?:\n+```text\n(.*?)```)?", re.S)
"""A block of Python, and what it prints, if the page shows that right behind it."""


@pytest.fixture
def run_blocks(tmp_path, monkeypatch):
    """`run_blocks(page)` runs its blocks of Python, and returns the names that each leaves.

    They run in an empty folder, to which they may write.
    """
    monkeypatch.chdir(tmp_path)
    tables = (RULES, SOURCES, *TABLES.values())
    before = [dict(table) for table in tables]

    def run(page):
        text, names, of_blocks = (ROOT / page).read_text(encoding="utf-8"), {}, []
        goes_on = (ROOT / page).parent == TUTORIAL
        for block, shown in BLOCK.findall(text):
            alone, printed = {}, io.StringIO()
            own = names if goes_on or block.startswith(GOES_ON) else alone
            with contextlib.redirect_stdout(printed):
                exec(compile(block, str(page), "exec"), own)
            assert not shown or printed.getvalue() == shown
            names |= own
            of_blocks.append(own)
        return of_blocks

    yield run
    for table, entries in zip(tables, before, strict=True):  # a page registers its own
        for name in table.keys() - entries.keys():
            del table[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page).removeprefix(f"{ROOT}/"))
def test_the_code_of_a_page_runs_as_it_stands(page, run_blocks):
    for needed in NEEDED.get(str(page).removeprefix(f"{ROOT}/"), ()):
        peers.peer(*needed)
    assert run_blocks(page)


def test_the_code_of_the_page_on_layers_works(run_blocks):
    added, training = run_blocks("docs/how-layers-work.md")
    assert training["done"].correct > 56  # of 64
    layer = added["Added"]((("scale", run_blocks("docs/own.md")[0]["Scale"]()),))
    params, state, shape = layer.init(dn.Key(0), (3,))
    y, _ = layer.apply(params, state, np.ones((2, 3)), Context())
    assert shape == (3,) and np.array_equal(y, np.full((2, 3), 2.0))
    assert [path for path, _ in walk(layer)] == ["scale"]


def test_the_rule_of_the_page_on_plugins_estimates_the_loss_of_the_page_on_layers(run_blocks):
    training, signs = run_blocks("docs/how-layers-work.md")[1], run_blocks("docs/own.md")[1]
    at = *map(training.get, ("plan", "learner", "batch")), dn.Key(1), training["backend"]
    estimate = learning.estimate_gradient(signs["Signs"](), *at)
    assert np.isclose(estimate.loss, training["done"].loss, rtol=0.2)


def test_the_rule_on_the_page_of_the_core_is_right(run_blocks):
    run_blocks("dualnet/core/README.md")
    dn.check_jvp(np.polymul, (np.array([1.0, -2.0, 0.5]), np.array([3.0, 1.0])), order=2)
    dn.check_vjp(lambda a: np.polymul(a, np.array([2.0, 1.0])), (np.array([1.0, 4.0]),))


def test_the_commands_of_the_page_on_reliability_name_tests_that_are_there():
    commands = re.findall(
        r"`python -m pytest (\S+?)(?: -m [^`]*?)??(?: -k (\".*?\"|\S+))?`",
        (ROOT / "docs/reliability.md").read_text(encoding="utf-8"),
    )
    assert len(commands) > 12
    for path, chosen in commands:
        files = (ROOT / path).rglob("*.py") if (ROOT / path).is_dir() else [ROOT / path]
        text = "".join(file.read_text(encoding="utf-8") for file in files)
        for word in set(re.findall(r"\w+", chosen)) - {"and", "or"}:
            assert word in text, (path, word)


def test_the_list_of_functions_is_that_of_the_registry():
    """Run `python -m dualnet.check.listing > docs/functions.md` after adding a rule."""
    assert (ROOT / "docs/functions.md").read_text(encoding="utf-8") == listing()


# --- kinks and orders of the list -----------------------------------------------------------------


@pytest.mark.parametrize("row", CONVENTIONS, ids=lambda row: f"{name_of(row.covers)}, {row.place}")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # slopes are infinite or NaN there
def test_a_convention_is_what_the_rule_does(row):
    at = np.array(row.at)
    for inner in (dn.jacfwd, dn.jacrev):
        np.testing.assert_array_equal(inner(row.f)(at), row.slope)
        for outer in (dn.jacfwd, dn.jacrev):
            second = np.diagonal(outer(inner(row.f))(at))
            np.testing.assert_array_equal(second, row.second)


def test_every_function_with_a_kink_has_a_convention():
    told = {row.covers for row in CONVENTIONS if row.order == 1}
    private = {fn for fn in BENT if not name_of(fn).startswith("np.")}
    assert {fn.__name__ for fn in private} <= {"_power_norm", "i0e"}  # norm's, and SciPy's
    assert told >= set(BENT) - private


THRICE = {row.covers: row for row in ROWS if callable(row.covers) and row.covers in RULES}


@pytest.mark.parametrize("row", THRICE.values(), ids=lambda row: row.name)
def test_a_third_derivative_is_served(row, rng):
    """Without an error, and in the shape of the result: "all" orders of the list rest on it."""

    def along(f):
        return lambda *x: dn.jvp(f, x, tree.map(np.ones_like, x))[1]

    primals = row.arrays(rng)
    value = row(*primals)
    third = along(along(along(row)))(*primals)
    assert list(map(np.shape, tree.leaves(third))) == list(map(np.shape, tree.leaves(value)))


def results(name):
    return json.loads((ROOT / "benchmarks/results" / name).read_text(encoding="utf-8"))


def test_contrastive_features_beat_random_ones_unless_gradients_go_both_ways():
    """By several standard errors of 10,000 test images, which are half a percent."""
    found = {
        contrastive.ROWS[row["command"].removeprefix(contrastive.NETWORK)]: row
        for row in results("contrastive.json")
    }
    random = found.pop("random features")["test_accuracy"]
    without = found.pop("without the stop-gradient")["test_accuracy"]
    assert without < random + 0.01
    for row in found.values():
        assert row["test_accuracy"] > random + 0.03 and row["losses"][1] < row["losses"][0] - 0.3


def test_the_order_of_the_published_table_holds():
    """Of rules whose published accuracies are further apart than three of our seeds' spreads."""
    rows = {rules.options_of(row["command"]): row for row in results("rules.json")}
    compared = 0
    for (a, better), (b, worse) in itertools.permutations(rules.PUBLISHED.items(), 2):
        noise = 100 * max(rows[a]["test_accuracy_std"], rows[b]["test_accuracy_std"])
        if better - worse > 3 * noise:
            assert rows[a]["test_accuracy"] > rows[b]["test_accuracy"], (a, b)
            compared += 1
    assert compared > 8
