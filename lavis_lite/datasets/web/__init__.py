"""Image-text pairs in tar shards, as crawls of the web are kept (the layout of webdataset)."""
