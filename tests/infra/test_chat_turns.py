"""Where turns begin and end in what templates like those of well-known models render."""

from typing import Any

import pytest

from data_contracts.errors import DataStewardError
from infra.base_model.chat_template import ChatTemplate, Told, on_day

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
ALTERNATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "a default system message": (
        "{% if messages[0]['role'] != 'system' %}<|system|>You help.<|end|>{% endif %}"
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "no generation prompt": (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] "
        "{{ m['content'] }} [/INST]{% else %}{{ m['content'] }}{{ eos_token }}{% endif %}"
        "{% endfor %}"
    ),
    "trims, alternates, no system": (
        "{{ bos_token }}" + NO_SYSTEM + ALTERNATE + "{% for m in messages %}<start_of_turn>"
        "{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}"
        "<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    "thinks in the last answer only": (
        "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' and loop.last %}"
        "<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "the system message moves to the last question": (
        "{% for m in messages if m['role'] != 'system' %}[{{ m['role'] }}]{% if m['role'] == 'user'"
        " and messages[0]['role'] == 'system' and (loop.last or loop.revindex == 2) %}"
        "{{ messages[0]['content'] }}\n{% endif %}{{ m['content'] }}[/]{% endfor %}"
    ),
    "an end behind the last answer only": (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}"
    ),
}
STABLE = tuple(TEMPLATES)[:4]


def talk(*said: str, system: str = "") -> list[dict[str, str]]:
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    return [*([{"role": "system", "content": system}] if system else []), *turns]


def told(name: str, messages: list[dict[str, str]]) -> Told:
    return ChatTemplate(TEMPLATES[name], TOKENS, on_day("2026-01-01")).told(messages)


def rendered(name: str, messages: list[dict[str, str]], **options: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, _ = render_jinja_template([messages], chat_template=TEMPLATES[name], **TOKENS, **options)
    text: str = texts[0]
    return text


@pytest.mark.parametrize("name", STABLE)
def test_turns_one_after_the_other_are_the_whole(name: str) -> None:
    messages = talk("q", "a", "q", "a", " x ", "y")
    found = told(name, messages)
    assert not found.apart
    assert "".join(turn.before + turn.answer for turn in found.turns) == rendered(name, messages)
    for turn, message in zip(found.turns, messages[1::2], strict=True):
        assert turn.answer.startswith(message["content"]) and len(turn.answer) > 1
    assert all(turn.before for turn in found.turns)


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - set(STABLE)))
def test_a_template_that_changes_what_came_before_tells_answers_apart(name: str) -> None:
    messages = talk("q", "a", "r", "b", system="" if "end" in name else "Be brief.")
    found = told(name, messages)
    assert found.apart
    answers = [place for place, m in enumerate(messages) if m["role"] == "assistant"]
    for turn, place in zip(found.turns, answers, strict=True):
        assert turn.before + turn.answer == rendered(name, messages[: place + 1])
    assert not told(name, messages[: answers[0] + 1]).apart, "of one turn nothing can change"


@pytest.mark.parametrize(
    "messages",
    [
        talk("q", "a", system="s"),
        [*talk("q"), *talk("q", "a")],
        [*talk("q", "a"), {"role": "assistant", "content": "b"}],
        [{"role": "assistant", "content": "Hello"}, *talk("q", "a")],
    ],
)
def test_what_a_template_refuses_is_a_fault_of_it(messages: list[dict[str, str]]) -> None:
    with pytest.raises(DataStewardError, match="it raises TemplateError"):
        told("trims, alternates, no system", messages)
    assert len(told("chatml", messages).turns) == sum(m["role"] == "assistant" for m in messages)


def test_a_greeting_is_learned_where_a_template_can_begin_with_nothing() -> None:
    messages = [{"role": "assistant", "content": "Hello"}, *talk("q", "a")]
    learned = [turn.answer for turn in told("chatml", messages).turns]
    assert learned == ["Hello<|im_end|>\n", "a<|im_end|>\n"]
    (turn,) = told("a default system message", messages).turns
    assert turn.answer == "a<|end|>"
    assert turn.before + turn.answer == rendered("a default system message", messages)


def test_a_template_without_a_border_is_refused() -> None:
    counting = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(DataStewardError, match="no border can be found"):
        ChatTemplate(counting, {}, on_day("2026-01-01")).told(talk("q", "a", "r", "b"))
