"""Time of one run and of several side by side, on a device: the recipe fdfa-mlp2-mnist-fdfa.

    PYTHONPATH=. python bench_seeds.py

The data have MNIST's shapes and random pixels.  All steps are recorded.  The first column is what a
step of all runs takes, the second what the host is busy for.  Before, ten runs side by side are
compared with single ones, bit for bit.
"""

import sys
import time
from dataclasses import replace

import numpy as np

from dualnet import backends, tree
from dualnet.data.dataset import Dataset
from dualnet.training.run import make_trainer
from dualnet.training.settings import Settings
from dualnet.training.side_by_side import _Group, _Together
from models import MODELS

NAME = sys.argv[1] if len(sys.argv) > 1 else "cupy"
SMALL = NAME == "numpy"  # to try the script without a device
IMAGES, STEPS, CHECKED = (1280, 5, 3) if SMALL else (60_000, 300, 40)
WARM_UP, ROUNDS = (1, 1) if SMALL else (20, 3)
backend = backends.get(NAME)
rng = np.random.default_rng(0)
dataset = Dataset(
    "random",
    rng.integers(0, 256, (IMAGES, 28, 28, 1)).astype(np.uint8),
    rng.integers(0, 10, IMAGES),
    rng.integers(0, 256, (1000, 28, 28, 1)).astype(np.uint8),
    rng.integers(0, 10, 1000),
    tuple("0123456789"),
    255,
)
settings = Settings(
    *("mnist", "mlp", "fdfa", "adam", "exponential", 1e-4, 1, 64),
    pixels="symmetric",
    backend=NAME,
    graph=not SMALL,
    rule_options={"tangents": 1, "sampler": "normal", "feedback_rate": 0.01},
    schedule_options={"factor": 0.95, "every": "epoch"},
)
network = MODELS["mlp"](width=800, depth=1).network((28, 28, 1), 10)
trainer = make_trainer(settings, network, dataset)
runs = [replace(trainer, seed=seed) for seed in range(20)]


def single(run):
    """The states of a run by itself."""
    return run._states(run.start(), [], True)


def together(some):
    """The states of runs side by side."""
    return _Group(some).states(_Together.of([run.start() for run in some]), [], True)


def after(states, steps):
    for _ in range(steps):
        now = next(states)
    return now


def measure(states):
    """Medians of µs a step until the device is done, and of those that the host is busy."""
    after(states, WARM_UP)
    whole, host = [], []
    for _ in range(ROUNDS):
        backend.synchronize()
        began = time.perf_counter()
        after(states, STEPS // ROUNDS)
        host.append(time.perf_counter() - began)
        backend.synchronize()
        whole.append(time.perf_counter() - began)
    states.close()
    return (1e6 * np.median(x) / (STEPS // ROUNDS) for x in (whole, host))


def check():
    """Compare ten runs side by side with single ones."""
    states = together(runs[:10])
    now = after(states, CHECKED)
    got = [tree.map(backend.to_host, carried) for carried in now.carried]
    states.close()
    wrong = 0
    for run, here in zip(runs[:10], got, strict=True):
        states = single(run)
        alone = tree.map(backend.to_host, after(states, CHECKED).carried)
        states.close()
        pairs = zip(tree.leaves(here), tree.leaves(alone), strict=True)
        wrong += any(not np.array_equal(a, b) for a, b in pairs)
    print(f"of 10 runs after {CHECKED} steps, {wrong} differ from single ones (0 expected)")


began = time.perf_counter()
check()
backend.read_every = 10**9  # no losses are read while time is taken
print("                         us a step  host us  ratio  predicted ratio (us on the device)")
predicted = {1: "1 (90: 40 kernels in a row)", 2: "1.1", 5: "1.5", 10: "2.1 (190)", 20: "3.7 (340)"}
# Of ten: 10 * 0.3 GFLOP / 50 TFLOP/s = 60 us, 10 * 20 MB of Adam / 3.0 TB/s = 68 us, and latency.
one, host = measure(single(runs[0]))
print(f"one alone               {one:10.1f} {host:8.1f}   1.00  {predicted[1]}", flush=True)
for n in (1, 2, 5, 10, 20):
    if time.perf_counter() - began > 30:
        print("(no time for the rest)")
        break
    us, host = measure(together(runs[:n]))
    target = "  target 2.5" if n == 10 else ""
    print(
        f"{n:2} side by side {us:18.1f} {host:8.1f} {us / one:6.2f}  {predicted[n]}{target}",
        flush=True,
    )
print(f"{time.perf_counter() - began:.0f} s")
