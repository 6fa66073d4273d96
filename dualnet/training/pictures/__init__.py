"""Pictures of runs: a module for each kind, and `drawing` for what they have in common."""
