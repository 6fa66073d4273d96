"""Backpropagation by torch and JAX, as steps of a network; see `benchmarks.network_steps`."""

from __future__ import annotations

import functools
from typing import Any

import jax
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.network_steps import Problem, Steps
from benchmarks.networks_in_jax import in_jax
from benchmarks.networks_in_torch import in_torch
from dualnet import optim, tree
from dualnet.backends import Backend
from dualnet.nn import Conv2d, walk
from dualnet.tree import Tree

FLOAT = 4  # bytes


def torch_device(backend: Backend) -> str:
    """Return torch's name of the backend's device."""
    return "cuda" if backend.name == "cupy" else "cpu"


def convolves(network: Any) -> bool:
    """Return whether a network has convolutions, to which the layout of images matters."""
    return any(isinstance(layer, Conv2d) for _, layer in walk(network))


class TorchSteps(Steps):
    """Steps of backpropagation by torch, eager or compiled.

    Args:
        problem: what is learned.
        compiled: whether torch compiles the network.
        channels_last: whether images lie in memory as dualnet has them, or with the pixels of each
            channel together.  It is of no account to a network without convolutions.
    """

    def __init__(self, problem: Problem, compiled: bool = False, channels_last: bool = True):
        super().__init__()
        self.device = torch_device(problem.backend)
        self.module = in_torch(problem.network, problem.params).to(self.device)
        self.images = torch.from_numpy(problem.images).permute(0, 3, 1, 2).to(self.device)
        if convolves(problem.network):
            layout = torch.channels_last if channels_last else torch.contiguous_format
            self.module = self.module.to(memory_format=layout)
            self.images = self.images.contiguous(memory_format=layout)
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
        loss = functools.partial(mean_loss, network)

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params: Tree, state: Tree, images: Any, labels: Any, number: Any) -> tuple:
            value, g = jax.value_and_grad(loss, argnums=2)(images, labels, params)
            return *updated(optimizer, lr, g, state, params, number), value

        self.advance = step

    def step(self) -> Any:
        self.number += 1
        self.params, self.state, self.last = self.advance(
            self.params, self.state, self.images, self.labels, float(self.number)
        )
        return self.last

    def wait(self) -> None:
        jax.block_until_ready((self.params, self.state, self.last))


def mean_loss(network: Any, images: Any, labels: Any, params: Tree) -> Any:
    """Return the mean loss of a batch in JAX."""
    log_p = jax.nn.log_softmax(in_jax(network, params, images))
    return -jax.numpy.take_along_axis(log_p, labels[:, None], 1).mean()


def updated(
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
