"""The CuPy backend against NumPy: on a device where one answers, and on a stand-in everywhere.

The stand-in (`fake_cupy`) is as strict as CuPy about what may meet what, and runs the kernels'
sources on the host's processor; so these tests say that nothing is asked of CuPy that it does not
have, that nothing moves between host and device unseen, and that the kernels' arithmetic is right.
"""

import itertools
import json
import subprocess
import sys

import fake_cuda
import fake_cupy
import numpy as np
import pytest
from cupy_comparisons import ALLOWED, SameDraws, assert_same, moved, on
from learning_problems import (
    EVERY_RULE,
    NETWORKS,
    WITH_BATCH_NORM,
    WITH_GROUPS,
    WITH_HEADS,
    problem,
)

import dualnet as dn
from dualnet import backends
from dualnet.backends import overridable
from dualnet.check import NOT_IN_CUPY, ROWS
from dualnet.checking.directions import random_directions
from dualnet.errors import BackendError, UsageError
from dualnet.learning import (
    WEIGHT_SAMPLERS,
    ActivityPerturbation,
    GreedyWeightPerturbation,
    WeightPerturbation,
)
from dualnet.learning.aggregate import WEIGHT_AGGREGATIONS

# --- operations, layers, losses, models ----------------------------------------------------------


def derivatives(row, primals, v, u):
    out, pushed = dn.jvp(row, primals, v)
    _, pull = dn.vjp(row, *primals)
    return out, pushed, pull(u)


NOT_IN_THE_STAND_IN = {"method fill"}
"""Rows that write into plain arrays, which the stand-in's arrays do to a copy."""


@pytest.mark.parametrize(
    "row",
    [r for r in ROWS if r.name not in NOT_IN_CUPY | NOT_IN_THE_STAND_IN],
    ids=lambda row: row.name,
)
def test_rows(row, cupy_backend, rng, key):
    for dtype, allowed in ALLOWED.items():
        here = row.arrays(rng, dtype)
        v = random_directions(key, here, 2)
        u = random_directions(key.fold_in("u"), row(*here), 2)
        expected = derivatives(row, here, v, u)
        arguments = (moved(t, cupy_backend) for t in (here, v, u))
        got = derivatives(row, *arguments)
        for what, a, b in zip(("value", "jvp", "vjp"), got, expected, strict=True):
            # a reference through x - x·(1 - small) loses digits on one side as on the other
            assert_same(a, b, cupy_backend, 20 * allowed, f"{row.name}, {what}")


@pytest.mark.parametrize(
    "row",
    [r for r in ROWS if r.composed or r.family in ("optimizers", "models")],
    ids=lambda row: row.name,
)
def test_rows_by_plain_calls(row, cupy_backend, rng, key, monkeypatch):
    """Without kernels: CuPy gets NumPy's calls, which are what other dtypes and layouts get."""
    kept = ("view", "bytes_at_a_time", "scatter_add_zeros")  # in whose place CuPy's own would wait
    fewer = {at: kernel for at, kernel in overridable._KERNELS.items() if at[1] in kept}
    monkeypatch.setattr(overridable, "_KERNELS", fewer)
    here = row.arrays(rng)
    v = random_directions(key, here, 2)
    expected = dn.jvp(row, here, v)
    got = dn.jvp(row, *(moved(t, cupy_backend) for t in (here, v)))
    assert_same(got, expected, cupy_backend, 20 * ALLOWED[np.float64], row.name)


def test_rows_that_cupy_lacks_are_rows():
    assert {row.name for row in ROWS} >= NOT_IN_CUPY


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.name not in NOT_IN_CUPY], ids=lambda row: row.name
)
def test_verified_rows(row, cupy_backend, key):
    result = dn.check.verify(row, key, cupy_backend)
    assert result.failure is None, result.failure


@pytest.mark.parametrize(
    "index, shape",
    [
        ([2, 0, 2, 2], (4, 1)),
        (([0, 1, 0], [2, 2, 2]), (3,)),
        ((slice(None), [1, 1]), (1, 2)),
        (([1, 1], None), (2, 1, 3)),
        ([[0, 0], [1, 0]], ()),
        (([], []), (0,)),
        (([0], [0]), (1, 1, 1)),
    ],
    ids=str,
)
def test_the_last_value_stays_where_a_key_repeats(index, shape, cupy_backend, rng):
    x, value = rng.standard_normal((3, 3)), rng.standard_normal(shape)
    expected = x.copy()
    expected[index] = value
    there = moved((x, value), cupy_backend)

    def written(x, value):
        return dn.numpy.put_at(x, index, value)

    v = tuple(rng.standard_normal((2, *a.shape)) for a in (x, value))
    host = dn.jvp(written, (x, value), v)
    assert_same(written(*there), expected, cupy_backend, 0.0)
    assert_same(dn.jvp(written, there, moved(v, cupy_backend)), host, cupy_backend, 0.0)
    if isinstance(index, list):
        on_device = cupy_backend.asarray(np.array(index))
        assert_same(dn.numpy.put_at(there[0], on_device, there[1]), expected, cupy_backend, 0.0)


