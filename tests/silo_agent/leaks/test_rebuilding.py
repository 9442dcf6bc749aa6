"""The attack of `make bench-leaks` finds what it can find exactly, so that a low share of it means
something."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.leaks.attack import Vocabulary, best_share, share_found, span_of_inputs
from benchmarks.leaks.training import Noise, Silo, Tensors, difference, records_of
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from silo_agent.training.ranks.packed_sequence import PackedSequence
from tests.tiny_model import VOCABULARY, make_tiny_model, write_records

HIDDEN, INNER, LAYERS = 128, 256, 4
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.down_proj": (INNER, HIDDEN),
}
Material = tuple[Path, list[PackedSequence]]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """A random Llama that is wide enough to tell tokens apart, and records."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("rebuilding")
    model = make_tiny_model(root / "model")
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        LlamaForCausalLM(config).save_pretrained(model)
    return model, records_of(model, write_records(root / "records.jsonl", 12))


def silo(model: Path, rank: int) -> Silo:
    targets = tuple(
        AdapterTarget(module=f"model.layers.{layer}.{name}", in_features=i, out_features=o)
        for layer in range(LAYERS)
        for name, (i, o) in SHAPES.items()
    )
    return Silo(model, AdapterLayout(rank=rank, alpha=rank, seed=1, targets=targets))


def later_start(made: Silo) -> Tensors:
    """As in a later round: B is not zero."""
    rng = np.random.default_rng(2)
    tensors = made.start(None)
    for name, array in tensors.items():
        if "_B" in name:
            array += 0.01 * rng.standard_normal(array.shape)
    return made.start(tensors)


def found_in_gradient(material: Material, rank: int) -> float:
    model, records = material
    made = silo(model, rank)
    later_start(made)
    scores = span_of_inputs(made.gradient(records[:1]), Vocabulary.of(made.model))
    return share_found(scores, set(records[0].token_ids), set())


def test_the_bare_gradient_of_a_record_gives_away_its_tokens_where_the_rank_allows(
    material: Material,
) -> None:
    tokens = len(set(material[1][0].token_ids))
    assert 3 * 32 > tokens > 3 * 2
    exact, narrow = (found_in_gradient(material, rank) for rank in (32, 2))
    assert exact >= 0.95
    assert narrow < exact - 0.1


def test_guesses_that_know_nothing_find_next_to_nothing(material: Material) -> None:
    hidden = set(material[1][0].token_ids)
    scores = np.random.default_rng(4).standard_normal(VOCABULARY)
    assert share_found(scores, hidden, set()) < 0.3


def submission(
    made: Silo, batches: Sequence[Sequence[PackedSequence]], noise: Noise | None = None
) -> Tensors:
    start = later_start(made)
    *_, local = made.steps(batches, noise)
    return difference(local, start)


def test_a_submission_after_one_step_gives_away_more_than_guesses_and_noise_less(
    material: Material,
) -> None:
    model, records = material
    made, batches = silo(model, 8), [records[:2]]
    vocabulary = Vocabulary.of(made.model)
    hidden = {token for record in records[:2] for token in record.token_ids}
    plain, _ = best_share(submission(made, batches), vocabulary, hidden, set())
    noisy, _ = best_share(
        submission(made, batches, Noise(clip=1.0, sigma=50.0)), vocabulary, hidden, set()
    )
    by_chance = len(hidden) / VOCABULARY
    assert plain > 2 * by_chance
    assert noisy < plain


def test_a_step_moves_an_adapter_by_the_gradient_of_its_batch(material: Material) -> None:
    model, records = material
    made = silo(model, 4)
    changed = submission(made, [records[:2]])
    gradient = made.gradient(records[:2])
    assert set(changed) == set(gradient)
    assert all(np.abs(array).max() <= 1.01e-3 for array in changed.values()), "AdamW's first step"
    assert all(np.abs(array).max() > 0 for array in changed.values())
