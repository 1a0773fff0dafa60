"""Configs: strict sections, layers, and what a run saves of them."""
