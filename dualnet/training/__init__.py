"""Training: settings, the loop, objectives, recipes and run folders.

Read `settings` first, then `state`, `objective` and `loop`; `run` puts them together.
"""
