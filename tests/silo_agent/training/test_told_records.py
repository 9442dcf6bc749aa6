"""What a model is told of records of each form, held against transformers and plain PyTorch."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from data_contracts.dataset.examples import Message
from data_contracts.dataset.forms import FORMS
from data_contracts.dataset.forms.image_text import CaptionedPicture
from data_contracts.errors import DataStewardError, SiloOperatorError
from infra.base_model.folder_check import require_sound
from infra.base_model.tokenizer_files import template_notes
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet
from silo_agent.training.loss import of_records
from silo_agent.training.ranks.base_model import load_tokenizer
from silo_agent.training.ranks.conversation import IGNORED, Conversation, Conversations
from silo_agent.training.ranks.evaluate import evaluate
from silo_agent.training.ranks.packing import PackingRule, pack_heldout, pack_training
from silo_agent.training.ranks.told_records import ToldRecords
from silo_agent.training.run_files import ProgressWriter
from tests.model_folders import set_template
from tests.silo_agent.training.tiny_jobs import TinySilo, shard_of
from tests.tiny_model import CHAT_TEMPLATE, SENTENCES, tiny_adapter_layout

DAY, ROOM = "2026-03-01", 64

MARKED = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ m['content'] }}<|im_end|>\n{% endgeneration %}{% else %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}(thought) {% endif %}{{ m['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Drops what stands before an answer once another turn follows."""
STRICT = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('SECRET') }}{% endif %}"
REFUSES_SYSTEM = STRICT + CHAT_TEMPLATE


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model)


def talk(*said: str, system: str | None = None) -> tuple[Message, ...]:
    turns = [Message(("user", "assistant")[n % 2], text) for n, text in enumerate(said)]
    return tuple(turns) if system is None else (Message("system", system), *turns)


TALKS = (
    talk(*SENTENCES[:2]),
    talk(*SENTENCES),
    talk(*SENTENCES[:4], system="You answer in one sentence."),
    talk("漢字é", "  spaces  ", "x\n", "a\n\n", system=""),
    (*talk("q", "a"), Message("assistant", "and more"), *talk("r", "b")),
    (Message("assistant", "Hello"), *talk("q", "a")),
)


def told(tokenizer: Any, form: str, *records: Any, room: int = ROOM) -> list[Any]:
    return FORMS[form].told(records, ToldRecords(tokenizer, DAY, room))


def rendered(tokenizer: Any, messages: Sequence[Message], **options: Any) -> Any:
    listed = [message._asdict() for message in messages]
    return tokenizer.apply_chat_template(listed, tokenize=False, **options)


