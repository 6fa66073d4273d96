"""Five learning rules on the same network: docs/figures/four-rules.svg."""

from itertools import pairwise

from drawing import WIDTH, Drawing

NODES = (24, 94, 164, 234)
"""Where the nodes of a panel are: input, two hidden activities, outputs."""
LINKS = tuple((a + b) / 2 for a, b in pairwise(NODES))
SAID = {
    "fg-w": ("v perturbs all weights", "one slope d for the batch", "g = d v"),
    "fg-a": ("u perturbs z₁ and z₂", "one slope d per example", "δ ≈ d u, then g = inputᵀδ"),
    "dfa": ("nothing is perturbed", "error e, through fixed B", "δ ≈ e B, then g = inputᵀδ"),
    "fdfa": ("u perturbs h₁ and h₂", "error e, through B", "as dfa; B learns from ẏᵀu"),
    "bp": ("nothing is perturbed", "error e, through all Wᵀ", "δ exact, then g = inputᵀδ"),
}
"""Rule → what moves forward, what comes back, what is made of it."""
SYMBOLS = (
    "z, h: before, after tanh",
    "v, u: random directions",
    "d: slope of the loss",
    "e: error of the outputs y",
    "ẏ: tangent of the outputs",
    "B: feedback matrices",
    "δ: error of a layer",
    "g: estimated gradient",
)


def network(d: Drawing, x: float, y: float, middle: str) -> None:
    """Draw the network of a panel with `z` or `h` in its middle, and the way of the values."""
    for node, name in zip(NODES, ("x", f"{middle}₁", f"{middle}₂", "y"), strict=True):
        d.box(x + node - 17, y - 20, 34, 40, "primal-pale edge-primal")
        d.text(x + node, y + 6, name)
    for left, right in pairwise(NODES):
        d.arrow((x + left + 18, y - 8), (x + right - 18, y - 8), look="primal")
    for i, link in enumerate(LINKS):
        d.text(x + link, y - 18, f"W{'₁₂₃'[i]}")


def tangents(d: Drawing, x: float, y: float, into: str) -> None:
    """Draw where directions come in, at the `weights` or the `activities`, and their way."""
    for place in LINKS if into == "weights" else NODES[1:3]:
        bottom = y - 36 if into == "weights" else y - 21
        d.arrow((x + place, y - 58), (x + place, bottom), look="tangent")
        d.text(x + place + 12, y - 46, "v" if into == "weights" else "u", "tangent")
    for i, (left, right) in enumerate(pairwise(NODES)):
        start = left + 18 if i else LINKS[0]
        if i or into == "weights":
            d.arrow((x + start, y + 8), (x + right - 18, y + 8), look="tangent")


def back(d: Drawing, x: float, y: float, to: tuple[float, ...], labels: tuple[str, ...]) -> None:
    """Draw a way back from the outputs straight to some places."""
    low, end = y + 58, x + NODES[3]
    d.line((end, y + 21), (end, low), (x + to[0], low), look="back")
    for place, label in zip(to, labels, strict=True):
        d.arrow((x + place, low), (x + place, y + 22), look="back")
        d.text(x + place + 17, y + 46, label, "back")


def draw() -> str:
    """Return the picture."""
    d = Drawing(
        "Five learning rules on one network",
        "A network of three weight matrices, five times.  "
        + "  ".join(f"{name}: {'; '.join(said)}." for name, said in SAID.items()),
        884,
    )
    legend = "{primal|values, forward} · {tangent|tangents, forward} · {back|errors, back}"
    d.text(WIDTH / 2, 32, legend, "ink bold")
    for i, (name, said) in enumerate(SAID.items()):
        x, y = (22, 316)[i % 2], 50 + 262 * (i // 2)
        d.box(x - 10, y, 282, 250, "paper edge-soft")
        d.text(x + 4, y + 27, name, "ink bold start")
        for line, (words, look) in enumerate(zip(said, ("tangent", "back", "ink"), strict=True)):
            d.text(x + 4, y + 190 + 24 * line, words, f"{look} start")
        y += 98
        network(d, x, y, "z" if name == "fg-a" else "h")
        if name == "fg-w":
            tangents(d, x, y, "weights")
            back(d, x, y, LINKS, ("d", "d", "d"))
        elif name == "bp":
            for left, right in pairwise(NODES[1:]):
                d.arrow((x + right - 18, y + 8), (x + left + 18, y + 8), look="back")
            for link, label in zip(LINKS[1:], ("W₂ᵀ", "W₃ᵀ"), strict=True):
                d.text(x + link, y + 40, label, "back")
        else:
            if name != "dfa":
                tangents(d, x, y, "activities")
            back(d, x, y, NODES[1:3], ("d", "d") if name == "fg-a" else ("B₁", "B₂"))
    for line, words in enumerate(("symbols", *SYMBOLS)):
        d.text(320, 601 + 25.5 * line, words, "soft start" if line else "ink bold start")
    last = "Except in fg-w, the last layer has its exact gradient, from e"
    d.text(WIDTH / 2, 856, last, "soft")
    return str(d)
