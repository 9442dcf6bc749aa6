"""Forward passes of a model over token ids: logits of packed sequences, losses on their answers.

Sequences are packed so that causal models keep what shares one apart (`packing_check`).
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from infra.base_model.model_class import text_embeddings
from silo_agent.training.ranks.conversation import IGNORED
from silo_agent.training.ranks.packed_sequence import PackedSequence


def answer_nll(model: Any, sequence: PackedSequence, device: torch.device) -> torch.Tensor:
    """Summed negative log likelihood (nats) of the answer tokens of one sequence, a scalar."""
    return batch_nll(model, [sequence], device)


def batch_nll(
    model: Any, sequences: Sequence[PackedSequence], device: torch.device
) -> torch.Tensor:
    """As `answer_nll`, of several sequences that go through the model side by side.

    Shorter ones are padded at their ends, where nothing counts and nothing before them looks.
    """
    logits, labels, _ = _answer_logits(model, sequences, device)
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")


def record_nll(model: Any, sequence: PackedSequence, device: torch.device) -> torch.Tensor:
    """As `answer_nll`, for each record of the sequence: float64, in the order of the records."""
    logits, labels, places = _answer_logits(model, [sequence], device)
    nats = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double()
    starts = torch.tensor(sequence.record_starts)
    records = torch.searchsorted(starts, places, right=True) - 1
    sums = torch.zeros(len(starts), dtype=torch.float64, device=device)
    return sums.index_add(0, records.to(device), nats)


def answer_guesses(
    model: Any, sequence: PackedSequence, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each answer token, in order: its nats (float64), whether it is the first guess, and its
    place in the sequence; the last on the CPU."""
    logits, labels, places = _answer_logits(model, [sequence], device)
    nats = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double()
    return nats, logits.argmax(dim=-1) == labels, places


def next_logits(model: Any, sequence: PackedSequence, device: torch.device) -> torch.Tensor:
    """Logits (tokens x vocabulary) of what follows each token, in the model's own precision."""
    return batch_logits(model, [sequence], device)[0]


def batch_logits(
    model: Any, sequences: Sequence[PackedSequence], device: torch.device
) -> torch.Tensor:
    """As `next_logits`, of several side by side: sequences x tokens of the longest x vocabulary."""
    logits: torch.Tensor = _forward(model, _of_one_length(sequences), device).logits
    return logits


def prompt_states(
    model: Any, sequence: PackedSequence, places: Sequence[int], device: torch.device
) -> torch.Tensor:
    """Last hidden states (places x hidden, float64 on the CPU) at some tokens of a sequence."""
    options: dict[str, Any] = {"output_hidden_states": True}
    if _accepts(model, "logits_to_keep"):
        options["logits_to_keep"] = 1
    with torch.no_grad():
        states: torch.Tensor = _forward(model, [sequence], device, **options).hidden_states[-1][0]
    return states[torch.tensor(places, device=device)].double().cpu()


def vocabulary_size(model: Any) -> int:
    """How many token ids the model has embeddings for."""
    return int(text_embeddings(_base_of(model)).num_embeddings)


def _forward(
    model: Any, rows: Sequence[PackedSequence], device: torch.device, **options: Any
) -> Any:
    """No attention mask and restarting positions make transformers build the block-diagonal mask,
    row by row.

    A model that takes no positions gets none; `packing_check` sees to it that its sequences are
    single conversations.
    """
    if _accepts(model, "position_ids"):
        options["position_ids"] = torch.tensor([row.positions for row in rows], device=device)
    token_ids = torch.tensor([row.token_ids for row in rows], device=device)
    return model(input_ids=token_ids, use_cache=False, **options)


def _answer_logits(
    model: Any, sequences: Sequence[PackedSequence], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (answer tokens x vocabulary, float32), labels, and places of the answer tokens.

    The output layer is computed only where a label of any of the sequences counts: with a
    vocabulary of 49,152 it is a fifth of the arithmetic. Places stay on the CPU.
    """
    rows = _of_one_length(sequences)
    labels = torch.tensor([row.labels[1:] for row in rows])
    of_row, counted = (labels != IGNORED).nonzero(as_tuple=True)
    kept, options = torch.arange(labels.shape[1]), dict[str, torch.Tensor]()
    if _accepts(model, "logits_to_keep"):
        kept = torch.from_numpy(np.unique(counted.numpy()))
        options["logits_to_keep"] = kept.to(device)
    logits = _forward(model, rows, device, **options).logits
    if options and len(rows) == 1:
        chosen = logits[0]  # All that was computed, and no copy of it.
    else:
        chosen = logits[of_row.to(device), torch.searchsorted(kept, counted).to(device)]
    return chosen.float(), labels[of_row, counted].to(device), counted + 1


def _of_one_length(sequences: Sequence[PackedSequence]) -> list[PackedSequence]:
    longest = max(len(sequence.token_ids) for sequence in sequences)
    highest = max(max(sequence.positions) for sequence in sequences)
    return [sequence.padded(longest, highest) for sequence in sequences]


def _accepts(model: Any, option: str) -> bool:
    return option in inspect.signature(_base_of(model).forward).parameters


def _base_of(model: Any) -> Any:
    """Below an engine, and below adapters where there are some."""
    wrapped = getattr(model, "module", model)
    return wrapped.get_base_model() if isinstance(wrapped, PeftModel) else wrapped
