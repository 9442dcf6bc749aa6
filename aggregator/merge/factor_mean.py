"""The factors A and B of one module averaged separately, and what their product misses."""

from collections.abc import Sequence

import torch

from aggregator.merge.exactness import Norms
from aggregator.merge.factor_sources import CentredSource, PairSource
from aggregator.merge.gram import inner_product, squared_norm
from aggregator.merge.merge_inputs import MergeInputs
from aggregator.merge.truncation import float32
from aggregator.merge.weighted_sum import Summand, WeightedSum
from data_contracts.adapters.starting_adapter import AdapterSource
from data_contracts.protocol.records.adapter_layout import AdapterTarget


def factor_mean(
    inputs: MergeInputs,
    target: AdapterTarget,
    shares: Sequence[tuple[AdapterSource, float]],
    probes: torch.Tensor | None,
) -> tuple[PairSource, torch.Tensor]:
    """Means of A and of B, and the weighted sum of products times `probes`, source by source."""
    a = torch.zeros(inputs.layout.rank, target.in_features)
    b = torch.zeros(target.out_features, inputs.layout.rank)
    images = torch.zeros(target.out_features, 0 if probes is None else probes.shape[1])
    for source, weight in shares:
        own_a, own_b = map(torch.from_numpy, source.module(target))
        a.add_(own_a, alpha=weight)
        b.add_(own_b, alpha=weight)
        if probes is not None:
            images.addmm_(own_b, own_a @ probes, alpha=weight * source.layout.scaling)
    return PairSource(inputs.layout, float32(a), float32(b)), images


def missed_by_mean(
    merged: WeightedSum,
    target: AdapterTarget,
    mean: PairSource,
    shares: Sequence[tuple[AdapterSource, float]],
) -> Norms:
    """What averaging factors misses is the sum of the products of their deviations."""
    missed = WeightedSum(
        target, [Summand.uniform(target, CentredSource(source, mean), w) for source, w in shares]
    )
    error = squared_norm(missed)
    true_sum = squared_norm(merged) + 2 * inner_product(merged, missed) + error
    return Norms.exact(true_sum, error, 0.0)
