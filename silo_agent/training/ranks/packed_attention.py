"""Attention on a CPU that does not compute what the mask of packed conversations hides.

Of a sequence of n conversations the mask leaves a block of each with itself; PyTorch computes the
square of the whole and throws the rest away. Here each block is computed by itself, by the same
function of transformers, and one in which every token sees all before it without a mask. Which
blocks there are is read off the mask, so nothing is assumed about the model: a mask that is not of
blocks is left as it is, and so is a window that slides within them. It takes the place of
transformers' function under its own name, because models ask for that name in more places.
"""

from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

SDPA = "sdpa"
"""What transformers and its models know this attention by."""

LEAST_BLOCK = 16
"""Tokens; blocks that are shorter go together, since each call costs something of its own. The
conversations of `packing_check` are longer in pairs, so that they go as blocks too."""

Block = tuple[int, int, bool]
"""First place, place after the last, and whether each token sees all before it in the block."""


def compute_blocks_only() -> None:
    """Let the models of this process compute so that take "sdpa" from transformers' registry."""
    ALL_ATTENTION_FUNCTIONS[SDPA] = packed_attention


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers' `sdpa_attention_forward`: queries, keys, values are rows x heads x tokens x
    width, the mask is rows x 1 x tokens x tokens; returns rows x tokens x heads x width."""
    is_plain = options.get("position_bias") is None and options.get("cache") is None
    rows = _blocks_of_rows(attention_mask, query) if is_plain else None
    if attention_mask is None or rows is None:
        return _attended(module, (query, key, value), attention_mask, **options), None

    def block(row: int, start: int, end: int, sees_all: bool) -> torch.Tensor:
        parts = tuple(part[row : row + 1, :, start:end] for part in (query, key, value))
        if sees_all:
            return _attended(module, parts, None, **{**options, "is_causal": True})
        mask = attention_mask[row : row + 1, :, start:end, start:end]
        return _attended(module, parts, mask, **options)

    outputs = [
        torch.cat([block(row, *each) for each in blocks], 1) for row, blocks in enumerate(rows)
    ]
    return torch.cat(outputs), None


def _attended(
    module: torch.nn.Module,
    parts: tuple[torch.Tensor, ...],
    mask: torch.Tensor | None,
    **options: Any,
) -> torch.Tensor:
    found: torch.Tensor = sdpa_attention_forward(module, *parts, mask, **options)[0]
    return found


def blocks_of(mask: torch.Tensor) -> list[Block]:
    """The blocks along the diagonal of a mask (tokens x tokens, true where one sees another).

    Nothing outside of them is true. Neighbours of fewer than LEAST_BLOCK tokens together are one.
    """
    size = len(mask)
    any_seen = mask.any(1)
    first = torch.where(any_seen, mask.to(torch.uint8).argmax(1), torch.arange(size))
    last = torch.where(any_seen, size - 1 - mask.flip(1).to(torch.uint8).argmax(1), 0)
    # A block begins where nothing from there on looks before it, and nothing before looks there.
    looks_back = first.flip(0).cummin(0).values.flip(0)
    looks_on = torch.cat([torch.tensor([-1]), last.cummax(0).values[:-1]])
    places = torch.arange(size)
    starts = ((looks_back >= places) & (looks_on < places)).nonzero().flatten().tolist()
    blocks: list[Block] = []
    for start, end in zip(starts, [*starts[1:], size], strict=True):
        if blocks and end - blocks[-1][0] <= LEAST_BLOCK:
            start = blocks.pop()[0]
        inside = mask[start:end, start:end]
        blocks.append((start, end, torch.equal(inside, torch.ones_like(inside).tril())))
    return blocks


def _blocks_of_rows(mask: torch.Tensor | None, query: torch.Tensor) -> list[list[Block]] | None:
    """Read once for each mask, which all layers share; None where there is nothing to gain."""
    tokens = query.shape[2]
    if mask is None or mask.dtype != torch.bool or mask.shape != (len(query), 1, tokens, tokens):
        return None
    version, known = getattr(mask, "_blocks", (None, list[list[Block]]()))
    if version != mask._version:
        known = [blocks_of(row[0]) for row in mask]
        mask._blocks = mask._version, known  # type: ignore[attr-defined]
    gains = any(len(blocks) > 1 or blocks[0][2] for blocks in known)
    return known if gains else None
