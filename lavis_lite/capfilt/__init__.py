"""CapFilt: caption the images of a crawl, and keep the texts that fit them (paper section 3.3).

`job.py` has the life of a crawl shard; `output_reader.py` the files of the output folder.
"""

STOPPED_NOTE = "; finished shards are kept, the same command continues"
