"""Where weights and vocabularies come from, and models built by name."""
