"""Log lines, metrics and progress of a run."""
