"""What a template leaves out, what cannot be told, and what that costs: nothing silently."""

import json
import logging
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_contracts.dataset.examples import Message
from data_contracts.errors import DataStewardError
from infra.base_model.chat_template import ChatTemplate, TooLongApartError, on_day
from infra.base_model.tokenizer_files import template_notes
from silo_agent.steps.train import _tell_packing
from silo_agent.training.ranks.base_model import load_tokenizer
from silo_agent.training.ranks.packing import PackingRule, pack_training
from silo_agent.training.ranks.record_text import marks_for
from tests.model_folders import set_template
from tests.silo_agent.training.test_told_records import (
    DAY,
    FORGETFUL,
    TALKS,
    rendered,
    talk,
    told,
)
from tests.silo_agent.training.tiny_jobs import TinySilo, shard_of
from tests.tiny_model import CHAT_TEMPLATE, SENTENCES

EVERY_MARK = "".join(map(chr, range(0xE000, 0xF8FF, 2)))

TURN = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
ASKS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
DROPS: dict[str, tuple[str, Any, Any]] = {
    "a system message": (
        "{% for m in messages %}{% if m['role'] != 'system' %}" + TURN + "{% endif %}{% endfor %}",
        talk("q", "a", system="Answer in French."),
        talk("q", "a"),
    ),
    "a long past": (
        "{% for m in messages[-4:] %}" + TURN + "{% endfor %}",
        talk("q", "a", "r", "b", "s", "c"),
        talk("q", "a"),
    ),
    "the first of two questions": (
        "{% for m in messages %}{% if loop.last or m['role'] != messages[loop.index]['role'] %}"
        + TURN
        + "{% endif %}{% endfor %}",
        (Message("user", "q"), *talk("r", "a")),
        talk("q", "a", "r", "b", system="s"),
    ),
    "a greeting": (
        "{% for m in messages %}{% if not (loop.first and m['role'] == 'assistant') %}"
        + TURN
        + "{% endif %}{% endfor %}",
        (Message("assistant", "Hello"), *talk("q", "a")),
        talk("q", "a"),
    ),
}


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model)


@pytest.mark.parametrize("what", DROPS)
def test_a_conversation_of_which_a_template_leaves_a_turn_out_is_left_out(
    tokenizer: Any, what: str
) -> None:
    template, dropped, kept = DROPS[what]
    tokenizer.chat_template = template + ASKS
    first, second = told(tokenizer, "chat", dropped, kept)
    assert [each.refused for each in first] in (["template"], ["border"])
    assert second[0].refused is None
    assert tokenizer.decode(second[0].token_ids) == rendered(tokenizer, kept)


def test_an_empty_system_message_has_nothing_that_could_be_left_out(tokenizer: Any) -> None:
    tokenizer.chat_template = DROPS["a system message"][0] + ASKS
    assert told(tokenizer, "chat", talk("q", "a", system="")) == told(
        tokenizer, "chat", talk("q", "a")
    )


def test_the_folder_s_check_says_what_is_not_rendered(tiny_model: Path, tmp_path: Path) -> None:
    for what, words in (
        ("a system message", "refuses a system message, or does not render it"),
        ("the first of two questions", None),
    ):
        template = DROPS[what][0] + ASKS
        notes = template_notes(set_template(tiny_model, tmp_path / what, template))
        assert [words in note for note in notes if words] == [True] * (words is not None)
        assert words or not notes
    short = "{% for m in messages[-2:] %}" + TURN + "{% endfor %}" + ASKS
    (note,) = template_notes(set_template(tiny_model, tmp_path / "short", short))[:1]
    assert "refuses several turns, or does not render all of them" in note


def test_a_record_that_leaves_no_mark_is_left_out_alone(tokenizer: Any) -> None:
    assert marks_for(EVERY_MARK[1:], "a") == ("\ue000", "\ue001")
    assert marks_for(EVERY_MARK[:9], EVERY_MARK[9:]) is None
    said = EVERY_MARK + "<|im_end|>"
    for form, bad, good in (
        ("instruction", ("q", said), ("q", "a")),
        ("classification", (said, "yes"), ("q", "yes")),
        ("chat", talk(said, "a"), talk("q", "a")),
        ("text", said, "q"),
    ):
        left_out, kept = told(tokenizer, form, bad, good)
        assert tuple(left_out) == (None,)
        assert kept[0].token_ids
    # Without a control token there is nothing to mark.
    assert told(tokenizer, "text", EVERY_MARK, room=10_000)[0][0].token_ids


