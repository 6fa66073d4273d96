"""The benchmark for a device does on the host, in small, what it would do there."""

import importlib
import json
import math
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from peers import peer

from benchmarks import gpu, network_steps
from dualnet import backends, tree
from dualnet.learning import Backprop, WeightPerturbation
from dualnet.models import MODELS


def test_failures_are_named_and_ratios_are_to_the_fastest_peer():
    seconds = {"dualnet": 0.004, "torch": 0.012, "jax": 0.008}
    clock = 0.0

    def taking(s):
        def work():
            nonlocal clock
            clock += s

        return work

    def broken():
        raise RuntimeError("no compiler here")

    contenders = {name: taking(s) for name, s in seconds.items()} | {"torch.compile": broken}
    workload = SimpleNamespace(
        what="w",
        contenders=contenders | {"other work": taking(0.001)},
        flops=1e6,
        bytes=1e6,
        memory={"jax": lambda: 5},
        times=2,
        host={"dualnet": lambda: 0.5},
        failed={"other work": "not the same work"},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.timing.time.perf_counter", lambda: clock)
        outcome = gpu.measure(workload, gpu.Peaks(flops=1e9, bytes=5e8), rounds=3)
    each = {name: s / 2 for name, s in seconds.items()}
    assert outcome.seconds == pytest.approx(each | {"other work": 0.0005})
    assert outcome.ratios == pytest.approx({"dualnet": 2.0})
    assert outcome.floor == pytest.approx(0.002) and outcome.share == pytest.approx(1.0)
    assert outcome.memory == {"jax": 5} and outcome.host == {"dualnet": 0.5}
    assert outcome.failed == {
        "other work": "not the same work",
        "torch.compile": "RuntimeError: no compiler here",
    }
    assert "torch.compile cannot: RuntimeError" in gpu.line(outcome)


def test_a_command_that_takes_too_long_is_stopped():
    done = gpu.command(["-c", "print('begun', flush=True); import time; time.sleep(60)"], 1.0)
    assert done["exit_code"] is None and done["seconds"] < 20
    assert gpu.command(["-c", "print(1); print('last')"], 60.0)["last_line"] == "last"
    described = gpu.command([gpu.TRAIN, "--describe"], 60.0)["last_line"]
    assert json.loads(described)["model"] == "mlp"


@pytest.mark.parametrize("broken", ("import", "workload"))
def test_checks_come_whatever_the_peers_do(broken, tmp_path, monkeypatch):
    def useless(*_):
        raise RuntimeError("not for this card")

    workloads = SimpleNamespace(workloads=lambda *_: iter([("useless", useless)]))
    monkeypatch.setitem(
        sys.modules, "benchmarks.gpu_workloads", None if broken == "import" else workloads
    )
    peaks = gpu.Peaks(flops=1e9, bytes=5e8)
    monkeypatch.setattr(gpu, "measured_peaks", lambda *_: peaks)
    monkeypatch.setattr(gpu, "command", lambda arguments, _: {"exit_code": 0})
    sections = ("mlp", "kernels", "train", "check", "tests")
    result = gpu.main(["--host", "--out", str(tmp_path / "gpu.json"), "--sections", *sections])
    assert all(result[part] == {"exit_code": 0} for part in ("training", "check", "tests"))
    (timing,) = result["timings"]
    assert "gpu_workloads" in timing["failed"] or "not for this card" in timing["failed"]


def test_the_copy_rate_counts_no_allocation(monkeypatch):
    """What is copied to is there before the first copy."""
    caught = {}
    monkeypatch.setattr(gpu, "take_turns", lambda works, _: caught.update(works) or dict(copy=2.0))
    with pytest.raises(KeyError, match="product"):
        gpu.measured_peaks(backends.get("numpy"), 512, rounds=1)
    tracemalloc.start()
    try:
        caught["copy"]()
        assert tracemalloc.get_traced_memory()[1] < 512 * 512
    finally:
        tracemalloc.stop()


def test_results_are_there_after_each_workload(tmp_path, monkeypatch):
    """A run that is killed leaves what it had; one that is out of time says what is missing."""
    file = tmp_path / "gpu.json"
    seen = []

    def make():
        seen.append(len(json.loads(file.read_text())["timings"]))
        return SimpleNamespace(
            **{"what": "w", "contenders": {}, "flops": 0.0, "bytes": 0.0, "memory": {}},
            **{"times": 1, "host": {}, "failed": {}},
        )

    workloads = SimpleNamespace(
        workloads=lambda *_: iter([("one", make), ("other", make), ("one more", make)])
    )
    monkeypatch.setitem(sys.modules, "benchmarks.gpu_workloads", workloads)
    monkeypatch.setattr(gpu, "measured_peaks", lambda *_: gpu.Peaks(flops=1e9, bytes=5e8))
    chosen = ["--host", "--out", str(file), "--sections", "mlp"]
    gpu.main([*chosen, "--only", "ONE"])
    assert seen == [0, 1]
    late = gpu.main([*chosen, "--seconds", "0"])
    assert late["timings"] == [{"what": "mlp: out of time for 3 more"}]


# --- in small, on the host ------------------------------------------------------------------------

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, when it compiles


@pytest.fixture
def one_thread():
    """For networks this small, more of them only wait for one another."""
    peer("jax")
    torch = peer("torch")
    torch.set_num_threads(1)


def small(file, *arguments):
    """The result of the benchmark in small on the host, which its file holds too."""
    result = gpu.main(
        ["--host", "--small", "--rounds", "1", "--out", str(file), "--sections", *arguments]
    )
    assert json.loads(file.read_text()) == json.loads(json.dumps(result))
    return result


@pytest.mark.slow
def test_timings_in_small(one_thread, tmp_path):
    timings = small(tmp_path / "gpu.json", *("mlp", "conv", "norm", "draws"))["timings"]
    assert len(timings) == 8
    for timing in timings:
        assert {"torch", "jax"} <= set(timing["seconds"]) and not timing["failed"]
        assert all(s > 0 and math.isfinite(s) for s in timing["seconds"].values())
        assert timing["ratios"] and timing["floor"] > 0


@pytest.mark.slow
def test_networks_in_small(tmp_path):
    """Every peer does the same work, and says so by its losses."""
    peer("jax")
    torch = peer("torch")
    torch.set_num_threads(2)  # with one, torch 2.13 crashes in ResNet18's backward pass on the host
    networks = importlib.import_module("benchmarks.gpu_networks")
    result = small(tmp_path / "gpu.json", *("networks", "kernels"))
    assert len(result["timings"]) == len(networks.SMALL)
    for timing in result["timings"]:
        assert {"dualnet bp", "dualnet fg-a", "torch", "jax"} <= set(timing["host"])
        assert set(timing["seconds"]) == set(timing["host"]) and not timing["failed"]
        assert timing["ratios"] and timing["floor"] > 0
    seen = {(row["what"], row["contender"]): row for row in result["kernels"]}
    for name in networks.SMALL:  # of torch's functions, as there is no kernel to be seen
        row = seen[name, "torch"]
        assert row["kernels"] > 10 and 0 < row["longest"][0]["seconds"] < row["seconds"]


def test_the_networks_of_the_papers_are_all_there():
    """What is timed is what the flags of train.py train with, in full size."""
    peer("torch"), peer("jax")
    networks = importlib.import_module("benchmarks.gpu_networks")
    models = set()
    for flags, own in networks.NETWORKS.values():
        settings = network_steps.settings_of(f"{flags} --rule {own}")
        assert settings.objective == "supervised"
        models.add(settings.model)
    assert models == set(MODELS)


@pytest.mark.parametrize("name", ("MLP", "LocalMixer"))
def test_steps_on_a_device_are_recorded_and_those_on_the_host(name, one_thread, stand_in):
    networks = importlib.import_module("benchmarks.gpu_networks")
    flags, own = networks.SMALL[name]
    host, device = (
        network_steps.OurSteps(network_steps.Problem.of(backend, flags), "bp")
        for backend in (backends.get("numpy"), stand_in)
    )
    assert device.first_losses() == pytest.approx(host.first_losses(), rel=1e-5)
    device(), host()
    assert device.advance.recordings == 1
    assert float(device.step()) == pytest.approx(float(host.step()), rel=1e-4)
    for rule in ("fg-a", own):
        assert np.isfinite(network_steps.OurSteps(device.problem, rule).first_losses()).all()


def test_steps_of_the_mlp_on_a_device(one_thread, stand_in):
    workloads = importlib.import_module("benchmarks.gpu_workloads")
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.setattr(workloads, "torch_device", lambda _: "cpu")
        problem = workloads._Problem(stand_in, 16, 4)
        for rule in (Backprop(), WeightPerturbation(3, sampler="rank-one")):
            made, host = problem.steps(rule)
            for name, work in made.items():
                for _ in range(4):
                    work()
                assert host[name]() > 0
        tangents = tree.map(lambda p: np.stack([p, -p]), problem.params)
        plain, recorded = (work() for work in problem.jvp(tangents).values())
        assert plain == pytest.approx(recorded) and plain[0] == pytest.approx(-plain[1])


@pytest.mark.parametrize("wrong", ("lr", "labels"))
def test_other_work_is_told_from_the_same(wrong, one_thread, monkeypatch):
    networks = importlib.import_module("benchmarks.gpu_networks")
    flags, _ = networks.SMALL["MLP"]
    problem = network_steps.Problem.of(backends.get("numpy"), flags)
    made = {
        "dualnet bp": lambda: network_steps.OurSteps(problem, "bp"),
        "torch": lambda: networks.TorchSteps(problem),
    }
    assert not network_steps.able(made, 1e-2)[1]

    def other():
        steps = networks.TorchSteps(problem)
        if wrong == "lr":
            steps.optimizer.param_groups[0]["lr"] *= 1.1
        else:
            steps.labels = steps.labels.roll(1)
        return steps

    made["torch"] = other
    steps, failed = network_steps.able(made, 5e-2)
    assert set(steps) == set(made) and failed["torch"].startswith("not the same work")


def test_results_are_compared_away_from_kinks():
    peer("torch"), peer("jax")
    agree = importlib.import_module("benchmarks.gpu_workloads")._require_agreement
    ours = np.array([[1.0, 2.0, 0.0], [3.0, 1.0, 2.0]])
    flipped = ours.copy()
    flipped[0, 2] = 1.5
    away = np.array([True, True, False])
    agree(ours, flipped, allowed=1e-3, compared=away)
    for compared in (True, np.array([True, False, True])):
        with pytest.raises(AssertionError, match="not the same work"):
            agree(ours, flipped, allowed=1e-3, compared=compared)
