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
from dualnet.core.cut_pass import CutPass, Dependence
from dualnet.core.transforms import jvp, stop_gradient, vjp
from dualnet.learning.rule import Measurement
from dualnet.learning.sites import cutting_heads
from dualnet.learning.task import Shard, Task, correct
from dualnet.nn.activations import Activation
from dualnet.nn.heads import LocalHead
from dualnet.nn.replicated import replicated
from dualnet.tree import Tree
from dualnet.types import Array

Draw = Callable[[str, int, Any, Any], Any]
"""`draw(path, visit, z, slope)`: k directions `(k, *z.shape)` for the activity z at a place, and
the slope there of the activation that follows, None if it is none of the rule's business."""
Sites = dict[str, Activation | None]
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
    dependence: Dependence
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
    dependence: Dependence | None
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
    sites: Sites,
    draw: Draw | None,
    greedy: bool,
    respond: Respond,
) -> Measurement:
    """What a shard contributes to a local rule's gradients.

    Args:
        task, params, state, shard: as for `Rule.measure`.
        sites: where to cut.
        draw: directions for each place; None for a pass without.
        greedy: local heads close segments; otherwise they are ignored.
        respond: the rule's own part.

    Returns:
        Sums of `loss`, `correct`, `gradients`, and whatever `respond` adds.
    """
    closer = _Closer(task, params, shard.targets)
    heads = cutting_heads(task.network) if greedy else {}
    readouts = {f"{path}/linear" if path else "linear" for path in heads}
    segments: list[Segment] = []
    cuts: list[Cut] = []
    visits: Counter[str] = Counter()
    readout: Any = None  # of the head whose own tap comes next

    with CutPass(params) as cut_pass:

        def tap(path: str, z: Array) -> Array:
            nonlocal cuts, readout
            if path in readouts:
                readout = z
                return z
            if path in heads:
                segments.append(closer.at_head(cut_pass, cuts, path, heads[path], z, readout))
                cuts = []
                return cut_pass.value(z)
            dependence = cut_pass.dependence(z)
            if path not in sites or dependence is None:
                return z
            visits[path] += 1  # a layer may be applied several times
            value = cut_pass.value(z)
            slope = _slope(sites[path], value)
            directions = draw(path, visits[path], value, slope) if draw else None
            cuts.append(Cut(path, dependence, value, directions, slope))
            return cut_pass.cut(z, directions)

        context = replace(shard.context, tap=tap)
        outputs, new_state = task.network.apply(cut_pass.params, state, shard.inputs, context)
        segments.append(closer.at_outputs(cut_pass, cuts, outputs))

    dependences, errors, sums = [], [], {}
    for segment in segments:
        at_cuts, more = respond(segment)
        dependences += [cut.dependence for cut in segment.cuts]
        errors += at_cuts
        if segment.dependence is not None:
            dependences.append(segment.dependence)
            errors.append(segment.error)
        sums.update(more)
    pulled = zip(tree.leaves(params), cut_pass.pull(dependences, errors), strict=True)
    gradients = [
        np.zeros_like(p) if g is None else g.astype(p.dtype, copy=False) for p, g in pulled
    ]
    total = {
        "loss": segments[-1].losses.sum(),
        "correct": correct(segments[-1].outputs, shard.targets),
        "gradients": tree.unflatten(params, gradients),
        **sums,
    }
    return Measurement(total, stop_gradient(new_state))


def _slope(activation: Activation | None, z: Any) -> Any:
    if activation is None:
        return None
    return jvp(activation.function, (z,), (np.ones_like(z),))[1]


@dataclass(frozen=True)
class _Closer:
    """What closes a segment: the loss of a local head, or of the network's outputs.

    Where there is a stop-gradient, directions may reach no loss; their derivatives are zeros then.
    """

    task: Task
    params: Tree
    targets: Array

    def at_outputs(self, cut_pass: CutPass, cuts: list[Cut], outputs: Array) -> Segment:
        """Close the last segment by the network's own loss."""
        value, effect = stop_gradient(outputs), cut_pass.effect(outputs)
        losses, error = self._losses_and_error(value)
        derivatives = None
        if _perturbed(cuts):
            effect = _zeros(cuts, value) if effect is None else effect
            of_examples = np.sum(effect * error, axis=tuple(range(2, effect.ndim)))
            derivatives = of_examples[:, :, None, None]
        dependence = cut_pass.dependence(outputs)
        return Segment(cuts, value, dependence, losses, error, effect, derivatives)

    def at_head(
        self, cut_pass: CutPass, cuts: list[Cut], path: str, head: LocalHead, x: Array, y: Array
    ) -> Segment:
        """Close a segment by the loss of a local head with input x and readout y."""
        value, effect, x = stop_gradient(y), cut_pass.effect(x), cut_pass.value(x)
        losses, error = self._losses_and_error(value)
        derivatives = None
        if _perturbed(cuts):
            params = tree.subtree(self.params, path)

            def replicas(x: Array) -> Array:
                def loss(features: Array) -> Array:
                    return self.task.loss(head.readout(params, features), self.targets)

                return replicated(loss, x, head.groups)

            effect = _zeros(cuts, x) if effect is None else effect
            _, derivatives = jvp(replicas, (x,), (effect,))
        return Segment(cuts, value, cut_pass.dependence(y), losses, error, None, derivatives)

    def _losses_and_error(self, outputs: Array) -> tuple[Array, Array]:
        losses, pull = vjp(lambda outputs: self.task.loss(outputs, self.targets), outputs)
        return losses, pull(np.ones_like(losses))[0]


def _perturbed(cuts: list[Cut]) -> bool:
    return bool(cuts) and cuts[0].directions is not None


def _zeros(cuts: list[Cut], x: Array) -> Array:
    return np.zeros_like(x, shape=(len(cuts[0].directions), *x.shape))