def many_turns(letters: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": "x" * letters} for n in range(200)]


def test_many_turns_take_as_much_memory_as_their_text() -> None:
    template = ChatTemplate(CHAT_TEMPLATE, {}, on_day(DAY))
    messages = many_turns(2000)
    tracemalloc.start()
    try:
        made = template.told(messages)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    whole = "".join(turn.before + turn.answer for turn in made.turns)
    assert not made.apart and len(made.turns) == 100
    assert most < 8 * len(whole)


def test_answers_apart_end_as_soon_as_they_are_too_many() -> None:
    template = ChatTemplate(FORGETFUL, {}, on_day(DAY))
    messages = many_turns(100)
    rendered_beginnings: list[int] = []

    class Watched(list[dict[str, str]]):
        def __getitem__(self, place: Any) -> Any:
            rendered_beginnings.append(place.stop)
            return super().__getitem__(place)

    with pytest.raises(TooLongApartError):
        template.told(Watched(messages), most_apart=5000)
    assert max(rendered_beginnings) < 20
    few = template.told(messages[:6], most_apart=5000)
    assert few.apart and [turn.before.count("x") for turn in few.turns] == [100, 300, 500]


def piecewise(scheme: str) -> Any:
    """A tokenizer that marks beginnings of words with a sign, as SentencePiece does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    letters = sorted(set("".join(SENTENCES) + "qarbs[]/INST\n\u2581"))
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<s>", "</s>"], initial_alphabet=letters
    )
    made.train_from_iterator([f"[INST] {text} [/INST] {text}" for text in SENTENCES], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}"
    "{{ eos_token }}{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
)
LINES = (
    "{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant\n{% endif %}"
)


@pytest.mark.parametrize("template", [BRACKETS, LINES])
@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_parts_are_the_tokens_of_the_whole(scheme: str, template: str) -> None:
    made = piecewise(scheme)
    made.chat_template = template
    for messages in (talk(*SENTENCES[:4]), talk("q", "a", "r", "b", system="s"), TALKS[4]):
        ((found,),) = told(made, "chat", messages)
        whole = made(rendered(made, messages), add_special_tokens=False)["input_ids"]
        assert found.token_ids == list(whole)
        spelling = (Message("user", f"a</s>{messages[0].content}"), *messages[1:])
        ((marked,),) = told(made, "chat", spelling)
        assert marked.spells_controls
        begin = next(n for n, label in enumerate(found.labels) if label != -100)
        assert (
            found.token_ids[begin:]
            == marked.token_ids[len(marked.token_ids) - len(whole) + begin :]
        )


def test_reasons_are_told_apart(
    silo: TinySilo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr("silo_agent.training.ranks.chat_turns.MOST_LETTERS_APART", 600)
    guards = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('SECRET') }}{% endif %}"
        "{% if messages[0]['role'] == 'assistant' and not add_generation_prompt %}?{% endif %}"
    )
    model = set_template(silo.model_dir, tmp_path / "model", guards + FORGETFUL)
    records = [
        talk("q", "a"),
        talk("q", "a", system="s"),
        (Message("assistant", "Hello"), *talk("q", "a")),
        talk(*["q", "a"] * 40),
        talk(EVERY_MARK, "a<|im_end|>"),
    ]
    path = tmp_path / "r.jsonl"
    said = [json.dumps({"messages": [m._asdict() for m in r]}) for r in records]
    path.write_text("".join(line + "\n" for line in said))
    shard = shard_of(model, path)
    _, counts = pack_training(shard, PackingRule(64, False), count=1, seed=1, round_number=1)
    _, counts = pack_training(shard, PackingRule(64, False), count=2, seed=1, round_number=1)
    found = (counts.refused, counts.without_border, counts.too_long_apart, counts.untellable)
    assert counts.conversations == 2 and counts.skipped == sum(found)
    assert all(1 <= each <= 2 for each in found)
    caplog.set_level(logging.WARNING)
    _tell_packing(7, counts)
    for words in ("refuses them", "no border before", "are too long", "cannot be told as text"):
        assert words in caplog.text
    path.write_text("".join(line + "\n" for line in said[1:]))
    with pytest.raises(DataStewardError) as caught:
        pack_training(shard_of(model, path), PackingRule(64), count=1, seed=1, round_number=1)
    assert caught.value.found.count("1 of 4") == 4
    assert "only prompts" not in caught.value.found and "SECRET" not in str(caught.value)
