"""Learning rules: how a gradient is estimated.  Start with `rule`, which says what a rule is."""

from dualnet.learning.activity_differences import ActivityDifferences
from dualnet.learning.activity_perturbation import ActivityPerturbation, GreedyActivityPerturbation
from dualnet.learning.aggregate import WEIGHT_AGGREGATIONS
from dualnet.learning.backprop import Backprop, GreedyBackprop, LocalBackprop
from dualnet.learning.control_variate import ControlVariate
from dualnet.learning.direct_feedback import (
    DirectFeedback,
    DirectKolenPollack,
    ForwardDirectFeedback,
)
from dualnet.learning.directions.samplers import WEIGHT_SAMPLERS
from dualnet.learning.feedback_alignment import (
    FeedbackAlignment,
    GreedyFeedbackAlignment,
    LearnedFeedbackAlignment,
    LocalFeedbackAlignment,
)
from dualnet.learning.plan import Plan
from dualnet.learning.rule import Estimate, Measurement, Rule, estimate_gradient
from dualnet.learning.task import Batch, LearnerState, Shard, Task, correct, split_batch
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
    "ap": ActivityDifferences,
    "fg-a-cv": ControlVariate,
}
"""Name on the command line → learning rule; a rule that is put in here is there to choose, too."""

__all__ = [
    "RULES",
    "WEIGHT_AGGREGATIONS",
    "WEIGHT_SAMPLERS",
    "ActivityDifferences",
    "ActivityPerturbation",
    "Backprop",
    "Batch",
    "ControlVariate",
    "DirectFeedback",
    "DirectKolenPollack",
    "Estimate",
    "FeedbackAlignment",
    "FiniteDifferences",
    "ForwardDirectFeedback",
    "GreedyActivityPerturbation",
    "GreedyBackprop",
    "GreedyFeedbackAlignment",
    "GreedyWeightPerturbation",
    "LearnedFeedbackAlignment",
    "LearnerState",
    "LocalBackprop",
    "LocalFeedbackAlignment",
    "Measurement",
    "Plan",
    "Rule",
    "Shard",
    "Task",
    "WeightPerturbation",
    "correct",
    "estimate_gradient",
    "split_batch",
]
