"""Images and videos from files of unknown origin."""
