"""A picture with its caption. Contracts over such pairs are checked; this version does not train
on them."""

from collections.abc import Sequence
from typing import NoReturn

from data_contracts.dataset.examples import Example
from data_contracts.dataset.forms.form import Encoder, Form, Line, LineRefusedError, ToldT
from data_contracts.shown_text import is_blank


class ImageText(Form):
    """A folder of pictures; the caption is `answer`."""

    name = "image-text"
    words = "a picture with its caption; checked, and not trained on by this version"
    empty_words = "question or answer is empty"
    fields = ("image", "answer")
    formats = frozenset({"image-text"})
    is_trained = False

    def texts(self, example: Example) -> tuple[str, ...]:
        """The caption is the answer to nothing."""
        return "", example.answer

    def lengths(self, example: Example) -> tuple[int | None, int]:
        """Of the caption."""
        return 0, len(example.answer)

    def is_empty(self, example: Example) -> bool:
        """Whether there is no caption."""
        return is_blank(example.answer)

    def line(self, example: Example) -> NoReturn:
        """There are no training records of this form."""
        raise NotImplementedError(self.name)

    def read(self, line: Line) -> NoReturn:
        """There are no training records of this form."""
        raise LineRefusedError(f"a picture among {len(line)} fields")

    def told(self, records: Sequence[object], encoder: Encoder[ToldT]) -> list[Sequence[ToldT]]:
        """There are no training records of this form."""
        raise NotImplementedError(self.name)
