"""Training steps of the papers' networks: by dualnet's rules, and by backpropagation of the peers.

Each network is named by flags of `train.py`, so what is timed is the step that these flags train
with: the recipe's batch size, optimizer and rule.  The peers, torch and JAX, start from the same
parameters and make the same update by the gradient of the network's own loss.  Their first losses
are compared with those of `bp`, so that all do the same work.  Steps follow one another as in
training, without waiting for each one.
"""

from __future__ import annotations

import functools
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import dualnet as dn
from benchmarks.networks_in_jax import in_jax
from benchmarks.networks_in_torch import in_torch
from dualnet import data, optim, tree
from dualnet.backends import Backend
from dualnet.command import train
from dualnet.learning import RULES, Batch, LearnerState, Plan, Task, estimate_gradient
from dualnet.nn import Conv2d, softmax_cross_entropy, walk
from dualnet.optim import OPTIMIZERS
from dualnet.training.assemble import network_of
from dualnet.training.settings import Settings, build
from dualnet.tree import Tree

FLOAT = 4  # bytes

COMPARED = 3
"""How many first losses of each contender are compared."""

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


@dataclass(frozen=True)
class Problem:
    """A network's training step, and what it starts from.

    Attributes:
        backend: of dualnet's arrays.
        flags: of `train.py`, without a rule.
        images, labels: a batch in NumPy arrays, `(N, H, W, C)` and `(N,)`.
    """

    backend: Backend
    flags: str
    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, backend: Backend, flags: str) -> Problem:
        """Draw a batch of normal images for what the flags name."""
        settings = settings_of(f"{flags} --rule bp")
        in_shape, classes = data.outline(settings.dataset, None, settings.image_size)
        generator = np.random.default_rng(0)
        n = settings.batch_size
        images = generator.standard_normal((n, *in_shape), np.float32)
        return cls(backend, flags, images, generator.integers(0, classes, n))

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings of backpropagation."""
        return settings_of(f"{self.flags} --rule bp")

    @functools.cached_property
    def network(self) -> Any:
        """The network as backpropagation trains it."""
        return self.network_for(self.settings)

    def network_for(self, settings: Settings) -> Any:
        """Return the network as the settings' rule trains it."""
        in_shape, classes = data.outline(settings.dataset, None, settings.image_size)
        return network_of(settings, in_shape, classes)

    @functools.cached_property
    def params(self) -> Tree:
        """The parameters of `network` before the first step, in NumPy arrays."""
        return self.started(self.network)[0]

    def started(self, network: Any) -> tuple[Tree, Tree]:
        """Return parameters and state of a network before the first step, in NumPy arrays.

        Some outputs start at zero, so that nothing behind them would learn in the first step.
        Therefore all parameters get some noise, the same for the same shape.
        """
        params, state, _ = network.init(dn.Key(0), self.images.shape[1:])

        def noisy(p: np.ndarray) -> np.ndarray:
            noise = np.random.default_rng(0).standard_normal(p.shape, np.float32)
            return p + np.float32(0.02) * noise

        return tree.map(noisy, params), state

    @functools.cached_property
    def optimizer(self) -> optim.Optimizer:
        """The optimizer that the flags name."""
        return build(
            OPTIMIZERS, "optimizer", self.settings.optimizer, self.settings.optimizer_options
        )


def settings_of(flags: str) -> Settings:
    """Return the settings that flags of `train.py` resolve to."""
    return train.settings_of(train.parse(flags.split()))


class Steps:
    """Makes the next step each time it is called, and does not wait until it is done.

    Attributes:
        losses: the first losses, on the device.
    """

    def __init__(self) -> None:
        self.losses: list[Any] = []

    def __call__(self) -> None:
        """Start the next step."""
        loss = self.step()
        if len(self.losses) < COMPARED:
            self.losses.append(loss)

    def step(self) -> Any:
        """Start the next step and return its loss."""
        raise NotImplementedError

    def wait(self) -> None:
        """Wait until all steps that were started are done."""
        raise NotImplementedError

    def first_losses(self) -> np.ndarray:
        """Make the first steps and return their losses, `(COMPARED,)`."""
        while len(self.losses) < COMPARED:
            self()
        self.wait()
        return np.array([float(loss) for loss in self.losses])


