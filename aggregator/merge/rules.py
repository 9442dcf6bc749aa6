"""The merge rules, one named function each, from the sources of one module to its merged pair.

Every rule says how far its result is from the true weighted sum of the silos' products, so that
rules can be compared and an exact one can be told from one that is not. A module that no admitted
silo trained stays as it was. Tensors that are trained whole are merged exactly under every rule, by
`whole_tensor`. The papers are named in `data_contracts.protocol.records.merge_spec`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from aggregator.merge.exactness import NOT_MEASURED, Norms, column_squares, probe_vectors
from aggregator.merge.factor_mean import factor_mean, missed_by_mean
from aggregator.merge.factor_sources import CentredSource, PaddedSource, PairSource
from aggregator.merge.gram import squared_norm
from aggregator.merge.merge_inputs import LocalAdapter, MergeInputs
from aggregator.merge.server_optimizer import initial_state, server_step
from aggregator.merge.truncation import (
    LoraPair,
    exact_truncation,
    float32,
    sketch_truncation,
    truncated,
)
from aggregator.merge.weighted_sum import DenseMatrix, Float64Array, Summand, WeightedSum
from aggregator.merge.whole_tensor import merged_tensor
from aggregator.robust.by_coordinates import combined
from data_contracts.adapters.starting_adapter import Float32Array
from data_contracts.adapters.whole_tensors import as_vector
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.merge_spec import FedAvg, MergeRule, StatefulOptimizer


@dataclass(frozen=True)
class MergedModule:
    """A (rank x in) and B (out x rank) of the merge, and what it leaves for the next round.

    Of a tensor that is trained whole as a merge sees it: A is 1, B its entries (out in x 1).
    `state` is the residual's pair, or the server optimizer's matrices.
    """

    a: Float32Array
    b: Float32Array
    norms: Norms
    state: tuple[Float32Array, ...] = ()


@dataclass(frozen=True)
class _Merge:
    """A merge whose exactness is still to be measured, which costs more than some merges."""

    a: Float32Array
    b: Float32Array
    measure: Callable[[], Norms]
    state: tuple[Float32Array, ...] = ()


Rule = Callable[[MergeInputs, AdapterTarget], _Merge]


def stack_truncate(inputs: MergeInputs, target: AdapterTarget) -> _Merge:
    """The weighted sum of products itself, cut to the rank of the adapter.

    With a server optimizer that keeps a state it is the optimizer's new product that is cut.
    """
    optimizer = inputs.merge.optimizer
    if isinstance(optimizer, StatefulOptimizer):
        return _optimized(inputs, target, optimizer)
    total = WeightedSum(target, inputs.product_summands(target))
    rank, scaling = inputs.layout.rank, inputs.layout.scaling
    return _of_pair(truncated(total, rank, scaling, inputs.seed, _probes(inputs, target)))


def sketch(inputs: MergeInputs, target: AdapterTarget) -> _Merge:
    """`stack_truncate` of the one adapter that masked images of all products gave."""
    return stack_truncate(inputs, target)


def fed_sb(inputs: MergeInputs, target: AdapterTarget) -> _Merge:
    """`stack_truncate`: in a round of cores between the bases of one adapter the sum of all has
    its rank, and the cut drops nothing but rounding."""
    return stack_truncate(inputs, target)


def average(inputs: MergeInputs, target: AdapterTarget) -> _Merge:
    """A and B averaged separately; wrong by sum of w_i (B_i - B)(A_i - A).

    Under a heavy ball the product of the averages takes the place of the sum of products.
    """
    shares = [(PaddedSource(a.source, inputs.layout), float(w)) for a, w in inputs.shares(target)]
    probes = _probes(inputs, target) if inputs.is_measured else None
    mean, images = factor_mean(inputs, target, shares, probes)
    if inputs.merge.optimizer != FedAvg():
        return _carried_on(inputs, target, mean)

    def measure() -> Norms:
        merged = WeightedSum(target, [Summand.uniform(target, mean, 1.0)])
        if probes is not None:
            missed = column_squares(images - merged.times(probes))
            return Norms.probed(column_squares(images), missed, is_cut=False)
        return missed_by_mean(merged, target, mean, shares)

    return _Merge(mean.a, mean.b, measure)


def zero_pad(inputs: MergeInputs, target: AdapterTarget) -> _Merge:
    """Lower ranks padded with zeros to the rank of the adapter, then `average`."""
    return average(inputs, target)


def frozen_a(inputs: MergeInputs, target: AdapterTarget) -> _Merge:
    """B averaged over an A that all silos share: exact."""
    return _exact(inputs, target, *_shared_factors(inputs, target))


def alternating(inputs: MergeInputs, target: AdapterTarget) -> _Merge:
    """The factor that silos trained in this round averaged over the one they share: exact."""
    return _exact(inputs, target, *_shared_factors(inputs, target))


def fedsvd(inputs: MergeInputs, target: AdapterTarget) -> _Merge:
    """B averaged over a shared A, then A re-based to the right singular vectors of B A: exact."""
    a, b = _shared_factors(inputs, target)
    left = torch.from_numpy(b).to(torch.float64) * inputs.layout.scaling
    right = torch.from_numpy(a).to(torch.float64)
    rank, scaling = inputs.layout.rank, inputs.layout.scaling
    return _of_pair(exact_truncation(left, right, rank, scaling, fresh_rows=True))


def residual(inputs: MergeInputs, target: AdapterTarget) -> _Merge:
    """`average`, and what it misses, with the residual so far, cut to the residual's rank."""
    shares = [(a.source, float(w)) for a, w in inputs.shares(target)]
    probes = _probes(inputs, target)
    mean, images = factor_mean(inputs, target, shares, probes)
    missed = [Summand.uniform(target, CentredSource(source, mean), w) for source, w in shares]
    before = [Summand.uniform(target, inputs.residual, 1.0)] if inputs.residual is not None else []
    rank = inputs.merge.residual_rank or inputs.layout.rank
    pair = truncated(WeightedSum(target, missed + before), rank, 1.0, inputs.seed, probes)

    def measure() -> Norms:
        if probes is not None and pair.beyond is not None:
            whole = images + WeightedSum(target, before).times(probes) if before else images
            return Norms.probed(column_squares(whole), _errors(pair), is_cut=True)
        products = [Summand.uniform(target, source, w) for source, w in shares]
        true_sum = squared_norm(WeightedSum(target, products + before))
        return Norms.exact(true_sum, pair.discarded_norm, pair.discarded_norm)

    return _Merge(mean.a, mean.b, measure, (pair.a, pair.b))


