"""Write the tables of speed and memory, and their picture, from the benchmarks' results.

    python -m benchmarks.performance

It measures nothing.  On docs/performance.md, docs/scale.md and docs/scale-model.md, a table stands
between `<!-- NAME -->` and `<!-- end of NAME -->`.  Tests hold all to the results.  The picture
needs matplotlib (the extra `plot`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks import scale_page
from benchmarks.networks import FORWARD, fastest, ratio, ratios
from benchmarks.pages import RESULTS, Tables, filled, results, table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/performance.md"
PAGES = PAGE, ROOT / "docs/scale.md", ROOT / "docs/scale-model.md"
PICTURE = RESULTS / "speed-networks.svg"
NOT_YET = "Not measured yet."


def ms(seconds: float | None) -> str:
    """Format a time in milliseconds, with three digits or more."""
    if seconds is None:
        return ""
    return f"{1e3 * seconds:,.{1 if seconds < 0.1 else 0}f}"


def times(x: float | None) -> str:
    """Format a ratio."""
    return "" if x is None else f"{x:.2f}"


# --- networks -------------------------------------------------------------------------------------


def of_networks(section: str, threads: int) -> list[dict[str, Any]]:
    """Return the rows of `speed-networks.json` of one section and number of threads."""
    rows = (results("speed-networks") or {"rows": []})["rows"]
    return [row for row in rows if (row["section"], row["threads"]) == (section, threads)]


def named(row: dict[str, Any]) -> str:
    """Return the name of a row's network, with the batch."""
    return f"{row['network']}, {row['batch']}"


def ours(row: dict[str, Any], rule: str) -> str:
    """Format the time of a rule, and say where its better form is the one with shards."""
    name = fastest(row, f"dualnet {rule}")
    return "" if name is None else ms(row["seconds"][name]) + " (shards)" * name.endswith("shards")


def torch_and_jax(row: dict[str, Any]) -> tuple[str, str]:
    """Format the times of the peers: torch's channels first and last, if that matters, and JAX."""
    by_torch = [ms(s) for name, s in row["seconds"].items() if name.startswith("torch")]
    return " / ".join(by_torch), ms(row["seconds"].get("jax"))


def backprop(threads: int) -> str:
    """Return the table of backpropagation by the peers beside our rules."""
    head = ["network, batch", "floor", "torch", "JAX", "`bp`", "torch / `bp`", "JAX / `bp`"]
    head += ["`fg-a`", "over `bp`", "`fdfa`", "over `bp`"]
    head += ["its paper's rule", "over `bp`"] if threads == 1 else []
    shown = []
    for row in of_networks("backprop", threads):
        found = ratios(row)
        cells = [named(row), ms(row["floor"]), *torch_and_jax(row), ours(row, "bp")]
        cells += [times(found["bp"]["torch"]), times(found["bp"]["jax"])]
        for rule in ("fg-a", "fdfa"):
            cells += [ours(row, rule), times(found[rule]["bp"])]
        if threads == 1:
            own = row["rules"][-1]
            mine = ["`fdfa`", ""] if own == "fdfa" else None
            cells += mine or [f"`{own.split()[0]}` {ours(row, own)}", times(found[own]["bp"])]
        shown.append(cells)
    return with_refusals(table(head, shown), of_networks("backprop", threads))


def tangents(threads: int) -> str:
    """Return the table of forward gradients of the weights by all."""
    head = ["network, batch", "floor, dense", "torch", "JAX"]
    for kind in ("rank-one", "dense"):
        head += [kind, f"torch / {kind}", f"JAX / {kind}"]
    shown = []
    for row in of_networks("tangents", threads):
        found = ratios(row)
        cells = [named(row), ms(row["floor"]), *torch_and_jax(row)]
        for rule in FORWARD:
            cells += [ours(row, rule), times(found[rule]["torch"]), times(found[rule]["jax"])]
        shown.append(cells)
    return with_refusals(table(head, shown), of_networks("tangents", threads))


def with_refusals(text: str, rows: list[dict[str, Any]]) -> str:
    """Return a table, and below it who could not take part."""
    if not rows:
        return NOT_YET
    refused = [
        f"- {named(row) if row['seconds'] else row['network']}, {who}: {why.splitlines()[0][:160]}"
        for row in rows
        for who, why in row["failed"].items()
    ]
    return "\n".join([text, "", "Not in the table:", "", *refused] if refused else [text])


