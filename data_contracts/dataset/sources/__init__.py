"""Streaming readers of data sets: one module per format, `reading.read_source` in front."""
