"""The one place where the bake-off calls the product's merge and its compression.

Local adapters are handed over in memory; what the merge writes is opened through the product's
gate, as a coordinator and the silos of the next round would.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from aggregator.merge.adapter_merge import merge_adapters, merge_on_threads
from aggregator.merge.merge_inputs import LocalAdapter, MergeInputs
from aggregator.merge.server_state import ServerState, open_server_state
from aggregator.merge.step_size import stepped
from aggregator.unmasking.unsketched_adapter import beside, start_and_change
from data_contracts.adapters.adapter_format import AdapterFile, Float32Array, open_adapter
from data_contracts.adapters.block_quantisation import SCHEMES, SchemeName
from data_contracts.adapters.quantised_format import open_quantised
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, narrowed
from data_contracts.masking.fixed_point import Float64Array
from data_contracts.masking.sketch import Images, SketchedChange, SketchPayload
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.merge_spec import MergeSpec
from data_contracts.protocol.records.sketch_width import least_sketch_width
from data_contracts.protocol.records.training_recipe import TrainedFactors, trained_factors
from silo_agent.compression.error_feedback import (
    CarriedError,
    LocalRound,
    RoundFiles,
    compress,
)


@dataclass(frozen=True)
class GlobalState:
    """What a round starts from, and how far the merge that made it was from the exact one."""

    adapter: AdapterSource
    earlier: AdapterSource | None = None
    residual: AdapterFile | None = None
    server_state: ServerState | None = None
    error: float = 0.0
    step: float | None = None

    @classmethod
    def initial(cls, layout: AdapterLayout) -> "GlobalState":
        """A from the seed, B zero, no residual, no optimizer state."""
        return cls(InitialAdapter(layout))

    def trained(self, merge: MergeSpec, round_number: int) -> TrainedFactors:
        """Which factors silos train from here."""
        is_first = isinstance(self.adapter, InitialAdapter)
        return trained_factors(merge.rule, round_number, is_first=is_first)


def merged(
    locals_: Sequence[tuple[AdapterSource, int]],
    start: GlobalState,
    merge: MergeSpec,
    round_number: int,
    directory: Path,
) -> GlobalState:
    """The next state from local adapters with their tokens; files go to `directory`."""
    layout = start.adapter.layout
    if merge.rule == "sketch":
        locals_ = [(_unsketched(locals_, start.adapter, round_number), 1)]
    given = MergeInputs(
        layout=layout,
        merge=merge,
        round_number=round_number,
        locals=tuple(LocalAdapter(a, _digest(a), tokens) for a, tokens in locals_),
        starting=start.adapter,
        earlier=start.earlier,
        residual=start.residual,
        server_state=start.server_state,
    )
    inputs = stepped(given)
    into = directory / f"global-{round_number}.safetensors"
    state_file = directory / f"state-{round_number}.safetensors"
    one_thread = partial(merge_on_threads, workers=1)
    result = merge_adapters(inputs, into, state_file, merge_modules=one_thread)
    adapter = open_adapter(into, layout)
    state = GlobalState(adapter, start.adapter, error=result.exactness.error, step=inputs.step)
    if result.server_state is not None:
        return replace(state, server_state=open_server_state(state_file, layout, merge.optimizer))
    if result.residual is None:
        return state
    changes = {"rank": merge.residual_rank, "alpha": merge.residual_rank}
    return replace(state, residual=open_adapter(state_file, layout.model_copy(update=changes)))


@dataclass(frozen=True)
class _Beside:
    """The start, and beside it the mean change that images gave, as `unsketched_adapter` has it."""

    layout: AdapterLayout
    payload: SketchPayload
    starting: AdapterSource
    changes: dict[str, tuple[Float64Array, Float64Array]]

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """A (ranks x in) and B (out x ranks)."""
        return start_and_change(self.payload, self.starting, target, self.changes[target.module])


def _unsketched(
    locals_: Sequence[tuple[AdapterSource, int]], start: AdapterSource, round_number: int
) -> AdapterSource:
    """What the coordinator rebuilds of the sum of images: without masks, which take nothing away
    but the rounding of the fixed point."""
    layout, total = start.layout, sum(tokens for _, tokens in locals_)
    width = least_sketch_width(layout.rank, [source.layout.rank for source, _ in locals_])
    payload = SketchPayload(layout, width, round_number)
    changes: dict[str, tuple[Float64Array, Float64Array]] = {}
    for target in layout.targets:
        (out, k), (wider, into) = payload.shapes(target)
        columns, rows = np.zeros((out, k)), np.zeros((wider, into))
        for source, tokens in locals_:
            change = SketchedChange(payload, source, narrowed(start, source.layout))
            images = change.images(target)
            columns += images.columns * (tokens / total)
            rows += images.rows * (tokens / total)
        changes[target.module] = payload.rebuilt(target, Images(columns, rows))
    return _Beside(beside(payload), payload, start, changes)


class Compressor:
    """One silo's compression: what was left unsent is carried from round to round."""

    def __init__(self, scheme: SchemeName, directory: Path) -> None:
        self._scheme = SCHEMES[scheme]
        self._directory = directory
        self._carried: CarriedError | None = None
        directory.mkdir(parents=True)

    def sent(
        self,
        local: AdapterSource,
        start: AdapterSource,
        trained: TrainedFactors,
        round_number: int,
    ) -> AdapterSource:
        """What the coordinator decodes of `local`, which was trained from `start`."""
        sent, residual, factors = (
            self._directory / f"{name}-{round_number}" for name in ("sent", "residual", "factors")
        )
        files = RoundFiles(sent, residual, factors)
        compress(LocalRound(local, start, self._scheme, trained), self._carried, files)
        # A is re-based by the merge, so the error needs the factors that it belongs to.
        self._carried = CarriedError(
            open_adapter(residual, local.layout), open_adapter(factors, local.layout)
        )
        return open_quantised(sent, local.layout, self._scheme, start)


def _digest(adapter: AdapterSource) -> str:
    """Of the factors in the order of the layout: what sorts the summands of a merge."""
    digest = hashlib.sha256()
    for target in adapter.layout.targets:
        for factor in adapter.module(target):
            digest.update(np.ascontiguousarray(factor).tobytes())
    return digest.hexdigest()
