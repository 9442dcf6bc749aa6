"""Other systems that average adapters, measured side by side with ours in `make bench-merge`."""
