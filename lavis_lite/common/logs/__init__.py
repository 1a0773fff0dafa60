"""What a run says: log lines, metrics, progress."""
