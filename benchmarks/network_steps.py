"""Training steps of a network that flags of `train.py` name, as the benchmarks time them.

What is timed is the step that these flags train with: the recipe's batch size, optimizer and rule.
Peers (`benchmarks.peer_steps`) start from the same parameters and make the same update by the
gradient of the network's own loss.  Their first losses are compared with those of `bp`, so that all
do the same work.  Steps follow one another as in training, without waiting for each one.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import dualnet as dn
from dualnet import data, optim, tree
from dualnet.backends import Backend
from dualnet.command import train
from dualnet.learning import RULES, Batch, LearnerState, Plan, Task, estimate_gradient
from dualnet.nn import softmax_cross_entropy
from dualnet.optim import OPTIMIZERS
from dualnet.training.assemble import network_of
from dualnet.training.settings import Settings, build
from dualnet.tree import Tree

COMPARED = 3
"""How many first losses of each contender are compared."""


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

    def first_losses(self, count: int = COMPARED) -> np.ndarray:
        """Make the first steps and return their losses, `(count,)`."""
        while len(self.losses) < count:
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
            done = estimate_gradient(chosen, plan, learner, examples, key, backend, backend.threads)
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
        if not name.startswith("dualnet") and expected is not None:
            if (why := other_work(losses, expected, allowed)) is not None:
                failed[name] = why
        steps[name] = one
    return steps, failed


def other_work(losses: np.ndarray, expected: np.ndarray, allowed: float) -> str | None:
    """Return why a contender with such losses does not do the same work; None if it does.

    Args:
        losses, expected: its first losses and those of `bp`, `(COMPARED,)`.
        allowed: how far apart they may be, as a share of what those of `bp` fall by.
    """
    worst = float(np.abs(losses - expected).max())
    if worst <= allowed * abs(expected[0] - expected[-1]) + 1e-6 * abs(expected[0]):
        return None
    return f"not the same work: losses {losses}, by dualnet {expected}"


def free(backend: Backend) -> None:
    """Give the memory of arrays that nobody holds any more back to the device."""
    gc.collect()
    if backend.name == "cupy":
        import cupy
        import torch

        cupy.get_default_memory_pool().free_all_blocks()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
