"""Plain text: no template, no prompt, loss on every token that has something before it."""

from collections.abc import Sequence

from data_contracts.dataset.examples import Example
from data_contracts.dataset.forms.form import Encoder, Form, Line, ToldT, text_in


class PlainText(Form):
    """`{"text": ...}`. A label beside it serves the contract's rules and is not trained on."""

    name = "text"
    words = "plain text without a chat template; loss on all of it"
    empty_words = "the text is empty"
    fields = ("text",)
    has_prompt = False
    needs_template = False
    must_be_named_with = frozenset({"label"})

    def texts(self, example: Example) -> tuple[str, ...]:
        """The text."""
        return (example.text,)

    def lengths(self, example: Example) -> tuple[int | None, int]:
        """All of it carries loss."""
        return None, len(example.text)

    def line(self, example: Example) -> Line:
        """The text."""
        return {"text": example.text}

    def read(self, line: Line) -> str:
        """The text."""
        return text_in(line, "text")

    def said(self, record: str) -> tuple[str, ...]:
        """The text."""
        return (record,)

    def told(self, records: Sequence[str], encoder: Encoder[ToldT]) -> list[Sequence[ToldT]]:
        """A document each, in pieces where it is longer than a sequence."""
        return encoder.documents(records)
