"""Random directions: of weights, of activities, of each example, and what is done with them."""
