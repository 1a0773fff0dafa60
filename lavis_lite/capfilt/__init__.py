"""CapFilt: caption the images of a crawl, and keep the texts that fit them (paper section 3.3)."""
