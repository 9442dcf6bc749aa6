"""Losses of single records of packed sequences, against transformers on each conversation alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet
from silo_agent.training.loss import change_error, mean_loss
from silo_agent.training.ranks.evaluate import WORST_LOSS, evaluate
from silo_agent.training.ranks.packing import PackingRule, pack_heldout
from silo_agent.training.results import EvaluationResult
from silo_agent.training.run_files import ProgressWriter
from tests.silo_agent.training.tiny_jobs import (
    TinySilo,
    drawn_adapter,
    one_by_one,
    shard_of,
)
from tests.tiny_model import tiny_adapter_layout

LENGTH, TOLERANCE = 96, 2e-5
LAYOUT = tiny_adapter_layout()
LONG = [
    {"prompt": "Short?", "answer": "one card " * 50},
    {"prompt": "a long question " * 50, "answer": "Never measured."},
    {"prompt": "Again?", "answer": "Yes."},
    {"prompt": "Again?", "answer": "Yes."},
    {"prompt": "How?", "answer": "At once and free of charge."},
]


@pytest.fixture(scope="module")
def long_records(silo: TinySilo) -> Path:
    """A record that is cut, one without room for its answer, and one that is there twice."""
    path = silo.root / "long.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in LONG))
    return path


def evaluation(silo: TinySilo, records: Path, **changes: Any) -> EvaluationResult:
    """The base model and an adapter on all `records`."""
    drawn = silo.root / "drawn.safetensors"
    fields: dict[str, Any] = {
        "model_dir": silo.model_dir,
        "layout": LAYOUT,
        "adapters": (
            EvaluatedAdapter(name="base", path=None),
            EvaluatedAdapter(name="drawn", path=drawn_adapter(drawn, LAYOUT, 0.3)),
        ),
        "heldout": (HeldoutSet(name="own", records=records),),
        "sequence_length": LENGTH,
        "heldout_sequences": 100,
        "output_dir": silo.root / "unused",
        "per_record": True,
        "per_sequence": True,
        "threads": 1,
    }
    return evaluate(EvaluationJob(**{**fields, **changes}), ProgressWriter(None))


@pytest.mark.parametrize("name", ["heldout_records", "train_records", "long"])
def test_each_record_has_the_loss_it_has_alone(
    silo: TinySilo, long_records: Path, name: str
) -> None:
    records = long_records if name == "long" else getattr(silo, name)
    found = evaluation(silo, records).loss("base", "own").records
    alone = one_by_one(silo.model_dir, records, LENGTH)
    assert len(found) == len(alone)
    for (nats, tokens), (expected, counted) in zip(sorted(found), sorted(alone), strict=True):
        assert tokens == counted
        assert nats == pytest.approx(expected, rel=TOLERANCE)


def test_sequences_and_the_mean_are_sums_of_records(silo: TinySilo) -> None:
    for entry in evaluation(silo, silo.train_records).losses:
        sequences = entry.sequences
        assert len(entry.records) > len(sequences) > 2, "several records share a sequence"
        assert sum(t for _, t in entry.records) == sum(t for _, t in sequences) == entry.tokens
        assert sum(n for n, _ in entry.records) == pytest.approx(sum(n for n, _ in sequences))
        assert mean_loss(entry.records) == entry.nats


def test_a_sequence_s_records_add_up_to_what_training_minimises(silo: TinySilo) -> None:
    import torch

    from silo_agent.training.ranks.lora_model import load_lora_model
    from silo_agent.training.ranks.token_logits import answer_nll, record_nll

    model = load_lora_model(silo.model_dir, LAYOUT, "cpu").eval()
    cpu = torch.device("cpu")
    packed = pack_heldout(
        shard_of(silo.model_dir, silo.train_records), PackingRule(LENGTH), limit=5, seed=3
    )
    assert len(packed) == 5
    for sequence in packed:
        with torch.no_grad():
            sums, total = record_nll(model, sequence, cpu), answer_nll(model, sequence, cpu)
        assert sums.shape == (len(sequence.record_starts),)
        assert sum(sequence.record_answer_tokens) == sequence.answer_tokens
        assert sums.sum().item() == pytest.approx(total.item(), rel=1e-6)


def test_the_measured_records_are_the_same_under_every_adapter(silo: TinySilo) -> None:
    result = evaluation(silo, silo.heldout_records)
    base, drawn = (result.loss(name, "own").records for name in ("base", "drawn"))
    assert [tokens for _, tokens in base] == [tokens for _, tokens in drawn]
    error = change_error(drawn, base)
    assert error is not None and 0 < error < 10


def test_sums_are_stated_only_where_the_job_asks_for_them(silo: TinySilo) -> None:
    plain = evaluation(silo, silo.heldout_records, per_record=False, per_sequence=False)
    asked = evaluation(silo, silo.heldout_records)
    assert [(e.records, e.sequences) for e in plain.losses] == [((), ())] * 2
    assert [e.nats for e in plain.losses] == [e.nats for e in asked.losses]


def test_a_model_that_overflows_has_a_very_bad_finite_loss_of_every_record(
    silo: TinySilo, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    shutil.copytree(silo.model_dir, tmp_path / "model")
    model: Any = AutoModelForCausalLM.from_pretrained(silo.model_dir, dtype=torch.float32)
    with torch.no_grad():
        model.model.norm.weight.fill_(1e38)
    model.save_pretrained(tmp_path / "model")
    result = evaluation(silo, silo.heldout_records, model_dir=tmp_path / "model")
    for entry in result.losses:
        assert entry.records == tuple((WORST_LOSS * tokens, tokens) for _, tokens in entry.records)
        assert entry.nats == WORST_LOSS
