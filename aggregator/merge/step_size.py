"""How far the server steps along the merged delta: FedExP, on products and over all modules.

max(1, sum_i w_i |delta_i|^2 / (2 |sum_i w_i delta_i|^2)), at most what the plan allows
(Jhunjhunwala, Wang and Joshi, ICLR 2023, equation 6). It follows from the submissions alone. After
a defence it is that of the clipped deltas with the weights that the defence gave them, so a silo
that shouts does not set it; silos that cancel the others can, which the plan's cap bounds.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from aggregator.merge.blas_threads import one_blas_thread
from aggregator.merge.gram import squared_norm
from aggregator.merge.merge_inputs import MergeInputs, RankWeights, weighted_deltas
from aggregator.merge.step_formula import norms_as_told, step_of
from aggregator.merge.target_view import ranks_of
from aggregator.merge.weighted_sum import Summand, WeightedSum
from data_contracts.adapters.starting_adapter import AdapterSource
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.candidate import StepNorms
from data_contracts.protocol.records.merge_spec import FedExP
from infra.processes.worker_threads import default_workers


def stepped(inputs: MergeInputs, norms: StepNorms | None = None) -> MergeInputs:
    """`inputs` with their step where the plan's optimizer is FedExP; unchanged elsewhere.

    With a defence, the inputs are those that it left. `norms` are what the step follows from, where
    that is known already.
    """
    optimizer = inputs.merge.optimizer
    if not isinstance(optimizer, FedExP):
        return inputs
    return replace(inputs, step=step_of(norms or measured_norms(inputs), optimizer))


def measured_norms(inputs: MergeInputs, mean_square: float | None = None) -> StepNorms:
    """Of the deltas of `inputs`; `mean_square` is that of masked ones, which no input tells."""
    plain = replace(inputs, step=None, earlier=None)

    def of_module(target: AdapterTarget) -> tuple[float, float]:
        return _norms_of(plain, target)

    with one_blas_thread(), ThreadPoolExecutor(default_workers()) as pool:
        norms = list(pool.map(of_module, inputs.layout.targets))
    own, merged = (math.fsum(column) for column in zip(*norms, strict=True))
    return norms_as_told(own if mean_square is None else mean_square, merged)


def _norms_of(inputs: MergeInputs, target: AdapterTarget) -> tuple[float, float]:
    """sum w_i |delta_i|^2 and |sum w_i delta_i|^2 of one module."""
    weights, kept = inputs.rank_weights(target), _kept(inputs)
    if not weights:
        return 0.0, 0.0
    own = math.fsum(
        _squared(target, _rooted(target, inputs.starting, silo, kept[silo.adapter.digest]))
        for silo in weights
    )
    return own, _squared(target, weighted_deltas(target, inputs.starting, weights))


def _rooted(
    target: AdapterTarget, start: AdapterSource, silo: RankWeights, kept: float
) -> list[Summand]:
    """A silo's delta, each rank by the root of its weight, so that its norm is w_i |delta_i|^2."""
    own = silo.adapter.source
    roots = np.sqrt(silo.coefficients * kept)
    of_start = np.zeros(ranks_of(start.layout, target))
    shared = min(len(roots), len(of_start))
    of_start[:shared] = -roots[:shared] * start.layout.scaling_of(target)
    return [Summand(own, roots * own.layout.scaling_of(target)), Summand(start, of_start)]


def _kept(inputs: MergeInputs) -> dict[str, float]:
    """The part of each delta that clipping left: c_i is its weight times that, and the norm too."""
    kept = inputs.defence.kept if inputs.defence else (1.0,) * len(inputs.locals)
    return {a.digest: part for a, part in zip(inputs.locals, kept, strict=True)}


def _squared(target: AdapterTarget, summands: list[Summand]) -> float:
    return squared_norm(WeightedSum(target, summands), torch.float64)
