"""What a conversation is, and what is none: nothing of it is cut away to make it one."""

import json
from typing import Any

import pytest

from data_contracts.dataset.forms.chat import MAX_MESSAGES, messages_of
from data_contracts.dataset.forms.form import LineRefusedError
from tests.data_contracts.dataset.forms.form_samples import turns


@pytest.mark.parametrize(
    "messages",
    [
        turns("q", "a"),
        turns("q", "a", "q", "a", system="be brief"),
        turns("q", "a", system=""),
        [*turns("q", "a"), {"role": "assistant", "content": "b"}],
        [{"role": "assistant", "content": "Hello"}, *turns("q", "a")],
        turns(*["x", "y"] * (MAX_MESSAGES // 2)),
        [dict(message, tool_calls=None, weight=1, lang="en") for message in turns("q", "a")],
        [dict(message, name="ann", id=7, created_at="2026-03-01") for message in turns("q", "a")],
        [dict(message, images=[], audio={"url": None}, thought=" ") for message in turns("q", "a")],
        [dict(message, weight=float("nan"), tags=["x", "y"]) for message in turns("q", "a")],
        [dict(turns("q")[0], train=False, weight=0, mask=True), *turns("q", "a")[1:]],
        [*turns("q", "a", system="s")[:2], dict(turns("q", "a")[1], mask=0, learn="yes", loss=1.0)],
        [dict(turns("", "", system="s")[0], weight=0, trainable=False), *turns("q", "a")],
    ],
)
def test_any_turns_that_end_with_the_assistant(messages: Any) -> None:
    expected = [(message["role"], message["content"]) for message in messages]
    assert list(messages_of(messages)) == expected
    assert list(messages_of(json.dumps(messages))) == expected


def test_other_names_of_roles_and_keys() -> None:
    shared = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert messages_of(shared) == messages_of(turns("q", "a"))


REFUSED: dict[str, list[Any]] = {
    "no list of messages": [7, None, "not JSON", '{"role": 1}', {"role": "user"}, True, "[[[["],
    "no object": [["q", "a"], [None], [[]]],
    "no turn of the assistant": [[], turns("q"), turns("q", system="s")[:1]],
    "no turn of the user": [turns("q", "a", system="s")[::2]],
    "ends with a turn of the user": [turns("q", "a", "q")],
    "system message that is not the first": [
        [*turns("q", "a"), {"role": "system", "content": "s"}, *turns("q", "a")],
        [*turns("q", "a", system="s")[:1], *turns("q", "a", system="s")],
    ],
    "role other than": [
        [*turns("q", "a"), {"role": role, "content": "x"}, *turns("q", "a")]
        for role in ("tool", "Assistant", "developer", "", "function")
    ],
    "without role and content": [[{}], [{"role": 1, "content": "x"}], [{"content": "x"}]],
    "content is not text": [
        [{"role": "user", "content": content}, *turns("q", "a")[1:]]
        for content in (None, 3, ["q"], [{"type": "image"}], [{"type": "text", "text": "q"}])
    ],
    "tool calls, or with more than its text": [
        [dict(message, **{key: ["x"]}) for message in turns("q", "a")]
        for key in ("tool_calls", "function_call", "reasoning_content", "images")
    ]
    + [
        [turns("q")[0], dict(turns("q", "a")[1], **{key: value})]
        for key, value in {
            "tool_call": {"name": "f"},
            "attachments": [{"url": "x"}],
            "image_url": "x",
            "thought": "x",
            "reasoning_details": [{"text": "x"}],
            "refusal": "no",
            "channel": "analysis",
            "value": "another text",
            "from": "human",
            "unheard_of": False,
            "parts": [[{"text": "x"}]],
            "name": {"audio": "x"},
            "tags": [{"audio": "x"}],
        }.items()
    ],
    "not to be learned": [
        [dict(message, **{key: value}) for message in turns("q", "a")]
        for key, value in (("weight", 0), ("train", False), ("loss", 0.0))
    ]
    + [
        [turns("q")[0], dict(turns("q", "a")[1], **{key: value})]
        for key, value in (
            *(("weight", "0"), ("weight", 0.5), ("trainable", False), ("learn", "no")),
            *(("mask", True), ("ignore", 1)),
        )
    ],
    "more than 1,000 messages": [turns(*["x", "y"] * 5000)],
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_conversation_has_a_reason(reason: str) -> None:
    for messages in REFUSED[reason]:
        with pytest.raises(LineRefusedError, match=reason):
            messages_of(messages)


def test_both_names_of_a_role_may_say_the_same() -> None:
    both = [
        {"from": name, "role": role, "value": text, "content": None}
        for name, role, text in (("human", "user", "q"), ("gpt", "assistant", "a"))
    ]
    assert messages_of(both) == messages_of(turns("q", "a"))


def test_a_name_twice_is_no_message() -> None:
    twice = '[{"role": "user", "role": "system", "content": "q"}]'
    with pytest.raises(LineRefusedError, match="no list of messages"):
        messages_of(twice)
