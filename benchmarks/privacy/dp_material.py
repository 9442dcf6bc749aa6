"""What private training is measured on: a model of SmolLM2's shape, records as tokens, a recipe.

Weights and tokens are random, which changes nothing of how long a step takes. Everybody reads the
same files in one folder, and trains with one thread.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tests.tiny_model import make_tiny_model

SEED = 5
RECORDS, ASKED = 400, 0.5
"""Records, and the share of each that is asked."""
SHORTEST, MEDIAN, LONGEST = 24, 110, 500
"""Tokens of a record; lengths are drawn from a log-normal distribution, as those of the demo."""


@dataclass(frozen=True)
class Settings:
    """`units`: records of a private step on average; `sequences`: those of a plain one."""

    hidden: int
    inner: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    length: int
    units: int
    sequences: int
    rank: int = 8
    clipping_norm: float = 1.0
    noise_multiplier: float = 1.0
    learning_rate: float = 1e-3
    steps: int = 4
    """The first is not counted."""

    @property
    def rate(self) -> float:
        """Of sampling."""
        return self.units / RECORDS


SMOLLM2 = Settings(576, 1536, 30, 9, 3, 49_152, 512, 16, 4)
QUICK = Settings(384, 1024, 6, 6, 2, 8_192, 512, 12, 4)


def prepared(folder: Path, settings: Settings) -> Path:
    """Model, records.json and settings.json in `folder`, made once."""
    done = folder / "settings.json"
    described = json.dumps(asdict(settings) | {"rate": settings.rate})
    if done.exists() and done.read_text() == described:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    _write_model(folder / "model", settings)
    (folder / "records.json").write_text(json.dumps(_records(settings.vocabulary)))
    done.write_text(described)
    return folder


def _records(vocabulary: int) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of each; what is not asked is -100."""
    rng = np.random.default_rng(SEED)
    lengths = np.exp(rng.normal(np.log(MEDIAN), 0.6, RECORDS)).clip(SHORTEST, LONGEST)
    found = []
    for length in lengths.astype(int).tolist():
        ids = rng.integers(vocabulary, size=length).tolist()
        border = int(length * (1 - ASKED))
        found.append((ids, [-100] * border + ids[border:]))
    return found


def _write_model(folder: Path, settings: Settings) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    make_tiny_model(folder)  # For its tokenizer.
    config = LlamaConfig(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden,
        intermediate_size=settings.inner,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.key_value_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    torch.manual_seed(SEED)
    LlamaForCausalLM(config).save_pretrained(folder)
