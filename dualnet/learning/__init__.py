"""Learning rules: how a gradient is estimated.  Start with `rule`, which says what a rule is."""

from dualnet.learning.activity_perturbation import ActivityPerturbation, GreedyActivityPerturbation
from dualnet.learning.aggregate import AGGREGATIONS
from dualnet.learning.backprop import Backprop, GreedyBackprop, LocalBackprop
from dualnet.learning.control_variate import ControlVariate
from dualnet.learning.direct_feedback import (
    DirectFeedback,
    DirectKolenPollack,
    ForwardDirectFeedback,
)
from dualnet.learning.directions.samplers import SAMPLERS
from dualnet.learning.feedback_alignment import (
    FeedbackAlignment,
    GreedyFeedbackAlignment,
    LearnedFeedbackAlignment,
    LocalFeedbackAlignment,
)
from dualnet.learning.rule import Measurement, Rule, Step, step
from dualnet.learning.task import Shard, Task, correct, cut
from dualnet.learning.weight_perturbation import (
    FiniteDifferences,
    GreedyWeightPerturbation,
    WeightPerturbation,
)

RULES: dict[str, type[Rule]] = {
    "bp": Backprop,
    "l-bp": LocalBackprop,
    "lg-bp": GreedyBackprop,
    "fa": FeedbackAlignment,
    "l-fa": LocalFeedbackAlignment,
    "lg-fa": GreedyFeedbackAlignment,
    "ffa": LearnedFeedbackAlignment,
    "dfa": DirectFeedback,
    "dkp": DirectKolenPollack,
    "fdfa": ForwardDirectFeedback,
    "fg-w": WeightPerturbation,
    "lg-fg-w": GreedyWeightPerturbation,
    "wp": FiniteDifferences,
    "fg-a": ActivityPerturbation,
    "lg-fg-a": GreedyActivityPerturbation,
    "fg-a-cv": ControlVariate,
}

__all__ = [
    "AGGREGATIONS",
    "RULES",
    "SAMPLERS",
    "ActivityPerturbation",
    "Backprop",
    "ControlVariate",
    "DirectFeedback",
    "DirectKolenPollack",
    "FeedbackAlignment",
    "FiniteDifferences",
    "ForwardDirectFeedback",
    "GreedyActivityPerturbation",
    "GreedyBackprop",
    "GreedyFeedbackAlignment",
    "GreedyWeightPerturbation",
    "LearnedFeedbackAlignment",
    "LocalBackprop",
    "LocalFeedbackAlignment",
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
