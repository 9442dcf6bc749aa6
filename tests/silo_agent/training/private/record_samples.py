"""Micro-batches of tiny random models of every family that can be trained privately.

Models have random adapters, so that no gradient is zero because B is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import CAUSAL_TASK, FamilyTask
from infra.base_model.linear_modules import linear_modules
from silo_agent.training.ranks.base_model import load_tokenizer
from silo_agent.training.ranks.families.family import Telling
from silo_agent.training.ranks.families.registry import family_of
from silo_agent.training.ranks.lora_model import load_lora_model, trained_parameters
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.packing import PackedSequences, PackingRule
from silo_agent.training.ranks.shard_cache import ShardCache
from tests.tiny_encoders import CLASSES, make_tiny_bert, write_classified, write_texts
from tests.tiny_model import VOCABULARY, make_tiny_model
from tests.tiny_pipelines import PLACES, make_tiny_pipeline, write_captioned

CPU = torch.device("cpu")
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 512}


@dataclass(frozen=True)
class Sample:
    """A model with an adapter, sequences side by side, and how their summed loss is computed."""

    model: Any
    sequences: tuple[PackedSequence, ...]
    loss: Callable[[Sequence[PackedSequence]], torch.Tensor]


def sample(kind: str, root: Path, *, checkpointing: bool = False) -> Sample:
    """By the name of one of `KINDS`."""
    return KINDS[kind](root, checkpointing)


def of_llama(root: Path, checkpointing: bool) -> Sample:
    """Three rows, of three, one and two records."""
    return _causal(make_tiny_model(root / "llama"), checkpointing)


def of_gpt2(root: Path, checkpointing: bool) -> Sample:
    """With transposed layers, and dropout off."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY}
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "initializer_range": 0.2}
    return _causal(
        _saved(GPT2LMHeadModel, GPT2Config(**sizes, **off), root / "gpt2"), checkpointing
    )


def of_qwen(root: Path, checkpointing: bool) -> Sample:
    """With biases in its attention."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    more = {"intermediate_size": 64, "num_key_value_heads": 2, "initializer_range": 0.2}
    config = Qwen2Config(**SMALL, **more)
    return _causal(_saved(Qwen2ForCausalLM, config, root / "qwen"), checkpointing)


def of_masked(root: Path, checkpointing: bool) -> Sample:
    """Rows of a BERT whose head is trained whole: linear layers with biases, a layer norm."""
    model = make_tiny_bert(root / "masked")
    records = write_texts(root / "texts.jsonl", 5)
    return _rows(model, records, FamilyTask(family="masked-lm"), checkpointing)


def of_classified(root: Path, checkpointing: bool) -> Sample:
    """Rows of a BERT with a head of classes."""
    model = make_tiny_bert(root / "classified")
    records = write_classified(root / "classes.jsonl", 5)
    task = FamilyTask(family="sequence-classification", classes=CLASSES)
    return _rows(model, records, task, checkpointing)


def of_pictures(root: Path, checkpointing: bool) -> Sample:
    """Rows of a UNet, whose attention is over places of a latent."""
    model = make_tiny_pipeline(root / "pipeline")
    records = write_captioned(root / "captions.jsonl", 4)
    return _rows(model, records, FamilyTask(family="denoising"), checkpointing, room=PLACES)


KINDS = {
    "classified": of_classified,
    "gpt2": of_gpt2,
    "llama": of_llama,
    "masked": of_masked,
    "pictures": of_pictures,
    "qwen": of_qwen,
}


def _causal(model_dir: Path, checkpointing: bool) -> Sample:
    rng = np.random.default_rng(5)
    rows = []
    for lengths in ((12, 30, 7), (21,), (9, 25)):
        row = PackedSequence()
        for length in lengths:
            ids = rng.integers(VOCABULARY, size=length).tolist()
            # As in conversations: what comes before an answer is not asked.
            row.append(ids, [-100] * (length // 3) + ids[length // 3 :])
        rows.append(row)
    return _sample(model_dir, CAUSAL_TASK, tuple(rows), checkpointing)


def _rows(
    model_dir: Path, records: Path, task: FamilyTask, checkpointing: bool, room: int = 32
) -> Sample:
    family = family_of(task)
    telling = Telling(model_dir, "2026-01-01", room)
    cache = ShardCache(records.parent / "shards", family, telling, load_tokenizer)
    shown = family.shown(lambda: load_tokenizer(model_dir), model_dir)
    rule = PackingRule(room, together=False, context=room, shown=shown)
    shard = cache.of(records)
    places = [[place] for place in range(len(shard))]
    sequences = PackedSequences(shard, rule, places, (3, 1))[:]
    return _sample(model_dir, task, tuple(sequences), checkpointing)


def _sample(
    model_dir: Path, task: FamilyTask, rows: tuple[PackedSequence, ...], checkpointing: bool
) -> Sample:
    found = linear_modules(model_dir, task)
    layout = AdapterLayout(rank=4, alpha=8, seed=3, targets=found.modules + found.head)
    family = family_of(task)
    family.load_beside(model_dir, CPU)
    model = load_lora_model(model_dir, layout, "cpu", task=task)
    if checkpointing:
        family.recompute(model, partitioned=False)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        for name, parameter in trained_parameters(model).items():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.1)
    model.train()
    return Sample(model, rows, lambda some: family.batch_loss(model, some, CPU))


def _saved(kind: Any, config: Any, directory: Path) -> Path:
    """With the tokenizer of the tiny Llama."""
    make_tiny_model(directory)
    (directory / "model.safetensors").unlink()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind(config).save_pretrained(directory)
    return directory


def one_by_one(found: Sample) -> list[dict[str, torch.Tensor]]:
    """The gradient of every record's loss, as PyTorch finds it for that record alone."""
    parameters = trained_parameters(found.model)
    gradients = []
    for sequence in found.sequences:
        pieces = [sequence] if len(sequence.record_starts) == 1 else sequence.apart()
        for piece in pieces:
            loss = found.loss([piece])
            own = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            gradients.append({n: g for n, g in zip(parameters, own, strict=True) if g is not None})
    return gradients


def drawn_secret(path: Path, byte: int = 7) -> Path:
    """A file as of a silo's secret."""
    path.write_bytes(bytes([byte]) * 32)
    return path
