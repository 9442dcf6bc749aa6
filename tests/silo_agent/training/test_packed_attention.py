"""Blocks are read off the mask, and what is computed of them is what the whole gives."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DeepseekV32Config, DeepseekV32ForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from silo_agent.training.ranks.lora_model import load_lora_model
from silo_agent.training.ranks.packed_attention import (
    LEAST_BLOCK,
    SDPA,
    blocks_of,
    packed_attention,
)
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.token_logits import answer_nll
from tests.tiny_model import make_tiny_model, tiny_adapter_layout

LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=5)


def mask_of(lengths: list[int], window: int | None = None) -> torch.Tensor:
    blocks = [torch.ones(n, n, dtype=torch.bool).tril() for n in lengths]
    if window is not None:
        blocks = [block.triu(1 - window) for block in blocks]
    mask: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return mask


@settings(deadline=None, max_examples=40)
@given(lengths=LENGTHS, window=st.none() | st.integers(1, 80))
def test_blocks_cover_the_mask_and_nothing_else_is_true(
    lengths: list[int], window: int | None
) -> None:
    mask = mask_of(lengths, window)
    blocks = blocks_of(mask)
    starts, ends = [start for start, _, _ in blocks], [end for _, end, _ in blocks]
    assert [*starts, len(mask)] == [0, *ends]
    outside = mask.clone()
    for start, end, sees_all in blocks:
        inside = mask[start:end, start:end]
        assert sees_all == torch.equal(inside, torch.ones_like(inside).tril())
        outside[start:end, start:end] = False
    assert not outside.any()
    # No block could be cut in two, but where its parts are short.
    for start, end, _ in blocks:
        for cut in range(start + 1, end):
            before, after = mask[start:cut, cut:end], mask[cut:end, start:cut]
            assert before.any() or after.any() or end - start <= LEAST_BLOCK


def test_what_looks_ahead_is_one_block() -> None:
    both_ways = torch.ones(200, 200, dtype=torch.bool)
    assert blocks_of(both_ways) == [(0, 200, False)]
    prefix = mask_of([100, 100])
    prefix[10, 150] = True
    assert blocks_of(prefix) == [(0, 200, False)]
    assert blocks_of(mask_of([100, 100])) == [(0, 100, True), (100, 200, True)]


def test_a_token_that_sees_nothing_is_in_a_block() -> None:
    mask = mask_of([100, 100])
    mask[40] = False
    assert [block[:2] for block in blocks_of(mask)] == [(0, 100), (100, 200)]


@pytest.mark.parametrize("window", [None, 30])
@pytest.mark.parametrize(("heads", "groups"), [(4, 1), (2, 3)])
def test_blocks_give_what_the_whole_gives(heads: int, groups: int, window: int | None) -> None:
    rows = [[90, 70, 100], [260]]
    mask = torch.stack([mask_of(lengths, window)[None] for lengths in rows])
    generator = torch.Generator().manual_seed(3)
    module: Any = SimpleNamespace(num_key_value_groups=groups, is_causal=True)
    query = torch.randn(2, heads * groups, 260, 16, generator=generator, requires_grad=True)
    key, value = (
        torch.randn(2, heads, 260, 16, generator=generator, requires_grad=True) for _ in range(2)
    )
    weights = torch.randn(2, 260, heads * groups, 16, generator=generator)
    gradients = []
    for attention in (sdpa_attention_forward, packed_attention):
        found, nothing = attention(module, query, key, value, mask, scaling=0.2)
        assert nothing is None
        gradients.append(
            (found, *torch.autograd.grad((found * weights).sum(), [query, key, value]))
        )
    for whole, blocks in zip(*gradients, strict=True):
        assert blocks.shape == whole.shape
        torch.testing.assert_close(blocks, whole, atol=2e-5, rtol=1e-5)


def test_the_mask_counts_and_not_what_the_layer_says_of_itself() -> None:
    module: Any = SimpleNamespace(num_key_value_groups=1, is_causal=False)
    query, key, value = (torch.randn(1, 2, 200, 8) for _ in range(3))
    mask = mask_of([100, 100])[None, None]
    expected, _ = sdpa_attention_forward(module, query, key, value, mask)
    found, _ = packed_attention(module, query, key, value, mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_what_is_not_a_mask_of_truth_values_goes_as_before() -> None:
    module: Any = SimpleNamespace(num_key_value_groups=1, is_causal=True)
    query, key, value = (torch.randn(1, 2, 200, 8) for _ in range(3))
    added = torch.zeros(1, 1, 200, 200).masked_fill(~mask_of([100, 100]), -1e9)
    for mask, options in (
        (None, dict[str, torch.Tensor]()),
        (added, {}),
        (mask_of([100, 100])[None, None], {"position_bias": torch.randn(1, 2, 200, 200)}),
    ):
        expected, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        found, _ = packed_attention(module, query, key, value, mask, **options)
        assert torch.equal(found, expected)


def test_a_loaded_model_computes_blocks_and_its_loss_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir = make_tiny_model(tmp_path / "model")
    model = load_lora_model(model_dir, tiny_adapter_layout(), "cpu")
    base = model.get_base_model()
    assert base.config._attn_implementation == SDPA
    assert ALL_ATTENTION_FUNCTIONS[SDPA] is packed_attention
    packed = PackedSequence()
    for length, first in ((90, 3), (70, 5), (80, 7)):
        tokens = [first + place % 11 for place in range(length)]
        packed.append(tokens, tokens)
    found = answer_nll(model, packed, torch.device("cpu"))
    found.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, SDPA, sdpa_attention_forward)
    expected = answer_nll(model, packed, torch.device("cpu"))
    expected.backward()  # type: ignore[no-untyped-call]
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for blocks, whole in zip(
        gradients, [p.grad for p in model.parameters() if p.grad is not None], strict=True
    ):
        torch.testing.assert_close(blocks, whole, atol=1e-4, rtol=1e-4)


def test_a_model_that_asks_for_the_name_of_its_attention_finds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Models with an index of their own make its mask only for names that they know."""
    config = DeepseekV32Config(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        n_routed_experts=2,
        n_shared_experts=1,
        num_experts_per_tok=1,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        index_topk=16,
        index_head_dim=16,
        index_n_heads=2,
    )
    torch.manual_seed(0)
    model = DeepseekV32ForCausalLM(config).eval()
    tokens = torch.arange(130)[None] % 97
    found = []
    for attention in (sdpa_attention_forward, packed_attention):
        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, SDPA, attention)
        with torch.no_grad():
            found.append(model(input_ids=tokens, position_ids=torch.arange(130)[None]).logits)
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_what_was_read_of_a_mask_counts_for_it_as_it_was() -> None:
    module: Any = SimpleNamespace(num_key_value_groups=1, is_causal=True)
    query, key, value = (torch.randn(2, 2, 200, 8) for _ in range(3))
    shared, both = mask_of([100, 100])[None, None], mask_of([100, 100]).expand(2, 1, -1, -1).clone()
    packed_attention(module, query[:1], key[:1], value[:1], shared)
    for mask in (shared, both, both):
        expected, _ = sdpa_attention_forward(module, query, key, value, mask)
        found, _ = packed_attention(module, query, key, value, mask)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        both[:, :, 150:, 30] = True
