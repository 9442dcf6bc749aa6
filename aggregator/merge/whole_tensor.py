"""What every merge rule makes of a tensor that is trained whole: the weighted sum itself.

start + carried + sum of c_i (W_i - start), with the weights, the rate and the step that the plan
and its defence give to products, in float64 and rounded once. Nothing is cut, averaged in factors
or left for a residual, and silos train it in every round, also under rules that freeze a factor. A
server optimizer with a state steps on the tensor as it steps on a product; median and trimmed mean
take it entry by entry, for it is the same space in every silo. Memory is that of one local tensor
and of the sum in float64, for median and trimmed mean that of all local tensors.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from aggregator.merge.merge_inputs import MergeInputs
from aggregator.merge.server_optimizer import initial_state, server_step
from aggregator.merge.truncation import float32
from aggregator.merge.weighted_sum import Summand
from aggregator.robust.by_coordinates import combined
from data_contracts.adapters.starting_adapter import Float32Array
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.merge_spec import RobustSpec, StatefulOptimizer

SLICE_NUMBERS = 1 << 22
"""Entries of all silos that are sorted at a time: 16 MiB."""

Merged = tuple[Float32Array, tuple[Float32Array, ...]]


def merged_tensor(inputs: MergeInputs, target: AdapterTarget) -> Merged:
    """The tensor (out x in) and the server optimizer's state for it; empty under any other.

    As it started where no silo trained it.
    """
    optimizer, defence = inputs.merge.optimizer, inputs.merge.robust
    if not inputs.trainers(target):
        kept = tuple(float32(part) for part in _state_before(inputs, target))
        return inputs.starting.module(target)[1], kept
    if defence is not None and defence.by_coordinates:
        return _by_coordinates(inputs, target, defence), ()
    if isinstance(optimizer, StatefulOptimizer):
        delta = torch.from_numpy(float32(_total(target, inputs.delta_summands(target))))
        start = torch.from_numpy(inputs.starting.module(target)[1])
        before = inputs.server_state.module(target) if inputs.server_state else ()
        tensor, state = server_step(optimizer, start, delta, before)
        return float32(tensor), tuple(float32(part) for part in state)
    return float32(_total(target, inputs.product_summands(target))), ()


def trained_tensors(inputs: MergeInputs, target: AdapterTarget) -> list[Float32Array]:
    """Those of all silos (out x in), in the order of their digests."""
    return [adapter.source.module(target)[1] for adapter in inputs.locals]


def stacked_slices(tensors: Sequence[Float32Array]) -> Iterator[Float32Array]:
    """Rows of all tensors side by side (n x rows x in), some at a time and in their order."""
    rows = max(1, SLICE_NUMBERS // (len(tensors) * tensors[0].shape[1]))
    for at in range(0, len(tensors[0]), rows):
        yield np.stack([tensor[at : at + rows] for tensor in tensors])


def _total(target: AdapterTarget, summands: Sequence[Summand]) -> torch.Tensor:
    """The sum (out x in) in float64, one tensor after the other."""
    total = torch.zeros(target.out_features, target.in_features, dtype=torch.float64)
    for summand in summands:
        tensor = torch.from_numpy(summand.source.module(target)[1])
        total.add_(tensor, alpha=float(summand.coefficients[0]))
    return total


def _by_coordinates(
    inputs: MergeInputs, target: AdapterTarget, defence: RobustSpec
) -> Float32Array:
    tensors = trained_tensors(inputs, target)
    slices = [combined(stack, defence).astype(np.float32) for stack in stacked_slices(tensors)]
    return np.concatenate(slices)


def _state_before(inputs: MergeInputs, target: AdapterTarget) -> tuple[torch.Tensor, ...]:
    if inputs.server_state is not None:
        return inputs.server_state.module(target)
    return initial_state(inputs.merge.optimizer, (target.out_features, target.in_features))
