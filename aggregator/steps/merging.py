"""From an attempt's close record to its candidate: what is merged, from where, and into what.

Every source is what the close holds, whose bytes passed the gate when the round was closed; silos'
layouts, compression and the merge rule are those of the signed plan.
"""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from aggregator.attempt import Attempt
from aggregator.coordinator import CANDIDATES, Coordinator
from aggregator.evidence.ledger import spool_admitted
from aggregator.evidence.sources import local_adapter, remembered, starting_source
from aggregator.evidence.spool import spool, spool_own
from aggregator.evidence.storing import Readers, coordinator_alone, store
from aggregator.merge.adapter_merge import (
    AdapterMerge,
    ModuleMerger,
    ModuleProgress,
    merge_adapters,
)
from aggregator.merge.defence import Defended, defended
from aggregator.merge.merge_inputs import LocalAdapter, MergeInputs, sorted_locals
from aggregator.merge.server_state import ServerState, open_server_state
from aggregator.merge.step_size import measured_norms, stepped
from aggregator.steps.unmasking import Unmasked, unmask
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Candidate, Close, RoundPlan
from data_contracts.protocol.records.candidate import ModuleExactness, SiloInfluence, StepNorms
from data_contracts.protocol.wire_types import decimal_from_float


def merge_inputs(
    c: Coordinator, plan: RoundPlan, close: Close, unmasked: Unmasked | None = None
) -> MergeInputs:
    """The sources of a merge, spooled and verified; of a masked plan the mean alone."""
    # First, so that what is gone of a silo is what is said.
    paths = spool_admitted(c, plan, close) if unmasked is None else []
    starting = starting_source(c, plan)
    locals_ = _admitted(plan, close, paths, starting) if unmasked is None else [unmasked.local]
    return MergeInputs(
        layout=plan.exchanged,
        merge=plan.merge,
        round_number=plan.round,
        locals=sorted_locals(locals_),
        starting=starting,
        starting_digest=_digest(plan.starting_adapter),
        earlier=_earlier(c, plan),
        earlier_digest=_digest(plan.earlier_adapter),
        residual=_residual(c, plan),
        residual_digest=_digest(plan.starting_residual),
        server_state=_server_state(c, plan),
        server_state_digest=_digest(plan.server_state),
        asks_exact_error=plan.merge_error == "exact",
    )


def _admitted(
    plan: RoundPlan, close: Close, paths: Sequence[Path], starting: AdapterSource
) -> list[LocalAdapter]:
    held_against = remembered(starting)
    return [
        LocalAdapter(
            source=local_adapter(plan, admitted.silo, path, held_against),
            digest=admitted.adapter.digest,
            weight=admitted.weight,
        )
        for admitted, path in zip(close.admitted, paths, strict=True)
    ]


def merge_admitted(
    c: Coordinator,
    attempt: Attempt,
    close: Verified[Close],
    on_module: ModuleProgress | None = None,
    merge_modules: ModuleMerger | None = None,
    readers: Readers = None,
) -> Candidate:
    """Merge what `close` admitted, store the results as blobs, and draw up the candidate.

    `readers` may read it in storage; none, where the plan does not encrypt.
    """
    plan, unmasked = attempt.plan, unmask(c, attempt)
    if (readers is None) is not (plan.record.encryption is None):
        raise ValueError("a plan that encrypts has readers, and no other one")
    directory = c.workspace / CANDIDATES
    into = directory / f"{close.digest}.safetensors"
    state_file = directory / f"{close.digest}.state"
    defence = defended(merge_inputs(c, plan.record, close.record, unmasked))
    norms = _masked_norms(defence.inputs, unmasked)
    defence = replace(defence, inputs=stepped(defence.inputs, norms))
    merged = merge_adapters(defence.inputs, into, state_file, on_module, merge_modules)
    adapter = store(c, into, merged.adapter, readers)
    spool_own(c, into, adapter)
    merged = replace(merged, adapter=adapter)
    if merged.residual is not None:
        merged = replace(merged, residual=store(c, state_file, merged.residual, readers))
    elif merged.server_state is not None:
        alone = None if readers is None else coordinator_alone(plan.record)
        merged = replace(merged, server_state=store(c, state_file, merged.server_state, alone))
    candidate = _candidate(c, plan, close, defence, merged)
    return candidate if unmasked is None else _of_masked(candidate, unmasked, norms)


