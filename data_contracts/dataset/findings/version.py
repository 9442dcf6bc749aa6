"""The version of what is looked for in a data set."""

FINDINGS_VERSION = 2
"""Raised whenever the same data would give other findings, so that no old outcome is used."""
