"""How far products moved: squared Frobenius norms of what a silo changed, without forming any.

Of a pair s (B A - B_g A_g) is one product of factors side by side, and <B^T B, A A^T> its squared
norm. A merge measures the same of adapters that it sees.
"""

import numpy as np

from data_contracts.adapters.core_bases import bases_of
from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array
from data_contracts.masking.fixed_point import Float64Array
from data_contracts.masking.pieces import require_finite, whole_change
from data_contracts.protocol.records.adapter_layout import AdapterTarget


def changed_factors(
    target: AdapterTarget, local: AdapterSource, starting: AdapterSource
) -> tuple[Float64Array, Float64Array]:
    """B (out x n) and A (n x in) whose product is the change of a pair, scalings included.

    Raises SiloOperatorError where they are not finite.
    """
    (own_a, own_b), (a, b) = (source.module(target) for source in (local, starting))
    both_b = np.concatenate([own_b, -b], axis=1, dtype=np.float64) * local.layout.scaling
    both_a = np.concatenate([own_a, a], dtype=np.float64)
    for factor in (both_b, both_a):
        require_finite(factor, target.module)
    return both_b, both_a


def squared_change(target: AdapterTarget, local: AdapterSource, starting: AdapterSource) -> float:
    """Of the product of a pair, or of a tensor that is trained whole; raises as above."""
    if target.whole is not None:
        parts = whole_change(target, local, starting)
        return sum(float(np.vdot(part, part)) for part in parts)
    return _squared(*changed_factors(target, local, starting))


def squared_core_change(
    target: AdapterTarget, cores: AdapterSource, starting: AdapterSource
) -> float:
    """The same of a pair whose core changed by what `cores` has, between the bases of `starting`.

    `target` is the pair's; raises as above.
    """
    layout = starting.layout
    change = cores.module(target.core(layout.rank))[1].astype(np.float64)
    require_finite(change.reshape(-1), target.module)
    bases = bases_of(starting, target)
    return _squared(bases.moved(change) * layout.scaling, starting.module(target)[0])


def _squared(b: Float64Array, a: Float64Array | Float32Array) -> float:
    wide = np.asarray(a, dtype=np.float64)
    return max(0.0, float(np.vdot(b.T @ b, wide @ wide.T)))
