"""What each learning rule does, in words, for a reader who then sees it happen."""

from __future__ import annotations

_HEAD = """A local head is a small linear layer beside the network, which reads #3. It has outputs
    and a loss of its own. """

_PAST_HEAD = """The hidden layer answers to the loss of its head alone, because nothing passes from
    the outputs back to it. """

IDEAS = {
    "bp": "Nothing is drawn. Reverse mode gives the gradient itself, as part 2 did.",
    "l-bp": _HEAD + "Reverse mode gives the gradient of the sum of both losses.",
    "lg-bp": _HEAD + _PAST_HEAD + "Reverse mode gives the gradient of each part's own loss.",
    "fa": """As in part 2 a cotangent goes back, but through a random matrix B in the place of the
        weights: c(#3) is c(#4) @ Bᵀ instead of c(#4) @ w2ᵀ. B is drawn once, and stays as it is.
        """,
    "l-fa": _HEAD
    + """A cotangent goes back from both losses, but through random matrices B in the place of the
        weights. B is drawn once, and stays as it is.""",
    "lg-fa": _HEAD
    + _PAST_HEAD
    + "What goes back goes through a random matrix B in the place of the head's weights.",
    "ffa": """As in part 2 a cotangent goes back, but through a matrix B in the place of the
        weights: c(#3) is c(#4) @ Bᵀ instead of c(#4) @ w2ᵀ. B starts at random. In each step it
        learns from a random direction of #3, along which the layer and B differ, and so it comes
        nearer to w2 in the course of many steps.""",
    "dfa": """The error e at the outputs is sent straight to the hidden layer, through a random
        matrix B: e @ B stands for c(#3). B is drawn once, and stays as it is.""",
    "dkp": """The error e at the outputs is sent straight to the hidden layer, through a matrix B:
        e @ B stands for c(#3). B starts at random, and learns as weights from #3 to the outputs
        would.""",
    "fdfa": """The error e at the outputs is sent straight to the hidden layer, through a matrix B:
        e @ B stands for c(#3). B learns from random directions u of #3, which go forward: how they
        move the outputs shows what B should be. B starts at zero, so that in this first step
        nothing arrives at the hidden layer.""",
    "fg-w": """A direction v of all parameters is drawn at random, and goes forward as in part 1.
        The slope along it is a single number d. The estimate of the gradient is d times v. Nothing
        goes back.""",
    "lg-fg-w": _HEAD
    + _PAST_HEAD
    + """A direction v of the hidden layer's parameters is drawn at random, and goes forward. d is
        the slope of the head's loss along it, and the estimate is d times v. The output layer and
        the head get their exact gradients.""",
    "wp": """A direction v of all parameters is drawn at random. The loss is evaluated here and at a
        small distance along v, and their difference, divided by the distance, is d. The estimate
        of the gradient is d times v. There are no tangents, and nothing goes back.""",
    "fg-a": """A direction u of #2, the values before tanh, is drawn at random, and goes forward
        from there. The slope along it is a single number d for the example. d times u stands for
        c(#2), and from it w1 and b1 get their gradients as in the last lines of part 2. w2 and b2
        get their exact ones. Nothing else goes back.""",
    "lg-fg-a": _HEAD
    + _PAST_HEAD
    + """A direction u of #2, the values before tanh, is drawn at random, and goes forward. d is the
        slope of the head's loss along it, and d times u stands for c(#2). The output layer and the
        head get their exact gradients.""",
    "ap": """A direction u of #2, the values before tanh, is drawn at random. The loss is evaluated
        here and after a small step along u, and their difference, divided by the size of the step,
        is d. d times u stands for c(#2). There are no tangents.""",
    "fg-a-cv": """A matrix B guesses c(#2) from the error e at the outputs. A random direction u of
        #2, the values before tanh, goes forward. What the slope d along it says beyond the guess
        corrects the guess. B learns from the same u. It starts at zero, so that the first guess is
        zero, and this first step is that of fg-a.""",
}
"""Rule → what it does on the network of the tour."""

PAGES = {
    "bp": "page 3",
    **dict.fromkeys(("fg-w", "wp"), "page 4"),
    **dict.fromkeys(("fg-a", "ap"), "page 5"),
    **dict.fromkeys(("fa", "ffa", "dfa", "dkp", "fdfa", "fg-a-cv"), "page 6"),
    **dict.fromkeys(("l-bp", "lg-bp", "l-fa", "lg-fa", "lg-fg-w", "lg-fg-a"), "page 7"),
}
"""Rule → which page of the tutorial is about it."""
