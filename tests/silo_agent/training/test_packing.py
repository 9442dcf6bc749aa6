import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.dataset.forms.lines import form_of_file
from data_contracts.errors import DataStewardError
from infra.base_model.context import context_tokens
from silo_agent.training.ranks.conversation import IGNORED
from silo_agent.training.ranks.packed_sequence import Origin, PackedSequence, answer_tokens
from silo_agent.training.ranks.packing import PackingRule, pack_heldout, pack_training
from silo_agent.training.ranks.personal_measures import PartOfShard
from silo_agent.training.ranks.token_shard import TokenShard
from tests.silo_agent.training.tiny_jobs import TinySilo, conversations, shard_of


@pytest.fixture(scope="module")
def made(silo: TinySilo) -> Any:
    return conversations(silo.model_dir)


@pytest.fixture(scope="module")
def train(silo: TinySilo) -> Any:
    return shard_of(silo.model_dir, silo.train_records)


@pytest.fixture(scope="module")
def heldout(silo: TinySilo) -> Any:
    return shard_of(silo.model_dir, silo.heldout_records)


def pack(shard: TokenShard, *, length: int = 96, together: bool = True, **changes: int) -> Any:
    options = {"count": 12, "seed": 5, "round_number": 1, **changes}
    return pack_training(shard, PackingRule(length, together), **options)


def test_only_the_answer_and_its_end_of_turn_carry_loss(made: Any, silo: TinySilo) -> None:
    from silo_agent.training.ranks.base_model import load_tokenizer

    tokenizer: Any = load_tokenizer(silo.model_dir)
    conversation = made.of("Which chapter?", "Chapter nine.")
    token_ids, labels = conversation.token_ids, conversation.labels
    assert not conversation.spells_controls
    counted = [label for label in labels if label != IGNORED]
    assert tokenizer.decode(counted) == "Chapter nine.<|im_end|>\n"
    assert token_ids[len(token_ids) - len(counted) :] == counted
    assert tokenizer.decode(token_ids[: -len(counted)]).endswith("<|im_start|>assistant\n")


def test_sequences_hold_whole_conversations_with_restarting_positions(train: TokenShard) -> None:
    sequences, counts = pack(train)
    assert len(sequences) == 12
    assert counts.truncated == counts.skipped == 0
    assert all(len(s.token_ids) == len(s.labels) == len(s.positions) <= 96 for s in sequences)
    starts = [p for s in sequences for p, position in enumerate(s.positions) if position == 0]
    assert len(starts) > len(sequences), "several conversations share a sequence"
    assert sum(len(s.token_ids) for s in sequences) > 0.7 * 12 * 96


def test_order_is_decided_by_seed_and_round(train: TokenShard) -> None:
    def first(**changes: Any) -> list[list[int]]:
        return [s.token_ids for s in pack(train, **changes)[0]]

    assert first() == first()
    assert first() != first(round_number=2)
    assert first() != first(seed=6)
    assert first(count=6) == first()[:6]


def test_data_that_runs_out_is_used_again(train: TokenShard) -> None:
    sequences, counts = pack(train, count=40)
    assert len(sequences) == 40
    assert counts.passes > 1
    assert counts.conversations > len(train) == 30


def test_heldout_records_are_used_once_and_may_be_fewer(heldout: TokenShard) -> None:
    rule = PackingRule(96)
    sequences = pack_heldout(heldout, rule, limit=100, seed=5)
    conversations = sum(position == 0 for s in sequences for position in s.positions)
    assert conversations == len(heldout) == 7
    assert len(pack_heldout(heldout, rule, limit=2, seed=5)) == 2


def test_without_company_each_conversation_is_a_sequence(train: TokenShard) -> None:
    sequences, counts = pack(train, together=False)
    assert [len(s.record_starts) for s in sequences] == [1] * 12
    assert counts.conversations == 12
    assert not counts.together
    assert pack(train)[1].together


def test_without_company_the_same_heldout_records_are_measured_in_their_order(
    heldout: TokenShard,
) -> None:
    packed, alone = (
        pack_heldout(heldout, PackingRule(96, together), limit=2, seed=5)
        for together in (True, False)
    )
    assert [part.token_ids for s in packed for part in s.apart()] == [s.token_ids for s in alone]
    assert len(alone) > len(packed) == 2
    assert answer_tokens(alone) == answer_tokens(packed)


