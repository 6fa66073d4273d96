"""The benchmark for a device does on the host, in small, what it would do there."""

import json
import math
import sys
from types import SimpleNamespace

import pytest
from peers import peer

from benchmarks import gpu


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
        what="w", contenders=contenders, flops=1e6, bytes=1e6, memory={"jax": lambda: 5}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.timing.time.perf_counter", lambda: clock)
        outcome = gpu.measure(workload, gpu.Peaks(flops=1e9, bytes=5e8), rounds=3)
    assert outcome.seconds == pytest.approx(seconds)
    assert outcome.ratios == pytest.approx({"dualnet": 2.0})
    assert outcome.floor == pytest.approx(0.002) and outcome.share == pytest.approx(0.5)
    assert outcome.memory == {"jax": 5}
    assert outcome.failed == {"torch.compile": "RuntimeError: no compiler here"}
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

    workloads = SimpleNamespace(workloads=lambda *_: iter([useless]))
    monkeypatch.setitem(
        sys.modules, "benchmarks.gpu_workloads", None if broken == "import" else workloads
    )
    peaks = gpu.Peaks(flops=1e9, bytes=5e8)
    monkeypatch.setattr(gpu, "measured_peaks", lambda *_: peaks)
    monkeypatch.setattr(gpu, "command", lambda arguments, _: {"exit_code": 0})
    result = gpu.main(["--host", "--json", str(tmp_path / "gpu.json")])
    assert all(result[part] == {"exit_code": 0} for part in ("training", "check", "tests"))
    (timing,) = result["timings"]
    assert "gpu_workloads" in timing["failed"] or "not for this card" in timing["failed"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, when it compiles
def test_all_of_it_in_small_on_the_host(tmp_path):
    peer("torch"), peer("jax")
    file = tmp_path / "gpu.json"
    arguments = ["--host", "--small", "--rounds", "2", "--json", str(file)]
    result = gpu.main(arguments)
    assert json.loads(file.read_text()) == json.loads(json.dumps(result))
    assert len(result["timings"]) == 7
    for timing in result["timings"]:
        assert {"torch", "jax"} <= set(timing["seconds"])
        assert all(s > 0 and math.isfinite(s) for s in timing["seconds"].values())
        assert timing["ratios"] and timing["floor"] > 0
