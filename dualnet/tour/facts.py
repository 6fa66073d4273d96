"""What a learning rule drew and found in one step, taken from its own calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from dualnet import tree
from dualnet.core.cut_pass import CutPass
from dualnet.core.spaces import dense
from dualnet.learning import FiniteDifferences, Rule, WeightPerturbation
from dualnet.learning.activity_differences import losses_of_moved
from dualnet.learning.cut_pass import Segment
from dualnet.learning.direct_feedback import DirectErrors
from dualnet.tour.layout import number
from dualnet.tour.subject import Learning
from dualnet.tour.watch import Call
from dualnet.tree import Tree
from dualnet.types import Array


class Fact(NamedTuple):
    """What the rule drew or found, and the array that it is, if there is one."""

    text: str
    array: Array | None = None


def functions_of(rule: Rule) -> list[Callable]:
    """Return the functions whose calls `facts_of` reads: those that make the segments of a pass
    with cuts, send errors to the parameters, and differentiate along directions."""
    found: list[Any] = [Segment.__init__, CutPass.pull, losses_of_moved]
    return [*found, type(rule).along] if isinstance(rule, WeightPerturbation) else found


def facts_of(
    rule: Rule, calls: list[Call], before: Tree, after: Tree, shown: Learning, known: Tree
) -> Iterator[Fact]:
    """Yield what a rule drew and found, in the order in which it needed it.

    Args:
        rule: the rule.
        calls: of `functions_of(rule)`, watched.
        before, after: what it learns, before and after the step.
        shown: what it is shown on.
        known: the direction of part 1, by path.
    """
    start, end = (_matrices(state, rule) for state in (before, after))
    for path, b in start.items():
        yield Fact(_of_matrix(path, shown), b)
    for call in calls:
        if call.function is getattr(type(rule), "along", None):
            yield from _of_weights(call, shown, known)
    segments = [call.arguments for call in calls if call.function is Segment.__init__]
    sent = {
        id(call.arguments["dependences"][0]): call.arguments["cotangents"][0]
        for call in calls
        if call.function is CutPass.pull
    }
    moved = [call for call in calls if call.function is losses_of_moved]
    for segment in segments:
        at_head = "head's " if segment is not segments[-1] else ""
        yield from _of_segment(segment, at_head, moved, shown)
        if segment["derivatives"] is not None and not isinstance(rule, DirectErrors):
            slope = number(segment["derivatives"].squeeze())
            yield Fact(f"d = {slope}, the slope of the {at_head}loss along u")
        for cut in segment["cuts"]:
            yield Fact(f"what is taken for c({shown.label(cut.path)})", sent[id(cut.dependence)])
    for path, b in end.items():
        if not np.array_equal(b, start[path]):
            yield Fact(f"{_of_matrix(path, shown)}, after the step", b)


def _of_weights(call: Call, shown: Learning, known: Tree) -> Iterator[Fact]:
    """Yield the direction of the parameters, and the slopes of the losses along it."""
    directions = {path: dense(v)[0] for path, v in tree.items(call.arguments["tangents"])}
    if directions.keys() == known.keys() and all(
        map(np.array_equal, directions.values(), known.values())
    ):
        yield Fact("v is the direction of part 1, t(a) for every parameter a")
    else:
        for path, v in directions.items():
            yield Fact(f"v, drawn for {shown.label(path)}", v)
    _, derivatives, _ = call.result
    slopes = derivatives[0, :, 0]  # of the head's loss first, if there is a head
    loss = "loss" if len(slopes) == 1 else "head's loss"
    difference = call.function is FiniteDifferences.along
    what = "the difference over the distance" if difference else f"the slope of the {loss} along v"
    yield Fact(f"d = {number(slopes[0])}, {what}")


def _of_segment(
    segment: Mapping[str, Any], at_head: str, moved: list[Call], shown: Learning
) -> Iterator[Fact]:
    """Yield what happened in a part of the network that answers to one loss."""
    for cut in segment["cuts"]:
        site = shown.label(cut.path)
        if cut.directions is not None:
            yield Fact(f"u, drawn for {site}", cut.directions[0])
        for call in moved:
            yield Fact(f"the step along u at {site}", call.arguments["moves"][cut.path, 1])
            losses = call.result[0], segment["losses"][0]
            yield Fact("the loss is {:.7g} there, and {:.7g} here".format(*losses))
    if segment["effect"] is not None:
        yield Fact("how the outputs move along u", segment["effect"][0])
    yield Fact(f"e, how the {at_head}loss moves with the {at_head}outputs", segment["error"])


def _matrices(rule_state: Tree, rule: Rule) -> dict[str, Array]:
    """Return the matrices through which a rule sends something, by the path of the site or of the
    weights.

    Nothing goes back to the input, so the first layer's is not used; nor is that of the outputs
    where a head cuts them off.
    """
    unused = {"hidden/w", "output/w"} if rule.locality == "greedy" else {"hidden/w"}
    found = {path: b for path, b in tree.items(rule_state) if np.ndim(b) == 2}
    return {path: b for path, b in found.items() if path not in unused}


def _of_matrix(path: str, shown: Learning) -> str:
    if path.endswith("/w"):
        return f"B, in the place of {shown.label(path)}"
    return f"B, from the outputs to {shown.label(path)}"
