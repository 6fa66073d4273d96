"""Time the jvp of single layers, by dualnet, torch and JAX in one run.

    python -m benchmarks.layers [--rounds N] [--json FILE]

It needs the extra `bench`.  Numbers are float32, with k = 4 directions, or 64 where a row says so.
dualnet competes twice.  `whole` calls `dn.jvp` on the whole batch, with BLAS on all cores.
`shards` does what `--threads` does in training: the batch is cut into shards, which run on one
thread for each core, with BLAS on one thread each; the results are not joined.  The peers are torch
(`vmap` of `jvp`, for images in both memory formats) and jitted JAX (for images in both layouts).
It prints medians in milliseconds, and the fastest peer's time over each of dualnet's.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import dualnet as dn
from benchmarks.peers import require
from benchmarks.timing import take_turns
from dualnet import backends, nn
from dualnet.types import Array

OURS = ("whole", "shards")
"""The names of dualnet's two contenders."""
PIECES = 8
"""Into how many shards a batch is cut."""


def normal(*shape: int) -> np.ndarray:
    """Draw normal numbers, always the same for one shape."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


# --- a function's jvp in three frameworks --------------------------------------------------------
# Tangents are None where an argument is constant.  The peers are imported where they are used, so
# that --help works without them.


def by_dualnet(f: Callable, primals: tuple, tangents: tuple) -> dict[str, Callable]:
    """Return dualnet's two ways to compute the jvp of f."""
    backend = backends.get("numpy", threads=os.cpu_count() or 1)
    (x, *parameters), (x_tangent, *parameter_tangents) = primals, tangents
    size = len(x) // PIECES

    def shard(start: int) -> Any:
        part = slice(start, start + size)
        t = None if x_tangent is None else x_tangent[:, part]
        return dn.jvp(f, (x[part], *parameters), (t, *parameter_tangents))

    return {
        "whole": lambda: dn.jvp(f, primals, tangents),
        "shards": lambda: backend.map(shard, range(0, len(x), size)),
    }


def with_constants(f: Callable, primals: tuple, tangents: tuple) -> tuple[Callable, tuple, tuple]:
    """Bind the arguments that have no tangent.

    Returns:
        f as a function of the arguments that have tangents, these arguments, and their tangents.
    """
    moving = [i for i, t in enumerate(tangents) if t is not None]

    def with_constants_bound(*arguments: Array) -> Array:
        every = list(primals)
        for i, argument in zip(moving, arguments, strict=True):
            every[i] = argument
        return f(*every)

    return (
        with_constants_bound,
        tuple(primals[i] for i in moving),
        tuple(tangents[i] for i in moving),
    )


def by_torch(f: Callable, primals: tuple, tangents: tuple, memory: Any = None) -> Callable:
    """Return a function that computes the jvp of f by torch, in a memory format of torch."""
    import torch

    primals = tuple(map(torch.from_numpy, primals))
    if memory is not None:
        primals = tuple(x.contiguous(memory_format=memory) for x in primals)
    tangents = tuple(None if t is None else torch.from_numpy(t) for t in tangents)
    g, xs, ts = with_constants(f, primals, tangents)

    def work() -> Any:
        with torch.no_grad():
            return torch.func.vmap(lambda *t: torch.func.jvp(g, xs, t))(*ts)

    return work


def by_jax(f: Callable, primals: tuple, tangents: tuple) -> Callable:
    """Return a function that computes the jvp of f by jitted JAX."""
    import jax

    primals = tuple(map(jax.numpy.asarray, primals))
    tangents = tuple(None if t is None else jax.numpy.asarray(t) for t in tangents)

    @jax.jit
    def along(primals: tuple, tangents: tuple) -> Any:
        g, xs, ts = with_constants(f, primals, tangents)
        return jax.vmap(lambda *t: jax.jvp(g, xs, t))(*ts)

    return lambda: jax.block_until_ready(along(primals, tangents))


# --- the layers ----------------------------------------------------------------------------------


