"""From the masked sum of images to an ordinary adapter: the start, and beside it the mean change.

The file has the rank of the start and as many ranks more as images have columns; its product is
the start's plus the weighted mean of what silos changed, as far as the images tell it. So a merge
takes it as its one local adapter with weight 1, and cuts it to the plan's rank as it would have cut
the sum of the silos' own products. Images are solved in float64; the bytes are the same for any
number of threads and differ between machines as those of a merge do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aggregator.unmasking.masked_sum import MaskedSum
from aggregator.unmasking.streamed_adapter import (
    Means,
    moved_by,
    require_possible,
    streamed_adapter,
)
from data_contracts.adapters.adapter_format import Float32Array
from data_contracts.adapters.starting_adapter import AdapterSource
from data_contracts.adapters.whole_tensors import stored
from data_contracts.masking.extra_numbers import extra_values
from data_contracts.masking.fixed_point import Float64Array
from data_contracts.masking.sketch import Images, SketchPayload
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget


@dataclass(frozen=True)
class UnsketchedAdapter:
    """The file that was written, its layout, and the weighted means of the payload's extra numbers
    by name."""

    adapter: ArtifactRef
    layout: AdapterLayout
    extras: dict[str, float]


def write_unsketched(
    path: Path, total: MaskedSum[SketchPayload], starting: AdapterSource, workers: int
) -> UnsketchedAdapter:
    """Write the adapter that `total` makes of `starting`, the run's; raises as `write_unmasked`."""
    payload, means = total.payload, Means(total.means(workers))
    layout = beside(payload)
    with streamed_adapter(path, layout) as out:
        for target in payload.layout.targets:
            for tensor in _module(payload, starting, target, means):
                require_possible(tensor, target)
                out.write(tensor.data)
        # With the last entry it is told whether a pad is left.
        rest = list(means.parts(len(payload.extras) + 1))
    extras = extra_values(payload.extras, total.fixed_point, np.concatenate(rest))
    return UnsketchedAdapter(out.artifact, layout, extras)


def beside(payload: SketchPayload) -> AdapterLayout:
    """The layout of start and change side by side, of scaling 1."""
    rank = payload.layout.rank + max(map(payload.rank_of, payload.layout.pairs))
    changes = {"rank": rank, "alpha": rank, "use_rslora": False}
    return payload.layout.model_copy(update=changes)


def _module(
    payload: SketchPayload, starting: AdapterSource, target: AdapterTarget, means: Means
) -> Iterator[Float32Array]:
    if target.whole is not None:
        (start,) = stored(target, *starting.module(target))
        yield moved_by(start, target, means)
        return
    columns, rows = (_image(shape, means) for shape in payload.shapes(target))
    yield from start_and_change(
        payload, starting, target, payload.rebuilt(target, Images(columns, rows))
    )


def start_and_change(
    payload: SketchPayload,
    starting: AdapterSource,
    target: AdapterTarget,
    change: tuple[Float64Array, Float64Array],
) -> tuple[Float32Array, Float32Array]:
    """A and B of one pair in the layout `beside`, from B and A of the change."""
    (b, a), (start_a, start_b) = change, starting.module(target)
    rank = beside(payload).rank
    both_a: Float32Array = np.zeros((rank, target.in_features), dtype="<f4")
    both_b: Float32Array = np.zeros((target.out_features, rank), dtype="<f4")
    own, end = len(start_a), len(start_a) + len(a)
    both_a[:own], both_a[own:end] = start_a, a
    both_b[:, :own], both_b[:, own:end] = start_b * starting.layout.scaling, b
    return both_a, both_b


def _image(shape: tuple[int, int], means: Means) -> Float64Array:
    values = [np.empty(0), *means.parts(shape[0] * shape[1])]
    return np.concatenate(values).reshape(shape)
