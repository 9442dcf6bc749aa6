"""The merge of each coalition of a closed round's silos.

By the plan's rule, but without its defence, which is made for whole cohorts. Nobody's coalition is
what the round started from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aggregator.contribution.coalitions import Coalition
from aggregator.coordinator import Coordinator
from aggregator.evidence.spool import spool
from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.merge_inputs import MergeInputs
from aggregator.merge.step_size import stepped
from aggregator.steps.merging import merge_inputs
from data_contracts.protocol.artifact import ArtifactRef, digest_of_bytes
from data_contracts.protocol.records import Close, RoundPlan


@dataclass(frozen=True)
class MergedFiles:
    """Adapter and residual of one coalition; without an adapter it is the base model.

    `name` is short, fit for a file, and no silo's.
    """

    name: str
    adapter: Path | None
    residual: Path | None = None


def merge_coalitions(
    c: Coordinator, plan: RoundPlan, close: Close, batch: Sequence[Coalition], directory: Path
) -> dict[Coalition, MergedFiles]:
    """Merge each coalition of `batch` into files of `directory`."""
    undefended = plan.merge.model_copy(update={"robust": None})
    inputs = replace(merge_inputs(c, plan, close), merge=undefended)
    silo_of = {admitted.adapter.digest: admitted.silo for admitted in close.admitted}
    merged = {}
    for coalition in batch:
        if coalition:
            members = tuple(a for a in inputs.locals if silo_of[a.digest] in coalition)
            merged[coalition] = _merge(replace(inputs, locals=members), directory, coalition)
        else:
            merged[coalition] = _starting(c, plan)
    return merged


def _merge(inputs: MergeInputs, directory: Path, coalition: Coalition) -> MergedFiles:
    name = digest_of_bytes("+".join(sorted(coalition)).encode())[:32]
    into = directory / f"{name}.safetensors"
    state_file = into.with_suffix(".state")
    merged = merge_adapters(stepped(inputs), into, state_file)
    return MergedFiles(name, into, state_file if merged.residual else None)


def _starting(c: Coordinator, plan: RoundPlan) -> MergedFiles:
    def path(ref: ArtifactRef | None) -> Path | None:
        return spool(c, c.plans, ref) if ref is not None else None

    return MergedFiles("starting", path(plan.starting_adapter), path(plan.starting_residual))