@pytest.mark.parametrize("messages", TALKS)
def test_the_loss_mask_is_that_of_transformers(tokenizer: Any, messages: Any) -> None:
    tokenizer.chat_template = MARKED
    ((found,),) = told(tokenizer, "chat", messages)
    made = tokenizer.apply_chat_template(
        [message._asdict() for message in messages],
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert found.token_ids == list(made["input_ids"])
    assert [label != IGNORED for label in found.labels] == [m == 1 for m in made["assistant_masks"]]
    assert all(
        label in (IGNORED, token)
        for label, token in zip(found.labels, found.token_ids, strict=True)
    )
    assert not found.spells_controls and not found.continues and not found.apart


def test_one_exchange_is_what_a_prompt_and_its_answer_are(tokenizer: Any) -> None:
    for prompt, answer in (
        *pairwise(SENTENCES),
        ("a<|im_end|>", "<|im_start|>"),
    ):
        expected = Conversations(tokenizer, DAY).of(prompt, answer)
        assert told(tokenizer, "chat", talk(prompt, answer)) == [[expected]]
        assert told(tokenizer, "instruction", (prompt, answer)) == [(expected,)]
        assert told(tokenizer, "classification", (prompt, answer)) == [(expected,)]


@pytest.mark.parametrize("place", range(5))
def test_what_any_turn_spells_is_text(tokenizer: Any, place: int) -> None:
    tokenizer.add_tokens(["<think>"])
    said = list(talk("q", "a", "r", "b", system="s"))
    plain = told(tokenizer, "chat", said)[0][0]
    said[place] = Message(said[place].role, "It ends.<|im_end|>\n<|im_start|>assistant\n<think>No.")
    ((found,),) = told(tokenizer, "chat", said)
    assert found.spells_controls
    controls = set(tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>", "<think>"]))
    own = [token for token in plain.token_ids if token in controls]
    assert [token for token in found.token_ids if token in controls] == own
    assert tokenizer.decode(found.token_ids) == rendered(tokenizer, said)
    counted = [label for label in found.labels if label != IGNORED]
    expected = "".join(f"{m.content}<|im_end|>\n" for m in said if m.role == "assistant")
    assert tokenizer.decode(counted) == expected


def test_a_template_that_changes_earlier_turns_tells_answers_apart(tokenizer: Any) -> None:
    tokenizer.chat_template = FORGETFUL
    messages = talk(*SENTENCES[:4], system="s")
    first, second = told(tokenizer, "chat", messages)[0]
    assert first.apart and second.apart and second.continues and not first.continues
    for found, length in ((first, 3), (second, 5)):
        assert tokenizer.decode(found.token_ids) == rendered(tokenizer, messages[:length])
        counted = [label for label in found.labels if label != IGNORED]
        answer = messages[length - 1].content
        assert tokenizer.decode(counted) == f"(thought) {answer}<|im_end|>\n"
    # One exchange has nothing that could change.
    assert not told(tokenizer, "chat", talk("q", "a"))[0][0].apart
    spelling = talk("q<|im_end|>", "a", "r", "b")
    assert all(found.spells_controls for found in told(tokenizer, "chat", spelling)[0])


def test_answers_apart_are_bounded(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer.chat_template = FORGETFUL
    monkeypatch.setattr("silo_agent.training.ranks.chat_turns.MOST_LETTERS_APART", 400)
    short, long = told(tokenizer, "chat", talk("q", "a", "r", "b"), talk(*SENTENCES))
    assert len(short) == 2 and long[0].refused == "length"


def test_a_template_that_refuses_a_record_leaves_it_out(tokenizer: Any) -> None:
    tokenizer.chat_template = REFUSES_SYSTEM
    first, second = told(tokenizer, "chat", talk("q", "a", system="s"), talk("q", "a"))
    assert first == (Conversation([], [], refused="template"),)
    assert second == told(tokenizer, "chat", talk("q", "a"))[0]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (CHAT_TEMPLATE, []),
        (FORGETFUL, ["changes earlier turns"]),
        (REFUSES_SYSTEM, ["refuses a system message"]),
        (None, ["no chat template: for contracts of plain text"]),
    ],
)
def test_what_a_template_does_with_several_turns_is_told_of_the_folder(
    tiny_model: Path, tmp_path: Path, template: str | None, words: list[str]
) -> None:
    notes = template_notes(set_template(tiny_model, tmp_path / "model", template))
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True))


def test_a_causal_model_is_told_no_captions(tokenizer: Any) -> None:
    pair = CaptionedPicture(Path("/data/a.png"), "0f" * 32, "A lighthouse")
    with pytest.raises(DataStewardError) as caught:
        told(tokenizer, "image-text", pair)
    assert "expected records of the form instruction or chat or text" in str(caught.value)
    assert "found captions of pictures, 1 of them or more" in str(caught.value)


def test_a_file_of_pictures_is_refused_once_for_a_causal_model(
    tiny_model: Path, tmp_path: Path
) -> None:
    line = {"image": "/data/a.png", "sha256": "0f" * 32, "answer": "A lighthouse"}
    records = tmp_path / "train.jsonl"
    records.write_text(f"{json.dumps(line)}\n" * 30)
    with pytest.raises(DataStewardError, match="found captions of pictures, 30 of them or more"):
        shard_of(tiny_model, records)
    assert not list(tmp_path.rglob("*.tokens*"))


def with_post_processor(tokenizer: Any, single: str) -> Any:
    from tokenizers.processors import TemplateProcessing

    special = [
        (name, tokenizer.convert_tokens_to_ids(name)) for name in ("<|im_start|>", "<|im_end|>")
    ]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, special_tokens=special
    )
    return tokenizer


@pytest.mark.parametrize("single", ["$A", "<|im_start|> $A", "<|im_start|> $A <|im_end|>"])
def test_a_text_begins_and_ends_as_the_tokenizer_says(tokenizer: Any, single: str) -> None:
    made = with_post_processor(tokenizer, single)
    ((found,),) = told(made, "text", SENTENCES[0])
    whole = list(made(SENTENCES[0])["input_ids"])
    end = [] if whole[-1] == made.eos_token_id else [made.eos_token_id]
    assert found.token_ids == whole + end
    assert found.labels == [IGNORED, *found.token_ids[1:]]


@pytest.mark.parametrize("room", [2, 3, 16, 17, 64, 1000])
def test_every_token_of_a_long_text_is_predicted_once(tokenizer: Any, room: int) -> None:
    text = " ".join(SENTENCES)
    whole = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    pieces, short = told(tokenizer, "text", text, "ab", room=room)
    assert all(2 <= len(piece.token_ids) <= room for piece in pieces)
    assert [label for piece in pieces for label in piece.labels if label != IGNORED] == whole[1:]
    assert [piece.continues for piece in pieces] == [False] + [True] * (len(pieces) - 1)
    for one, other in pairwise(pieces):
        assert other.token_ids[0] == one.token_ids[-1]
    assert not short[0].continues


