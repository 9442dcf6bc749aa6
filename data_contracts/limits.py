"""Largest values of what records count, for those who ask before a record is made of them."""

MAX_COUNT = 2**53 - 1
"""What every JSON library reads exactly."""
MAX_ROUND = 9999
MAX_ROOT_KEYS = 16
HIGHEST_PORT = 65_535
