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
from data_contracts.adapters.adapter_format import AdapterFile, open_adapter
from data_contracts.adapters.block_quantisation import SCHEMES, SchemeName
from data_contracts.adapters.quantised_format import open_quantised
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.merge_spec import MergeSpec
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
