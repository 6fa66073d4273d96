"""Runs that are crashed: at each file operation, at any moment, and beside one another."""
