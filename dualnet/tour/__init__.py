"""The tour: a function and a direction, every hop printed; `python -m dualnet.tour`.

watch      lists the calls of a function of the engine, while the engine runs
shown      a tangent that holds its numbers, and also records how they came about
hops       what the calls and the tangents say together: one hop for each function
layout     how numbers and sentences are put on lines of a given width
notation   how a hop, a linear map and its transpose are written
subject    what a tour is of
example    the network that is shown unless the reader names a function
own        the reader's own function
passes     the forward and the backward part of the tour
ideas      what each learning rule does, in words
facts      what a rule drew and found in one step, taken from its own calls
step       the last part: one step of a learning rule
"""
