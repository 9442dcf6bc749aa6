"""From records to the tokens of causal models: what each form asks for, with one tokenizer.

What a form does not need is not made, so a
model without a chat template can be told plain text.
"""

from collections.abc import Sequence
from functools import cached_property

from data_contracts.dataset.examples import Message
from silo_agent.training.ranks.chat_turns import ChatTurns
from silo_agent.training.ranks.conversation import (
    ChatTokenizer,
    Conversations,
    template_of,
)
from silo_agent.training.ranks.families.family import FamilyEncoder, Told
from silo_agent.training.ranks.plain_text import Documents
from silo_agent.training.ranks.record_text import RecordText


class ToldRecords(FamilyEncoder):
    """With one tokenizer, as on `day`; documents are cut into pieces of `room` tokens, and end
    with `named_end` where the tokenizer names no end."""

    family = "causal-lm"

    def __init__(
        self, tokenizer: ChatTokenizer, day: str, room: int, named_end: int | None = None
    ) -> None:
        self._tokenizer, self._day, self._room = tokenizer, day, room
        self._named_end = named_end

    def exchanges(self, records: Sequence[tuple[str, str]]) -> list[Told]:
        """One turn each."""
        return [(made,) for made in self._exchanges.of_many(records)]

    def conversations(self, records: Sequence[Sequence[Message]]) -> list[Told]:
        """Any turns."""
        return self._turns.of_many(records)

    def documents(self, records: Sequence[str]) -> list[Told]:
        """Without a template."""
        return self._documents.of_many(records)

    @cached_property
    def _exchanges(self) -> Conversations:
        return Conversations(self._tokenizer, self._day)

    @cached_property
    def _turns(self) -> ChatTurns:
        return ChatTurns(template_of(self._tokenizer, self._day), RecordText(self._tokenizer))

    @cached_property
    def _documents(self) -> Documents:
        text = RecordText(self._tokenizer)
        return Documents(self._tokenizer, text, self._room, self._named_end)
