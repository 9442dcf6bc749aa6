"""What stands behind a published adapter: rounds, silos, their contracts, the base model."""
