"""What the `lavis-lite` command does, one file a verb."""
