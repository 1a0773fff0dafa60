"""The cache folder, and downloads into it."""
