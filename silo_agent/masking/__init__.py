"""Confidential mode at the silo: what is kept secret, and what is said of it, step by step."""
