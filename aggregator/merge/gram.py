"""Inner products of LoRA products without forming any: <B A, B' A'> = <B^T B', A A'^T>.

`squared_norm` measures a weighted sum; `product_kernel` gives all inner products between the
sources of a merge, on which robust rules work. Both read pairs of chunks, so memory does not grow
with the summands, while work grows with the square of their number.
"""

from collections.abc import Iterator

import numpy as np
import torch

from aggregator.merge.weighted_sum import Chunk, Float64Array, WeightedSum


def squared_norm(total: WeightedSum, dtype: torch.dtype = torch.float32) -> float:
    """Squared Frobenius norm of the sum, c^T (B^T B * A A^T) c, with products in `dtype`.

    In float32 the error is about 1e-7 of the summands' own squared norms: much less than what
    truncation usually discards, and enough to hide what an exact merge discards.
    """
    result = 0.0
    for i, one, j, other in _chunk_pairs(total):
        left = _as(one, dtype)
        right = left if i == j else _as(other, dtype)
        kernel = _kernel(left, right).to(torch.float64)
        share = float(one.c @ kernel @ other.c)
        result += share if i == j else 2 * share
    return max(result, 0.0)


def product_kernel(total: WeightedSum) -> Float64Array:
    """K_ij = <P_i, P_j> between the summands i, j of `total`, (n x n), all in float64."""
    kernel = torch.zeros(len(total.summands), len(total.summands), dtype=torch.float64)
    owners = _owners(total)
    for i, one, j, other in _chunk_pairs(total):
        left = _as(one, torch.float64)
        right = left if i == j else _as(other, torch.float64)
        products = _kernel(left, right) * torch.outer(one.c, other.c)
        rows = torch.zeros(len(kernel), len(other.c), dtype=torch.float64)
        rows.index_add_(0, owners[i], products)
        block = torch.zeros_like(kernel).index_add_(1, owners[j], rows)
        kernel += block if i == j else block + block.T
    return np.asarray((kernel + kernel.T) / 2)


def inner_product(left: WeightedSum, right: WeightedSum) -> float:
    """<left, right> of two sums of the same shape."""
    return sum(
        float(one.c @ _kernel(one, other).to(torch.float64) @ other.c)
        for one in left.chunks()
        for other in right.chunks()
    )


def _kernel(one: Chunk, other: Chunk) -> torch.Tensor:
    """B^T B' * A A'^T; of a chunk with itself in half the work, which NumPy's product notices."""
    if one is other:
        a, b = one.a.numpy(), one.b.numpy()
        return torch.from_numpy((b.T @ b) * (a @ a.T))
    return (one.b.T @ other.b) * (one.a @ other.a.T)


def _chunk_pairs(total: WeightedSum) -> Iterator[tuple[int, Chunk, int, Chunk]]:
    """Every unordered pair of chunks, a chunk with itself first."""
    for i in range(len(total.groups)):
        one = total.chunk(i)
        yield i, one, i, one
        for j in range(i + 1, len(total.groups)):
            yield i, one, j, total.chunk(j)


def _owners(total: WeightedSum) -> list[torch.Tensor]:
    """For each chunk, the number of the summand that each of its ranks belongs to."""
    owners, first = [], 0
    for group in total.groups:
        ranks = [len(summand.coefficients) for summand in group]
        numbers = np.repeat(np.arange(first, first + len(group)), ranks)
        owners.append(torch.from_numpy(numbers))
        first += len(group)
    return owners


def _as(chunk: Chunk, dtype: torch.dtype) -> Chunk:
    return Chunk(chunk.a.to(dtype), chunk.b.to(dtype), chunk.c)
