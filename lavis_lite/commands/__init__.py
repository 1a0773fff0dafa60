"""The verbs of the `lavis-lite` command, one file each."""
