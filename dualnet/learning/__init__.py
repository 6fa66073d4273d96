"""Learning rules: how a gradient is estimated.  Start with `rule`, which says what a rule is.

A run of learning by hand, without the loop of `dualnet.training`:

Examples:
    >>> layers = {"hidden": dn.nn.Linear(4), "output": dn.nn.Linear(2)}
    >>> task = dn.learning.Task(dn.nn.Sequential(layers), dn.nn.softmax_cross_entropy)
    >>> batch = dn.learning.Batch(np.eye(3), np.array([0, 1, 1]))
    >>> rule, backend = dn.learning.RULES["fg-a"](), dn.backends.get("numpy")
    >>> plan, learner = rule.start(task, batch.inputs, dn.Key(0))
    >>> optimizer = dn.optim.SGD()
    >>> opt_state = optimizer.init(learner.params)
    >>> for i in range(100):
    ...     done = dn.learning.estimate_gradient(rule, plan, learner, batch, dn.Key(i), backend)
    ...     params, opt_state = optimizer.update(done.gradients, opt_state, learner.params, lr=0.3)
    ...     learner = dn.learning.LearnerState(params, done.model_state, done.rule_state)
    >>> int(done.correct), bool(done.loss < 0.1)
    (3, True)

The examples of the rules are one such step.  Their inputs are the identity, so that row n of the
gradient of the first layer's weights is what example n says, divided by the number of examples.
"""

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
