"""The work of the benchmarks in torch and JAX: an MLP's loss along k tangents, and a fg-w step.

The methods `jvp(k)` and `step(k)` of each peer return a function that does the work once and waits
until it is done.  On a device, it waits by copying a few numbers to the host.  Weights are
`(fan-in, fan-out)`, in float32.  Tangents are dense and normal.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np

LR = 1e-3
"""The learning rate of every step."""


def require(command: str, *packages: str, extra: str = "bench") -> None:
    """End the command by a line that says what to install, unless all packages are here.

    Args:
        command: its name, as in `benchmarks.layers`.
        packages: the names by which the packages are imported.
        extra: the extra of dualnet that brings them.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"{command} needs {' and '.join(missing)}, which cannot be imported; "
            f'run python -m pip install -e ".[{extra}]" in the checkout'
        )


class Torch:
    """The work by `torch.func.vmap(torch.func.jvp)`, eager or compiled, on the host or a device."""

    def __init__(
        self,
        weights: list,
        biases: list,
        x: np.ndarray,
        y: np.ndarray,
        device: str = "cpu",
        compiled: bool = False,
    ):
        import torch

        self.torch, self.device = torch, device
        self.name = "torch.compile" if compiled else "torch"
        self.compiled = torch.compile if compiled else lambda f: f
        self.params = tuple(torch.from_numpy(a.copy()).to(device) for a in (*weights, *biases))
        self.x, self.y = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)

    def loss(self, *params):
        """Return the mean loss of the batch; `params` are all weights, then all biases."""
        half = len(params) // 2
        h = self.x
        for i, (w, b) in enumerate(zip(params[:half], params[half:], strict=True)):
            h = h @ w + b
            if i < half - 1:
                h = self.torch.relu(h)
        return self.torch.nn.functional.cross_entropy(h, self.y)

    def along(self, tangents):
        """Return the derivatives of the loss along k tangents, `(k,)`."""
        func = self.torch.func

        def one(*t):
            return func.jvp(self.loss, self.params, t)[1]

        return func.vmap(one)(*tangents)

    def draw(self, k: int):
        """Draw k normal tangents of all parameters."""
        return tuple(self.torch.randn(k, *p.shape, device=self.device) for p in self.params)

    def jvp(self, k: int) -> Callable:
        """Return a function that computes the loss along k fixed tangents."""
        tangents, along = self.draw(k), self.compiled(self.along)

        def work():
            with self.torch.no_grad():
                return along(tangents).cpu().numpy()

        return work

    def step(self, k: int) -> Callable:
        """Return a function that makes one forward-gradient step with k new tangents."""

        def update():
            tangents = self.draw(k)
            d = self.along(tangents) / k
            return tuple(
                p - LR * self.torch.tensordot(d, t, dims=1)
                for p, t in zip(self.params, tangents, strict=True)
            )

        update = self.compiled(update)

        def work():
            with self.torch.no_grad():
                self.params = update()
                self.params[-1].cpu()

        return work


class Jax:
    """The work by jitted `jax.vmap(jax.jvp)`."""

    name = "jax"

    def __init__(self, weights: list, biases: list, x: np.ndarray, y: np.ndarray):
        import jax

        self.jax = jax
        self.params = tuple(jax.numpy.asarray(a) for a in (*weights, *biases))
        self.x, self.y = jax.numpy.asarray(x), jax.numpy.asarray(y)
        self.key = jax.random.key(0)

    def loss(self, *params):
        """Return the mean loss of the batch; `params` are all weights, then all biases."""
        jnp = self.jax.numpy
        half = len(params) // 2
        h = self.x
        for i, (w, b) in enumerate(zip(params[:half], params[half:], strict=True)):
            h = h @ w + b
            if i < half - 1:
                h = self.jax.nn.relu(h)
        log_p = self.jax.nn.log_softmax(h)
        return -jnp.mean(jnp.take_along_axis(log_p, self.y[:, None], 1))

    def along(self, params, tangents):
        """Return the derivatives of the loss along k tangents, `(k,)`."""
        return self.jax.vmap(lambda t: self.jax.jvp(self.loss, params, t)[1])(tangents)

    def draw(self, key, k: int):
        """Draw k normal tangents of all parameters."""
        keys = self.jax.random.split(key, len(self.params))
        return tuple(
            self.jax.random.normal(one, (k, *p.shape), p.dtype)
            for one, p in zip(keys, self.params, strict=True)
        )

    def jvp(self, k: int) -> Callable:
        """Return a function that computes the loss along k fixed tangents."""
        tangents = self.draw(self.key, k)
        along = self.jax.jit(self.along)
        return lambda: np.asarray(along(self.params, tangents))

    def step(self, k: int) -> Callable:
        """Return a function that makes one forward-gradient step with k new tangents."""
        jnp = self.jax.numpy

        @self.jax.jit
        def update(params, key):
            tangents = self.draw(key, k)
            d = self.along(params, tangents) / k
            return tuple(
                p - LR * jnp.tensordot(d, t, 1) for p, t in zip(params, tangents, strict=True)
            )

        def work():
            self.key, key = self.jax.random.split(self.key)
            self.params = self.jax.block_until_ready(update(self.params, key))

        return work
