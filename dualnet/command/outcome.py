"""What `dualnet train` prints when it is done."""

from __future__ import annotations

import json
from typing import Any

from dualnet.console import answer
from dualnet.errors import DivergedError
from dualnet.naming import counted, flag
from dualnet.training.seeds import words_for_diverged


def conclude(summary: dict[str, Any], as_json: bool) -> None:
    """Print the outcome of a run, or of several; then raise if some of several have diverged.

    Args:
        summary: what `summary.json` holds.
        as_json: whether all of it is printed, as one line.

    Raises:
        DivergedError: some of several runs have diverged.
    """
    kept = f"{summary['run_dir']}/summary.json"
    answer(json.dumps(summary) if as_json else outcome_text(summary), kept)
    if summary.get("diverged"):
        raise DivergedError(
            words_for_diverged(summary["diverged"], len(summary["runs"]) + len(summary["diverged"]))
        )


def outcome_text(summary: dict[str, Any]) -> str:
    """Return the outcome of a run, or of several, in a few lines."""
    deviation = summary.get("test_accuracy_std")
    spread = "" if deviation is None else f" ± {deviation:.4f}"
    accuracy = f"{summary['tested_on']} accuracy {summary['test_accuracy']:.4f}{spread}"
    runs = summary.get("runs", [summary])
    lines = []
    if "runs" in summary:
        lines += [
            f"seed {one['seed']:<8} {one['tested_on']} accuracy {one['test_accuracy']:.4f}"
            for one in runs
        ]
    fewest, epochs = min(one["epochs"] for one in runs), summary["epochs"]
    after = counted(epochs, "epoch")
    after = after if fewest == epochs else f"{fewest} to {after}"
    of = "" if deviation is None else f" (mean ± sample deviation, {len(runs)} seeds)"
    lines.append(f"{accuracy} after {after}{of}")
    # To choose by images that are tested on would promise more than others will give.
    lines += [
        f"lowest loss   seed {one['seed']}: after epoch {one['best_epoch']}, with accuracy "
        f"{one['best_test_accuracy']:.4f}"
        for one in (runs if summary["tested_on"] == "validation" else ())
    ]
    lines += [
        f"left out      {one['skipped_steps']} steps with numbers that are not finite"
        for one in runs
        if one.get("skipped_steps")
    ]
    if summary.get("bytes_per_step") is not None:
        lines.append(
            f"processes     {summary['processes']}; each gave the others "
            f"{summary['bytes_per_step']:,.0f} bytes a step"
        )
    lines.append(f"run folder    {summary['run_dir']}")
    if "recipe" in summary:
        recipe = summary["recipe"]
        known = recipe["test_accuracy"]
        against = "without a published accuracy" if known is None else f"published {known:.4f}"
        lines.append(
            f"recipe        reached {summary['test_accuracy']:.4f}, {against} "
            f"({recipe['source']}); "
            f"changed here: {', '.join(map(flag, recipe['changed'])) or 'nothing'}"
        )
    return "\n".join(lines)
