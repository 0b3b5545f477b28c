"""The lake: Delta tables, the streaming query and its sink, merging and maintenance; the layers streamed and merged."""
