"""One forward pass that says what activities depend on, and how they move the losses.

The pass answers two questions at once, because a tangent may live in a direct sum of spaces:

* part 0, dense: how the outputs move with the perturbations put in so far, if any are;
* part 1, symbolic: how the present activity depends on the present unit's own weights.

At each site a tap takes part 1 out and keeps it, so nothing ever chains backward through two
units, and adds a random direction to part 0.  A local head closes a segment of the network:
under a greedy rule, what came before it answers to the head's loss and to no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from dualnet import tree
from dualnet.core import linear
from dualnet.core.cut_pass import CutPass, Dependence
from dualnet.core.transforms import jvp, stop_gradient, vjp
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Measurement
from dualnet.learning.sites import Sites
from dualnet.learning.task import LearnerState, Shard, correct
from dualnet.nn.activations import ACTIVATIONS, Activation
from dualnet.nn.context import Context
from dualnet.nn.heads import LocalHead
from dualnet.nn.network import Layer
from dualnet.tree import Tree
from dualnet.types import Array, Stack

DrawAtSite = Callable[[str, int, Array, Array], Stack]
"""`draw(path, visit, z, slope)`: k directions `(k, *z.shape)` for the activity z at a site.

`visit` counts from 1 how often the pass has come to the site, and `slope` is that of the activation
that follows, None where the rule asked for none."""


@dataclass(frozen=True)
class Cut:
    """A site where the pass was cut.

    Attributes:
        path: which site.
        visit: how often the pass has come to the site, from 1.
        dependence: of its activity on its own unit's weights.
        activity: `(n, *S)`.
        directions: put in there, `(k, n, *S)`; None in a pass without.
        slope: of the activation that follows, `(n, *S)`; None where none was asked for.
    """

    path: str
    visit: int
    dependence: Dependence
    activity: Array
    directions: Stack
    slope: Array


@dataclass(frozen=True)
class Segment:
    """A part of the network that answers to one loss.

    Attributes:
        cuts: its sites, in order.
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
    outputs: Array
    dependence: Dependence | None
    losses: Array
    error: Array
    effect: Stack
    derivatives: Array


Respond = Callable[[Segment], tuple[Iterable, dict]]
"""`respond(segment)`: for each cut the error of its activity `(n, *S)`, which may be computed when
it is asked for, and what else is to be summed up over shards."""


def measure_with_cuts(
    plan: Plan,
    learner: LearnerState,
    shard: Shard,
    sites: Sites,
    draw: DrawAtSite | None,
    locality: str,
    respond: Respond,
) -> Measurement:
    """Measure what a shard contributes to the gradients of a rule that cuts the network.

    Args:
        plan, learner, shard: as for `Rule.measure`.
        sites: where to cut.
        draw: directions for each site; None for a pass without.
        locality: `greedy` if local heads close segments, `global` if they are ignored.
        respond: the rule's own part.

    Returns:
        Sums of `loss`, `correct`, `gradients`, and whatever `respond` adds.
    """
    params = learner.params
    with CutPass(params) as cut_pass:
        course = _Course(cut_pass, plan, params, shard, sites, draw, locality)
        slopes = any(activation is not None for activation in sites.values())
        around = course.around if slopes else None
        outputs, new_state = plan.task.network.apply(
            cut_pass.params,
            learner.model_state,
            shard.inputs,
            replace(shard.context, tap=course.tap, around=around),
        )
        segments = course.end(outputs)

    gradients, sums = _Gradients(cut_pass, params), {}
    for segment in segments:
        at_cuts, more = respond(segment)
        for cut, error in zip(segment.cuts, at_cuts, strict=True):
            gradients.add(cut.dependence, error)
        if segment.dependence is not None:
            gradients.add(segment.dependence, segment.error)
        sums.update(more)
    total = {
        "loss": segments[-1].losses.sum(),
        "correct": correct(segments[-1].outputs, shard.targets),
        "gradients": gradients.total(),
        **sums,
    }
    return Measurement(total, stop_gradient(new_state))


