"""Merge weights that a minority of bad silos cannot move far, computed on inner products.

Order: `clipping`, `mixing`, then one rule (`geometric_median`, `centred_clipping`, `krum`), put
together in `robust_weights`. `by_coordinates` is for factors that all silos share.
"""