class OurSteps(Steps):
    """Steps of dualnet by a rule, recorded where the backend records.

    Args:
        problem: what is learned.
        rule: the value of `--rule`, and behind it the rule's flags.
    """

    def __init__(self, problem: Problem, rule: str):
        super().__init__()
        settings = settings_of(f"{problem.flags} --rule {rule}")
        self.problem, backend = problem, problem.backend
        network = problem.network_for(settings)
        params, state = (tree.map(backend.asarray, t) for t in problem.started(network))
        self.batch = {
            "images": backend.asarray(problem.images),
            "labels": backend.asarray(problem.labels),
        }
        chosen = build(RULES, "rule", settings.rule, settings.rule_options)
        plan = Plan.of(
            Task(network, softmax_cross_entropy), params, state, self.batch["images"][:1]
        )
        optimizer, self.lr, self.number = problem.optimizer, settings.lr, 0
        self.carried = {
            "params": params,
            "state": state,
            "rule": chosen.init(dn.Key(1), plan, params),
            "optimizer": optimizer.init_opt_state(params),
        }

        def advance(carried: Tree, batch: Tree, key: dn.Key, numbers: dict) -> tuple[Tree, Tree]:
            learner = LearnerState(carried["params"], carried["state"], carried["rule"])
            examples = Batch(batch["images"], batch["labels"])
            done = estimate_gradient(chosen, plan, learner, examples, key, backend)
            params, opt_state = optimizer.apply(
                done.gradients, carried["optimizer"], learner.params, numbers["lr"], numbers["step"]
            )
            new = {
                "params": params,
                "state": done.model_state,
                "rule": done.rule_state,
                "optimizer": opt_state,
            }
            return new, {"loss": done.loss}

        self.advance = backend.recorded(advance)

    def step(self) -> Any:
        self.number += 1
        numbers = {"lr": self.lr, "step": self.number}
        self.carried, seen = self.advance(self.carried, self.batch, dn.Key(self.number), numbers)
        return seen["loss"]

    def wait(self) -> None:
        self.problem.backend.synchronize()


# --- peers ----------------------------------------------------------------------------------------


def torch_device(backend: Backend) -> str:
    """Return torch's name of the backend's device."""
    return "cuda" if backend.name == "cupy" else "cpu"


