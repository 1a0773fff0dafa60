"""Sources of weights and vocabularies, and models built by name."""
