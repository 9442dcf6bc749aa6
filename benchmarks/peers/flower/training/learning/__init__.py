"""Rounds of one silo that trains."""
