"""The arithmetic of masked sums: secrets, shares, pads and fixed point; no clock and no record.

After Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning"
(CCS). Every silo adds to its numbers a pad of its own and one for each other silo, which the other
subtracts; whoever has fewer than `threshold` silos' shares learns nothing but the sum. Reasons and
limits: docs/decisions/0042-masked-sums.md.
"""