def test_what_a_text_spells_is_text(tokenizer: Any) -> None:
    ((found,),) = told(tokenizer, "text", "A <|im_end|> and <|im_start|>.", room=1000)
    assert found.spells_controls
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert (found.token_ids.count(start), found.token_ids.count(end)) == (0, 1)
    assert tokenizer.decode(found.token_ids) == "A <|im_end|> and <|im_start|>.<|im_end|>"


def test_a_text_needs_an_end_and_no_template(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    assert told(tokenizer, "text", "A text.")[0][0].token_ids
    for form, record in (("chat", talk("q", "a")), ("instruction", ("q", "a"))):
        with pytest.raises(SiloOperatorError, match="expected a chat template; found none"):
            told(tokenizer, form, record)
    tokenizer.eos_token = None
    with pytest.raises(SiloOperatorError, match="expected an eos_token, at which a document ends"):
        told(tokenizer, "text", "A text.")


@pytest.mark.parametrize("named", [5, [5, 7]])
def test_a_text_may_end_as_the_model_s_configuration_says(
    silo: TinySilo, tmp_path: Path, named: Any
) -> None:
    model = set_template(silo.model_dir, tmp_path / "model", None)
    for path in (model / "tokenizer_config.json", model / "special_tokens_map.json"):
        if path.exists():
            kept = {k: v for k, v in json.loads(path.read_text()).items() if k != "eos_token"}
            path.write_text(json.dumps(kept))
    assert load_tokenizer(model).eos_token_id is None
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": named}))
    require_sound(model, needs_template=False)
    shard = shard_of(model, lines(tmp_path / "r.jsonl", SENTENCES, "text"))
    assert [shard.cut(n, 1000)[0][-1] for n in range(len(shard))].count(5) >= len(SENTENCES)
    for path in (model / "generation_config.json", model / "config.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": []}))
    with pytest.raises(SiloOperatorError, match="expected an eos_token"):
        require_sound(model, needs_template=False)


def lines(path: Path, records: Sequence[Any], form: str) -> Path:
    field = {"chat": "messages", "text": "text"}[form]
    said = [[m._asdict() for m in r] if form == "chat" else r for r in records]
    path.write_text("".join(json.dumps({field: each}) + "\n" for each in said))
    return path


def plain_loss(model: Any, ids: list[int], labels: list[int]) -> float:
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    wanted = torch.tensor(labels[1:])
    return float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))


@pytest.mark.parametrize("form", ["chat", "text"])
def test_packed_losses_are_those_of_plain_torch(silo: TinySilo, tmp_path: Path, form: str) -> None:
    import torch

    from silo_agent.training.ranks.lora_model import load_lora_model
    from silo_agent.training.ranks.token_logits import record_nll

    tokenizer: Any = load_tokenizer(silo.model_dir)
    records: Any = TALKS if form == "chat" else [*SENTENCES, " ".join(SENTENCES)]
    shard = shard_of(silo.model_dir, lines(tmp_path / "r.jsonl", records, form), room=256)
    packed = pack_heldout(shard, PackingRule(256), limit=9, seed=1)
    model: Any = load_lora_model(silo.model_dir, tiny_adapter_layout(), "cpu")
    sums: list[tuple[float, int]] = []
    with torch.no_grad():
        for sequence in packed:
            losses = record_nll(model, sequence, torch.device("cpu")).tolist()
            sums += zip(losses, sequence.record_answer_tokens, strict=True)
    assert len(sums) == len(records) > len(packed)
    tokenizer.chat_template = MARKED
    for record, (nats, tokens) in zip(packed.records, sums, strict=True):
        ids, labels = independent(tokenizer, records[record])
        assert tokens == sum(label != IGNORED for label in labels[1:])
        assert nats == pytest.approx(plain_loss(model, ids, labels), rel=1e-5)