@pytest.mark.parametrize("y", (2, -1, 0.5, 1.7))
def test_the_primal_of_a_power_is_that_of_the_operator(y, stand_in, monkeypatch):
    """CuPy's `x ** 2` is no np.power, and not equal to it bit for bit."""
    x = stand_in.asarray(np.array([0.3, 1.7]))
    real = type(x).__pow__
    monkeypatch.setattr(type(x), "__pow__", lambda x, y: np.nextafter(real(x, y), np.inf))
    expected = stand_in.to_host(x**y)
    assert not np.array_equal(expected, stand_in.to_host(np.power(x, y)))
    for out in (dn.jvp(lambda x: x**y, (x,), (x,))[0], dn.vjp(lambda x: x**y, x)[0]):
        assert np.array_equal(stand_in.to_host(out), expected)


# --- learning rules ------------------------------------------------------------------------------

PROBLEMS = {
    **NETWORKS,
    "batch norm": ((6,), WITH_BATCH_NORM),
    "local heads": ((6,), WITH_HEADS),
    "groups": ((3, 4), WITH_GROUPS),
}


OPTIONS = [
    *({"sampler": name} for name in (*WEIGHT_SAMPLERS, "angle:45", "varying:3", "rank-one:3")),
    *({"sampler": f"{name}:unit"} for name in ("rank-one", "orthogonal")),
    *({"aggregate": name} for name in WEIGHT_AGGREGATIONS),
    {"tangent_chunk": 2, "sampler": "orthogonal"},
]
OF_GROUPS = [
    GreedyWeightPerturbation(4, sampler=sampler, aggregate=aggregate)
    for sampler, aggregate in (
        *(("normal", "mean"), ("normal", "projection"), ("rank-one", "projection")),
        *(("rank-one:2", "projection"), ("orthogonal", "mean")),
    )
] + [
    GreedyWeightPerturbation(3, losses="through-norms", output_layers="perturbed"),
    GreedyWeightPerturbation(3, sampler="rank-one", independent=True),
    ActivityPerturbation(2, independent=False),
]
STEPS = [
    *itertools.product(["groups"], OF_GROUPS, ALLOWED),
    *itertools.product(PROBLEMS, EVERY_RULE, [np.float64]),
    *itertools.product(["mlp"], [WeightPerturbation(5, **o) for o in OPTIONS], ALLOWED),
    *(
        pytest.param(name, rule, np.float32, marks=pytest.mark.slow)
        for name, rule in itertools.product(PROBLEMS, EVERY_RULE)
    ),
]


@pytest.mark.parametrize("name, rule, dtype", STEPS, ids=str)
def test_a_step_of_every_rule(name, rule, dtype, cupy_backend, rng, key):
    in_shape, layers = PROBLEMS[name]
    p = problem(rng, key, *layers, in_shape=in_shape, dtype=dtype)
    rule_state = p.rule_state(rule)
    expected = p.step(rule, key, rule_state=rule_state)
    there = on(cupy_backend, p)
    there_state = moved(rule_state, cupy_backend)
    with fake_cuda.counted() as happened:
        got = there.step(rule, key, SameDraws(cupy_backend), rule_state=there_state)
    assert "waits" not in happened and "to_host" not in happened
    # solving for coefficients magnifies rounding by the condition of the directions
    allowed = ALLOWED[dtype] * (1e4 if getattr(rule, "aggregate", "mean") != "mean" else 100)
    for part in ("gradients", "rule_state", "model_state", "loss"):
        assert_same(getattr(got, part), getattr(expected, part), cupy_backend, allowed, part)
    assert int(got.correct) == int(expected.correct)


@pytest.mark.parametrize(
    "name",
    [
        # of its many weights, drawing random directions takes the stand-in long
        pytest.param(name, marks=pytest.mark.slow if name == "mixer" else ())
        for name in PROBLEMS
    ],
)
def test_no_step_moves_anything_or_waits(name, stand_in, rng, key):
    in_shape, layers = PROBLEMS[name]
    p = on(stand_in, problem(rng, key, *layers, in_shape=in_shape, dtype=np.float32))
    for rule in EVERY_RULE:
        rule_state = rule.init(key, p.plan, p.params)
        with fake_cuda.counted() as happened:
            p.step(rule, key, stand_in, rule_state=rule_state)
        assert not happened, f"{rule}: {dict(happened)}"


