"""One forward pass that says all a local rule needs: what activities depend on, and move.

The pass answers two questions at once, because a tangent may live in a direct sum of spaces:

* part 0, dense: how the outputs move with the perturbations put in so far, if any are;
* part 1, symbolic: how the present activity depends on the present unit's own weights.

At each place a tap takes part 1 out and keeps it, so nothing ever chains backward through two
units, and adds a random direction to part 0.  A local head closes a segment of the network:
under a greedy rule, what came before it answers to the head's loss and to no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dualnet import tree
from dualnet.core.dual import Dual, Level, new_level
from dualnet.core.linear import add
from dualnet.core.spaces import DirectSum
from dualnet.core.symbolic import Symbolic, transpose_all
from dualnet.core.transforms import jvp, stop_gradient, vjp
from dualnet.learning.rule import Measurement
from dualnet.learning.sites import cutting_heads, subtree
from dualnet.learning.task import Shard, Task, correct
from dualnet.nn.activations import Activation
from dualnet.nn.heads import LocalHead
from dualnet.nn.replicated import replicated
from dualnet.tree import Tree

Draw = Callable[[str, int, Any, Any], Any]
"""`draw(path, visit, z, slope)`: k directions `(k, *z.shape)` for the activity z at a place, and
the slope there of the activation that follows, None if it is none of the rule's business."""
Places = dict[str, Activation | None]
"""Path of a place → the activation that follows, whose slope the rule asks for."""


@dataclass(frozen=True)
class Cut:
    """A place where the pass was cut.

    Attributes:
        path: which place.
        dependence: of its activity on its own unit's weights.
        activity: `(n, *S)`.
        directions: put in there, `(k, n, *S)`; None in a pass without.
        slope: of the activation that follows, `(n, *S)`; None where none was asked for.
    """

    path: str
    dependence: Symbolic
    activity: Any
    directions: Any
    slope: Any


@dataclass(frozen=True)
class Segment:
    """A part of the network that answers to one loss.

    Attributes:
        cuts: its places, in order.
        outputs: what its loss is of, `(n, outputs)`.
        dependence: of the outputs on the last unit's weights; None if it has none.
        losses: `(n,)`.
        error: the losses' derivative by the outputs, `(n, outputs)`.
        effect: how the outputs move with all directions of its cuts, `(k, n, outputs)`; None in a
            pass without, and at a local head.
        derivatives: each example's loss along all directions, `(k, n, P, G)`: of the replicas for
            P tokens and G groups of channels at a local head, of one loss `(k, n, 1, 1)` at the
            network's outputs; None in a pass without directions.
    """

    cuts: list[Cut]
    outputs: Any
    dependence: Symbolic | None
    losses: Any
    error: Any
    effect: Any
    derivatives: Any


Respond = Callable[[Segment], tuple[list, dict]]
"""`respond(segment)`: for each cut the error of its activity `(n, *S)`, and what else to sum up
over shards."""


def measure_locally(
    task: Task,
    params: Tree,
    state: Tree,
    shard: Shard,
    places: Places,
    draw: Draw | None,
    greedy: bool,
    respond: Respond,
) -> Measurement:
    """What a shard contributes to a local rule's gradients.

    Args:
        task, params, state, shard: as for `Rule.measure`.
        places: where to cut.
        draw: directions for each place; None for a pass without.
        greedy: local heads close segments; otherwise they are ignored.
        respond: the rule's own part.

    Returns:
        Sums of `loss`, `correct`, `gradients`, and whatever `respond` adds.
    """
    weights = tree.map(Symbolic.input, params)
    segments, new_state = _segments(task, params, weights, state, shard, places, draw, greedy)
    errors: list[tuple[Symbolic, Any]] = []
    more: dict[str, Any] = {}
    for segment in segments:
        of_cuts, sums = respond(segment)
        errors += zip([cut.dependence for cut in segment.cuts], of_cuts, strict=True)
        if segment.dependence is not None:
            errors.append((segment.dependence, segment.error))
        more.update(sums)
    gradients = transpose_all(
        [dependence for dependence, _ in errors],
        [error[None] for _, error in errors],
        tree.leaves(weights),
    )
    total = {
        "loss": segment.losses.sum(),
        "correct": correct(segment.outputs, shard.targets),
        "gradients": tree.map(gradient, params, tree.unflatten(params, gradients)),
        **more,
    }
    return Measurement(total, new_state)


