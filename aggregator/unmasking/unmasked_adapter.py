"""From a masked sum to an ordinary adapter file: what the round started from, plus the mean change.

The file is what a silo would have submitted that trained to that mean, in the exchanged layout of
the plan. So a merge takes it as its one local adapter with weight 1, and rules whose merge is
linear in what silos send give what they would have given from the silos' own adapters, to the
rounding of the fixed point. Start and mean are added in float64 and rounded once; the bytes are the
same on every machine and for any number of threads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aggregator.unmasking.masked_sum import MaskedSum
from aggregator.unmasking.streamed_adapter import Means, moved_by, streamed_adapter
from data_contracts.adapters.adapter_format import Float32Array
from data_contracts.adapters.starting_adapter import AdapterSource
from data_contracts.adapters.whole_tensors import stored
from data_contracts.masking.extra_numbers import extra_values
from data_contracts.masking.payload import Payload
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.adapter_layout import AdapterTarget


@dataclass(frozen=True)
class UnmaskedAdapter:
    """The file that was written, and the weighted means of the payload's extra numbers by name."""

    adapter: ArtifactRef
    extras: dict[str, float]


def write_unmasked(
    path: Path, total: MaskedSum[Payload], starting: AdapterSource, workers: int
) -> UnmaskedAdapter:
    """Write the adapter that `total` makes of `starting`, which has the payload's layout.

    The file is absent or complete; one module is in memory at a time. Raises UnusableMergeError for
    a value that no adapter may have or a pad that is left, UntrustedInputError for a masked file
    that became shorter, and ConsortiaError where the disk refuses.
    """
    payload, means = total.payload, Means(total.means(workers))
    with streamed_adapter(path, payload.layout) as out:
        for target in payload.layout.targets:
            for tensor in _module(total, starting, target, means):
                out.write(tensor.data)
        rest = list(means.parts(payload.entries - payload.tensor_entries))
    extras = extra_values(payload.extras, total.fixed_point, np.concatenate(rest))
    return UnmaskedAdapter(out.artifact, extras)


def _module(
    total: MaskedSum[Payload], starting: AdapterSource, target: AdapterTarget, means: Means
) -> Iterator[Float32Array]:
    tensors = stored(target, *starting.module(target))
    for start, is_in in zip(tensors, total.payload.masked(target), strict=True):
        yield moved_by(start, target, means) if is_in else np.ascontiguousarray(start, dtype="<f4")
