"""Training: settings, the loop, objectives, recipes, run folders, and the comparison of runs.

Read `settings` first, then `state`, `objective` and `loop`; `run` puts them together.
"""
