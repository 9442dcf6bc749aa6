"""Rounds without training: silos return adapters that they hold in memory."""
