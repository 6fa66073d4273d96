"""Random NumPy programs over the whole vocabulary: no derivative differs from JAX's in silence.

The long form, of 5,000 programs, is `pytest -m slow -s tests/test_numpy_programs.py`, which prints
what became of them.  A failure is shown as the smallest program found that still fails.
"""

import itertools
import re

import jax_by_numpy
import numpy as np
import peers
import pytest
from conftest import SEED

pytest.importorskip("scipy", reason='not installed; pip install -e ".[scipy]" brings it')

from judged_programs import judge, shrunk, survey
from numpy_programs import Draw, Program, Step, draw, drawn_step, namespace
from numpy_vocabulary import KINDS

import dualnet as dn
from dualnet.check.listing import listing
from dualnet.core.dual import RULES

REFUSED = {
    "dot_method": "cannot become a plain array",
    **dict.fromkeys((f"x {sign}= y" for sign in "+-*/@"), "writes in place"),
    **dict.fromkeys((f"x[key] {sign}= y" for sign in "+-*/"), "writes in place|plain array"),
    **dict.fromkeys(("item_assignment", "item_rows", "item_flags"), "plain array"),
    "fill": "plain array|Python number",
    **dict.fromkeys(("add_at", "subtract_at"), "writes in place"),
    **dict.fromkeys(("put", "place", "putmask", "copyto"), "writes into a plain array|plain array"),
    **dict.fromkeys(("fill_diagonal", "put_along_axis"), "plain array"),
}
"""entry of the vocabulary → the refusal that docs/numpy.md promises (a regex).

A plain array (what `//` gives of a dual, say) cannot be written to with duals, and its methods know
nothing of them.
"""
LEFT_OUT = {
    **dict.fromkeys(("np.array2string", "np.array_repr", "np.array_str"), "returns a text"),
    "np.einsum_path": "returns no array",
    "np.linalg.eig": "spectra of random matrices are complex",
    "np.linalg.eigvals": "spectra of random matrices are complex",
}
"""function of docs/functions.md → why no program calls it"""
KINKED = re.compile("std|norm|max|min|abs|sort|median|ptp|pad|svd|cond|hypot|reduce|partition")
"""Entries that have kinks, at which a second derivative is NaN as docs/functions.md says."""


@pytest.fixture
def jax():
    module = peers.peer("jax")
    with module.enable_x64(True):
        yield module


def shown(found):
    """The figures of a survey, and its programs that are to be looked at."""
    lines = [f"seed {SEED}: {dict(found.verdicts)}, undecided: {dict(found.undecided)}"]
    lines += [f"refused: {detail}" for _, detail, _ in found.refusals]
    lines += [f"JAX alone: {detail}" for detail in found.alone]
    for program, verdict in found.failures:
        smallest = shrunk(program, lambda p, kind=verdict.kind: judge(p).kind == kind)
        lines.append(f"{verdict.kind}: {judge(smallest).detail}\n{smallest}")
    return "\n".join(lines)


def require_none_differs(found):
    print(shown(found))
    assert not found.verdicts["differs"], shown(found)
    for kind, detail, program in found.refusals:
        known = [REFUSED[entry] for entry in program.kinds & REFUSED.keys()]
        assert any(re.search(piece, detail) for piece in known), f"{kind}: {detail}\n{program}"
    for program in found.at_kinks:
        assert any(map(KINKED.search, program.kinds)), program
    judged = found.verdicts["agrees"]
    assert found.verdicts["JAX alone"] + found.verdicts["NaN at a kink"] < 20 + 0.05 * judged
    assert found.verdicts["undecided"] < 10 + 0.02 * judged


def test_a_few_hundred_programs(jax):
    require_none_differs(survey(SEED, 250))


@pytest.mark.slow
def test_five_thousand_programs_reach_the_whole_vocabulary(jax):
    found = survey(SEED, 5000)
    require_none_differs(found)
    assert not KINDS.keys() - found.kinds.keys()


# --- the vocabulary ------------------------------------------------------------------------------


def texts_of(kind, seeds=range(16)):
    """Ways in which an entry has been drawn, among values of common shapes."""
    for seed in seeds:
        state = Draw(np.random.default_rng([SEED, seed]), np.float64)
        for shape in ((3,), (2, 3), (3, 3), (), (4,), (3, 4)):
            state.new_input(shape)
        state.others["v99"] = np.array([1, 2, 3])
        step = drawn_step(state, kind, namespace("numpy"))
        if step is not None:
            yield step.text


def test_every_entry_can_be_drawn_and_every_function_with_a_rule_is_called():
    texts = {kind: list(texts_of(kind)) for kind in KINDS}
    assert not [kind for kind, drawn in texts.items() if len(drawn) < 2]
    every = " ".join(itertools.chain(*texts.values()))
    called = set(re.findall(r"\bnp\.[\w.]*\w", every))
    documented = set(re.findall(r"`(np\.[\w.]+)`", listing().partition("| --- |")[2]))
    assert documented - called == LEFT_OUT.keys()