def shared_a(inputs: MergeInputs, target: AdapterTarget) -> _Merge:  # noqa: ARG001
    """Averages A as it averages every tensor that is trained whole; no pair is ever exchanged."""
    raise ValueError(f"expected factors A alone under shared_a, found a pair at {target.module}")


RULES: dict[MergeRule, Rule] = {
    "stack_truncate": stack_truncate,
    "average": average,
    "frozen_a": frozen_a,
    "alternating": alternating,
    "fedsvd": fedsvd,
    "residual": residual,
    "zero_pad": zero_pad,
    "shared_a": shared_a,
    "sketch": sketch,
    "fed_sb": fed_sb,
}


def merge_module(inputs: MergeInputs, target: AdapterTarget) -> MergedModule:
    """One module by the rule of the plan; unchanged where no silo trained it."""
    if target.whole is not None:
        merge = _whole(inputs, target)
    elif inputs.trainers(target):
        merge = RULES[inputs.merge.rule](inputs, target)
    else:
        merge = _untrained(inputs, target)
    norms = merge.measure() if inputs.is_measured else NOT_MEASURED
    return MergedModule(merge.a, merge.b, norms, merge.state)


def _whole(inputs: MergeInputs, target: AdapterTarget) -> _Merge:
    """The true sum itself."""
    tensor, state = merged_tensor(inputs, target)
    a, b = as_vector(target, tensor)

    def measure() -> Norms:
        norm = torch.linalg.vector_norm(torch.from_numpy(b), dtype=torch.float64)
        return Norms.exact(float(norm) ** 2, 0.0, 0.0)

    return _Merge(a, b, measure, state)


def _untrained(inputs: MergeInputs, target: AdapterTarget) -> _Merge:
    """The start as it was, with what it was published with."""
    merge = _exact(inputs, target, *inputs.starting.module(target))
    rank, shape = inputs.merge.residual_rank, (target.out_features, target.in_features)
    if inputs.residual is not None:
        return replace(merge, state=inputs.residual.module(target))
    if rank is not None:
        nothing = (np.zeros((rank, shape[1]), np.float32), np.zeros((shape[0], rank), np.float32))
        return replace(merge, state=nothing)
    if inputs.server_state is not None:
        state = inputs.server_state.module(target)
    else:
        state = initial_state(inputs.merge.optimizer, shape)
    return replace(merge, state=tuple(float32(part) for part in state))


