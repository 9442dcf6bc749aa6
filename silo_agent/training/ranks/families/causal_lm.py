"""Causal language models: the next token, where it is an answer's, in nats.

Records share sequences where the model keeps them apart (`packing_check`).
"""

from collections.abc import Sequence
from typing import Any

import torch

from infra.base_model.tokenizer_files import named_end
from silo_agent.training.ranks.conversation import ChatTokenizer
from silo_agent.training.ranks.families.family import Family, FamilyEncoder, Telling
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.token_logits import batch_nll, record_nll
from silo_agent.training.ranks.told_records import ToldRecords


class CausalLm(Family):
    """Every form of text, by the chat template where there are turns."""

    name = "causal-lm"

    def encoder(self, tokenizer: ChatTokenizer, telling: Telling) -> FamilyEncoder:
        """By the chat template, or as documents."""
        end = named_end(telling.model_dir)
        return ToldRecords(tokenizer, telling.day, telling.room, end)

    def batch_loss(
        self, model: Any, sequences: Sequence[PackedSequence], device: torch.device
    ) -> torch.Tensor:
        """Nats of the answer tokens."""
        return batch_nll(model, sequences, device)

    def measured(self, model: Any, sequence: PackedSequence, device: torch.device) -> torch.Tensor:
        """Nats of the answer tokens of each record."""
        return record_nll(model, sequence, device)[:, None]
