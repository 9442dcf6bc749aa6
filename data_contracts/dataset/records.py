"""What a data set is made of, whatever its format: records, and rows that are not records.

A row that is not a record becomes an `UnreadableRow` with a reason and never an exception, so one
bad row cannot stop a check or hide the rows after it. The readers are in `sources`.
"""

from dataclasses import dataclass
from pathlib import Path

MAX_RECORD_BYTES = 1024 * 1024
"""Bytes of UTF-8 that one record may have; for JSONL and CSV as they stand in the file."""


@dataclass(frozen=True, slots=True)
class DataRecord:
    """One record as the data states it; a missing licence reads as NOASSERTION.

    `row` counts from 1 over the whole set. What is None is not stated by the data. `split` is
    "train" or "heldout". Of an image-text pair the caption is `answer` and `prompt` is empty;
    `image` is a file inside the set's folder; `similarity`, `punsafe` and `pwatermark` are
    LAION's scores, finite but otherwise as stated.
    """

    row: int
    id: str
    subject: str
    prompt: str
    answer: str
    licence: str
    source: str
    split: str | None = None
    label: str | None = None
    consent: bool | None = None
    synthetic: bool | None = None
    tdm_reservation: str | None = None
    tdm_policy: str | None = None
    tdm_checked_at: str | None = None
    language: str | None = None
    image: Path | None = None
    nsfw: str | None = None
    similarity: float | None = None
    punsafe: float | None = None
    pwatermark: float | None = None


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row (counts from 1) that is not a record. `reason` quotes nothing from the data."""

    row: int
    reason: str
