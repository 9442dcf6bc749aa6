"""What a form of record is: one module, from the contract's fields to token ids.

A form says which fields of a contract it needs, what of a record a model is shown (the detectors
look at the same), how a record lies in the files that training reads, and how it becomes
conversations. For the last it asks an `Encoder`, which knows the model's tokenizer and chat
template; this package knows neither.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from data_contracts.dataset.examples import Example, Message
from data_contracts.shown_text import is_blank

Line = Mapping[str, Any]
"""A record as a JSON object in a file of training records."""

ToldT = TypeVar("ToldT")


class LineRefusedError(Exception):
    """Why a line is no record of its form; quotes nothing from the data."""


class Encoder(Protocol[ToldT]):
    """Makes what a model is told, token ids with labels, of records.

    Of each record it gives one piece or several, in their order.
    """

    def exchanges(self, records: Sequence[tuple[str, str]]) -> list[Sequence[ToldT]]:
        """(question, answer) as one turn of the chat template, loss on the answer."""
        ...

    def conversations(self, records: Sequence[Sequence[Message]]) -> list[Sequence[ToldT]]:
        """Messages as the chat template renders them, loss on what the assistant says."""
        ...

    def documents(self, records: Sequence[str]) -> list[Sequence[ToldT]]:
        """Plain text without a template, loss on all of it."""
        ...

    def captions(self, records: Sequence[str]) -> list[Sequence[ToldT]]:
        """What is said of a picture, one piece each; raises DataStewardError where the model sees
        none."""
        ...


class Form(ABC):
    """One form of record.

    `fields` are those of a contract that hold it, all of which a record needs; `formats` are the
    formats of data that can (empty: every one but pictures). `has_prompt`: part of it carries no
    loss. `takes_classes`: the contract names the classes that its labels may have.
    `must_be_named_with`: fields beside which a contract has to name this form, because another one
    may be meant.
    """

    name: ClassVar[str]
    words: ClassVar[str]
    empty_words: ClassVar[str]
    fields: ClassVar[tuple[str, ...]]
    formats: ClassVar[frozenset[str]] = frozenset()
    has_prompt: ClassVar[bool] = True
    takes_classes: ClassVar[bool] = False
    needs_template: ClassVar[bool] = True
    must_be_named_with: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def texts(self, example: Example) -> tuple[str, ...]:
        """Every text of it that a model is shown, in the order in which it is."""

    @abstractmethod
    def lengths(self, example: Example) -> tuple[int | None, int]:
        """Characters of what carries no loss (None: nothing can), and of what does."""

    def identity(self, example: Example) -> tuple[str, ...]:
        """What two records have in common that are the same."""
        return self.texts(example)

    def is_empty(self, example: Example) -> bool:
        """Whether a text that it cannot do without says nothing."""
        return any(map(is_blank, self.texts(example)))

    @abstractmethod
    def line(self, example: Example) -> Line:
        """The record as a line of a file."""

    @abstractmethod
    def read(self, line: Line) -> Any:
        """The record in a line that has `fields`, as `told` takes it; raises LineRefusedError."""

    @abstractmethod
    def said(self, record: Any) -> tuple[str, ...]:
        """Every text of what `read` gives, as `texts` of what it was written from."""

    @abstractmethod
    def told(self, records: Sequence[Any], encoder: Encoder[ToldT]) -> list[Sequence[ToldT]]:
        """What a model is told of each of several records."""


def text_in(line: Line, name: str) -> str:
    """A text of a line that says something; raises LineRefusedError."""
    text = line[name]
    if not isinstance(text, str) or is_blank(text):
        raise LineRefusedError("an empty or non-text field")
    return text
