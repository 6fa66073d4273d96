"""What finite differences of the losses cannot do, unlike derivatives."""

from __future__ import annotations

from dualnet.errors import UsageError
from dualnet.learning.plan import Plan
from dualnet.nn.layers import StopGradient
from dualnet.nn.network import walk


def require_no_stop(rule: str, plan: Plan, instead: str) -> None:
    """Raise a UsageError if something stops gradients, because a difference passes through it.

    Args:
        rule: by its name, for the message.
        plan: of the task.
        instead: the rule by derivatives that obeys it.
    """
    stops = [path for path, layer in walk(plan.task.network) if isinstance(layer, StopGradient)]
    if plan.task.declared_loss.stops_gradients or stops:
        where = f"at {stops[0]}" if stops else "of the contrastive loss"
        remedy = "--no-readout" if stops else "--no-stop"
        raise UsageError(
            f"{rule}: a difference passes through the stop-gradient {where}; use {instead}, or "
            f"{remedy}"
        )
