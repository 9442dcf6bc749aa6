"""A picture with its caption: what models that see pictures are trained on.

A line names the file by its whole path and the SHA-256 of the bytes that the check looked at, so
that training opens those and no others (`pictures.training_picture`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_contracts.dataset.examples import Example
from data_contracts.dataset.forms.form import (
    Encoder,
    Form,
    Line,
    LineRefusedError,
    ToldT,
    text_in,
)
from data_contracts.shown_text import is_blank

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class CaptionedPicture:
    """The file at `path`, whose bytes have the digest `sha256`, and its caption."""

    path: Path
    sha256: str
    caption: str


class ImageText(Form):
    """`{"image": ..., "sha256": ..., "answer": ...}`; of a contract's fields the caption is
    `answer`."""

    name = "image-text"
    words = "a picture with its caption; for models that see pictures"
    empty_words = "the caption is empty"
    fields = ("image", "answer")
    formats = frozenset({"image-text"})
    needs_template = False

    def texts(self, example: Example) -> tuple[str, ...]:
        """The caption is the answer to nothing."""
        return "", example.answer

    def identity(self, example: Example) -> tuple[str, ...]:
        """The picture with its caption: many pictures may have one caption, and one many."""
        return example.image_sha256 or "", example.answer

    def lengths(self, example: Example) -> tuple[int | None, int]:
        """Of the caption."""
        return 0, len(example.answer)

    def is_empty(self, example: Example) -> bool:
        """Whether there is no caption."""
        return is_blank(example.answer)

    def line(self, example: Example) -> Line:
        """The file, what was checked of it, and the caption."""
        if example.image is None or example.image_sha256 is None:
            raise ValueError("expected a picture that was checked")
        return {
            "image": str(example.image),
            "sha256": example.image_sha256,
            "answer": example.answer,
        }

    def read(self, line: Line) -> CaptionedPicture:
        """The file, its digest and the caption."""
        path, digest = text_in(line, "image"), line.get("sha256")
        if not path.startswith("/") or "\0" in path:
            raise LineRefusedError("a picture without its whole path")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise LineRefusedError("a picture without the SHA-256 of what was checked")
        return CaptionedPicture(Path(path), digest, text_in(line, "answer"))

    def said(self, record: CaptionedPicture) -> tuple[str, ...]:
        """The caption."""
        return (record.caption,)

    def told(
        self, records: Sequence[CaptionedPicture], encoder: Encoder[ToldT]
    ) -> list[Sequence[ToldT]]:
        """The captions; what is made of the pictures is for who reads them."""
        return encoder.captions([record.caption for record in records])
