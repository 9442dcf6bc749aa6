"""Compression of the local adapter with error feedback; see `error_feedback`."""
