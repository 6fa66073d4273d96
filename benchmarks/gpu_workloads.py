"""The workloads that `benchmarks.gpu` times: the same work by dualnet, torch and JAX on one device.

For each workload, the multiplications and additions of dualnet's way are counted, and the bytes of
its inputs, tangents and results.  So much must be done and moved, however well kernels are fused.
(For the steps of a network, those of backpropagation are counted, whatever the rule.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np
import torch

import dualnet as dn
from benchmarks import gpu_networks
from benchmarks.network_steps import Problem, Steps, able, free
from benchmarks.peer_steps import FLOAT, TorchSteps, torch_device
from benchmarks.peers import LR, Jax, Torch
from dualnet import nn, tree
from dualnet.backends import Backend
from dualnet.learning import (
    ActivityPerturbation,
    Backprop,
    Batch,
    LearnerState,
    Plan,
    Rule,
    Task,
    WeightPerturbation,
    estimate_gradient,
)
from dualnet.models import MLP
from dualnet.nn import Context, softmax_cross_entropy
from dualnet.optim import SGD
from dualnet.random import Key
from dualnet.tree import Tree
from dualnet.types import Array

_ROUNDING = {
    # precision: its name in torch, its name in JAX, and how far apart results may be, as a share
    # of the largest entry
    "full": ("highest", "highest", 1e-3),
    "tf32": ("high", "tensorfloat32", 1e-2),
    "bf16": ("medium", "bfloat16", 1e-1),
}


@dataclass(frozen=True)
class Workload:
    """Work that several contenders do.

    Attributes:
        what: its name.
        contenders: name → a function that does the work `times` times and returns when it is done.
        flops, bytes: what dualnet's way takes; see the head of this file.
        memory: name → a function that returns the most bytes of device memory held so far.
        times: how often a contender does the work each time it is called.
        host: name → a function that returns the seconds in which the host starts the work once.
        failed: name → why a contender cannot do the work, or does not do the same; there are no
            ratios to it.
    """

    what: str
    contenders: dict[str, Callable]
    flops: float
    bytes: float
    memory: dict[str, Callable[[], int]] = field(default_factory=dict)
    times: int = 1
    host: dict[str, Callable[[], float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def workloads(
    section: str, backend: Backend, small: bool, matmul_precision: str, compiled: bool = False
) -> Iterator[tuple[str, Callable[[], Workload]]]:
    """Yield for each workload of a section its name and what makes it when its turn comes.

    Args:
        section: one of `gpu.TIMED`.
        backend: the backend of dualnet's arrays.
        small: whether sizes are small, to see that the code works.
        matmul_precision: how all contenders may round factors, a name in
            `backends.MATMUL_PRECISIONS`.  The backend was made with the same name.
        compiled: whether torch compiles the networks, too.

    Raises:
        RuntimeError: a peer is not built for the device, so it would be timed on the host.
    """
    round_alike(backend, matmul_precision)
    allowed = _ROUNDING[matmul_precision][2]
    width, batch = (32, 8) if small else (1024, 256)
    mlp, many = partial(_Problem, backend, width, batch), 4 if small else 64
    if section == "mlp":
        yield "bp and fg-a", lambda: rule_steps(mlp())
        yield "fg-w rank-one", lambda: mlp_step(mlp(), many, "rank-one")
        for k in (1, 2) if small else (1, 16, 64):
            yield f"jvp k = {k}", partial(lambda k: mlp_jvp(mlp(), k), k)
        yield "fg-w normal", lambda: mlp_step(mlp(), many, "normal")
    elif section == "networks":
        for name, (flags, own) in (gpu_networks.SMALL if small else gpu_networks.NETWORKS).items():
            yield name, partial(network_steps, backend, name, flags, own, allowed, compiled)
    elif section == "conv":
        sizes = (2, 6, 4, 2) if small else (32, 32, 64, 4)
        yield "conv", lambda: convolution(backend, *sizes, allowed)
    elif section == "norm":
        sizes = (64, 16, 2) if small else (8192, 512, 4)
        yield "norm", lambda: normalized_linear(backend, *sizes, allowed)
    elif section == "draws":
        yield "draws", lambda: draws(backend, 1 << (10 if small else 26))


def round_alike(backend: Backend, matmul_precision: str) -> None:
    """Let torch and JAX round the factors of products as dualnet may, and no more.

    Raises:
        RuntimeError: a peer is not built for the device, so it would be timed on the host.
    """
    if backend.name == "cupy" and not torch.cuda.is_available():
        raise RuntimeError(f"torch {torch.__version__} sees no CUDA device")
    if backend.name == "cupy" and jax.default_backend() != "gpu":
        raise RuntimeError(f"JAX {jax.__version__} sees no CUDA device")
    by_torch, by_jax, _ = _ROUNDING[matmul_precision]
    # Without this, torch's convolutions and JAX's products may round on a device.
    torch.backends.cudnn.allow_tf32 = matmul_precision != "full"
    torch.set_float32_matmul_precision(by_torch)
    jax.config.update("jax_default_matmul_precision", by_jax)


def _memory(backend: Backend) -> dict[str, Callable[[], int]]:
    """Return the functions that tell how many bytes each contender held at most.

    Those of the peers count from the start of the process.
    """
    if backend.name != "cupy":
        return {}
    return {
        "dualnet": lambda: backend.memory()["device_pool_bytes"],
        "torch": torch.cuda.max_memory_allocated,
        "jax": lambda: (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0),
    }


# --- multilayer perceptrons -----------------------------------------------------------------------


class _Problem:
    """The MLP 784-width-width-10 and a batch, in dualnet, torch and JAX."""

    def __init__(self, backend: Backend, width: int, batch: int):
        self.backend = backend
        network = MLP(width=width, depth=2).network((784,), 10)
        params, state, _ = network.init(dn.Key(0), (784,))
        generator = np.random.default_rng(0)
        x = generator.standard_normal((batch, 784), dtype=np.float32)
        y = generator.integers(0, 10, batch)
        layers = [p for p in params.values() if p]
        arrays = [p["w"] for p in layers], [p["b"] for p in layers], x, y
        device = torch_device(backend)
        self.peers = [Torch(*arrays, device), Torch(*arrays, device, compiled=True), Jax(*arrays)]
        self.task = Task(network, softmax_cross_entropy)
        self.params, self.state, self.x, self.y = tree.map(backend.asarray, (params, state, x, y))
        self.weights = sum(p["w"].size for p in layers)
        self.parameters, self.batch = tree.size(params), batch

    def jvp(self, tangents: Tree) -> dict[str, Callable]:
        """Return two contenders for the loss along a stack of tangents: plain, and recorded."""

        def loss(params: Tree) -> Array:
            outputs, _ = self.task.network.apply(params, self.state, self.x, Context(train=True))
            return softmax_cross_entropy(outputs, self.y).mean()

        def along(params: Tree, tangents: Tree) -> Array:
            return dn.jvp(loss, (params,), (tangents,))[1]

        def to_host(function: Callable) -> Callable:
            """Return a function that evaluates one of arrays, and waits for the result."""
            return lambda: self.backend.to_host(function(self.params, tangents))

        record = getattr(dn, "recorded", lambda function: function)
        return {"dualnet": to_host(along), "dualnet recorded": to_host(record(along))}

    def steps(
        self, rule: Rule, name: str = "dualnet"
    ) -> tuple[dict[str, Callable], dict[str, Callable[[], float]]]:
        """Return two contenders for a step with SGD, a plain one and one that is recorded.

        Returns:
            The contenders, and what tells the seconds in which the host starts their steps.
        """
        plan = Plan.of(self.task, self.params, self.state, self.x[:1])
        rule_state = rule.init(dn.Key(0), plan, self.params)

        def advance(carried: Tree, batch: Tree, key: Key, numbers: dict) -> tuple[Tree, Tree]:
            learner = LearnerState(carried["params"], self.state, rule_state)
            examples = Batch(batch["x"], batch["y"])
            done = estimate_gradient(rule, plan, learner, examples, key, self.backend)
            lr, count = numbers["lr"], numbers["count"]
            params, _ = SGD().apply(done.gradients, {}, learner.params, lr, count)
            return {"params": params}, {"loss": done.loss}

        made = {
            name: self._steps(advance),
            f"{name} recorded": self._steps(self.backend.recorded(advance)),
        }

        def waited_for(start: Callable) -> Callable:
            """Return a function that makes the next step, and waits until it is done."""

            def work() -> None:
                start()
                self.backend.synchronize()

            return work

        return (
            {name: waited_for(start) for name, start in made.items()},
            {
                name: partial(gpu_networks.host_seconds, start, self.backend.synchronize)
                for name, start in made.items()
            },
        )

    def _steps(self, advance: Callable) -> Callable:
        """Return a function that starts the next step each time it is called."""
        carried, number = {"params": self.params}, 0

        def start() -> None:
            nonlocal carried, number
            batch, numbers = {"x": self.x, "y": self.y}, {"lr": LR, "count": number + 1}
            carried, _ = advance(carried, batch, dn.Key(number), numbers)
            number += 1

        return start


def mlp_jvp(p: _Problem, k: int) -> Workload:
    """Compute the loss along k dense tangents of all weights."""
    tangents = tree.map(
        lambda a: p.backend.normal(dn.Key(a.size), (k, *a.shape), np.float32), p.params
    )
    return Workload(
        f"MLP jvp, dense tangents, batch {p.batch}, k = {k}",
        p.jvp(tangents) | {peer.name: peer.jvp(k) for peer in p.peers},
        # each layer takes x w and x ẇ, and from the second layer on ẋ w too
        flops=2.0 * p.batch * p.weights * (1 + 2 * k),
        bytes=FLOAT * p.parameters * (1.0 + k),
        memory=_memory(p.backend),
    )


def mlp_step(p: _Problem, k: int, sampler: str) -> Workload:
    """Make a whole `fg-w` step: draw, evaluate, aggregate, update; peers have dense directions."""
    rank_one = sampler == "rank-one"
    ours, host = p.steps(WeightPerturbation(tangents=k, sampler=sampler))
    directions = p.parameters * k * (0 if rank_one else 1)
    return Workload(
        f"MLP fg-w step, batch {p.batch}, k = {k}, ours {sampler}",
        ours | {peer.name: peer.step(k) for peer in p.peers},
        # x w and ẋ w; next to them, x ẇ and Σ c ẇ are negligible where ẇ has rank one
        flops=2.0 * p.batch * p.weights * (1 + k) + 2.0 * directions * (p.batch + 1),
        # directions are written once and read twice, parameters are read once and written once
        bytes=FLOAT * (3.0 * directions + 2.0 * p.parameters),
        memory=_memory(p.backend),
        host=host,
    )


def rule_steps(p: _Problem) -> Workload:
    """Make a step of `bp` and one of `fg-a`, against backpropagation by the peers."""
    contenders, host = p.steps(Backprop(), "dualnet bp")
    others, host_of_others = p.steps(ActivityPerturbation(), "dualnet fg-a")
    by_peers = {peer.name: _backprop(peer) for peer in p.peers}
    return Workload(
        f"MLP bp and fg-a steps, batch {p.batch}",
        contenders | others | by_peers,
        flops=6.0 * p.batch * p.weights,
        bytes=FLOAT * 3.0 * p.parameters,
        memory=_memory(p.backend),
        host=host | host_of_others,
    )


def _backprop(peer: Torch | Jax) -> Callable:
    """Return a function that makes one step of backpropagation by a peer."""
    if isinstance(peer, Torch):
        gradient = peer.compiled(torch.func.grad(peer.loss, argnums=tuple(range(len(peer.params)))))

        def by_torch() -> None:
            slopes = gradient(*peer.params)
            peer.params = tuple(p - LR * g for p, g in zip(peer.params, slopes, strict=True))
            peer.params[-1].cpu()

        return by_torch

    @jax.jit
    def update(params: Tree) -> Tree:
        slopes = jax.grad(lambda ps: peer.loss(*ps))(params)
        return tuple(p - LR * g for p, g in zip(params, slopes, strict=True))

    def by_jax() -> None:
        peer.params = jax.block_until_ready(update(peer.params))

    return by_jax


# --- networks -------------------------------------------------------------------------------------


def network_steps(
    backend: Backend, name: str, flags: str, own: str, allowed: float, compiled: bool
) -> Workload:
    """Make training steps of a network by `bp`, `fg-a` and the rule of its own paper.

    Args:
        backend: the backend of dualnet's arrays.
        name, flags, own: an entry of `gpu_networks.NETWORKS`.
        allowed: how far apart losses may be, as a share of what they fall by.
        compiled: whether torch compiles the network, too.
    """
    free(backend)
    problem = Problem.of(backend, flags)
    steps, failed = able(gpu_networks.contenders(problem, own, compiled), max(5e-2, 5 * allowed))

    def in_a_row(one: Steps) -> Callable:
        """Return a function that makes some steps, and then waits until they are done."""

        def work() -> None:
            for _ in range(gpu_networks.IN_A_ROW):
                one()
            one.wait()

        return work

    flops = moved = 0.0
    if isinstance(by_torch := steps.get("torch"), TorchSteps):
        flops = by_torch.flops()
        moved = by_torch.moved(len(problem.optimizer.state_names))
    settings = problem.settings
    return Workload(
        f"{name}, {settings.dataset}, batch {settings.batch_size}, {settings.optimizer}",
        {name: in_a_row(one) for name, one in steps.items()},
        flops=flops,
        bytes=moved,
        memory=_memory(backend),
        times=gpu_networks.IN_A_ROW,
        host={
            name: partial(gpu_networks.host_seconds, one, one.wait) for name, one in steps.items()
        },
        failed=failed,
    )


# --- layers ---------------------------------------------------------------------------------------


def _jvp_by_all(
    backend: Backend,
    ours: Callable,
    by_torch: Callable,
    by_jax: Callable,
    arrays: tuple,
    stacks: tuple,
    allowed: float,
    compared: np.ndarray | bool = True,
) -> dict[str, Callable]:
    """Return contenders for the jvp of a function along tangents of all its arguments.

    Args:
        backend: the backend of dualnet's arrays.
        ours, by_torch, by_jax: the function in the three libraries, with arguments in dualnet's
            layout.
        arrays: the arguments.
        stacks: a stack of tangents for each.
        allowed: how far apart results may be, as a share of the largest entry.
        compared: at which entries of the result, of its shape without k.
    """
    here, along = ([backend.asarray(a) for a in t] for t in (arrays, stacks))

    def dualnet() -> Array:
        result = dn.jvp(ours, here, along)[1]
        backend.synchronize()
        return result

    device = torch_device(backend)
    there, their = ([torch.from_numpy(a).to(device) for a in t] for t in (arrays, stacks))

    def jvp_by_torch(*tangents: Any) -> Any:
        return torch.func.vmap(lambda *t: torch.func.jvp(by_torch, tuple(there), t)[1])(*tangents)

    def waiting(work: Callable) -> Callable:
        """Return a function that does torch's work and waits until it is done."""

        def work_and_wait() -> Any:
            with torch.no_grad():
                result = work(*their)
            if device == "cuda":
                torch.cuda.synchronize()
            return result

        return work_and_wait

    primals, tangents = (tuple(jax.numpy.asarray(a) for a in t) for t in (arrays, stacks))
    jvp_by_jax = jax.jit(lambda *t: jax.vmap(lambda *one: jax.jvp(by_jax, primals, one)[1])(*t))
    _require_agreement(
        backend.to_host(dualnet()),
        waiting(jvp_by_torch)().cpu().numpy(),
        np.asarray(jvp_by_jax(*tangents)),
        allowed=allowed,
        compared=compared,
    )
    return {
        "dualnet": dualnet,
        "torch": waiting(jvp_by_torch),
        "torch.compile": waiting(torch.compile(jvp_by_torch)),
        "jax": lambda: jax.block_until_ready(jvp_by_jax(*tangents)),
    }


