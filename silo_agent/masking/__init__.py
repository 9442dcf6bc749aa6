"""What a silo sends in a confidential round in place of its adapter; see `masked_adapter`."""
