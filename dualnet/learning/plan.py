"""What a rule needs to know about a network, worked out once when a run starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from dualnet import tree
from dualnet.learning.answers import Answers, answers_of_each
from dualnet.learning.independence import Independence, independence_of_each
from dualnet.learning.sites import (
    Unit,
    cutting_heads,
    hidden_units,
    local_heads,
    output_parameters,
    output_site,
    segment_of_each_parameter,
)
from dualnet.learning.task import Task
from dualnet.nn.context import Context, no_pair
from dualnet.nn.heads import LocalHead
from dualnet.nn.network import Layer, walk
from dualnet.tree import Tree
from dualnet.types import Array, Shape


class WeightedMap(NamedTuple):
    """What a layer does by its weights `w` alone: its other parameters, such as a bias, are zero.

    Attributes:
        layer: with `bias=False` where it has such a field, which saves adding zeros.
        others: zeros for all parameters but `w`.
    """

    layer: Layer
    others: dict[str, Array]

    @classmethod
    def of(cls, layer: Layer, params: dict[str, Array]) -> WeightedMap:
        """Make the map of a layer with these parameters, of which only shapes and dtypes count."""
        others = {name: np.zeros_like(p) for name, p in params.items() if name != "w"}
        if is_dataclass(layer) and getattr(layer, "bias", False) is True:
            layer = replace(layer, bias=False)
        return cls(layer, others)

    def apply(self, w: Array, state: Tree, x: Array, context: Context) -> Array:
        """Return the output for weights w and inputs x."""
        return self.layer.apply({**self.others, "w": w}, state, x, context)[0]


@dataclass(frozen=True, eq=False)
class Plan:
    """A task, and what follows from its network and the shapes of its parameters and inputs.

    Attributes:
        task: the network and its loss.
        units: the hidden units, in order.
        output_site: the path of the site behind the unit that makes the outputs; None without one.
        weighted: the maps of the layers with weights `w`, by the layers' paths.
        segments: the number of the loss to which each parameter answers under a greedy rule, by
            the parameter's path.
        outputs_made_by: the paths of the parameters of local heads and of the read-out.
        shapes: of each layer's output, for one example, by the layer's path.
        outputs: the network's outputs of one probing pass in evaluation mode, `(n, *out_shape)`.
        largest_product: how many multiplications the largest product of weights takes for an
            example.
        activation_bytes: bytes that a pass holds of each example for one direction.  That is the
            input and the output of some layer, so twice the largest output.

    Examples:
        >>> from dualnet.models import MLP
        >>> network = MLP(width=16, depth=2, batch_norm=True).network((28, 28, 1), 10)
        >>> task = dn.learning.Task(network, dn.nn.softmax_cross_entropy)
        >>> plan, _ = dn.learning.Backprop().start(task, np.zeros((1, 28, 28, 1)), dn.Key(0))
        >>> [(unit.before, unit.after) for unit in plan.units]
        [('norm1', 'relu1'), ('norm2', 'relu2')]
        >>> plan.shapes["relu2"], plan.outputs.shape
        ((16,), (1, 10))
    """

    task: Task
    units: tuple[Unit, ...]
    output_site: str | None
    weighted: Mapping[str, WeightedMap]
    segments: Mapping[str, int]
    outputs_made_by: frozenset[str]
    shapes: Mapping[str, Shape]
    outputs: Array
    largest_product: int
    activation_bytes: int

    @classmethod
    def of(cls, task: Task, params: Tree, model_state: Tree, inputs: Array) -> Plan:
        """Make the plan.

        Args:
            task: a network and its loss.
            params, model_state: the network's trees; only their structure and shapes count.
            inputs: examples `(n, *in_shape)`, one or more; only their shape counts.

        Raises:
            UsageError: a layer's `apply` does not return an output and a state.
        """
        shapes: dict[str, Shape] = {}
        sizes = [0]

        def tap(path: str, y: Array) -> Array:
            shapes[path] = y.shape[1:]
            sizes.append(y.size // len(inputs) * y.dtype.itemsize)
            return y

        result = task.network.apply(params, model_state, inputs, Context(tap=tap))
        if not isinstance(result, tuple) or len(result) != 2:
            raise no_pair("", task.network, result)
        outputs, _ = result
        weighted, products = {}, [0]
        for path, layer in walk(task.network):
            of_layer = tree.subtree(params, path)
            if isinstance(of_layer, dict) and "w" in of_layer:
                weighted[path] = WeightedMap.of(layer, of_layer)
                products.append(math.prod(shapes.get(path, ())[:-1]) * of_layer["w"].size)
        return cls(
            task,
            tuple(hidden_units(task.network, params)),
            output_site(task.network, params),
            weighted,
            segment_of_each_parameter(task.network, params),
            frozenset(output_parameters(task.network, params)),
            shapes,
            outputs,
            max(products),
            2 * max(sizes),
        )

    def heads(self, locality: str) -> Mapping[str, LocalHead]:
        """Return the local heads that a rule of this locality sees, by their paths.

        Raises:
            UsageError: the rule is greedy, and a head cannot cut the network where it is.
        """
        if locality == "global":
            return {}
        return self._cutting_heads if locality == "greedy" else self._local_heads

    def readouts(self, locality: str) -> frozenset[str]:
        """Return the paths of the read-outs of the heads that a rule of this locality sees."""
        return self._readouts if self.heads(locality) else frozenset()

    def independence(
        self, locality: str, through_norms: bool = False, groups_through_norms: bool = False
    ) -> Mapping[str, Independence]:
        """Return the independence of each layer's output, by the layer's path.

        `through_norms` and `groups_through_norms` are those of `independence_of_each`.
        """
        which = locality == "greedy", through_norms, groups_through_norms
        if which not in self._independence:
            self._independence[which] = independence_of_each(self.task, *which)
        return self._independence[which]

    def answers(self, params: Tree, losses: str) -> Answers:
        """Return to what parameters answer under a greedy rule that perturbs weights.

        Args:
            params: the network's parameters; only their shapes count.
            losses: `one` at every head, `replicated`, or `through-norms`, which takes groups to be
                independent through norms.
        """
        if losses not in self._answers:
            independence = None
            if losses != "one":
                independence = self.independence(
                    "greedy", groups_through_norms=losses == "through-norms"
                )
            heads = self.heads("greedy")
            self._answers[losses] = answers_of_each(
                self.task.network, params, self.segments, heads, independence
            )
        return self._answers[losses]

    @cached_property
    def _local_heads(self) -> Mapping[str, LocalHead]:
        return local_heads(self.task.network)

    @cached_property
    def _cutting_heads(self) -> Mapping[str, LocalHead]:
        return cutting_heads(self.task.network)

    @cached_property
    def _readouts(self) -> frozenset[str]:
        return frozenset(f"{path}/linear" if path else "linear" for path in self._local_heads)

    @cached_property
    def _independence(self) -> dict[tuple[bool, bool, bool], Mapping[str, Independence]]:
        return {}

    @cached_property
    def _answers(self) -> dict[str, Answers]:
        return {}