def _probes(inputs: MergeInputs, target: AdapterTarget) -> torch.Tensor | None:
    """None where the error is to be exact."""
    return None if inputs.is_error_exact else probe_vectors(inputs.seed, target)


def _optimized(inputs: MergeInputs, target: AdapterTarget, optimizer: StatefulOptimizer) -> _Merge:
    """The server optimizer's step on the dense product, then the cut."""
    start = WeightedSum(target, [Summand.uniform(target, inputs.starting, 1.0)]).dense()
    delta = WeightedSum(target, inputs.delta_summands(target)).dense()
    before = inputs.server_state.module(target) if inputs.server_state else ()
    product, state = server_step(optimizer, start, delta, before)
    matrix, layout = DenseMatrix(torch.from_numpy(float32(product))), inputs.layout
    pair = sketch_truncation(matrix, matrix.squared_norm, layout.rank, layout.scaling, inputs.seed)
    return replace(_of_pair(pair), state=tuple(float32(part) for part in state))


def _carried_on(inputs: MergeInputs, target: AdapterTarget, mean: PairSource) -> _Merge:
    """What the optimizer makes of the product of averaged factors, cut to the adapter's rank."""
    rank, scaling, probes = inputs.layout.rank, inputs.layout.scaling, _probes(inputs, target)
    alone = replace(inputs, locals=(LocalAdapter(mean, digest="", weight=1),))
    total = WeightedSum(target, alone.product_summands(target))
    pair = truncated(total, rank, scaling, inputs.seed, None)

    def measure() -> Norms:
        merged = Summand.uniform(target, PairSource(inputs.layout, pair.a, pair.b), -1.0)
        true_sum = inputs.product_summands(target)
        sums = [WeightedSum(target, part) for part in (true_sum, [*true_sum, merged])]
        if probes is not None:
            of_sum, of_error = (column_squares(part.times(probes)) for part in sums)
            return Norms.probed(of_sum, of_error, is_cut=False)
        whole, error = (squared_norm(part) for part in sums)
        return Norms.exact(whole, error, pair.discarded_norm)

    return _Merge(pair.a, pair.b, measure)


def _of_pair(pair: LoraPair) -> _Merge:
    def measure() -> Norms:
        if pair.beyond is None:
            return Norms.exact(pair.squared_norm, pair.discarded_norm, pair.discarded_norm)
        return Norms.probed(pair.captured + pair.beyond, _errors(pair), is_cut=True)

    return _Merge(pair.a, pair.b, measure)


def _errors(pair: LoraPair) -> Float64Array:
    """What each probe says that truncation dropped, (PROBES,)."""
    if pair.beyond is None:
        raise ValueError("expected a pair that was cut with probes")
    return pair.captured - pair.kept_norm + pair.beyond


def _exact(inputs: MergeInputs, target: AdapterTarget, a: Float32Array, b: Float32Array) -> _Merge:
    """A pair that is the true sum itself."""
    product = WeightedSum(target, [Summand.uniform(target, PairSource(inputs.layout, a, b), 1.0)])
    return _Merge(a, b, lambda: Norms.exact(squared_norm(product), 0.0, 0.0))


def _shared_factors(
    inputs: MergeInputs, target: AdapterTarget
) -> tuple[Float32Array, Float32Array]:
    """The starting pair with the factor that silos trained replaced by the merged one."""
    a, b = inputs.starting.module(target)
    position = 0 if inputs.trained == "a" else 1
    defence = inputs.merge.robust
    if defence is not None and defence.by_coordinates:
        trained = [adapter.source.module(target)[position] for adapter in inputs.locals]
        # Entry by entry over the factors of all silos, which have to be in memory together.
        merged = combined(np.stack(trained), defence).astype(np.float32)
    else:
        # A silo to which a defence gives no weight is in neither of the two.
        pairs = inputs.delta_weights(target)
        factors = (adapter.source.module(target)[position] for adapter, _ in pairs)
        merged = _shifted((a, b)[position], [float(weight) for _, weight in pairs], factors)
    return (merged, b) if position == 0 else (a, merged)


def _shifted(
    start: Float32Array, weights: Sequence[float], trained: Iterable[Float32Array]
) -> Float32Array:
    """start + sum of w_i (factor_i - start), one factor at a time."""
    total = torch.from_numpy(start).to(torch.float64) * (1 - math.fsum(weights))
    for weight, factor in zip(weights, trained, strict=True):
        total.add_(torch.from_numpy(factor), alpha=weight)
    return float32(total)
