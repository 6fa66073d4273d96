"""The training loop, run folders and curves."""
