"""Packed is not alone for every architecture; the model that is loaded says it itself."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_contracts.errors import FederationOperatorError, SiloOperatorError
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet
from silo_agent.training.loss import mean_loss
from silo_agent.training.ranks.base_model import load_base_model
from silo_agent.training.ranks.evaluate import evaluate
from silo_agent.training.ranks.lora_model import load_lora_model
from silo_agent.training.ranks.packing_check import check_packing, may_pack
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
    assert may_pack(model, CPU)
    assert check_packing(model.to(torch.bfloat16), CPU).keeps_apart
    model.to(torch.float32)


@pytest.mark.parametrize("architecture", MIXING)
def test_what_mixes_them_may_not(architecture: str) -> None:
    model = made(architecture)
    assert not may_pack(model, CPU)
    assert not check_packing(model.to(torch.bfloat16), CPU).keeps_apart
    model.to(torch.float32)


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