class _Course:
    """What one pass does as values come by: it cuts at sites, and closes segments at heads.

    Args:
        cut_pass: the pass.
        plan, params, shard, sites, draw, locality: as for `measure_with_cuts`.
    """

    def __init__(
        self,
        cut_pass: CutPass,
        plan: Plan,
        params: Tree,
        shard: Shard,
        sites: Sites,
        draw: DrawAtSite | None,
        locality: str,
    ):
        self._pass, self._params, self._sites, self._draw = cut_pass, params, sites, draw
        self._task, self._targets = plan.task, shard.targets
        self._heads, self._readouts = plan.heads(locality), plan.readouts(locality)
        self._segments: list[Segment] = []  # closed so far
        self._cuts: list[Cut] = []  # of the segment that is open
        self._visits: Counter[str] = Counter()
        self._readout: Array = None  # of the head whose own tap comes next
        self._ahead: _Ahead | None = None  # at the last site where a slope was asked for

    def tap(self, path: str, z: Array) -> Array:
        """Take what a layer gives, and return what the next one gets."""
        if path in self._readouts:
            self._readout = z
            return z
        if path in self._heads:
            self._close_at_head(path, self._heads[path], z)
            return self._pass.value(z)
        dependence = self._pass.dependence(z)
        if path not in self._sites or dependence is None:
            return z
        return self._cut(path, dependence, z)

    def around(
        self, path: str, layer: Layer, own: Tree, state: Tree, x: Array, context: Context
    ) -> tuple[Array, Tree]:
        """Apply a layer, or take what is known of it ahead."""
        ahead = self._ahead
        if ahead is None or not ahead.is_of(layer, x):
            return layer.apply(own, state, x, context)
        effect = self._pass.effect(x)
        moved = None if effect is None else linear.scale(effect, ahead.slope)
        return self._pass.cut(ahead.output, moved), state

    def end(self, outputs: Array) -> list[Segment]:
        """Close the last segment by the network's own loss, and return all."""
        if "" in self._sites:  # the network is a single layer, which no container taps
            outputs = self.tap("", outputs)
        value, effect = stop_gradient(outputs), self._pass.effect(outputs)
        losses, error = self._losses_and_error(value)
        derivatives = None
        if self._perturbed():
            effect = self._zeros(value) if effect is None else effect
            of_examples = np.sum(effect * error, axis=tuple(range(2, effect.ndim)))
            derivatives = of_examples[:, :, None, None]
        dependence = self._pass.dependence(outputs)
        self._close(Segment(self._cuts, value, dependence, losses, error, effect, derivatives))
        return self._segments

    def _cut(self, path: str, dependence: Dependence, z: Array) -> Array:
        """Cut the pass at a site, and return z with directions put in if there are any."""
        self._visits[path] += 1  # a layer may be applied several times
        visit = self._visits[path]
        value, activation, slope = self._pass.value(z), self._sites[path], None
        if activation is not None:
            output, slope = jvp(activation.function, (value,), (np.ones_like(value),))
        directions = self._draw(path, visit, value, slope) if self._draw else None
        self._cuts.append(Cut(path, visit, dependence, value, directions, slope))
        z = self._pass.cut(z, directions)
        if activation is not None:
            self._ahead = _Ahead(z, activation.function, output, slope)
        return z

    def _close_at_head(self, path: str, head: LocalHead, x: Array) -> None:
        """Close a segment by the loss of a local head with input x."""
        value, effect, x = stop_gradient(self._readout), self._pass.effect(x), self._pass.value(x)
        losses, error = self._losses_and_error(value)
        derivatives = None
        if self._perturbed():
            params = tree.subtree(self._params, path)

            def replicas(x: Array) -> Array:
                return head.replicas(params, x, lambda y: self._task.losses_of(y, self._targets))

            effect = self._zeros(x) if effect is None else effect
            _, derivatives = jvp(replicas, (x,), (effect,))
        dependence = self._pass.dependence(self._readout)
        self._close(Segment(self._cuts, value, dependence, losses, error, None, derivatives))

    def _close(self, segment: Segment) -> None:
        self._segments.append(segment)
        self._cuts = []

    def _losses_and_error(self, outputs: Array) -> tuple[Array, Array]:
        """Return the losses `(n,)`, and their derivatives by the outputs."""
        losses, pull = vjp(lambda outputs: self._task.losses_of(outputs, self._targets), outputs)
        return losses, pull(np.ones_like(losses))[0]

    def _perturbed(self) -> bool:
        """Whether directions were put in at the cuts of the segment that is open."""
        return bool(self._cuts) and self._cuts[0].directions is not None

    def _zeros(self, x: Array) -> Stack:
        """Return the effect on x of directions that do not reach it, `(k, *x.shape)`.

        Behind a stop-gradient, directions may reach no loss.
        """
        return np.zeros_like(x, shape=(len(self._cuts[0].directions), *x.shape))


@dataclass(frozen=True)
class _Ahead:
    """What an activation makes of its input, known before the input arrives at it.

    Attributes:
        input: the very object that it gets.
        function: the activation's.
        output, slope: of the input's value.
    """

    input: Array
    function: Callable[[Array], Array]
    output: Array
    slope: Array

    def is_of(self, layer: Layer, x: Array) -> bool:
        """Tell whether a layer applies the function to the input, entry by entry.

        A layer of a class of its own, derived from `Activation`, may do more than that.
        """
        if x is not self.input or type(layer) is not Activation:
            return False
        return layer.function is self.function and self.function in ACTIVATIONS.values()


class _Gradients:
    """Sums up what errors make of the parameters, cut by cut, while an error is in the cache."""

    def __init__(self, cut_pass: CutPass, params: Tree):
        self._cut_pass, self._params = cut_pass, params
        self._sums: list[Array | None] = [None] * len(tree.leaves(params))

    def add(self, dependence: Dependence, error: Array) -> None:
        """Add the gradients of a value's parameters, given its error."""
        pulled = self._cut_pass.pull([dependence], [error])
        self._sums = [
            g if total is None else total if g is None else total + g
            for total, g in zip(self._sums, pulled, strict=True)
        ]

    def total(self) -> Tree:
        """Return the gradients of all parameters: zeros where nothing depends on one."""
        pairs = zip(tree.leaves(self._params), self._sums, strict=True)
        return tree.unflatten(
            self._params,
            [np.zeros_like(p) if g is None else g.astype(p.dtype, copy=False) for p, g in pairs],
        )