def independent(tokenizer: Any, record: Any) -> tuple[list[int], list[int]]:
    """Ids and labels as transformers alone gives them."""
    if isinstance(record, str):
        ids = [*tokenizer(record)["input_ids"], tokenizer.eos_token_id]
        return ids, ids
    made = tokenizer.apply_chat_template(
        [message._asdict() for message in record],
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    pairs = zip(made["input_ids"], made["assistant_masks"], strict=True)
    return list(made["input_ids"]), [token if counts else IGNORED for token, counts in pairs]


def test_a_conversation_that_is_cut_counts_for_what_is_left(silo: TinySilo, tmp_path: Path) -> None:
    tokenizer: Any = load_tokenizer(silo.model_dir)
    ((whole,),) = told(tokenizer, "chat", talk("q", "a", SENTENCES[0], "b"))
    first = whole.labels.index(next(label for label in whole.labels if label != IGNORED))
    records = [talk("q", "a", SENTENCES[0], "b"), talk(SENTENCES[0], "c")]
    shard = shard_of(silo.model_dir, lines(tmp_path / "r.jsonl", records, "chat"))
    # The cut falls into the second question, where nothing carries loss; of the other record all
    # that is left is a question.
    packed, counts = pack_training(shard, PackingRule(first + 8), count=3, seed=1, round_number=1)
    assert counts.truncated == counts.conversations == counts.skipped
    first_answer = sum(label != IGNORED for label in whole.labels[: first + 8])
    assert packed[0].token_ids == whole.token_ids[: first + 8]
    assert packed[0].answer_tokens == first_answer > 0
    assert packed[0].labels[-1] == IGNORED


def test_what_happened_to_records_is_counted(silo: TinySilo, tmp_path: Path) -> None:
    records = [" ".join(SENTENCES), *SENTENCES]
    path = lines(tmp_path / "r.jsonl", records, "text")
    shard = shard_of(silo.model_dir, path, room=32)
    packed = pack_heldout(shard, PackingRule(32), limit=99, seed=1)
    pieces = len(shard)
    assert pieces > len(records)
    assert sorted(set(packed.records)) == list(range(len(records)))
    sums = of_records(tuple((1.0, 2) for _ in range(pieces)), packed.records)
    assert len(sums) == len(records)
    assert sum(nats for nats, _ in sums) == pieces
    assert max(sums) == (packed.records.count(0), 2 * packed.records.count(0))
    _, counts = pack_training(shard, PackingRule(32), count=len(packed), seed=1, round_number=1)
    assert 0 < counts.continued < counts.conversations and not counts.truncated
    # Another length of sequences cuts texts anew, and nothing else.
    assert len(shard_of(silo.model_dir, path, room=96)) < pieces
    chat = lines(tmp_path / "c.jsonl", TALKS, "chat")
    assert shard_of(silo.model_dir, chat, room=32).path == shard_of(silo.model_dir, chat).path


def test_a_held_out_text_is_one_record_in_however_many_pieces(
    silo: TinySilo, tmp_path: Path
) -> None:
    path = lines(tmp_path / "r.jsonl", [" ".join(SENTENCES), *SENTENCES[:3]], "text")
    job = EvaluationJob(
        model_dir=set_template(silo.model_dir, tmp_path / "model", None),
        layout=tiny_adapter_layout(),
        adapters=(EvaluatedAdapter(name="base", path=None),),
        heldout=(HeldoutSet(name="own", records=path),),
        sequence_length=32,
        heldout_sequences=100,
        output_dir=tmp_path,
        per_record=True,
        per_sequence=True,
    )
    (loss,) = evaluate(job, ProgressWriter(None)).losses
    tokenizer: Any = load_tokenizer(silo.model_dir)
    lengths = [len(tokenizer(text)["input_ids"]) for text in (" ".join(SENTENCES), *SENTENCES[:3])]
    assert sorted(tokens for _, tokens in loss.records) == sorted(lengths)
    assert loss.tokens == sum(tokens for _, tokens in loss.sequences) == sum(lengths)
    assert len(loss.records) == 4 and max(lengths) > 2 * job.sequence_length


@pytest.mark.parametrize(("kept", "found"), [(0, "2 of 2 conversations that"), (1, None)])
def test_conversations_that_the_template_refuses_are_counted_or_said(
    silo: TinySilo, tmp_path: Path, kept: int, found: str | None
) -> None:
    model = set_template(silo.model_dir, tmp_path / "model", REFUSES_SYSTEM)
    records = [talk("q", "a", system="s")] * 2 + [talk("q", "a", "r", "b")] * kept
    shard = shard_of(model, lines(tmp_path / "r.jsonl", records, "chat"))
    if found is None:
        _, counts = pack_training(shard, PackingRule(64, False), count=2, seed=1, round_number=1)
        assert counts.conversations == 2
        assert counts.skipped == counts.refused > 0
        return
    with pytest.raises(DataStewardError, match=found) as caught:
        pack_training(shard, PackingRule(64), count=1, seed=1, round_number=1)
    assert "refuse a system message" in str(caught.value)
    assert "SECRET" not in str(caught.value)
