"""Memory of replicated losses by the number of groups: fused, and by copies.

Source: Ren et al. 2023, "Scaling Forward Gradient With Local Losses", Figure 5 and section 4.  The
work is one jvp of a cross-entropy with a replica for each of 64 tokens and G groups of channels,
and the memory is what NumPy holds at the peak, by tracemalloc.
"""

from __future__ import annotations

from typing import Any

from benchmarks import replicated
from benchmarks.memory import peak_of
from dualnet import nn
from experiments.experiment import Experiment, Form, Settings

FORMS = {"fused": nn.replicated, "copies": nn.replicated_by_copies}
GROUPS = {"fused": (1, 2, 4, 8, 16, 32, 64, 128), "copies": (1, 2, 4, 8, 16)}
"""Copies for 128 groups would take 2 GiB."""


def settings(form: Form) -> list[Settings]:
    """Return the rows: a form of the losses and the number of groups."""
    sizes = {
        "batch": replicated.BATCH,
        "tokens": replicated.TOKENS,
        "channels": replicated.CHANNELS,
    }
    most = 2 if form.quick else max(GROUPS["fused"])
    return [
        {"form": name, "groups": groups, **sizes}
        for name, all_groups in GROUPS.items()
        for groups in all_groups
        if groups <= most
    ]


def measure(row: Settings, form: Form) -> dict[str, Any]:
    """Return the bytes at the peak of one jvp."""
    return {"peak": peak_of(replicated.make_pass(FORMS[row["form"]], row["groups"]))}


def found_in(rows: list[dict]) -> dict[str, dict[int, float]]:
    """Return mebibytes by form and number of groups."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        of = row["settings"]
        found.setdefault(of["form"], {})[of["groups"]] = row["results"]["peak"] / 2**20
    return found


def table(rows: list[dict]) -> str:
    """Return the memory of both forms by the number of groups."""
    found = found_in(rows)
    groups = list(found["fused"])
    lines = [
        f"| peak, MiB | {' | '.join(f'G = {g}' for g in groups)} |",
        f"| --- |{' --- |' * len(groups)}",
    ]
    for name, peaks in found.items():
        cells = [f"{peaks[g]:.2f}" if g in peaks else "" for g in groups]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(rows: list[dict]) -> Any:
    """Draw the memory of both forms over the number of groups."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, peaks in found_in(rows).items():
        axes.plot(list(peaks), list(peaks.values()), "o-", label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("number of groups, with 64 tokens")
    axes.set_ylabel("memory at the peak, MiB")
    axes.legend()
    return figure


EXPERIMENT = Experiment(
    name="ren-memory",
    shows="memory of replicated losses, fused and by copies, by the number of groups",
    source="Ren et al. 2023, Figure 5",
    settings=settings,
    measure=measure,
    table=table,
    picture=picture,
)
