"""A conversation in one column for prompt and answer: what it must be to be one question and one
answer.

It is plain where a user says one thing and an assistant answers; anything else (a system message,
several turns, parts that are not text) is not cut down to that, because what is left out may be
what the answer rests on.
"""

import json
from collections.abc import Sequence
from typing import Any

from data_contracts.dataset.forms.chat_message import ROLES, said_in
from data_contracts.dataset.forms.form import LineRefusedError
from data_contracts.dataset.sources.columns import Column
from data_contracts.dataset.sources.field_values import ValueRefusedError
from data_contracts.protocol.strict_json import distinct_names

_EXPECTED = (
    "is no conversation of one user's text and one assistant's; "
    "mapped to messages it may have more turns"
)


def chat_places(columns: Sequence[Column]) -> tuple[int, int] | None:
    """Positions of prompt and answer where both come from one column; else None."""
    place = {column.field: position for position, column in enumerate(columns)}
    if "prompt" not in place or "answer" not in place:
        return None
    asked, answered = place["prompt"], place["answer"]
    return (asked, answered) if columns[asked].name == columns[answered].name else None


def conversation_fields(columns: Sequence[Column]) -> frozenset[str]:
    """The fields that take a list of messages."""
    exchange = {"prompt", "answer"} if chat_places(columns) is not None else set()
    return frozenset({"messages", *exchange})


def question_and_answer(value: Any) -> tuple[Any, Any]:
    """Of a list of messages, or of such a list as JSON text; raises ValueRefusedError."""
    messages = _parsed(value) if isinstance(value, str) else value
    if not isinstance(messages, list) or len(messages) != 2:
        raise ValueRefusedError(_EXPECTED)
    (asker, question), (answerer, answer) = map(_said, messages)
    if (ROLES.get(asker), ROLES.get(answerer)) != ("user", "assistant"):
        raise ValueRefusedError(_EXPECTED)
    return question, answer


def _said(message: Any) -> tuple[str, str]:
    """Who says what."""
    try:
        role, said = said_in(message)
    except LineRefusedError as refused:
        raise ValueRefusedError(f"{_EXPECTED} ({refused})") from None
    if not isinstance(said, str):
        raise ValueRefusedError(_EXPECTED)
    return role, said


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=distinct_names)
    except (ValueError, RecursionError):
        raise ValueRefusedError(_EXPECTED) from None
