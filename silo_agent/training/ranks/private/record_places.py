"""Which tokens of a micro-batch belong to which record, for any layer that they go through.

Records of one sequence lie side by side in a row; of families that do not pack each row is a
record. The tokens of records of like lengths are taken together, so that one multiplication does
for all of them and at most half of it is padding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from data_contracts.errors import FederationOperatorError
from silo_agent.training.ranks.packed_sequence import PackedSequence

Combined = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Inputs and gradients of outputs, both float32 (records x tokens x width), to gradients of a
tensor (records x its shape). Where a token is not a record's own, one of the two is zero: the
gradient of the outputs, unless inputs are narrower, as those of a product alone may be."""


@dataclass(frozen=True)
class _Alike:
    """Records of like lengths: for each (records x longest) the places of its tokens among those of
    all rows, and which of these are its own."""

    places: torch.Tensor
    is_own: torch.Tensor


class RecordPlaces:
    """Of sequences that go through the model side by side.

    `order`: the number of each record, as they are counted along the rows, in the order in which
    `gradients` gives them.
    """

    def __init__(self, sequences: Sequence[PackedSequence], device: torch.device) -> None:
        starts = [sequence.record_starts for sequence in sequences]
        self._rows = len(sequences)
        self._length = max(len(sequence.token_ids) for sequence in sequences)
        self._is_row = all(len(each) == 1 for each in starts)
        records = sum(len(each) for each in starts)
        self._is_alone = records == 1
        self.order: list[int] = list(range(records))
        self._alike: list[_Alike] = []
        if not self._is_row:
            self._take(_spans(sequences, self._length), device)

    def gradients(
        self, layer: str, inputs: torch.Tensor, deltas: torch.Tensor, combined: Combined
    ) -> torch.Tensor:
        """Of all records (records x shape of the tensor, float32), by `order`.

        `inputs` of a layer and `deltas`, the gradient of the loss by its outputs, have the same
        shape but for their widths. Raises FederationOperatorError, with the name of the layer,
        where it does not say what belongs to which record.
        """
        if self._is_alone:
            return combined(_all_in_one(inputs), _all_in_one(deltas))
        if self._is_row and inputs.shape[0] == self._rows and inputs.dim() > 1:
            rows = self._rows
            pair = (each.reshape(rows, -1, each.shape[-1]).float() for each in (inputs, deltas))
            return combined(*pair)
        if self._is_row or inputs.dim() != 3 or inputs.shape[:2] != (self._rows, self._length):
            raise _not_told_apart(layer, tuple(inputs.shape))
        inputs, deltas = inputs.flatten(0, 1), deltas.flatten(0, 1)
        return torch.cat([_combined(inputs, deltas, alike, combined) for alike in self._alike])

    def _take(self, spans: list[tuple[int, int]], device: torch.device) -> None:
        """Spans: first token among those of all rows, and number of tokens, of each record."""
        by_size = sorted(self.order, key=lambda record: (spans[record][1].bit_length(), record))
        self.order = by_size
        for _, some in groupby(by_size, key=lambda record: spans[record][1].bit_length()):
            found = torch.tensor([spans[record] for record in some], device=device)
            within = torch.arange(int(found[:, 1].max()), device=device)[None]
            is_own = within < found[:, 1:]
            places = torch.where(is_own, found[:, :1] + within, found[:, :1])
            self._alike.append(_Alike(places, is_own[:, :, None]))


def _spans(sequences: Sequence[PackedSequence], length: int) -> list[tuple[int, int]]:
    """Without the padding behind a row, which nothing looks at and no loss is of."""
    found: list[tuple[int, int]] = []
    for row, sequence in enumerate(sequences):
        starts = sequence.record_starts
        for start, end in zip(starts, [*starts[1:], len(sequence.token_ids)], strict=True):
            found.append((row * length + start, end - start))
    return found


def _combined(
    inputs: torch.Tensor, deltas: torch.Tensor, alike: _Alike, combined: Combined
) -> torch.Tensor:
    own_inputs, own_deltas = (each[alike.places].float() for each in (inputs, deltas))
    # Of LoRA one of the two is narrow, and quickly multiplied.
    if own_inputs.shape[-1] < own_deltas.shape[-1]:
        return combined(own_inputs * alike.is_own, own_deltas)
    return combined(own_inputs, own_deltas * alike.is_own)


def _all_in_one(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(1, -1, values.shape[-1]).float()


def _not_told_apart(layer: str, shape: tuple[int, ...]) -> FederationOperatorError:
    return FederationOperatorError(
        "adapter layout of a private plan",
        expected="layers whose inputs say which record they are of",
        found=f"{layer}, with inputs of shape {shape}",
        action="leave the module out of the plan's adapter targets, or train without privacy",
    )