def memory_of_networks() -> str:
    """Return the table of the memory of each contender, in MiB."""
    head = ["network, batch", "`bp`", "`fg-a`", "`fdfa`", "torch", "JAX"]
    head += ["batch", "rank-one", "dense", "torch, k = 16", "JAX, k = 16"]
    forward = {row["network"]: row for row in of_networks("tangents", 1)}

    def held(row: dict[str, Any], who: str) -> str:
        name = fastest(row, who) if row else None
        return "" if name is None else f"{row['memory'][name] / 2**20:,.0f}"

    shown = []
    for row in of_networks("backprop", 1):
        other = forward.get(row["network"], {})
        names = [*(f"dualnet {rule}" for rule in ("bp", "fg-a", "fdfa")), "torch", "jax"]
        cells = [named(row), *(held(row, who) for who in names), str(other.get("batch", ""))]
        names = [*(f"dualnet {rule}" for rule in FORWARD), "torch", "jax"]
        shown.append([*cells, *(held(other, who) for who in names)])
    return table(head, shown) if shown else NOT_YET


def where() -> str:
    """Say on which machine, when, and with which versions the networks were timed."""
    found = results("speed-networks")
    if not found or not found["rows"]:
        return NOT_YET
    last, machine = max(found["rows"], key=lambda row: row["when"]), found["machine"]
    versions = last["versions"]
    return (
        f"{machine['name']}, {machine['cores']} cores; Python {versions['python']}, NumPy "
        f"{versions['numpy']}, torch {versions['torch']}, JAX {versions['jax']}; "
        f"{min(row['turns'] for row in found['rows'] if row['seconds'])} turns or more."
    )


# --- the other benchmarks -------------------------------------------------------------------------


def mlp_jvp() -> str:
    """Return the table of an MLP's loss along k tangents, and of whole steps."""
    shown = []
    for row in results("mlp_jvp")["rows"]:
        by_all = (f"{1e3 * row['seconds'][name]:.1f}" for name in ("dualnet", "torch", "jax"))
        shown.append([row["what"], *by_all, times(row["ratio"])])
    return table(["", "dualnet", "torch", "JAX", "ratio"], shown)


def layers() -> str:
    """Return the table of single layers along tangents."""
    shown = []
    for row in results("layers")["rows"]:
        seconds = [row["seconds"][name] for name in ("whole", "shards")]
        for peer in ("torch", "jax"):
            seconds.append(min(s for n, s in row["seconds"].items() if n.startswith(peer)))
        cells = [row["what"], *(f"{1e3 * s:.1f}" for s in seconds)]
        shown.append([*cells, *(times(r) for r in row["ratios"].values())])
    return table(["", "whole", "shards", "torch", "JAX", "ratio", "ratio, shards"], shown)


def replicated() -> str:
    """Return the table of replicated local losses."""
    shown = []
    for row in results("replicated")["rows"]:
        figures = [1e3 * row["seconds"][form] for form in ("fused", "copies")]
        figures += [row["peak"][form] / 2**20 for form in ("fused", "copies")]
        shown.append([str(row["groups"]), *(f"{x:.2f}" for x in figures)])
    return table(["G", "fused, ms", "copies, ms", "fused, MiB", "copies, MiB"], shown)


def small_steps() -> str:
    """Return the table of steps of a small network."""
    shown = []
    found = results("small_steps")
    for row in (*found["rows"], *found.get("digits", ())):
        microseconds = f"{1e6 * row['seconds']:,.0f}" if row["seconds"] else ""
        shown.append([f"`{row['rule']}`", microseconds, f"{row['calls']:,}"])
    return table(["step", "µs", "calls"], shown)


def start() -> str:
    """Return the table of how long it takes until dualnet is there."""
    found = results("start")
    if found is None:
        return NOT_YET
    return table(
        ["", "seconds"], [[f"`{what}`", f"{s:.2f}"] for what, s in found["seconds"].items()]
    )


def memory() -> str:
    """Return the table of memory by depth, in MiB."""
    shown = []
    for row in results("memory")["rows"]:
        mebibytes = (f"{row[name] / 2**20:.1f}" for name in ("parameters", "passes", "step"))
        shown.append([row["rule"], str(row["depth"]), *mebibytes])
    head = ["rule", "hidden layers", "parameters", "peak of the passes", "peak of the step"]
    return table(head, shown)


def processes() -> str:
    """Return the table of bytes that a process gives to the others in a step, and of times."""
    shown = []
    for row in results("processes")["rows"]:
        counts = (f"{row[name]:,}" for name in ("parameters", "bytes"))
        times = (f"{row[name]:.1f}" for name in ("ms", "ms_simulated_link"))
        shown.append([row["network"], f"`{row['rule']}`", row["share"], *counts, *times])
    head = ["network", "rule", "shared", "parameters", "bytes a step", "ms a step"]
    return table([*head, "ms, simulated link"], shown)


