"""Rows of encoders, which look in both directions: a record each, padded beside longer ones.

What is padding, the attention mask says; that no row depends on its neighbours or on padding is
asked of the model, as `packing_check` asks it of causal ones.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.packing_check import are_kept_apart
from silo_agent.training.ranks.token_logits import vocabulary_size

LENGTHS = (9, 14)
"""Tokens of the rows that a model is asked about."""


class Rows(Protocol):
    """Logits of rows: one for each (rows x numbers), or one for each token of each."""

    def __call__(
        self, model: Any, sequences: Sequence[PackedSequence], device: torch.device
    ) -> torch.Tensor: ...


def row_logits(
    model: Any, sequences: Sequence[PackedSequence], device: torch.device
) -> torch.Tensor:
    """What the model gives for rows that are padded at their ends to the longest."""
    ids, mask = padded_rows(sequences, _padding_of(model))
    logits: torch.Tensor = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
    return logits


def padded_rows(
    sequences: Sequence[PackedSequence], padding: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask (rows x tokens of the longest)."""
    longest = max(len(sequence.token_ids) for sequence in sequences)
    ids = torch.full((len(sequences), longest), padding or 0)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        length = len(sequence.token_ids)
        ids[row, :length] = torch.tensor(sequence.token_ids)
        mask[row, :length] = 1
    return ids, mask


def keeps_rows_apart(model: Any, device: torch.device) -> bool:
    """Whether a row's logits are the same beside others and alone; collective at ZeRO-3."""
    short, long = _rows(model, seed=0)
    _, other = _rows(model, seed=1)
    with torch.no_grad():
        company, others = (row_logits(model, [short, one], device)[0] for one in (long, other))
        alone = row_logits(model, [short], device)[0]
    company, others, alone = (logits[: len(alone)] for logits in (company, others, alone))
    return are_kept_apart(company, others, alone)


def _padding_of(model: Any) -> int | None:
    """Some models tell the length of a row by this token, and others read no token there."""
    wrapped = getattr(model, "module", model)
    found: int | None = wrapped.get_base_model().config.pad_token_id
    return found


def _rows(model: Any, seed: int) -> list[PackedSequence]:
    """Made-up tokens, always the same: the answer must not depend on anybody's records."""
    rng = np.random.Generator(np.random.PCG64(seed))
    rows = [PackedSequence() for _ in LENGTHS]
    for row, length in zip(rows, LENGTHS, strict=True):
        # The lowest ids are control tokens in many vocabularies, padding among them.
        ids = rng.integers(vocabulary_size(model) // 2, vocabulary_size(model), size=length)
        row.append(ids.tolist(), ids.tolist())
    return rows
