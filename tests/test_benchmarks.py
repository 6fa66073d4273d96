"""Benchmarks whose figures do not depend on how busy the machine is, in a small form."""

from benchmarks import memory, replicated, small_steps
from dualnet.learning import Backprop, WeightPerturbation


def test_fused_replicated_losses_need_a_tenth_of_the_memory_or_less():
    """At 64 tokens; however many groups, the fused form needs the same."""
    few, many = replicated.measure((1, 4), rounds=1)["rows"]
    for row in (few, many):
        assert row["peak"]["copies"] > 10 * row["peak"]["fused"]
    assert many["peak"]["fused"] < 1.1 * few["peak"]["fused"]


def test_the_passes_of_fg_w_need_no_more_memory_for_more_layers():
    shallow, deep = (
        memory.peaks(WeightPerturbation(8, sampler="rank-one"), depth) for depth in (2, 8)
    )
    assert deep["passes"] < 1.1 * shallow["passes"]
    shallow, deep = (memory.peaks(Backprop(), depth) for depth in (2, 8))
    assert deep["passes"] > 2 * shallow["passes"]


def test_a_step_of_fg_w_is_at_most_a_thousand_calls():
    """Of a network of three layers, with the update by Adam."""
    assert small_steps.calls_of(small_steps.step_of(WeightPerturbation(), (32, 16), 4)) <= 1000
