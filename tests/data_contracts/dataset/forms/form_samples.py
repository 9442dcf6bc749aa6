"""The sample contract with records of each form, and what one record of each says."""

import json
from typing import Any

from tests.data_contracts.dataset.contract_samples import replaced, sample_record

PROMPT = "      - {name: prompt, logicalType: string}\n"
ANSWER = "      - {name: answer, logicalType: string}\n"
MESSAGES = "      - {name: messages, logicalType: array}\n"
TEXT = "      - {name: text, logicalType: string}\n"
LABEL = "      - {name: label, logicalType: string}\n"
TERMS = "customProperties:\n"

Message = dict[str, Any]


def form_contract(fields: str, *terms: str) -> str:
    """The sample contract with these fields in the place of prompt and answer, and these terms."""
    stated = "".join(f"  - {term}\n" for term in terms)
    return replaced((PROMPT + ANSWER, fields), (TERMS, TERMS + stated))


CHAT = form_contract(MESSAGES)
PLAIN = form_contract(TEXT)
CLASSES = form_contract(
    TEXT + LABEL, "{property: fl.classes, value: {'0': discharged, '1': admitted}}"
)


def turns(*said: str, system: str | None = None) -> list[Message]:
    """A conversation in which user and assistant speak by turns."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(said)]
    return messages if system is None else [{"role": "system", "content": system}, *messages]


def record(number: int, **content: Any) -> dict[str, Any]:
    """A good record with this content, in whatever fields."""
    return {**sample_record(number, prompt=None, answer=None), **content}


def chat_record(number: int, **changes: Any) -> dict[str, Any]:
    """A conversation of two exchanges."""
    said = (f"What is number {number}?", f"It is {number}.", "And twice?", f"It is {2 * number}.")
    return record(number, **{"messages": turns(*said), **changes})


def as_json_text(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows with their messages as JSON text, for what has no lists."""
    return [{**row, "messages": json.dumps(row["messages"])} for row in rows]
