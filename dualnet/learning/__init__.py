"""Learning rules: how a gradient is estimated.  Start with `rule`, which says what a rule is."""

from dualnet.learning.activity import ActivityPerturbation
from dualnet.learning.aggregate import AGGREGATIONS
from dualnet.learning.backprop import Backprop
from dualnet.learning.rule import Measurement, Rule, Step, step
from dualnet.learning.samplers import SAMPLERS
from dualnet.learning.task import Shard, Task, correct, cut
from dualnet.learning.weight import WeightPerturbation

RULES: dict[str, type[Rule]] = {
    "bp": Backprop,
    "fg-w": WeightPerturbation,
    "fg-a": ActivityPerturbation,
}

__all__ = [
    "AGGREGATIONS",
    "RULES",
    "SAMPLERS",
    "ActivityPerturbation",
    "Backprop",
    "Measurement",
    "Rule",
    "Shard",
    "Step",
    "Task",
    "WeightPerturbation",
    "correct",
    "cut",
    "step",
]