def test_a_program_is_the_same_for_the_same_seed():
    seeds = [[SEED, i] for i in range(20)]
    assert [str(draw(s)) for s in seeds] == [str(draw(s)) for s in seeds]


# --- the oracle ----------------------------------------------------------------------------------


def test_primitives_are_evaluated_as_by_jax(jax):
    """What NumPy makes of JAX's primitives is what XLA makes of them."""
    numpy = jax.numpy
    for i, (name, f) in enumerate(
        {
            "gather": lambda x: x[np.array([2, 0])].T * numpy.take(x, np.array([1]), 1),
            "scatter": lambda x: x.at[:, 1].set(x[0] * 2).at[np.array([0, 0])].add(x[1]),
            "sort": lambda x: numpy.sort(x, 0) @ numpy.median(x, axis=1),
            "scan": lambda x: numpy.interp(x, numpy.sort(x[0]), x[1]),
            "windows": lambda x: numpy.pad(x, ((1, 0), (0, 2)), "reflect").ravel("F")[::-2],
            "solve": lambda x: numpy.linalg.solve(x + 5.0 * np.eye(3), x),
            "products": lambda x: numpy.prod(x, 1) + numpy.cumprod(x, 0) - numpy.tril(x),
            "convolve": lambda x: numpy.convolve(x[0], x[:, 1], "same"),
        }.items()
    ):
        x, v = np.random.default_rng([SEED, i]).standard_normal((2, 3, 3))

        def both(x, v, f=f):
            return jax.jvp(lambda x: jax.vjp(f, x)[1](numpy.ones_like(f(x))), (x,), (v,))

        expected = jax.tree_util.tree_leaves(jax.jit(both)(x, v))
        for a, b in zip(jax_by_numpy.evaluate(both, x, v), expected, strict=True):
            assert np.allclose(a, b, 1e-12, 1e-12), name


# --- mistakes are found --------------------------------------------------------------------------


def off_by_a_thousandth(out, x, *_args, **_how):
    plain = dn.stop_gradient(out)
    return plain + 1.001 * (out - plain)


def of_the_wrong_sign(out, x, *_args, **_how):
    return 2.0 * dn.stop_gradient(out) - out


def along_the_wrong_axis(out, x, *_args, **_how):
    turned = np.reshape(x, -1)[::-1].reshape(out.shape)  # np.flip of no axes turns all of them
    return dn.stop_gradient(out) + (turned - dn.stop_gradient(turned))


@pytest.mark.parametrize(
    ("function", "kind", "mistake"),
    [
        (np.linalg.det, "det", off_by_a_thousandth),
        (np.cov, "cov", off_by_a_thousandth),
        (np.median, "median", of_the_wrong_sign),
        (np.flip, "flip", along_the_wrong_axis),
        (np.convolve, "convolve", of_the_wrong_sign),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_planted_mistake_is_found(jax, monkeypatch, function, kind, mistake):
    rule = RULES[function]

    def evaluate(level, args, kwargs):
        return mistake(rule.evaluate(level, args, kwargs), *args, **kwargs)

    drawn = (draw([SEED, i]) for i in range(3000))
    # A mistake may change nothing in a program, as a wrong axis of a vector: that one is seen in 44
    # of 120 programs, so that none of 40 shows it for one seed in a hundred million.
    programs = list(itertools.islice((p for p in drawn if p and kind in p.kinds), 40))
    monkeypatch.setitem(RULES, function, rule._replace(evaluate=evaluate))
    failing = next((p for p in programs if judge(p).kind == "differs"), None)
    assert failing is not None
    smallest = shrunk(failing, lambda p: judge(p).kind == "differs")
    # Where a step before makes entries equal, the one step alone would be at a kink: not judged.
    assert len(smallest.steps) <= 2
    assert function.__name__ in smallest.steps[-1].text
    assert str(SEED) in str(smallest)


def test_a_second_derivative_that_is_wrong_alone_is_found(jax, monkeypatch):
    """The tangent is right, and its own tangent is not."""
    rule = RULES[np.sin]

    def evaluate(level, args, kwargs):
        x = args[0]
        once = rule.evaluate(level, (dn.stop_gradient(x),), kwargs)
        return once + (x - dn.stop_gradient(x)) * np.cos(dn.stop_gradient(x))

    step = Step("v0", "sin", "v0 = np.sin(x0)", "v0 = np.sin(x0)")
    program = Program({"x0": np.array([0.3, 0.8])}, (step,), ("v0",), "numpy", (1, 2))
    assert judge(program).kind == "agrees"
    monkeypatch.setitem(RULES, np.sin, rule._replace(evaluate=evaluate))
    assert judge(program).kind == "differs"
