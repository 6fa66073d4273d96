"""A plain step and a recorded one on a device: docs/figures/recorded-step.svg."""

from drawing import WIDTH, Drawing

REQUESTS = {"indices": 145, "numbers": 245, "graph": 385, "results": 530}
"""What the host asks for in a recorded step → where its arrow is."""


def draw() -> str:
    """Return the picture."""
    d = Drawing(
        "A plain step and a recorded step on a device",
        "Above, a plain step: the host sends one request for each of many short kernels.  In the"
        " middle, a recorded step: the host sends four requests.  These are the indices of the"
        " examples, the keys and numbers of the step, the graph that has all the kernels, and the"
        " copy of the results.  Below, the state lies in two blocks of memory: graph 1 reads block"
        " A and writes block B, and graph 2 goes the other way.  No length is a measured time.",
        526,
    )
    d.text(20, 36, "Plain step: the host asks for every kernel", "ink bold start")
    _rows(d, 76, 136)
    for i in range(24):
        x = 120 + 20 * i
        d.arrow((x, 64), (x, 116), look="soft")
        d.box(x - 6, 118, 12, 26, "primal-pale edge-primal")

    d.text(20, 196, "Recorded step: four requests, whatever the network", "ink bold start")
    _rows(d, 236, 306)
    for name, x in REQUESTS.items():
        d.text(x, 230, name)
        d.arrow((x, 240), (x, 280), look="soft")
        half = 84 if name == "graph" else 12
        d.box(x - half, 282, 2 * half, 38, f"{'pale' if half > 12 else 'primal-pale'} edge-primal")
    for i in range(10):
        x = REQUESTS["graph"] - 72 + 16 * i
        d.box(x - 6, 288, 12, 26, "primal-pale edge-primal")

    d.text(20, 372, "The state lies in two blocks of memory by turns", "ink bold start")
    for name, x in ("block A", 60), ("block B", 400):
        d.box(x, 396, 140, 64, "tangent-pale edge-tangent")
        d.text(x + 70, 434, name)
    d.arrow((203, 414), (397, 414), look="primal")
    d.arrow((397, 442), (203, 442), look="primal")
    d.text(WIDTH / 2, 406, "graph 1", "primal")
    d.text(WIDTH / 2, 464, "graph 2", "primal")
    last = "A graph reads one block and writes the other"
    d.text(WIDTH / 2, 500, last, "soft")
    return str(d)


def _rows(d: Drawing, host: float, device: float) -> None:
    """Write the names of the two rows of a timeline."""
    d.text(20, host, "host", "soft start")
    d.text(20, device, "device", "primal start")