def test_long_conversations_are_cut_and_counted(silo: TinySilo, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(
        f'{{"prompt": "Short?", "answer": "{"one card " * 50}"}}\n'
        f'{{"prompt": "{"a long question " * 50}", "answer": "Yes."}}\n'
    )
    sequences, counts = pack(shard_of(silo.model_dir, path), length=40, count=3)
    assert [len(s.token_ids) for s in sequences] == [40, 40, 40]
    assert (counts.truncated, counts.conversations) == (counts.conversations, 11)
    assert counts.skipped >= 3


def test_a_conversation_is_no_longer_than_the_model_s_context(train: TokenShard) -> None:
    short, counts = pack_training(
        train, PackingRule(140, context=50), count=9, seed=5, round_number=1
    )
    assert max(max(s.positions) for s in short) == 49
    assert max(len(s.token_ids) for s in short) > 90, "several of them share a sequence"
    assert 0 < counts.truncated < counts.conversations
    within, all_whole = pack_training(
        train, PackingRule(96, context=4096), count=9, seed=5, round_number=1
    )
    assert (list(within), all_whole) == (list(pack(train, count=9)[0]), pack(train, count=9)[1])


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"n_positions": 1024, "n_ctx": 7}, 1024),
        ({"text_config": {"max_position_embeddings": 32768}, "max_position_embeddings": 9}, 32768),
        ({"max_position_embeddings": None, "max_seq_len": 512}, 512),
        ({"max_position_embeddings": -1, "text_config": "none"}, None),
        ({"model_type": "mamba"}, None),
    ],
)
def test_a_context_is_what_the_configuration_says(
    tmp_path: Path, config: dict[str, Any], tokens: int | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_tokens(tmp_path) == tokens


def test_records_without_room_for_any_answer_are_an_error(silo: TinySilo, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(f'{{"prompt": "{"a long question " * 50}", "answer": "Yes."}}\n')
    shard = shard_of(silo.model_dir, path)
    with pytest.raises(DataStewardError, match="only prompts that fill all 40 tokens"):
        pack(shard, length=40)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("not json SECRET", "something else in record 2"),
        ('["SECRET"]', "something else in record 2"),
        ('{"prompt": "SECRET"}', "something else in record 2"),
        ('{"prompt": "SECRET", "answer": ""}', "an empty or non-text field in record 2"),
        (
            '{"prompt": "SECRET", "answer": "\\u200b\\u2060"}',
            "an empty or non-text field in record 2",
        ),
        ('{"prompt": "\\u3164 ", "answer": "SECRET"}', "an empty or non-text field in record 2"),
        ('{"prompt": "SECRET", "answer": 3}', "an empty or non-text field in record 2"),
    ],
)
def test_a_bad_record_is_named_by_number_never_by_content(
    silo: TinySilo, tmp_path: Path, line: str, found: str
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"prompt": "What?", "answer": "That."}\n\n' + line)
    with pytest.raises(DataStewardError, match=found) as raised:
        shard_of(silo.model_dir, path)
    assert "SECRET" not in str(raised.value)
    assert list((tmp_path / "shards").iterdir()) == [tmp_path / "shards" / ".lock"]


def test_no_records_at_all(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text("\n")
    with pytest.raises(DataStewardError, match="an empty file"):
        form_of_file(tmp_path / "records.jsonl")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_loss_equals_unpacked_loss(
    train: TokenShard, silo: TinySilo, attention: str
) -> None:
    import torch

    from silo_agent.training.ranks.lora_model import load_lora_model
    from silo_agent.training.ranks.token_logits import answer_nll
    from tests.tiny_model import tiny_adapter_layout

    model = load_lora_model(silo.model_dir, tiny_adapter_layout(), "cpu").eval()
    model.get_base_model().set_attn_implementation(attention)
    packed, _ = pack(train, count=4)
    single = [part for sequence in packed for part in sequence.apart()]
    assert len(single) > len(packed)
    assert answer_tokens(single) == answer_tokens(packed)
    with torch.no_grad():
        together, alone, one_by_one = (
            sum(answer_nll(model, s, torch.device("cpu")).item() for s in sequences)
            for sequences in (packed, single, [_run_together(s) for s in packed])
        )
    assert together == pytest.approx(alone, rel=1e-5)
    assert together != pytest.approx(one_by_one, rel=1e-3), "the check can see attention leak"


def _run_together(sequence: PackedSequence) -> PackedSequence:
    return PackedSequence(sequence.token_ids, sequence.labels, list(range(len(sequence.token_ids))))


def test_sequences_of_a_part_are_shown_with_their_places_in_the_file(heldout: TokenShard) -> None:
    """Else a caption would be shown with the picture of another record."""
    seen: list[Origin] = []

    def shown(sequence: PackedSequence, origin: Origin) -> PackedSequence:
        seen.append(origin)
        return sequence

    part = PartOfShard(PartOfShard(heldout, np.array([1, 3, 5, 6])), np.array([1, 3]))
    rule = PackingRule(96, together=False, shown=shown)
    made = list(pack_heldout(part, rule, limit=9, seed=1))
    expected = {place: heldout.cut(place, 96)[0] for place in (3, 6)}
    found = {origin.places: each.token_ids for origin, each in zip(seen, made, strict=True)}
    assert found == {(place,): token_ids for place, token_ids in expected.items()}
