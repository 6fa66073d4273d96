"""The papers' networks, whose training steps are timed on a device, and who makes the steps.

Each network is named by flags of `train.py`; see `benchmarks.network_steps`.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.network_steps import OurSteps, Problem, Steps
from benchmarks.peer_steps import JaxSteps, TorchSteps, torch_device
from dualnet.backends import Backend

IN_A_ROW = 5
"""How many steps follow one another before the device is waited for."""

_DENSE = "fg-w --tangents 4 --aggregate projection"  # FROG's
NETWORKS: dict[str, tuple[str, str]] = {
    "FDFA MLP 784-800-10": ("--recipe fdfa-mlp2-mnist-fdfa", "fdfa"),
    "ResNet18, 3x3 stem": ("--model resnet18 --dataset cifar10 --batch-size 128", _DENSE),
    "LocalMixer M/8/16": ("--recipe ren-m-8-16-cifar10-lg-fg-a --batch-size 128", "lg-fg-a"),
    "ViT": ("--model vit --dataset cifar10 --batch-size 128", _DENSE),
    "FDFA CNN": ("--recipe fdfa-cnn-mnist-fdfa --batch-size 128", "fdfa"),
    "FDFA MLP 3072-1000-1000-1000-10": ("--recipe fdfa-mlp4-cifar10-fdfa", "fdfa"),
    "AlexNet": ("--recipe fdfa-alexnet-cifar100-fdfa", "fdfa"),
    "MLP-Mixer": ("--model mlp-mixer --dataset cifar10 --batch-size 128", _DENSE),
    "LocalMixer M/1/16": ("--recipe ren-m-1-16-mnist-lg-fg-a", "lg-fg-a"),
    "LeNet5": ("--model lenet5 --dataset mnist", _DENSE),
    "CNN4": ("--model cnn4 --dataset mnist", "fg-w"),
    "ResNet, 4 blocks of 32": ("--model resnet --dataset mnist", "fg-a-cv"),
    "FDFA CNN, published code": (
        "--recipe fdfa-cnn-mnist-fdfa --plan 15C5-40C5-P2-128 --batch-norm",
        "fdfa",
    ),
    "FROG MLP 784-1024-1024-10": ("--model mlp --width 1024 --dataset mnist", _DENSE),
    "FDFA MLP 784-800-800-10": ("--recipe fdfa-mlp3-mnist-fdfa", "fdfa"),
    "LocalMixer S/1/1": ("--recipe ren-s-1-1-mnist-lg-fg-a", "lg-fg-a"),
    "LocalMixer L/8/64": (
        "--model local-mixer --width 2048 --groups 64 --dataset cifar10 --optimizer sgd",
        "lg-fg-a",
    ),
}
"""Name → the flags of `train.py` but for the rule, and the rule of the network's own paper with its
flags.  The most telling come first."""

_FEW = "--dataset digits --batch-size 4"
SMALL: dict[str, tuple[str, str]] = {
    "MLP": (f"{_FEW} --width 16", "fdfa"),
    "CNN": (f"{_FEW} --model cnn --plan 4C3-P2-8 --batch-norm", "fdfa"),
    "ResNet18": (f"{_FEW} --model resnet18 --width 4", "fg-w --tangents 2"),
    "LocalMixer": (
        f"{_FEW} --model local-mixer --width 32 --groups 4 --patches 2 --depth 2 --optimizer sgd",
        "lg-fg-a",
    ),
    "ViT": (f"{_FEW} --model vit --width 16 --heads 2 --depth 2 --mlp-width 16", "fg-w"),
    "MLP-Mixer": (
        f"{_FEW} --model mlp-mixer --width 16 --depth 1 --optimizer momentum --weight-decay 0.1",
        "fg-w",
    ),
}
"""Likewise, to see that the code works."""


def contenders(problem: Problem, own: str, compiled: bool) -> dict[str, Callable[[], Steps]]:
    """Return a function for each contender that makes it when its turn comes.

    Args:
        problem: what is learned.
        own: the rule of the network's own paper, with its flags.
        compiled: whether torch is to compile the network, too, which takes up to a minute.
    """
    rules = dict.fromkeys(("bp", "fg-a", own))
    made: dict[str, Callable[[], Steps]] = {
        f"dualnet {rule}": functools.partial(OurSteps, problem, rule) for rule in rules
    }
    made["torch"] = functools.partial(TorchSteps, problem)
    if compiled:
        made["torch.compile"] = functools.partial(TorchSteps, problem, compiled=True)
    made["jax"] = functools.partial(JaxSteps, problem)
    return made


def host_seconds(start: Callable, wait: Callable, repetitions: int = 5) -> float:
    """Return the median time that the host needs to start a step.

    Args:
        start: starts a step, and does not wait until it is done.
        wait: waits until all that was started is done.
        repetitions: how many steps are timed.
    """
    seconds = []
    for _ in range(repetitions):
        wait()
        began = time.perf_counter()
        start()
        seconds.append(time.perf_counter() - began)
    wait()
    return float(np.median(seconds))


def by_kernel(steps: Steps, device: str, count: int = 3) -> dict[str, Any]:
    """Return the time by kernel, as torch's profiler sees it, whoever starts the kernels.

    Args:
        steps: what is watched.
        device: `cuda`; on the `cpu`, the functions of torch take the place of kernels.
        count: how many steps are watched.

    Returns:
        `kernels` of a step, their `seconds` together, and the `longest` of them: name, how many
        of a step, and the seconds of all of these.
    """
    kind = getattr(torch.profiler.ProfilerActivity, {"cuda": "CUDA"}.get(device, "CPU"))
    steps()
    steps.wait()
    with torch.profiler.profile(activities=[kind]) as profiler:
        for _ in range(count):
            steps()
        steps.wait()
    calls: dict[str, int] = defaultdict(int)
    seconds: dict[str, float] = defaultdict(float)
    for event in profiler.events():
        if event.device_type.name.lower() == device:
            calls[event.name] += 1
            seconds[event.name] += 1e-6 * event.time_range.elapsed_us()
    longest = sorted(seconds, key=lambda name: -seconds[name])[:25]
    return {
        "kernels": sum(calls.values()) / count,
        "seconds": sum(seconds.values()) / count,
        "longest": [
            {"name": name[:100], "calls": calls[name] / count, "seconds": seconds[name] / count}
            for name in longest
        ],
    }


def profiles(backend: Backend, flags: str, own: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the time by kernel of each contender but JAX, with its name."""
    problem = Problem.of(backend, flags)
    for name, make in contenders(problem, own, compiled=False).items():
        if name != "jax":
            steps = make()
            steps.first_losses()
            yield name, by_kernel(steps, torch_device(backend))
