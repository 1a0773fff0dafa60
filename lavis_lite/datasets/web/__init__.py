"""Image-text pairs in tar shards, as crawls of the web are kept (the layout of webdataset)."""

import os

# Read when webdataset is imported: it will then neither unpickle what a shard holds nor run commands.
os.environ.setdefault("WDS_SECURE", "1")
