from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import DataStewardError, SiloOperatorError
from silo_agent.training.ranks.packing import (
    IGNORED,
    PackedSequence,
    RecordFile,
    answer_tokens,
    pack_heldout,
    pack_training,
    tokenize_conversation,
)
from tests.silo_agent.training.tiny_jobs import TinySilo


@pytest.fixture(scope="module")
def tokenizer(silo: TinySilo) -> Any:
    from silo_agent.training.ranks.lora_model import load_tokenizer

    return load_tokenizer(silo.model_dir)


def pack(tokenizer: Any, path: Path, **changes: Any) -> Any:
    options = {"length": 96, "count": 12, "seed": 5, "round_number": 1}
    return pack_training(tokenizer, path, **{**options, **changes})


def test_only_the_answer_and_its_end_of_turn_carry_loss(tokenizer: Any) -> None:
    token_ids, labels = tokenize_conversation(tokenizer, "Which chapter?", "Chapter nine.")
    counted = [label for label in labels if label != IGNORED]
    assert tokenizer.decode(counted) == "Chapter nine.<|im_end|>\n"
    assert token_ids[len(token_ids) - len(counted) :] == counted
    assert tokenizer.decode(token_ids[: -len(counted)]).endswith("<|im_start|>assistant\n")


def test_sequences_hold_whole_conversations_with_restarting_positions(
    tokenizer: Any, silo: TinySilo
) -> None:
    sequences, counts = pack(tokenizer, silo.train_records)
    assert len(sequences) == 12
    assert counts.truncated == counts.skipped == 0
    assert all(len(s.token_ids) == len(s.labels) == len(s.positions) <= 96 for s in sequences)
    starts = [p for s in sequences for p, position in enumerate(s.positions) if position == 0]
    assert len(starts) > len(sequences), "several conversations share a sequence"
    assert sum(len(s.token_ids) for s in sequences) > 0.7 * 12 * 96


def test_order_is_decided_by_seed_and_round(tokenizer: Any, silo: TinySilo) -> None:
    def first(**changes: Any) -> list[list[int]]:
        return [s.token_ids for s in pack(tokenizer, silo.train_records, **changes)[0]]

    assert first() == first()
    assert first() != first(round_number=2)
    assert first() != first(seed=6)
    assert first(count=6) == first()[:6]


def test_data_that_runs_out_is_used_again(tokenizer: Any, silo: TinySilo) -> None:
    sequences, counts = pack(tokenizer, silo.train_records, count=40)
    assert len(sequences) == 40
    assert counts.passes > 1
    assert counts.conversations > len(RecordFile(silo.train_records))


def test_heldout_records_are_used_once_and_may_be_fewer(tokenizer: Any, silo: TinySilo) -> None:
    sequences = pack_heldout(tokenizer, silo.heldout_records, length=96, limit=100, seed=5)
    conversations = sum(position == 0 for s in sequences for position in s.positions)
    assert conversations == len(RecordFile(silo.heldout_records))
    assert len(pack_heldout(tokenizer, silo.heldout_records, length=96, limit=2, seed=5)) == 2


def test_long_conversations_are_cut_and_counted(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(
        f'{{"prompt": "Short?", "answer": "{"one card " * 50}"}}\n'
        f'{{"prompt": "{"a long question " * 50}", "answer": "Yes."}}\n'
    )
    sequences, counts = pack(tokenizer, path, length=40, count=3)
    assert [len(s.token_ids) for s in sequences] == [40, 40, 40]
    assert (counts.truncated, counts.conversations) == (counts.conversations, 11)
    assert counts.skipped >= 3


def test_records_without_room_for_any_answer_are_an_error(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(f'{{"prompt": "{"a long question " * 50}", "answer": "Yes."}}\n')
    with pytest.raises(DataStewardError, match="only prompts that fill all 40 tokens"):
        pack(tokenizer, path, length=40)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("not json SECRET", "something else in record 2"),
        ('["SECRET"]', "something else in record 2"),
        ('{"prompt": "SECRET"}', "something else in record 2"),
        ('{"prompt": "SECRET", "answer": ""}', "an empty or non-text field in record 2"),
        ('{"prompt": "SECRET", "answer": 3}', "an empty or non-text field in record 2"),
    ],
)
def test_a_bad_record_is_named_by_number_never_by_content(
    tokenizer: Any, tmp_path: Path, line: str, found: str
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"prompt": "What?", "answer": "That."}\n\n' + line)
    with pytest.raises(DataStewardError, match=found) as raised:
        pack(tokenizer, path)
    assert "SECRET" not in str(raised.value)


def test_no_records_at_all(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text("\n")
    with pytest.raises(DataStewardError, match="an empty file"):
        RecordFile(tmp_path / "records.jsonl")


def test_a_template_that_rewrites_the_prompt_is_refused(silo: TinySilo) -> None:
    from silo_agent.training.ranks.lora_model import load_tokenizer

    tokenizer: Any = load_tokenizer(silo.model_dir)
    tokenizer.chat_template = (
        "{{ messages | length }} turns: {% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(DataStewardError, match="prompt part stays the same"):
        tokenize_conversation(tokenizer, "What?", "That.")


def test_a_tokenizer_without_a_template_is_refused(silo: TinySilo) -> None:
    from silo_agent.training.ranks.lora_model import load_tokenizer

    tokenizer = load_tokenizer(silo.model_dir)
    tokenizer.chat_template = None
    with pytest.raises(SiloOperatorError, match="a chat template"):
        pack(tokenizer, silo.train_records)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_loss_equals_unpacked_loss(tokenizer: Any, silo: TinySilo, attention: str) -> None:
    import torch

    from silo_agent.training.ranks.lora_model import answer_nll, load_lora_model
    from tests.tiny_model import tiny_adapter_layout

    model = load_lora_model(silo.model_dir, tiny_adapter_layout(), "cpu").eval()
    model.get_base_model().set_attn_implementation(attention)
    packed, _ = pack(tokenizer, silo.train_records, count=4)
    single = [part for sequence in packed for part in _unpacked(sequence)]
    assert len(single) > len(packed)
    assert answer_tokens(single) == answer_tokens(packed)
    with torch.no_grad():
        together, alone, one_by_one = (
            sum(answer_nll(model, s, torch.device("cpu")).item() for s in sequences)
            for sequences in (packed, single, [_run_together(s) for s in packed])
        )
    assert together == pytest.approx(alone, rel=1e-5)
    assert together != pytest.approx(one_by_one, rel=1e-3), "the check can see attention leak"


def _unpacked(sequence: PackedSequence) -> list[PackedSequence]:
    starts = [i for i, position in enumerate(sequence.positions) if position == 0]
    borders = [*starts, len(sequence.positions)]
    return [
        PackedSequence(
            sequence.token_ids[start:end], sequence.labels[start:end], list(range(end - start))
        )
        for start, end in pairwise(borders)
    ]


def _run_together(sequence: PackedSequence) -> PackedSequence:
    return PackedSequence(sequence.token_ids, sequence.labels, list(range(len(sequence.token_ids))))
