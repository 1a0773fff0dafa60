"""Image search: an index of features, and ranking in two stages."""