class TorchSteps(Steps):
    """Steps of backpropagation by torch, eager or compiled; convolutions work channels last."""

    def __init__(self, problem: Problem, compiled: bool = False):
        super().__init__()
        self.device = torch_device(problem.backend)
        self.module = in_torch(problem.network, problem.params).to(self.device)
        self.images = torch.from_numpy(problem.images).permute(0, 3, 1, 2).to(self.device)
        if any(isinstance(layer, Conv2d) for _, layer in walk(problem.network)):
            self.module = self.module.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.from_numpy(problem.labels).to(self.device)
        self.apply = torch.compile(self.module) if compiled else self.module
        self.optimizer = self._optimizer(problem.optimizer, problem.settings.lr)

    def _optimizer(self, ours: optim.Optimizer, lr: float) -> torch.optim.Optimizer:
        params = self.module.parameters()
        how: dict[str, Any] = {"lr": lr, "weight_decay": ours.weight_decay}
        how["fused"] = self.device == "cuda"
        if isinstance(ours, optim.Adam):
            return torch.optim.Adam(params, betas=(ours.beta1, ours.beta2), eps=ours.epsilon, **how)
        if isinstance(ours, optim.Momentum):
            return torch.optim.SGD(params, momentum=ours.momentum, **how)
        if isinstance(ours, optim.SGD):
            return torch.optim.SGD(params, **how)
        raise NotImplementedError(f"{type(ours).__name__} in torch")

    def step(self) -> Any:
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(self.apply(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def flops(self) -> float:
        """Make a step and return the operations of its matrix products and convolutions."""
        with FlopCounterMode(display=False) as counter:
            self.step()
        return float(counter.get_total_flops())

    def moved(self, states: int) -> float:
        """Return the bytes that a step moves at least, if all but products is fused into them.

        A parameter is read by the two passes and by the update, and written; its gradient is
        written and read; each of `states` numbers of the optimizer is read and written.  The
        result of a product is written and read, and so is its gradient.
        """
        sizes = []

        def note(_module: Any, _inputs: Any, output: Any) -> None:
            sizes.append(output.numel())

        products = [m for m in self.module.modules() if getattr(m, "weight", None) is not None]
        products = [m for m in products if m.weight.ndim > 1]  # but for norms
        hooks = [m.register_forward_hook(note) for m in products]
        with torch.no_grad():
            self.module(self.images)
        for hook in hooks:
            hook.remove()
        parameters = sum(p.numel() for p in self.module.parameters())
        return FLOAT * (parameters * (6.0 + 2.0 * states) + 4.0 * sum(sizes))


class JaxSteps(Steps):
    """Steps of backpropagation by jitted JAX, which may overwrite the old parameters."""

    def __init__(self, problem: Problem):
        super().__init__()
        network, optimizer, lr = problem.network, problem.optimizer, problem.settings.lr
        self.params = tree.map(jax.numpy.asarray, problem.params)
        self.state = {
            name: tree.map(jax.numpy.zeros_like, self.params) for name in optimizer.state_names
        }
        self.images, self.labels = map(jax.numpy.asarray, (problem.images, problem.labels))
        self.number, self.last = 0, None

        def loss(params: Tree, images: Any, labels: Any) -> Any:
            log_p = jax.nn.log_softmax(in_jax(network, params, images))
            return -jax.numpy.take_along_axis(log_p, labels[:, None], 1).mean()

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params: Tree, state: Tree, images: Any, labels: Any, number: Any) -> tuple:
            value, g = jax.value_and_grad(loss)(params, images, labels)
            return *_updated(optimizer, lr, g, state, params, number), value

        self.advance = step

    def step(self) -> Any:
        self.number += 1
        self.params, self.state, self.last = self.advance(
            self.params, self.state, self.images, self.labels, float(self.number)
        )
        return self.last

    def wait(self) -> None:
        jax.block_until_ready((self.params, self.state, self.last))


def _updated(
    optimizer: optim.Optimizer, lr: float, g: Tree, state: Tree, params: Tree, number: Any
) -> tuple[Tree, Tree]:
    """Return parameters and optimizer state after an update in JAX; see `dualnet.optim`."""
    g = tree.map(lambda g, p: g + optimizer.weight_decay * p, g, params)
    if isinstance(optimizer, optim.Adam):
        b1, b2 = optimizer.beta1, optimizer.beta2
        m = tree.map(lambda m, g: b1 * m + (1 - b1) * g, state["first_moment"], g)
        v = tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state["second_moment"], g)
        c = jax.numpy.sqrt(1 - b2**number)
        rate = lr * c / (1 - b1**number)

        def moved(p: Any, m: Any, v: Any) -> Any:
            return p - rate * m / (jax.numpy.sqrt(v) + c * optimizer.epsilon)

        return tree.map(moved, params, m, v), {"first_moment": m, "second_moment": v}
    if isinstance(optimizer, optim.Momentum):
        v = tree.map(lambda v, g: optimizer.momentum * v + g, state["velocity"], g)
        return tree.map(lambda p, v: p - lr * v, params, v), {"velocity": v}
    if isinstance(optimizer, optim.SGD):
        return tree.map(lambda p, g: p - lr * g, params, g), {}
    raise NotImplementedError(f"{type(optimizer).__name__} in JAX")


# --- what all of them did -------------------------------------------------------------------------


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


def able(
    made: dict[str, Callable[[], Steps]], allowed: float
) -> tuple[dict[str, Steps], dict[str, str]]:
    """Make the contenders, and let each make its first steps.

    The peers must have the first losses of `bp`, up to `allowed` times what these fall by.

    Returns:
        The contenders that can run; and why the others cannot, or do not do the same work.
    """
    steps: dict[str, Steps] = {}
    failed: dict[str, str] = {}
    expected = None
    for name, make in made.items():
        try:
            one = make()
            losses = one.first_losses()
        except Exception as error:  # of any kind, from a compiler or a library
            failed[name] = f"{type(error).__name__}: {str(error).strip()[:300]}"
            continue
        if name == "dualnet bp":
            expected = losses
        peer = not name.startswith("dualnet")
        if peer and expected is not None:
            worst = float(np.abs(losses - expected).max())
            if not worst <= allowed * abs(expected[0] - expected[-1]) + 1e-6 * abs(expected[0]):
                failed[name] = f"not the same work: losses {losses}, by dualnet {expected}"
        steps[name] = one
    return steps, failed


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


def free(backend: Backend) -> None:
    """Give the memory of arrays that nobody holds any more back to the device."""
    gc.collect()
    if backend.name == "cupy":
        import cupy

        cupy.get_default_memory_pool().free_all_blocks()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def profiles(backend: Backend, flags: str, own: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the time by kernel of each contender but JAX, with its name."""
    problem = Problem.of(backend, flags)
    for name, make in contenders(problem, own, compiled=False).items():
        if name != "jax":
            steps = make()
            steps.first_losses()
            yield name, by_kernel(steps, torch_device(backend))
