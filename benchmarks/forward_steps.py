"""Forward gradients by torch and JAX, as steps of a network: k normal tangents of all weights.

A step draws the tangents, takes the derivatives of the network's own loss along them by
`torch.func.vmap` of `torch.func.jvp` or by jitted `jax.vmap` of `jax.jvp`, adds up each tangent
times its derivative over k, and makes the same update as dualnet.  Batch norm has no running
statistics here, since torch cannot write them under `vmap`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.network_steps import Problem, Steps
from benchmarks.peer_steps import TorchSteps, mean_loss, updated
from dualnet import tree
from dualnet.tree import Tree


class TorchForwardSteps(TorchSteps):
    """Steps of forward gradients by torch.

    Args:
        problem: what is learned.
        k: how many tangents there are.
        channels_last: see `TorchSteps`.
    """

    def __init__(self, problem: Problem, k: int, channels_last: bool = True):
        super().__init__(problem, channels_last=channels_last)
        torch.func.replace_all_batch_norm_modules_(self.module)
        self.k = k

    def step(self) -> Any:
        func, params = torch.func, dict(self.module.named_parameters())

        def loss(params: dict[str, Any]) -> Any:
            outputs = func.functional_call(self.module, params, self.images)
            return torch.nn.functional.cross_entropy(outputs, self.labels)

        # Torch has no forward derivative of its fused attention.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            primals = {name: p.detach() for name, p in params.items()}
            tangents = {name: torch.randn(self.k, *p.shape) for name, p in primals.items()}
            values, slopes = func.vmap(lambda t: func.jvp(loss, (primals,), (t,)))(tangents)
            for name, p in params.items():
                p.grad = torch.tensordot(slopes / self.k, tangents[name], dims=1)
        self.optimizer.step()
        return values[0]


class JaxForwardSteps(Steps):
    """Steps of forward gradients by jitted JAX, which may overwrite the old parameters.

    Args:
        problem: what is learned.
        k: how many tangents there are.
    """

    def __init__(self, problem: Problem, k: int):
        super().__init__()
        optimizer, lr = problem.optimizer, problem.settings.lr
        self.params = tree.map(jax.numpy.asarray, problem.params)
        self.state = {
            name: tree.map(jax.numpy.zeros_like, self.params) for name in optimizer.state_names
        }
        self.images, self.labels = map(jax.numpy.asarray, (problem.images, problem.labels))
        self.key, self.number, self.last = jax.random.key(0), 0, None

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params: Tree, state: Tree, key: Any, images: Any, labels: Any, n: Any) -> tuple:
            leaves, structure = jax.tree.flatten(params)
            keys = jax.random.split(key, len(leaves))
            drawn = [
                jax.random.normal(one, (k, *p.shape), p.dtype)
                for one, p in zip(keys, leaves, strict=True)
            ]
            tangents = jax.tree.unflatten(structure, drawn)
            loss = functools.partial(mean_loss, problem.network, images, labels)
            value, slopes = jax.vmap(lambda t: jax.jvp(loss, (params,), (t,)), out_axes=(None, 0))(
                tangents
            )
            g = jax.tree.map(lambda t: jax.numpy.tensordot(slopes / k, t, 1), tangents)
            return *updated(optimizer, lr, g, state, params, n), value

        self.advance = step

    def step(self) -> Any:
        self.number += 1
        self.key, key = jax.random.split(self.key)
        self.params, self.state, self.last = self.advance(
            self.params, self.state, key, self.images, self.labels, float(self.number)
        )
        return self.last

    def wait(self) -> None:
        jax.block_until_ready((self.params, self.state, self.last))
