"""A text with one of the classes that the contract names: the class is the answer, in words.

The model stays a causal one without a head of its own: the text is the user's turn and the class
the assistant's. The reader of the data has put the contract's word in the place of what the data
say (`sources.example_maker`).
"""

from collections.abc import Sequence

from data_contracts.dataset.examples import Example
from data_contracts.dataset.forms.form import Encoder, Form, Line, ToldT, text_in


class Classification(Form):
    """`{"text": ..., "label": ...}`."""

    name = "classification"
    words = "a text and its class, one of those that the contract names; loss on the class"
    empty_words = "text or class is empty"
    fields = ("text", "label")
    takes_classes = True

    def texts(self, example: Example) -> tuple[str, ...]:
        """The text and the class."""
        return example.text, example.label or ""

    def lengths(self, example: Example) -> tuple[int | None, int]:
        """Of the text and the class."""
        return len(example.text), len(example.label or "")

    def line(self, example: Example) -> Line:
        """The text and the class."""
        return {"text": example.text, "label": example.label}

    def read(self, line: Line) -> tuple[str, str]:
        """The text and the class."""
        return text_in(line, "text"), text_in(line, "label")

    def said(self, record: tuple[str, str]) -> tuple[str, ...]:
        """The text and the class."""
        return record

    def told(
        self, records: Sequence[tuple[str, str]], encoder: Encoder[ToldT]
    ) -> list[Sequence[ToldT]]:
        """One conversation each: the text asks, the class answers."""
        return encoder.exchanges(records)
