"""The base: a byte-level BPE tokenizer and a small Llama, trained on speeches and other chapters.

A base that people tune speaks the language of the field, so a quarter of what it reads is ICD-10-CM
in the chapters that are no topics; it has seen no text of a topic. Made once and kept below
`.consortia/bench/quality/base/` under a digest of the recipe and of the packages; the directory
appears complete or not at all. Beside the model lie the topical texts cut into sequences, so that
workers need neither tokenizer nor packages.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.quality import corpus
from benchmarks.quality.settings import TOPICS, BaseRecipe, TopicShares

Tokens = npt.NDArray[np.int64]

END, END_ID = "<|end|>", 0
"""The only special token, which a BPE trainer numbers first."""
HELDOUT_SPEECHES = 8
FIELD_SHARE = 4
"""One sequence in so many is of the field."""
_FORMAT = 2
_CLIP = 1.0


@dataclass(frozen=True)
class TopicSequences:
    """Token ids by topic: each array (topics, sequences, sequence_length)."""

    train: Tokens
    validation: Tokens
    test: Tokens

    @classmethod
    def load(cls, directory: Path) -> "TopicSequences":
        """The sequences that lie beside a base."""
        with np.load(directory / "sequences.npz") as arrays:
            return cls(arrays["train"], arrays["validation"], arrays["test"])


def prepared_base(
    recipe: BaseRecipe, shares: TopicShares, cache: Path, say: Callable[[str], None]
) -> Path:
    """The directory of the base; pretrains it unless it is in `cache`. `say` gets progress."""
    identity = [_FORMAT, asdict(recipe), asdict(shares), TOPICS, corpus.package_digests()]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    target = cache / digest
    if target.is_dir():
        return target
    staging = cache / f".making-{digest}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    tokenizer = _train_tokenizer(recipe)
    tokenizer.save(str(staging / "tokenizer.json"))
    sequences = _topic_sequences(tokenizer, recipe.sequence_length, shares)
    np.savez(staging / "sequences.npz", **asdict(sequences))
    model, facts = _pretrained(recipe, tokenizer, say)
    model.save_pretrained(staging)
    (staging / "base.json").write_text(json.dumps(facts, indent=1) + "\n")
    staging.rename(target)
    return target


def _train_tokenizer(recipe: BaseRecipe) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*corpus.speeches(), *corpus.other_chapters(TOPICS)], trainer)
    return tokenizer


def _topic_sequences(tokenizer: Tokenizer, length: int, shares: TopicShares) -> TopicSequences:
    found = corpus.topics(TOPICS)

    def cut(split: corpus.Split, count: int) -> Tokens:
        rows = [_sequences(tokenizer, topic.texts[split], length) for topic in found]
        short = [len(row) for row in rows if len(row) < count]
        if short:
            raise ValueError(f"{split}: a topic has {min(short)} sequences, expected {count}")
        # Evenly over all categories; neighbours in a category are nearly the same.
        return np.stack([row[np.linspace(0, len(row) - 1, count).astype(int)] for row in rows])

    return TopicSequences(
        cut("train", shares.train), cut("validation", shares.validation), cut("test", shares.test)
    )


def _sequences(tokenizer: Tokenizer, texts: Iterable[str], length: int) -> Tokens:
    """All texts in a row, an end token after each, cut into rows of `length`."""
    ids: list[int] = []
    for encoded in tokenizer.encode_batch(list(texts)):
        ids += [*encoded.ids, END_ID]
    rows = len(ids) // length
    return np.array(ids[: rows * length], dtype=np.int64).reshape(rows, length)


def _pretrained(
    recipe: BaseRecipe, tokenizer: Tokenizer, say: Callable[[str], None]
) -> tuple[LlamaForCausalLM, dict[str, float]]:
    texts = corpus.speeches()
    train = _sequences(tokenizer, texts[HELDOUT_SPEECHES:], recipe.sequence_length)
    field = _sequences(tokenizer, corpus.other_chapters(TOPICS), recipe.sequence_length)
    from_field = recipe.sequences_per_step // FIELD_SHARE
    heldout = _sequences(tokenizer, texts[:HELDOUT_SPEECHES], recipe.sequence_length)
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(_config(recipe))
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, fused=True)
    order = np.random.default_rng(recipe.seed)
    for step in range(recipe.steps):
        general = train[order.integers(len(train), size=recipe.sequences_per_step - from_field)]
        batch = np.concatenate([general, field[order.integers(len(field), size=from_field)]])
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe)
        loss = next_token_loss(model, torch.from_numpy(batch))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            say(f"base: step {step + 1} of {recipe.steps}, loss {loss.item():.3f}")
    with torch.no_grad():
        own = float(next_token_loss(model, torch.from_numpy(heldout[:256])))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = {"parameters": parameters, "train_tokens": train.size, "speeches_heldout_loss": own}
    return model, facts


def next_token_loss(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Mean loss in nats per predicted token of token ids (sequences, length)."""
    logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def _config(recipe: BaseRecipe) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.hidden * 8 // 3,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.sequence_length,
        tie_word_embeddings=True,
        bos_token_id=END_ID,
        eos_token_id=END_ID,
    )


def _schedule(step: int, recipe: BaseRecipe) -> float:
    """Linear warm-up, then a cosine to a tenth."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(recipe.steps - recipe.warmup_steps, 1)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))
