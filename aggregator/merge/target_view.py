"""How a merge sees the two kinds of target, in one place, so that nothing else tells them apart.

A pair is seen as it is. A tensor that is trained whole is seen as one long vector: A = 1, and B all
its entries (out in x 1), of rank 1. Weighted sums, inner products and norms of vectors are those of
the matrices; with the identity for A they would be the same too, at the cost of products that are
as wide as the tensor.
"""

from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array
from data_contracts.adapters.whole_tensors import as_vector
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

CHUNK_RANK = 288
"""Stacked ranks in memory at a time: 16 silos of rank 16, the start and a mean."""
PAIRED_CHUNK_RANK = 224
"""The same where there are several chunks, of which inner products need two at a time."""
CHUNK_NUMBERS = 1 << 24
"""Entries of whole tensors in memory at a time, but for one tensor that has more: 64 MiB."""


def shape_of(target: AdapterTarget) -> tuple[int, int]:
    """(out, in) of the product B A."""
    if target.whole is None:
        return target.out_features, target.in_features
    return target.out_features * target.in_features, 1


def ranks_of(layout: AdapterLayout, target: AdapterTarget) -> int:
    """Rows of A and columns of B."""
    return layout.rank if target.whole is None else 1


def factors_of(source: AdapterSource, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
    """A (ranks x in) and B (out x ranks)."""
    a, b = source.module(target)
    return (a, b) if target.whole is None else as_vector(target, b)


def most_ranks(target: AdapterTarget, stacked: int) -> int:
    """Ranks of one chunk where `stacked` are summed in all; at least one."""
    if target.whole is None:
        return CHUNK_RANK if stacked <= CHUNK_RANK else PAIRED_CHUNK_RANK
    return max(1, min(PAIRED_CHUNK_RANK, CHUNK_NUMBERS // shape_of(target)[0]))
