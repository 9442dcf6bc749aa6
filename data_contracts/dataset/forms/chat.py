"""A conversation of any number of turns: rendered by the model's chat template, loss on everything
that the assistant says."""

import json
from collections.abc import Sequence
from typing import Any

from data_contracts.dataset.examples import Example, Message
from data_contracts.dataset.forms.chat_message import ROLES, said_in
from data_contracts.dataset.forms.form import (
    Encoder,
    Form,
    Line,
    LineRefusedError,
    ToldT,
)
from data_contracts.protocol.strict_json import distinct_names
from data_contracts.shown_text import is_blank

MAX_MESSAGES = 1000
"""A template renders the beginning of a conversation once for each of its turns."""


class Chat(Form):
    """`{"messages": [{"role": ..., "content": ...}, ...]}`."""

    name = "chat"
    words = "a conversation of any number of turns; loss on what the assistant says"
    empty_words = "a turn of the user or the assistant is empty"
    fields = ("messages",)

    def texts(self, example: Example) -> tuple[str, ...]:
        """Every turn."""
        return tuple(message.content for message in example.messages)

    def identity(self, example: Example) -> tuple[str, ...]:
        """Who says what."""
        return tuple(part for message in example.messages for part in message)

    def lengths(self, example: Example) -> tuple[int | None, int]:
        """Of what others say, and of what the assistant does."""
        said = [len(m.content) for m in example.messages if m.role == "assistant"]
        return sum(len(m.content) for m in example.messages) - sum(said), sum(said)

    def is_empty(self, example: Example) -> bool:
        """An empty system message is one: a template may have a text of its own without it."""
        return _has_empty_turn(example.messages)

    def line(self, example: Example) -> Line:
        """Every turn."""
        return {"messages": [message._asdict() for message in example.messages]}

    def read(self, line: Line) -> tuple[Message, ...]:
        """Every turn."""
        messages = messages_of(line["messages"])
        if _has_empty_turn(messages):
            raise LineRefusedError("an empty turn")
        return messages

    def said(self, record: Sequence[Message]) -> tuple[str, ...]:
        """What is said in each turn."""
        return tuple(message.content for message in record)

    def told(
        self, records: Sequence[Sequence[Message]], encoder: Encoder[ToldT]
    ) -> list[Sequence[ToldT]]:
        """One conversation each, or one for each answer where the template wants it."""
        return encoder.conversations(records)


def messages_of(value: Any) -> tuple[Message, ...]:
    """The messages of a list, or of such a list as JSON text.

    Raises LineRefusedError for what is no conversation that can be trained on: nothing of it is
    left out, because the rest may answer it.
    """
    listed = _parsed(value) if isinstance(value, str) else value
    if not isinstance(listed, list):
        raise LineRefusedError("is no list of messages")
    if len(listed) > MAX_MESSAGES:
        raise LineRefusedError(f"has more than {MAX_MESSAGES:,} messages")
    messages = tuple(map(_message, listed))
    roles = [message.role for message in messages]
    if "system" in roles[1:]:
        raise LineRefusedError("has a system message that is not the first")
    for role in ("assistant", "user"):
        if role not in roles:
            raise LineRefusedError(f"has no turn of the {role}")
    if roles[-1] != "assistant":
        raise LineRefusedError("ends with a turn of the user")
    return messages


def _message(message: Any) -> Message:
    role, content = said_in(message)
    if role not in ROLES:
        raise LineRefusedError("has a message of a role other than system, user, assistant")
    if not isinstance(content, str):
        raise LineRefusedError("has a message whose content is not text")
    return Message(ROLES[role], content)


def _has_empty_turn(messages: Sequence[Message]) -> bool:
    return any(is_blank(m.content) for m in messages if m.role != "system")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=distinct_names)
    except (ValueError, RecursionError):
        raise LineRefusedError("is no list of messages") from None
