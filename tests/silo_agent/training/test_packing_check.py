"""Packed is not alone for every architecture; the model that is loaded says it itself."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from data_contracts.errors import FederationOperatorError, SiloOperatorError
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet
from silo_agent.training.loss import mean_loss
from silo_agent.training.ranks.base_model import load_base_model
from silo_agent.training.ranks.conversation import IGNORED
from silo_agent.training.ranks.evaluate import evaluate
from silo_agent.training.ranks.lora_model import load_lora_model
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.packing_check import check_packing, may_batch, may_pack
from silo_agent.training.ranks.token_logits import answer_nll, batch_nll
from silo_agent.training.run_files import ProgressWriter
from tests.silo_agent.training.tiny_jobs import (
    TinySilo,
    mixing_layout,
    mixing_model,
    one_by_one,
)
from tests.tiny_model import make_tiny_model, tiny_adapter_layout

CPU = torch.device("cpu")
APART = ("llama", "mistral", "qwen2", "gemma2", "gpt2", "gemma3_text")
MIXING = ("opt", "bloom", "mamba", "lfm2", "gpt_oss")


@cache
def made(architecture: str) -> Any:
    from benchmarks.base_models import tiny_model

    return tiny_model(architecture, 0)


@pytest.mark.parametrize("architecture", APART)
def test_what_keeps_conversations_apart_may_pack(architecture: str) -> None:
    model = made(architecture)
    assert may_pack(model, CPU) and may_batch(model, CPU, together=True)
    assert check_packing(model.to(torch.bfloat16), CPU).keeps_apart
    assert may_batch(model, CPU, together=True)
    model.to(torch.float32)


@pytest.mark.parametrize("architecture", MIXING)
def test_what_mixes_them_may_not(architecture: str) -> None:
    model = made(architecture)
    assert not may_pack(model, CPU) and may_batch(model, CPU, together=False)
    assert not check_packing(model.to(torch.bfloat16), CPU).keeps_apart
    model.to(torch.float32)


class LooksAside(LlamaForCausalLM):  # type: ignore[misc]
    """A model whose logits depend on what else is in the batch."""

    def forward(self, input_ids: Any, position_ids: Any, **options: Any) -> Any:
        output = super().forward(input_ids, position_ids=position_ids, **options)
        output.logits = output.logits + 0.1 * output.logits.mean(dim=0, keepdim=True)
        return output


class LooksBehind(LlamaForCausalLM):  # type: ignore[misc]
    """A model that is told where padding is by tokens that repeat themselves at the end."""

    def forward(self, input_ids: Any, position_ids: Any, **options: Any) -> Any:
        output = super().forward(input_ids, position_ids=position_ids, **options)
        repeated = (input_ids[:, -1:] == input_ids[:, -2:-1]).unsqueeze(-1)
        output.logits = torch.where(repeated, output.logits.roll(1, dims=-1), output.logits)
        return output


@pytest.mark.parametrize("kind", [LooksAside, LooksBehind])
def test_sequences_that_a_model_mixes_go_one_after_the_other(kind: Any) -> None:
    model = kind(made("llama").config).eval()
    assert may_pack(model, CPU)
    assert not may_batch(model, CPU, together=True)
    assert not may_batch(model, CPU, together=False)


@pytest.mark.parametrize(
    ("architecture", "together"),
    [("llama", True), ("gpt2", True), ("opt", False), ("mamba", False)],
)
def test_sequences_side_by_side_have_the_loss_and_gradient_of_each(
    architecture: str, together: bool
) -> None:
    model = made(architecture)
    rng = np.random.default_rng(4)
    sequences = []
    for lengths in ((5, 17, 9), (30,), (4, 4)):
        sequence = PackedSequence()
        for length in lengths if together else lengths[:1]:
            ids = rng.integers(120, size=length).tolist()
            sequence.append(ids, [IGNORED] * 2 + ids[2:])
        sequences.append(sequence)
    weights = [p for p in model.parameters() if p.requires_grad]
    one_by_one = torch.stack([answer_nll(model, s, CPU) for s in sequences]).sum()
    side_by_side = batch_nll(model, sequences, CPU)
    assert side_by_side.item() == pytest.approx(one_by_one.item(), rel=1e-5)
    expected = torch.autograd.grad(one_by_one, weights, allow_unused=True)
    found = torch.autograd.grad(side_by_side, weights, allow_unused=True)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_padding_asks_for_no_position_that_the_sequences_have_not() -> None:
    """A model with learned positions has no others."""
    long, short = PackedSequence(), PackedSequence()
    for length in (128, 128, 100):
        long.append(list(range(length)), list(range(length)))
    short.append([1] * 100, [IGNORED] * 50 + [1] * 50)
    model = made("gpt2")
    assert model.config.n_positions == 128 < len(long.token_ids)
    both = batch_nll(model, [short, long], CPU).item()
    alone = [answer_nll(model, sequence, CPU).item() for sequence in (short, long)]
    assert both == pytest.approx(sum(alone), rel=1e-5)
    padded = short.padded(360, 127)
    assert padded.positions[100:] == [*range(100, 128)] + [0] * 232


def test_a_model_that_looks_ahead_is_refused() -> None:
    with pytest.raises(FederationOperatorError, match="causal language model"):
        may_pack(made("bert"), CPU)


def test_an_evaluation_measures_each_conversation_of_such_a_model_alone(
    silo: TinySilo, tmp_path: Path
) -> None:
    model = mixing_model(tmp_path / "model", silo.model_dir)
    job = EvaluationJob(
        model_dir=model,
        layout=mixing_layout(),
        adapters=(EvaluatedAdapter(name="base", path=None),),
        heldout=(HeldoutSet(name="own", records=silo.heldout_records),),
        sequence_length=96,
        heldout_sequences=100,
        output_dir=tmp_path,
        per_record=True,
    )
    result = evaluate(job, ProgressWriter(tmp_path / "progress"))
    assert not result.together
    assert "one conversation a sequence" in (tmp_path / "progress").read_text()
    alone = one_by_one(model, silo.heldout_records, 96)
    assert result.losses[0].nats == pytest.approx(mean_loss(alone), rel=1e-5)
    found = sorted(nats for nats, _ in result.losses[0].records)
    assert found == pytest.approx(sorted(nats for nats, _ in alone), rel=2e-5)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "model")


def test_weights_that_are_missing_are_refused_and_not_drawn(model_dir: Path) -> None:
    weights = load_file(model_dir / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model_dir / "model.safetensors", {"format": "pt"})
    with pytest.raises(SiloOperatorError, match=r"no model\.layers\.1\.mlp\.up_proj\.weight"):
        load_base_model(model_dir)


def test_weights_of_another_shape_are_refused(model_dir: Path) -> None:
    weights = load_file(model_dir / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(16)
    save_file(weights, model_dir / "model.safetensors", {"format": "pt"})
    with pytest.raises(SiloOperatorError, match="every weight of the model, in its shape"):
        load_base_model(model_dir)


def test_tied_embeddings_are_not_missing(model_dir: Path) -> None:
    assert "lm_head.weight" not in load_file(model_dir / "model.safetensors")
    load_base_model(model_dir)


def test_a_tokenizer_of_more_tokens_than_embeddings_is_refused(model_dir: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokenizer.add_tokens([f"<added-{n}>" for n in range(600)])
    tokenizer.save_pretrained(model_dir)
    with pytest.raises(SiloOperatorError, match="token ids below 512"):
        load_lora_model(model_dir, tiny_adapter_layout(), "cpu")
