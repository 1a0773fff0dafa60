"""`python evaluate.py --cfg-path FILE [--options KEY=VALUE ...] [--import MODULE ...]`."""

from lavis_lite.cli import main

if __name__ == "__main__":
    main("evaluate")