# --- which backend, and what is missing -----------------------------------------------------------


def test_float32_products_are_exact_unless_asked(rng):
    x = rng.standard_normal((2, 64, 64)).astype(np.float32)
    exact, errors = np.matmul(*x.astype(np.float64)), []
    before = dict(overridable._KERNELS)
    with fake_cupy.installed():
        for precision in (None, "tf32", "bf16"):
            backend = backends.get("cupy", **({"matmul_precision": precision} if precision else {}))
            got = backend.to_host(overridable.matmul(*map(backend.asarray, x)))
            errors.append(np.sqrt(np.mean(np.square(got - exact))))
        from cupy._core import _routines_linalg

        assert [kind for _, kind in _routines_linalg.chosen] == ["default", "tf32", "tf32"]
    assert 1e-9 < errors[0] < 1e-5 < errors[1] < errors[2] / 3
    assert overridable._KERNELS == before


@pytest.mark.parametrize(
    "name, how, message",
    [
        ("numpy", {"matmul_precision": "tf32"}, "tf32 is of no use to backend='numpy'; it is"),
        ("numpy", {"matmul_precision": "bf16"}, "bf16 is of no use to backend='numpy'; it is"),
        ("cupy", {"matmul_precision": "fp8"}, "expected one of full, tf32, bf16, got 'fp8'"),
        ("cupy", {"threads": 2}, "threads is of no use to"),
    ],
)
def test_what_a_backend_does_not_take(name, how, message):
    with fake_cupy.installed(), pytest.raises(UsageError, match=message):
        backends.get(name, **how)


@pytest.mark.parametrize(
    "driver, remedy",
    [
        (None, "cuda12 or cuda13, whichever fits"),
        (12080, r"pip install 'dualnet\[cuda12\]'"),
        (13010, r"pip install 'dualnet\[cuda13\]'"),
    ],
)
def test_without_cupy(driver, remedy, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr("dualnet.backends.cupy_backend.driver_version", lambda: driver)
    with pytest.raises(BackendError, match=f"CuPy cannot be imported .*{remedy}") as raised:
        backends.get("cupy")
    assert raised.value.exit_code == 5
    assert backends.get("auto", threads=2).threads == 2
    assert capsys.readouterr().err.startswith("backend auto: NumPy it is, as backend cupy: CuPy")


@pytest.mark.parametrize("count", (0, RuntimeError("cudaErrorInsufficientDriver")), ids=str)
def test_without_a_device(count, capsys):
    def answer():
        if isinstance(count, Exception):
            raise count
        return count

    with fake_cupy.installed() as cupy:
        cupy.cuda.runtime.getDeviceCount = answer
        with pytest.raises(BackendError, match=r"cannot use a CUDA device here .*NVIDIA driver"):
            backends.get("cupy")
        assert backends.get("auto").name == "numpy"
    assert "backend auto: NumPy it is" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ("tf32", "bf16"))
@pytest.mark.parametrize("device", (False, True))
def test_auto_drops_what_is_of_no_use_to_its_choice(device, precision, tmp_path, monkeypatch):
    from dualnet.command import train

    monkeypatch.setattr("dualnet.training.run.draw_curve", lambda *_: False)
    size = ["--epochs", "1", "--limit-train", "64", "--limit-test", "20", "--width", "8"]
    with fake_cupy.installed() as cupy:
        cupy.cuda.runtime.getDeviceCount = lambda: int(device)
        flags = ["--backend", "auto", "--threads", "2", f"--{precision}", "--no-graph"]
        flags += ["--rule", "bp", "--quiet"]
        train.main([*flags, *size, "--run-dir", str(tmp_path)])
    used = json.loads((tmp_path / "config.json").read_text())["settings"]
    expected = {"backend": "cupy", "threads": 1, "matmul_precision": precision, "graph": False}
    if not device:
        expected = {"backend": "numpy", "threads": 2, "matmul_precision": "full", "graph": True}
    assert expected.items() <= used.items()


def test_nothing_imports_cupy_unless_asked():
    code = "import sys, train, dualnet.check; print('cupy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.gpu
def test_the_verifier_on_a_device(capsys):
    from dualnet.check.__main__ import main

    assert main(["--backend", "cupy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == []
