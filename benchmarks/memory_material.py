"""What `make bench-memory` trains: models of random weights, and records of every family.

Rows of causal models are packed of conversations whose lengths vary as people's do (log-normal), or
are one long answer each. Rows of the other families are single texts, or pictures with captions.
"""

import json
from dataclasses import dataclass
from decimal import Decimal
from itertools import cycle, islice
from math import log
from pathlib import Path
from random import Random
from typing import Any, Literal

from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import CAUSAL_TASK, FamilyTask
from data_contracts.protocol.records.privacy_terms import rate_of
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from infra.base_model.linear_modules import linear_modules
from silo_agent.training.job import TrainingJob
from silo_agent.training.private_part import PrivatePart
from silo_agent.training.rank_work import Choice
from tests.tiny_encoders import CLASSES, write_pictures, write_wordpiece
from tests.tiny_model import make_tiny_model

RANK, RANKS = 8, 2
RECORDS, MEDIAN_WORDS, SPREAD = 200, 50, 0.8
UNITS = 64
"""That a private step draws on average: some sequences for each rank."""
ANSWER = "It took a day, and the card was blocked at once. A new one came free of charge"

Rows = Literal["packed", "single", "texts", "classes", "pairs"]


@dataclass(frozen=True)
class Material:
    """A model and what it trains on: tokens of a row, rows of a micro-batch."""

    model: str
    directory: Path
    rows: Rows
    length: int = 512
    micro_batch: int = 1
    task: FamilyTask = CAUSAL_TASK
    private: bool = False

    def job(self, choice: Choice, folder: Path, steps: int) -> TrainingJob:
        """In each step two micro-batches of each of two ranks."""
        records = _written(self.rows, folder / self.rows)
        found = linear_modules(self.directory, self.task)
        targets = found.modules + found.head
        recipe = TrainingRecipe(
            local_steps=steps,
            sequences_per_step=UNITS if self.private else RANKS * 2 * self.micro_batch,
            sequence_length=self.length,
            learning_rate=Decimal("0.001"),
            warmup_steps=0,
            weight_decay=Decimal("0"),
            max_gradient_norm=Decimal("1"),
            seed=1,
        )
        return TrainingJob(
            model_dir=self.directory.resolve(),
            layout=AdapterLayout(rank=RANK, alpha=RANK, seed=1, targets=targets),
            recipe=recipe,
            round=1,
            train_records=records,
            heldout_records=records,
            heldout_sequences=1,
            measure_starting=False,
            measure_local=False,
            output_dir=folder / "job",
            zero_stage=choice.zero_stage,
            ranks=RANKS,
            micro_batch=self.micro_batch,
            gradient_checkpointing=choice.gradient_checkpointing,
            task=self.task,
            private=_private(folder, recipe.sequences_per_step) if self.private else None,
        )


def _private(folder: Path, units: int) -> PrivatePart:
    """Steps that draw so many of the records on average."""
    secret = folder / "secret"
    secret.write_bytes(bytes(32))
    return PrivatePart(
        unit="record",
        clipping_norm=Decimal("0.1"),
        noise_multiplier=Decimal("1"),
        sampling_rate=rate_of(units, RECORDS),
        expected_units=units,
        secret=secret,
    )


def _written(rows: Rows, folder: Path) -> Path:
    if rows == "pairs":
        return write_pictures(folder, RECORDS)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in _records(rows)))
    return path


def _records(rows: Rows) -> list[dict[str, str]]:
    if rows == "single":
        return [{"prompt": f"Case {n}?", "answer": f"{ANSWER} " * 100} for n in range(RECORDS)]
    draw = Random(1)
    words = [round(draw.lognormvariate(log(MEDIAN_WORDS), SPREAD)) + 1 for _ in range(RECORDS)]
    texts = [" ".join(islice(cycle(ANSWER.split()), count)) for count in words]
    if rows == "texts":
        return [{"text": text} for text in texts]
    if rows == "classes":
        return [{"text": text, "label": CLASSES[n % 3]} for n, text in enumerate(texts)]
    return [{"prompt": f"Case {n}?", "answer": text} for n, text in enumerate(texts)]


def encoders(folder: Path) -> list[Material]:
    """Of the families whose rows are single records."""
    bert, clip = folder / "bert", folder / "clip"
    classes = FamilyTask(family="sequence-classification", classes=CLASSES)
    return [
        Material(
            "BERT, 67 M, masked", _bert(bert), "texts", 128, 4, FamilyTask(family="masked-lm")
        ),
        Material("BERT, 66 M, classes", _bert(folder / "bare", False), "classes", 128, 4, classes),
        Material("CLIP, 69 M", _clip(clip), "pairs", 77, 8, FamilyTask(family="dual-encoder")),
    ]


def random_model(directory: Path, kind: str) -> Path:
    """A model of random weights, a small tokenizer and a large vocabulary: "llama" or "gpt2"."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    make_tiny_model(directory)
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1}
    torch.manual_seed(0)
    model: Any
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=32_000,
            hidden_size=512,
            intermediate_size=1536,
            num_hidden_layers=12,
            num_attention_heads=8,
            num_key_value_heads=4,
            tie_word_embeddings=True,
            **ends,
        )
        model = LlamaForCausalLM(config)
    else:
        model = GPT2LMHeadModel(GPT2Config(n_embd=384, n_layer=8, n_head=6, **ends))
    model.save_pretrained(directory)
    return directory


def _bert(directory: Path, with_head: bool = True) -> Path:
    """Six of the layers of BERT-base, with its vocabulary."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertModel

    directory.mkdir(parents=True)
    write_wordpiece(directory)
    torch.manual_seed(0)
    kind = BertForMaskedLM if with_head else BertModel
    kind(BertConfig(num_hidden_layers=6, pad_token_id=0)).save_pretrained(directory)
    return directory


def _clip(directory: Path) -> Path:
    """Four of the layers of each tower of CLIP ViT-B/32, with its vocabulary."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    directory.mkdir(parents=True)
    write_wordpiece(directory)
    torch.manual_seed(0)
    control = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = {
        **control,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "num_hidden_layers": 4,
        "vocab_size": 49_408,
    }
    vision = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 4,
        "image_size": 224,
        "patch_size": 32,
    }
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).save_pretrained(directory)
    return directory
