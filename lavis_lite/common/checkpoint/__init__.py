"""Checkpoint files, and the weights in them."""
