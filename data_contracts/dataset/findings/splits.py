"""Which split a record is in when the data do not say: by subject, so none is in both."""

import hashlib
from typing import Literal

HELD_OUT_ONE_IN = 5
"""Held-out share: one subject in five."""

Split = Literal["train", "heldout"]


def split_of(subject: str) -> Split:
    """By SHA-256 of the subject, so it never moves between rounds."""
    first = hashlib.sha256(subject.encode("utf-8", "surrogatepass")).digest()[:8]
    return "heldout" if int.from_bytes(first) % HELD_OUT_ONE_IN == 0 else "train"