def _masked_norms(inputs: MergeInputs, unmasked: Unmasked | None) -> StepNorms | None:
    """What the step of a masked plan follows from, if it has one."""
    if unmasked is None or unmasked.mean_square is None:
        return None
    return measured_norms(inputs, unmasked.mean_square)


def _of_masked(candidate: Candidate, unmasked: Unmasked, norms: StepNorms | None) -> Candidate:
    """Nobody can say how far the mean of factors is from the sum of products, which nobody saw."""
    modules = tuple(module.model_copy(update={"error": None}) for module in candidate.modules)
    changes = {"error": None, "modules": modules, "unmasking": unmasked.opened_by}
    return candidate.model_copy(update=changes | {"step_norms": norms})


def _candidate(
    c: Coordinator,
    plan: Verified[RoundPlan],
    close: Verified[Close],
    defence: Defended,
    merged: AdapterMerge,
) -> Candidate:
    return Candidate.on(
        plan,
        c.clock.now(),
        close_digest=close.digest,
        merge_rule=plan.record.merge.rule,
        adapter=merged.adapter,
        residual=merged.residual,
        server_state=merged.server_state,
        discarded_energy=decimal_from_float(merged.exactness.discarded_energy),
        error=decimal_from_float(merged.exactness.error),
        error_interval=_optional(merged.exactness.interval),
        modules=tuple(
            ModuleExactness(
                module=name,
                discarded_energy=decimal_from_float(exactness.discarded_energy),
                error=decimal_from_float(exactness.error),
            )
            for name, exactness in merged.modules
        ),
        influences=_influences(close.record, defence),
        needs_person=defence.needs_person,
        step=None if defence.inputs.step is None else decimal_from_float(defence.inputs.step),
    )


def _influences(close: Close, defence: Defended) -> tuple[SiloInfluence, ...]:
    return tuple(
        SiloInfluence(
            silo=admitted.silo,
            influence=decimal_from_float(part.influence),
            kept=decimal_from_float(part.kept),
            norm=decimal_from_float(part.norm),
            distance=_optional(part.distance),
            alarm=part.alarm,
        )
        for admitted in close.admitted
        if (part := defence.parts.get(admitted.adapter.digest)) is not None
    )


def _earlier(c: Coordinator, plan: RoundPlan) -> AdapterSource | None:
    """What the last published round started from, where the merge carries on its change.

    Before the first published adapter there is no change; the first one started from the initial
    adapter.
    """
    if not plan.merge.carries_change or plan.starting_adapter is None:
        return None
    if plan.earlier_adapter is None:
        return InitialAdapter(plan.exchanged)
    return open_adapter(spool(c, c.plans, plan.earlier_adapter), plan.exchanged)


def _residual(c: Coordinator, plan: RoundPlan) -> AdapterSource | None:
    if plan.starting_residual is None or plan.residual_layout is None:
        return None
    return open_adapter(spool(c, c.plans, plan.starting_residual), plan.residual_layout)


def _server_state(c: Coordinator, plan: RoundPlan) -> ServerState | None:
    """The optimizer's state; none before its first step."""
    if plan.server_state is None:
        return None
    path = spool(c, c.plans, plan.server_state)
    return open_server_state(path, plan.exchanged, plan.merge.optimizer)


def _optional(value: float | None) -> Decimal | None:
    return None if value is None else decimal_from_float(value)


def _digest(ref: ArtifactRef | None) -> str | None:
    return None if ref is None else ref.digest
