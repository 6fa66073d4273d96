"""`CutPass`: one evaluation in which values can be asked what they depend on, and be cut off.

The pass answers two questions at once, because a tangent may live in a direct sum of spaces:

* part 0 is dense: how a value moves with the directions that were put in so far;
* part 1 is symbolic: how it depends on the parameters, since the last cut.

It is for learning rules that never send anything backward through more than one layer.  Where a
value is cut, its dependence is taken out and kept; what is computed from it afterwards depends on
the parameters that are used afterwards, and on no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from dualnet import tree
from dualnet.core.dual import Dual, Level
from dualnet.core.linear import add
from dualnet.core.spaces import DirectSum
from dualnet.core.symbolic import Symbolic, transpose_all
from dualnet.tree import Tree
from dualnet.types import Array, Cotangent, Stack

Dependence: TypeAlias = Symbolic
"""How a value depends on the parameters: a recorded linear expression."""


class CutPass:
    """A context manager; inside it, `params` are the parameters to compute with.

        with CutPass(params) as cut_pass:
            z = layer(cut_pass.params, x)
            dependence = cut_pass.dependence(z)
            z = cut_pass.cut(z, directions)     # goes on as a constant that moves along directions
            y = rest(cut_pass.params, z)
            moved = cut_pass.effect(y)          # of the directions on y
        gradients = cut_pass.pull([dependence], [error])

    Args:
        params: a tree of float arrays.
    """

    def __init__(self, params: Tree):
        self._plain = params
        self._inputs = [Symbolic.input(p) for p in tree.leaves(params)]
        self._level = Level()
        pairs = zip(tree.leaves(params), self._inputs, strict=True)
        duals = [Dual(p, DirectSum(None, symbol), self._level) for p, symbol in pairs]
        self.params = tree.unflatten(params, duals)

    def __enter__(self) -> CutPass:
        self._level.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._level.__exit__(*error)

    def value(self, z: Array) -> Array:
        """Return z as a constant of this pass: without its effect and its dependence."""
        return z.primal if self._carries(z) else z

    def effect(self, z: Array) -> Stack | None:
        """Return how z moves along the directions put in, `(k, *S)`; None where it does not."""
        return z.tangent.parts[0] if self._carries(z) else None

    def dependence(self, z: Array) -> Dependence | None:
        """Return how z depends on the parameters since the last cut; None where it does not."""
        return z.tangent.parts[1] if self._carries(z) else None

    def cut(self, z: Array, directions: Stack | None = None) -> Array:
        """Return z without its dependence, and moved along k directions `(k, *S)` if given."""
        effect = self.effect(z)
        if directions is not None:
            effect = directions if effect is None else add(effect, directions)
        value = self.value(z)
        return value if effect is None else Dual(value, DirectSum(effect, None), self._level)

    def pull(
        self, dependences: Sequence[Dependence], cotangents: Sequence[Cotangent]
    ) -> list[Cotangent | None]:
        """Send a cotangent `(*S)` of each dependence back to the parameters, and add up.

        Returns:
            For each leaf of the parameters a sum of its shape; None where nothing depends on it.
        """
        stacks = [ct[None] for ct in cotangents]
        sums = transpose_all(dependences, stacks, self._inputs)
        return [None if total is None else total[0] for total in sums]

    def _carries(self, z: Array) -> bool:
        return isinstance(z, Dual) and z.level is self._level
