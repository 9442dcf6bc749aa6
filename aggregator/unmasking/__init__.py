"""Masked files and rebuilt seeds made into one adapter, which a merge takes as its only one."""
