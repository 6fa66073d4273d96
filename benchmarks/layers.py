"""The jvp of single layers, beside torch and JAX in the same run.

    python -m benchmarks.layers [--rounds N] [--json FILE]

Needs the extra `bench`.  float32, k = 4 directions (64 where it says so).  dualnet appears twice:
`whole` calls `dn.jvp` on the whole batch, with BLAS on all cores; `shards` does what `--threads`
does in training: the batch is cut, and the shards go to one thread a core, with BLAS on one
thread each; their results stay in pieces.  The peers are torch (`vmap` of `jvp`, for images in
both memory formats) and jitted JAX (images in both layouts).  Printed are medians in
milliseconds, and the fastest peer's time over each of ours.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

import dualnet as dn
from benchmarks.timing import take_turns
from dualnet import backends, nn

OURS = ("whole", "shards")
PIECES = 8


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


# --- a function's jvp in three frameworks; tangents are None where an argument is constant -------


def by_dualnet(f: Callable, primals: tuple, tangents: tuple) -> dict[str, Callable]:
    backend = backends.get("numpy", threads=os.cpu_count() or 1)
    (x, *parameters), (t, *of_parameters) = primals, tangents
    size = len(x) // PIECES

    def shard(start: int) -> Any:
        part = slice(start, start + size)
        of_x = None if t is None else t[:, part]
        return dn.jvp(f, (x[part], *parameters), (of_x, *of_parameters))

    return {
        "whole": lambda: dn.jvp(f, primals, tangents),
        "shards": lambda: backend.map(shard, range(0, len(x), size)),
    }


def with_constants(f: Callable, primals: tuple, tangents: tuple) -> tuple[Callable, tuple, tuple]:
    """f, its primals and their tangents, of those arguments alone that have one."""
    moving = [i for i, t in enumerate(tangents) if t is not None]

    def of_moving(*arguments: Any) -> Any:
        every = list(primals)
        for i, argument in zip(moving, arguments, strict=True):
            every[i] = argument
        return f(*every)

    return of_moving, tuple(primals[i] for i in moving), tuple(tangents[i] for i in moving)


def by_torch(f: Callable, primals: tuple, tangents: tuple, memory: Any = None) -> Callable:
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
    primals = tuple(map(jax.numpy.asarray, primals))
    tangents = tuple(None if t is None else jax.numpy.asarray(t) for t in tangents)

    @jax.jit
    def along(primals: tuple, tangents: tuple) -> Any:
        g, xs, ts = with_constants(f, primals, tangents)
        return jax.vmap(lambda *t: jax.jvp(g, xs, t))(*ts)

    return lambda: jax.block_until_ready(along(primals, tangents))


# --- the layers ----------------------------------------------------------------------------------


def convolution(k: int, images: int, of_images: bool, rank_one: bool) -> dict[str, Callable]:
    """3×3, 64 to 64 channels, 32×32 pixels, stride 1, padding 1."""
    x, w = normal(images, 32, 32, 64), normal(3, 3, 64, 64)
    of_x = normal(k, *x.shape) if of_images else None
    of_w: Any = normal(k, *w.shape)
    factors = dn.RankOne(normal(k, 3, 3, 64), normal(k, 3, 3, 64))

    def channels_first(images: Any, kernels: Any) -> tuple:
        if images is not None:
            images = np.ascontiguousarray(np.moveaxis(images, -1, -3))
        return images, np.ascontiguousarray(np.moveaxis(kernels, (-1, -2), (-4, -3)))

    def jax_conv(image: str, kernel: str) -> Callable:
        layout = (image, kernel, image)
        return lambda x, w: jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=layout
        )

    def torch_conv(x: Any, w: Any) -> Any:
        return torch.nn.functional.conv2d(x, w, padding=1)

    ours = (of_x, factors if rank_one else of_w)
    first, of_first = channels_first(x, w), channels_first(of_x, of_w)
    return by_dualnet(lambda x, w: nn.conv2d(x, w, padding=1), (x, w), ours) | {
        "torch": by_torch(torch_conv, first, of_first),
        "torch, channels last": by_torch(torch_conv, first, of_first, torch.channels_last),
        "jax": by_jax(jax_conv("NHWC", "HWIO"), (x, w), (of_x, of_w)),
        "jax, channels first": by_jax(jax_conv("NCHW", "OIHW"), first, of_first),
    }


def normalized_linear(of_parameters: bool) -> dict[str, Callable]:
    """Layer norm, linear, layer norm, ReLU on 8192 rows of 512, k = 4; the norms without gain."""
    primals = (normal(8192, 512), normal(512, 512) / 22.6, normal(512))
    of_x, *others = (normal(4, *a.shape) for a in primals)
    tangents = (of_x, *others) if of_parameters else (of_x, None, None)

    def ours(x: Any, w: Any, b: Any) -> Any:
        return nn.relu(nn.normalize(nn.normalize(x, (-1,)) @ w + b, (-1,)))

    def torch_layers(x: Any, w: Any, b: Any) -> Any:
        def norm(z: Any) -> Any:
            return torch.nn.functional.layer_norm(z, (512,))

        return torch.relu(norm(norm(x) @ w + b))

    def jax_layers(x: Any, w: Any, b: Any) -> Any:
        def norm(z: Any) -> Any:
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
    """All contenders have the same tangents: equal sums of their absolute values."""
    sizes = {}
    for name, work in contenders.items():
        results = work() if name == "shards" else [work()]
        sizes[name] = sum(float(np.abs(np.asarray(t)).sum(dtype=np.float64)) for _, t in results)
    if ours_differs:
        sizes = {name: size for name, size in sizes.items() if name not in OURS}
    smallest, largest = min(sizes.values()), max(sizes.values())
    assert largest - smallest < 1e-4 * largest, f"not the same work: {sizes}"


def compare(what: str, contenders: dict[str, Callable], rounds: int) -> dict[str, Any]:
    """One line of the table, printed as soon as it is known."""
    require_agreement(contenders, ours_differs="rank-one" in what)
    seconds = take_turns(contenders, rounds)
    best = min(s for name, s in seconds.items() if name not in OURS)
    ratios = {name: best / seconds[name] for name in OURS}
    times = "  ".join(f"{name} {1e3 * s:.1f}" for name, s in seconds.items())
    print(f"{what}\n    ms: {times}", flush=True)
    print("    ratio: " + ", ".join(f"{name} {r:.2f}" for name, r in ratios.items()), flush=True)
    return {"what": what, "seconds": seconds, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    rows = [compare(what, contenders(), args.rounds) for what, contenders in TASKS.items()]
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