def _segments(
    task: Task,
    params: Tree,
    weights: Tree,
    state: Tree,
    shard: Shard,
    places: Places,
    draw: Draw | None,
    greedy: bool,
) -> tuple[list[Segment], Tree]:
    heads = cutting_heads(task.network) if greedy else {}
    readouts = {f"{path}/linear" if path else "linear" for path in heads}
    segments: list[Segment] = []
    cuts: list[Cut] = []
    readout: list[Any] = []  # of the head whose own tap comes next
    visits: Counter[str] = Counter()

    with new_level() as level:

        def tap(path: str, z: Any) -> Any:
            nonlocal cuts
            if path in readouts:
                readout.append(z)
                return z
            effect, dependence = parts_at(z, level)
            if path in heads:
                _, of_readout = parts_at(readout[0], level)
                end = _End(task, shard.targets, cuts, stop_gradient(readout.pop()), of_readout)
                z = z.primal if isinstance(z, Dual) and z.level is level else z
                segments.append(end.at_head(heads[path], subtree(params, path), z, effect))
                cuts = []
                return z
            if path not in places or dependence is None:
                return z
            visits[path] += 1  # a layer may be applied several times
            slope = _slope(places[path], z.primal)
            u = draw(path, visits[path], z.primal, slope) if draw else None
            cuts.append(Cut(path, dependence, z.primal, u, slope))
            if u is not None:
                effect = u if effect is None else add(effect, u)
            return z.primal if effect is None else Dual(z.primal, DirectSum(effect, None), level)

        duals = tree.map(lambda p, w: Dual(p, DirectSum(None, w), level), params, weights)
        context = replace(shard.context, tap=tap)
        outputs, new_state = task.network.apply(duals, state, shard.inputs, context)
        effect, dependence = parts_at(outputs, level)
        end = _End(task, shard.targets, cuts, stop_gradient(outputs), dependence)
        segments.append(end.at_outputs(effect))
    return segments, stop_gradient(new_state)


def _slope(activation: Activation | None, z: Any) -> Any:
    if activation is None:
        return None
    return jvp(activation.function, (z,), (np.ones_like(z),))[1]


@dataclass(frozen=True)
class _End:
    """Where a segment closes, which its directions may not reach: there may be a stop-gradient."""

    task: Task
    targets: Any
    cuts: list[Cut]
    outputs: Any
    dependence: Symbolic | None

    def at_outputs(self, effect: Any) -> Segment:
        """Of the network's own loss; `effect` of the directions on the outputs."""
        losses, error = self._losses_and_error()
        derivatives = None
        if self._perturbed:
            effect = self._zeros_like(self.outputs) if effect is None else effect
            of_examples = np.sum(effect * error, axis=tuple(range(2, effect.ndim)))
            derivatives = of_examples[:, :, None, None]
        return self._segment(losses, error, effect, derivatives)

    def at_head(self, head: LocalHead, params: Tree, x: Any, effect: Any) -> Segment:
        """Of a local head; `effect` of the directions on its input x."""
        losses, error = self._losses_and_error()
        derivatives = None
        if self._perturbed:

            def replicas(x: Any) -> Any:
                return replicated(
                    lambda features: self.task.loss(head.readout(params, features), self.targets),
                    x,
                    head.groups,
                )

            effect = self._zeros_like(x) if effect is None else effect
            _, derivatives = jvp(replicas, (x,), (effect,))
        return self._segment(losses, error, None, derivatives)

    @property
    def _perturbed(self) -> bool:
        return bool(self.cuts) and self.cuts[0].directions is not None

    def _zeros_like(self, x: Any) -> Any:
        return np.zeros_like(x, shape=(len(self.cuts[0].directions), *x.shape))

    def _losses_and_error(self) -> tuple[Any, Any]:
        losses, pull = vjp(lambda outputs: self.task.loss(outputs, self.targets), self.outputs)
        return losses, pull(np.ones_like(losses))[0]

    def _segment(self, losses: Any, error: Any, effect: Any, derivatives: Any) -> Segment:
        return Segment(self.cuts, self.outputs, self.dependence, losses, error, effect, derivatives)


def parts_at(z: Any, level: Level) -> tuple[Any, Any]:
    """The parts of z's tangent; None and None where it has none."""
    return z.tangent.parts if isinstance(z, Dual) and z.level is level else (None, None)


def gradient(p: Any, stack: Any) -> Any:
    """The gradient of one parameter from its cotangent stack `(1, *p.shape)`, if it has one."""
    return np.zeros_like(p) if stack is None else stack[0].astype(p.dtype, copy=False)
