"""A pass that carries a value and k tangents: docs/figures/forward-pass.svg."""

from drawing import WIDTH, Drawing

PRIMAL, TANGENT, TOP, BOTTOM, CELL = 104, 166, 76, 200, 7
"""Heights of the two rows, of the boxes' edges, and the size of a cell."""
STATIONS, OPERATIONS = (42, 162, 282, 402, 534), (102, 222, 342, 464)
SHAPES = (4, 3), (4, 5), (4, 5), (4, 2), (1, 1)
PRIMALS = "x (4, 3)", "(4, 5)", "(4, 5)", "(4, 2)", "value ()"
TANGENTS = "(k, 4, 5)", "(k, 4, 5)", "(k, 4, 2)", "slopes (k,)"


def draw() -> str:
    """Return the picture."""
    d = Drawing(
        "A forward pass that carries a value and k tangents",
        "Inputs x of shape (4, 3) go through a product with W1, tanh, a product with W2, and a"
        " loss.  Beside each value there are k tangents: their shape is that of the value with k"
        " in front.  They come from k random directions of W1 and W2.  The pass ends with the"
        " value and k slopes.  The forward gradient is the mean of slope times direction.",
        424,
    )
    title = "One pass forward carries {primal|a value} and {tangent|k tangents}"
    d.text(WIDTH / 2, 32, title, "ink bold")
    for x, shape, name in zip(STATIONS, SHAPES, PRIMALS, strict=True):
        d.sheet(x, PRIMAL, shape, "primal", CELL)
        d.text(x, TOP - 12, name, "primal")
    for x, shape, name in zip(STATIONS[1:], SHAPES[1:], TANGENTS, strict=True):
        d.sheet(x, TANGENT, shape, "tangent", CELL, many=3)
        d.text(x, BOTTOM + 24, name, "tangent")
    for i, (x, name) in enumerate(zip(OPERATIONS, ("@W₁", "tanh", "@W₂", "loss"), strict=True)):
        d.box(x - 26, TOP, 52, BOTTOM - TOP, "pale edge-soft")
        d.text(x, (PRIMAL + TANGENT) / 2 + 6, name)
        left, right = (SHAPES[j][1] * CELL / 2 + 3 for j in (i, i + 1))
        d.line((STATIONS[i] + left, PRIMAL), (x - 26, PRIMAL), look="primal")
        d.arrow((x + 26, PRIMAL), (STATIONS[i + 1] - right, PRIMAL), look="primal")
        if i:  # x itself does not move
            d.line((STATIONS[i] + left + 4, TANGENT), (x - 26, TANGENT), look="tangent")
        d.arrow((x + 26, TANGENT), (STATIONS[i + 1] - right - 4, TANGENT), look="tangent")

    for x, shape, name in (102, (3, 5), "(k, 3, 5)"), (342, (5, 2), "(k, 5, 2)"):
        d.sheet(x, 275, shape, "tangent", CELL, many=3)
        d.arrow((x, 247), (x, BOTTOM), look="tangent")
        d.text(x, 322, name, "tangent")
        d.arrow((x, 330), (x, 350), look="tangent")
    d.text(222, 270, "k random", "tangent")
    d.text(222, 292, "directions v", "tangent")
    d.arrow((STATIONS[-1], BOTTOM + 34), (STATIONS[-1], 350), look="tangent")
    d.box(20, 350, WIDTH - 40, 62, "pale edge-soft")
    d.text(WIDTH / 2, 375, "forward gradient: g = 1/k Σᵢ {tangent|(∇f·vᵢ) vᵢ}", "ink bold")
    d.text(WIDTH / 2, 400, "mean of slope × direction; its expectation is ∇f", "soft")
    return str(d)
