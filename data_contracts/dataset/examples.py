"""What a data set is made of, whatever its format: examples, and rows that are not examples.

A row that is not an example becomes an `UnreadableRow` with a reason and never an exception, so one
bad row cannot stop a check or hide the rows after it. The readers are in `sources`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

MAX_EXAMPLE_BYTES = 1024 * 1024
"""Bytes of UTF-8 that one example may have; for JSONL and CSV as they stand in the file."""


class Message(NamedTuple):
    """One turn of a conversation; `role` is "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One example as the data states it; a missing licence reads as NOASSERTION.

    `row` counts from 1 over the whole set. What is None is not stated by the data. `split` is
    "train" or "heldout". What a record says is in the fields of its form (`forms`); those of
    others are empty. Of an image-text pair the caption is `answer` and `prompt` is empty;
    `image` is a file inside the set's folder, `image_sha256` the digest of its bytes once they
    were checked; `similarity`, `punsafe` and `pwatermark` are LAION's scores, finite but otherwise
    as stated. `robots`, `noai`, `noimageai` and `exif` are what a site or a file said of training
    when it was collected.
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
    image_sha256: str | None = None
    nsfw: str | None = None
    similarity: float | None = None
    punsafe: float | None = None
    pwatermark: float | None = None
    messages: tuple[Message, ...] = ()
    text: str = ""
    robots: str | None = None
    noai: bool | None = None
    noimageai: bool | None = None
    exif: str | None = None

    @property
    def characters(self) -> int:
        """Characters of all its texts."""
        said = sum(len(message.content) for message in self.messages)
        return len(self.prompt) + len(self.answer) + len(self.text) + said


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row (counts from 1) that is not an example. `reason` quotes nothing from the data."""

    row: int
    reason: str
