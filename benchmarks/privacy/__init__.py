"""What confidential rounds cost: `make bench-privacy`."""