def convolution(k: int, images: int, perturb_images: bool, rank_one: bool) -> dict[str, Callable]:
    """Return contenders for a 3×3 convolution, 64 channels, 32×32 pixels, stride 1, padding 1.

    Args:
        k: how many directions.
        images: how many images.
        perturb_images: whether the images have tangents; the kernel always has.
        rank_one: whether dualnet's tangents of the kernel have rank one.
    """
    import jax
    import torch

    x, w = normal(images, 32, 32, 64), normal(3, 3, 64, 64)
    x_tangent = normal(k, *x.shape) if perturb_images else None
    w_tangent = normal(k, *w.shape)
    factors = dn.RankOne(normal(k, 3, 3, 64), normal(k, 3, 3, 64))

    def channels_first(images: Array | None, kernels: Array) -> tuple:
        """Return images and kernels in torch's layout, channels before pixels."""
        if images is not None:
            images = np.ascontiguousarray(np.moveaxis(images, -1, -3))
        return images, np.ascontiguousarray(np.moveaxis(kernels, (-1, -2), (-4, -3)))

    def jax_conv(image: str, kernel: str) -> Callable:
        layout = (image, kernel, image)
        return lambda x, w: jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=layout
        )

    def torch_conv(x: Array, w: Array) -> Array:
        return torch.nn.functional.conv2d(x, w, padding=1)

    tangents = (x_tangent, w_tangent)
    ours = (x_tangent, factors if rank_one else w_tangent)
    first, first_tangents = channels_first(x, w), channels_first(*tangents)
    return by_dualnet(lambda x, w: nn.conv2d(x, w, padding=1), (x, w), ours) | {
        "torch": by_torch(torch_conv, first, first_tangents),
        "torch, channels last": by_torch(torch_conv, first, first_tangents, torch.channels_last),
        "jax": by_jax(jax_conv("NHWC", "HWIO"), (x, w), tangents),
        "jax, channels first": by_jax(jax_conv("NCHW", "OIHW"), first, first_tangents),
    }


def normalized_linear(perturb_parameters: bool) -> dict[str, Callable]:
    """Return contenders for layer norm, linear, layer norm, ReLU on 8192 rows of 512, with k = 4.

    The norms have no gain.  If `perturb_parameters`, weights and bias have tangents too.
    """
    import jax
    import torch

    primals = (normal(8192, 512), normal(512, 512) / 22.6, normal(512))
    x_tangent, *others = (normal(4, *a.shape) for a in primals)
    tangents = (x_tangent, *(others if perturb_parameters else (None, None)))

    def ours(x: Array, w: Array, b: Array) -> Array:
        return nn.relu(nn.normalize(nn.normalize(x, (-1,)) @ w + b, (-1,)))

    def torch_layers(x: Array, w: Array, b: Array) -> Array:
        def norm(z: Array) -> Array:
            return torch.nn.functional.layer_norm(z, (512,))

        return torch.relu(norm(norm(x) @ w + b))

    def jax_layers(x: Array, w: Array, b: Array) -> Array:
        def norm(z: Array) -> Array:
            return jax.nn.standardize(z, axis=-1, epsilon=1e-5)

        return jax.nn.relu(norm(norm(x) @ w + b))

    return by_dualnet(ours, primals, tangents) | {
        "torch": by_torch(torch_layers, primals, tangents),
        "jax": by_jax(jax_layers, primals, tangents),
    }


TASKS: dict[str, Callable[[], dict[str, Callable]]] = {
    "conv 3x3 of images and kernel": lambda: convolution(4, 32, True, False),
    "conv 3x3 of the kernel, 8 images, k = 64; ours rank-one": lambda: convolution(
        64, 8, False, True
    ),
    "LN-linear-LN-ReLU of the input": lambda: normalized_linear(False),
    "LN-linear-LN-ReLU of input, weights, bias": lambda: normalized_linear(True),
}


def require_agreement(contenders: dict[str, Callable], ours_differs: bool) -> None:
    """Fail unless all contenders compute the same: the sums of absolute tangents must be equal.

    If `ours_differs`, dualnet's contenders have other directions and are not compared.
    """
    sizes = {}
    for name, work in contenders.items():
        results = work() if name == "shards" else [work()]
        sizes[name] = sum(float(np.abs(np.asarray(t)).sum(dtype=np.float64)) for _, t in results)
    if ours_differs:
        sizes = {name: size for name, size in sizes.items() if name not in OURS}
    smallest, largest = min(sizes.values()), max(sizes.values())
    assert largest - smallest < 1e-4 * largest, f"not the same work: {sizes}"


def compare(what: str, contenders: dict[str, Callable], rounds: int) -> dict[str, Any]:
    """Time one layer, print its lines of the table, and return its figures."""
    require_agreement(contenders, ours_differs="rank-one" in what)
    seconds = take_turns(contenders, rounds)
    best = min(s for name, s in seconds.items() if name not in OURS)
    ratios = {name: best / seconds[name] for name in OURS}
    times = "  ".join(f"{name} {1e3 * s:.1f}" for name, s in seconds.items())
    print(f"{what}\n    ms: {times}", flush=True)
    print("    ratio: " + ", ".join(f"{name} {r:.2f}" for name, r in ratios.items()), flush=True)
    return {"what": what, "seconds": seconds, "ratios": ratios}


def main() -> None:
    """Read the command line, measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    require("benchmarks.layers", "torch", "jax")
    rows = [compare(what, contenders(), args.rounds) for what, contenders in TASKS.items()]
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
