"""A prompt and its answer: one turn of the chat template, loss on the answer and its end."""

from collections.abc import Sequence

from data_contracts.dataset.examples import Example
from data_contracts.dataset.forms.form import Encoder, Form, Line, ToldT, text_in


class Instruction(Form):
    """`{"prompt": ..., "answer": ...}`; a contract's two fields may name one column of two
    messages."""

    name = "instruction"
    words = "a prompt and its answer; loss on the answer"
    empty_words = "question or answer is empty"
    fields = ("prompt", "answer")

    def texts(self, example: Example) -> tuple[str, ...]:
        """Prompt and answer."""
        return example.prompt, example.answer

    def lengths(self, example: Example) -> tuple[int | None, int]:
        """Of prompt and answer."""
        return len(example.prompt), len(example.answer)

    def line(self, example: Example) -> Line:
        """Both texts."""
        return {"prompt": example.prompt, "answer": example.answer}

    def read(self, line: Line) -> tuple[str, str]:
        """Both texts."""
        return text_in(line, "prompt"), text_in(line, "answer")

    def said(self, record: tuple[str, str]) -> tuple[str, ...]:
        """Both texts."""
        return record

    def told(
        self, records: Sequence[tuple[str, str]], encoder: Encoder[ToldT]
    ) -> list[Sequence[ToldT]]:
        """One conversation each."""
        return encoder.exchanges(records)
