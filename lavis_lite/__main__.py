"""``python -m lavis_lite`` is the `lavis-lite` command."""

from lavis_lite.cli import main

if __name__ == "__main__":
    main()
