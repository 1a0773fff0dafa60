"""Image-text pairs in tar shards, in the layout of webdataset."""

import os

# webdataset reads this on import: it then neither unpickles the contents of a shard nor runs commands.
os.environ.setdefault("WDS_SECURE", "1")
