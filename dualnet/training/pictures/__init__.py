"""Pictures of runs: a module for each kind, and `figures` for what they have in common."""