def _require_agreement(
    ours: np.ndarray, *others: np.ndarray, allowed: float, compared: np.ndarray | bool = True
) -> None:
    """Fail unless all contenders compute the same at the entries that are compared."""
    size = float(np.abs(ours).max())
    for other in others:
        worst = float(np.where(compared, np.abs(ours - other), 0.0).max())
        if not worst < allowed * size:
            raise AssertionError(f"not the same work: they differ by {worst} of {size}")


def _normal(*shape: int) -> np.ndarray:
    """Draw normal numbers, always the same for one shape."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def convolution(
    backend: Backend, images: int, side: int, channels: int, k: int, allowed: float
) -> Workload:
    """Compute the jvp of a 3×3 convolution along tangents of images and kernel."""
    x, w = _normal(images, side, side, channels), _normal(3, 3, channels, channels)
    stacks = _normal(k, *x.shape), _normal(k, *w.shape)

    def by_torch(x: Array, w: Array) -> Array:
        x, w = x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1)
        return torch.nn.functional.conv2d(x, w, padding=1).permute(0, 2, 3, 1)

    def by_jax(x: Array, w: Array) -> Array:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout)

    return Workload(
        f"conv 3x3 of images and kernel, {images} of {side}x{side}x{channels}, k = {k}",
        _jvp_by_all(
            backend,
            lambda x, w: nn.conv2d(x, w, padding=1),
            by_torch,
            by_jax,
            (x, w),
            stacks,
            allowed,
        ),
        flops=2.0 * x.size * 9 * channels * (1 + 2 * k),
        bytes=FLOAT * (2.0 * x.size + w.size) * (1 + k),
        memory=_memory(backend),
    )


def normalized_linear(backend: Backend, rows: int, width: int, k: int, allowed: float) -> Workload:
    """Compute the jvp of layer norm, linear, layer norm, ReLU along input, weights and bias."""
    arrays = _normal(rows, width), _normal(width, width) / width**0.5, _normal(width)
    stacks = tuple(_normal(k, *a.shape) for a in arrays)

    def ours(x: Array, w: Array, b: Array) -> Array:
        return nn.relu(nn.normalize(nn.normalize(x, (-1,)) @ w + b, (-1,)))

    def by_torch(x: Array, w: Array, b: Array) -> Array:
        def norm(z: Array) -> Array:
            return torch.nn.functional.layer_norm(z, (width,))

        return torch.relu(norm(norm(x) @ w + b))

    def by_jax(x: Array, w: Array, b: Array) -> Array:
        def norm(z: Array) -> Array:
            return jax.nn.standardize(z, axis=-1, epsilon=1e-5)

        return jax.nn.relu(norm(norm(x) @ w + b))

    # Where rounding turns the sign of what comes into the ReLU, one contender has the tangent and
    # another has zero.  With all results right to `allowed`, that can only happen near zero.
    x, w, b = (np.float64(a) for a in arrays)
    into_relu = np.abs(nn.normalize(nn.normalize(x, (-1,)) @ w + b, (-1,)))
    away_from_kinks = into_relu > allowed * into_relu.max()
    return Workload(
        f"LN-linear-LN-ReLU, {rows} rows of {width}, k = {k}",
        _jvp_by_all(backend, ours, by_torch, by_jax, arrays, stacks, allowed, away_from_kinks),
        flops=2.0 * rows * width * width * (1 + 2 * k),
        bytes=FLOAT * 2.0 * rows * width * (1 + k),
        memory=_memory(backend),
    )


# --- random numbers -------------------------------------------------------------------------------


def draws(backend: Backend, n: int) -> Workload:
    """Draw n normal numbers."""
    number, device = 0, torch_device(backend)

    def ours(kind: str) -> Callable:
        def work() -> None:
            nonlocal number
            number += 1
            getattr(backend, kind)(dn.Key(number), (n,), np.float32)
            backend.synchronize()

        return work

    def by_torch() -> None:
        torch.randn(n, device=device)
        if device == "cuda":
            torch.cuda.synchronize()

    draw = jax.jit(lambda key: jax.random.normal(key, (n,)))

    def by_jax() -> None:
        nonlocal number
        number += 1
        jax.block_until_ready(draw(jax.random.key(number)))

    return Workload(
        f"{n} normal numbers",
        {
            "dualnet": ours("normal"),
            "dualnet, signs": ours("signs"),
            "torch": by_torch,
            "jax": by_jax,
        },
        flops=0.0,
        bytes=float(FLOAT * n),
        memory=_memory(backend),
    )
