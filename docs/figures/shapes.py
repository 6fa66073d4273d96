"""The shapes of primals, tangents and rank-one factors: docs/figures/shapes.svg."""

from drawing import WIDTH, Drawing

COLUMNS = (215, 360, 510)
PRIMALS = {"()": (1, 1), "(4,)": (1, 4), "(4, 3)": (4, 3)}
"""Shape → the rows and columns of its sheet."""
TANGENTS = "(k,)", "(k, 4)", "(k, 4, 3)"
CELL = 14


def draw() -> str:
    """Return the picture."""
    d = Drawing(
        "The shapes of primals and tangents",
        "A number of shape () has k tangents of shape (k,), a vector of shape (4,) has tangents of"
        " shape (k, 4), and a matrix of shape (4, 3) has tangents of shape (k, 4, 3), a stack of k"
        " matrices.  As rank-one directions, these k matrices are outer products of a column and a"
        " row, and only the factors are kept, of shapes (k, 4) and (k, 3).",
        466,
    )
    title = "{primal|A primal of shape S} has {tangent|tangents of shape (k, *S)}"
    d.text(WIDTH / 2, 32, title, "ink bold")
    d.text(20, 106, "primal", "primal start")
    d.text(20, 128, "S", "primal start")
    d.text(20, 222, "k tangents", "tangent start")
    d.text(20, 244, "(k, *S)", "tangent start")
    for x, (name, sheet), stack in zip(COLUMNS, PRIMALS.items(), TANGENTS, strict=True):
        d.sheet(x, 105, sheet, "primal", CELL)
        d.text(x, 158, name, "primal")
        d.sheet(x, 225, sheet, "tangent", CELL, many=3)
        d.text(x, 284, stack, "tangent")

    d.line((20, 306), (WIDTH - 20, 306), look="soft dashed")
    d.text(20, 340, "Rank-one directions of a matrix are kept as their factors", "ink start")
    d.sheet(COLUMNS[0], 388, (4, 1), "tangent", CELL, many=3)
    d.text(COLUMNS[0] + 72, 394, "×")
    d.sheet(COLUMNS[1], 388, (1, 3), "tangent", CELL, many=3)
    d.text(COLUMNS[1] + 75, 394, "=")
    d.text(COLUMNS[2], 386, "k matrices,", "soft")
    d.text(COLUMNS[2], 408, "never made", "soft")
    d.text(20, 394, "vᵢ = aᵢ bᵢᵀ", "tangent start")
    d.text(20, 448, "shapes", "tangent start")
    d.text(COLUMNS[0], 448, "(k, 4)", "tangent")
    d.text(COLUMNS[1], 448, "(k, 3)", "tangent")
    d.text(COLUMNS[2], 448, "(k, 4, 3)", "soft")
    return str(d)
