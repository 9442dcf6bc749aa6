"""Whether a model keeps conversations of one sequence apart, asked of the model itself.

Packing rests on positions that restart: from them transformers keeps attention within a
conversation. Not every architecture looks at them, and one that does not shows no fault: a
conversation's loss then depends on its neighbours. So a model that was loaded is asked, with short
conversations of made-up tokens, for two things:

- Other neighbours must not change a conversation's logits. The shapes are the same, so rounding is
  too, and next to nothing may differ.
- Alone they must be what they are in company, but for rounding, which other shapes can change.

Where one of them fails, every conversation becomes a sequence of its own, which is right for any
model that only looks back. One that looks ahead sees the answer it is asked for, and is refused.
Sequences side by side in a micro-batch are asked about in the same way; where that fails they go
through the model one after the other.
How much rounding and neighbours change was measured: docs/base-models.md.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data_contracts.errors import FederationOperatorError
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.token_logits import batch_logits, next_logits, vocabulary_size


@dataclass(frozen=True)
class Tolerance:
    """Largest changes of logits that pass, relative to their spread over the vocabulary."""

    same_shape: float
    other_shape: float


TOLERANCES = {torch.float32: Tolerance(1e-4, 1e-3), torch.bfloat16: Tolerance(5e-3, 0.15)}
"""By the precision of the model."""

LENGTHS = (12, 9, 11)
LOOKED_AT = 4
"""First tokens of a conversation: what a neighbour leaves behind is largest there."""


@dataclass(frozen=True)
class BatchCheck:
    """How much logits change, relative to their spread: with other neighbours in the sequence or
    beside it (`neighbours`), and without any (`alone`)."""

    neighbours: float
    alone: float
    tolerance: Tolerance

    @property
    def keeps_apart(self) -> bool:
        """Whether they may share a pass through the model."""
        same, other = self.tolerance.same_shape, self.tolerance.other_shape
        return self.neighbours <= same and self.alone <= other


@dataclass(frozen=True)
class PackingCheck(BatchCheck):
    """Of conversations in one sequence; `ahead`: with other tokens behind them."""

    ahead: float

    @property
    def only_looks_back(self) -> bool:
        """Whether a token's logits are the same whatever follows."""
        return self.ahead <= self.tolerance.other_shape


def may_pack(model: Any, device: torch.device) -> bool:
    """Ask a model in evaluation mode; at ZeRO-3 all ranks at once, who come to the same answer.

    Raises FederationOperatorError for a model that looks ahead, which nothing can make right.
    """
    check = check_packing(model, device)
    if not check.only_looks_back:
        raise FederationOperatorError(
            "base model of the plan",
            expected="a causal language model, whose tokens depend on those before alone",
            found=f"logits that change by {check.ahead:.2g} of their spread with what follows",
            action="begin a run with another base model",
        )
    return check.keeps_apart


def may_batch(model: Any, device: torch.device, *, together: bool) -> bool:
    """Ask a model in evaluation mode, as `may_pack`; `together` is what that has said."""
    return check_batching(model, device, together=together).keeps_apart


def check_batching(model: Any, device: torch.device, *, together: bool) -> BatchCheck:
    """The differences, from four forward passes: a sequence that is padded beside a longer one.

    Unless conversations may share a sequence (`together`), each is one of its own.
    """
    first, second, third = _conversations(vocabulary_size(model), seed=0)
    other_first, other_second, other_third = _conversations(vocabulary_size(model), seed=1)
    if together:
        short, long = _packed(first, second), _packed(other_first, other_second, other_third)
        others = [_packed(other_first, second), _packed(first, other_second, third)]
    else:
        short, long = _packed(second), _packed(other_first)
        others = [_packed(second), _packed(first)]
    with torch.no_grad():
        found, changed = (batch_logits(model, rows, device) for rows in ([short, long], others))
        alone = [next_logits(model, sequence, device) for sequence in (short, long)]
    end = len(short.token_ids)
    start = end - len(second)
    return BatchCheck(
        neighbours=_relative_changes(changed[0, start:end], found[0, start:end]).max().item(),
        alone=max(
            _relative_changes(row[place:][:LOOKED_AT], expected[place:][:LOOKED_AT]).mean().item()
            for row, expected, sequence in zip(found, alone, (short, long), strict=True)
            for place in sequence.record_starts
        ),
        tolerance=TOLERANCES.get(found.dtype, TOLERANCES[torch.bfloat16]),
    )


def check_packing(model: Any, device: torch.device) -> PackingCheck:
    """The differences, from six forward passes over a few dozen tokens each."""
    first, second, third = _conversations(vocabulary_size(model), seed=0)
    other_first, _, other_third = _conversations(vocabulary_size(model), seed=1)

    def logits(*conversations: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return next_logits(model, _packed(*conversations), device)

    packed, others = logits(first, second, third), logits(other_first, second, other_third)
    start, end = LENGTHS[0], LENGTHS[0] + LENGTHS[1]
    half = LENGTHS[0] // 2
    behind = logits(first[:half] + other_first[half:])
    alone = [logits(second), logits(third)]
    return PackingCheck(
        neighbours=_relative_changes(others[start:end], packed[start:end]).max().item(),
        alone=max(
            _relative_changes(packed[place:][:LOOKED_AT], expected[:LOOKED_AT]).mean().item()
            for place, expected in zip((start, end), alone, strict=True)
        ),
        ahead=_relative_changes(behind[:half], logits(first)[:half]).mean().item(),
        tolerance=TOLERANCES.get(packed.dtype, TOLERANCES[torch.bfloat16]),
    )


def _conversations(vocabulary: int, seed: int) -> list[list[int]]:
    """Made-up tokens, always the same: the answer must not depend on anybody's records."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return [rng.integers(vocabulary, size=length).tolist() for length in LENGTHS]


def _packed(*conversations: list[int]) -> PackedSequence:
    packed = PackedSequence()
    for token_ids in conversations:
        packed.append(token_ids, token_ids)
    return packed


def are_kept_apart(company: torch.Tensor, others: torch.Tensor, alone: torch.Tensor) -> bool:
    """Whether what a model gives for a row is the same beside two neighbours and without any."""
    tolerance = TOLERANCES.get(company.dtype, TOLERANCES[torch.bfloat16])
    return (
        _relative_changes(others, company).max().item() <= tolerance.same_shape
        and _relative_changes(company, alone).max().item() <= tolerance.other_shape
    )


def _relative_changes(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """For each token |difference| / |expected|, both about their mean over the vocabulary.

    0 where the model overflows on its own: there is nothing to compare, and its loss shows it.
    """
    found, expected = (logits.double() for logits in (found, expected))
    change = found - expected
    change, spread = (logits - logits.mean(-1, keepdim=True) for logits in (change, expected))
    changes = change.norm(dim=-1) / spread.norm(dim=-1).clamp_min(1e-30)
    infinite = torch.full_like(changes, torch.inf)
    changes = torch.where(changes.isfinite(), changes, infinite)
    return torch.where(expected.isfinite().all(dim=-1), changes, torch.zeros_like(changes))