TABLES: Tables = {
    "where": where,
    "backprop, one thread": lambda: backprop(1),
    "backprop, two threads": lambda: backprop(2),
    "tangents, one thread": lambda: tangents(1),
    "tangents, two threads": lambda: tangents(2),
    "memory of networks": memory_of_networks,
    "mlp_jvp": mlp_jvp,
    "layers": layers,
    "replicated": replicated,
    "small_steps": small_steps,
    "start": start,
    "memory": memory,
    "processes": processes,
    **scale_page.TABLES,
}


# --- the picture ----------------------------------------------------------------------------------

_BARS = {
    # part of the picture: its title, and its bars: rule, peers, color
    "backprop": (
        "backpropagation: torch / ours",
        {"bp": "#0072b2", "fg-a": "#e69f00", "fdfa": "#56b4e9"},
    ),
    "tangents": (
        "16 tangents: torch or JAX / ours",
        {FORWARD[0]: "#009e73", FORWARD[1]: "#cc79a7"},
    ),
}
_LABELS = {FORWARD[0]: "fg-w, rank-one", FORWARD[1]: "fg-w, dense"}


def faster_peer(row: dict[str, Any]) -> float | None:
    """Return the time that ours is compared with: of torch, or of tangents that of either peer."""
    peers = ("torch",) if row["section"] == "backprop" else ("torch", "jax")
    found = [name for who in peers if (name := fastest(row, who)) is not None]
    return min((row["seconds"][name] for name in found), default=None)


_DARK = "@media (prefers-color-scheme: dark) {svg {filter: invert(0.9) hue-rotate(180deg)}}"
"""Black and white are exchanged, and hues kept, where the viewer wants a dark page."""


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the ratios of the rows with one thread, or of all if there are none with one.

    The picture has a ground of its own.  As SVG it is light, or dark with the same hues, by the
    viewer's setting.
    """
    import matplotlib
    from matplotlib.figure import Figure

    rows = [row for row in rows if row["seconds"]]
    threads = min((row["threads"] for row in rows), default=1)
    names = list(dict.fromkeys(row["network"] for row in rows))
    figure = Figure(figsize=(8.3, 1.4 + 0.6 * len(names)), layout="constrained", facecolor="white")
    parts = figure.subplots(1, 2, sharey=True)
    for part, (section, (title, bars)) in zip(parts, _BARS.items(), strict=True):
        by_name = {r["network"]: r for r in rows if kind_of(r) == (section, threads)}
        thick = 0.8 / len(bars)
        for i, (rule, color) in enumerate(bars.items()):
            for place, name in enumerate(names):
                row = by_name.get(name)
                own = fastest(row, f"dualnet {rule}") if row else None
                x = ratio(faster_peer(row), row["seconds"][own]) if row and own else None
                if x is not None:
                    y = place + (i - (len(bars) - 1) / 2) * thick
                    label = _LABELS.get(rule, rule) if name == next(iter(by_name)) else None
                    part.barh(y, x, thick, color=color, label=label)
                    part.text(x, y, f" {x:.2f}", va="center", fontsize=9)
        part.axvline(1.0, color="black", linewidth=1)
        part.set_title(title, fontsize=11)
        part.set_yticks(range(len(names)), names, fontsize=10)
        part.margins(x=0.12)
        part.spines[["top", "right"]].set_visible(False)
        if by_name:
            part.legend(
                fontsize=10, ncols=len(bars), loc="upper center", bbox_to_anchor=(0.5, -0.05)
            )
    parts[0].invert_yaxis()  # for both, as they share it
    with_threads = "one thread each" if threads == 1 else f"{threads} threads each"
    figure.supxlabel(f"whole training steps, {with_threads}; right of the line, dualnet is faster")
    # As text, and without the date, so that the same figures give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dualnet"}):
        dateless = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=120, **dateless)
    if path.suffix == ".svg":
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("</style>", f"{_DARK}</style>", 1), encoding="utf-8")


def kind_of(row: dict[str, Any]) -> tuple[str, int]:
    """Return the section and the threads of a row."""
    return row["section"], row["threads"]


def main() -> None:
    """Write the page's tables and the picture."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), TABLES), encoding="utf-8")
    if rows := (results("speed-networks") or {}).get("rows"):
        draw(rows, PICTURE)


if __name__ == "__main__":
    main()
