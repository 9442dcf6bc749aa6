"""What each silo contributed to a round, measured at the coordinator on a public set.

Every coalition of admitted silos is merged by the plan's rule (without its defence, which is made
for whole cohorts) and measured on the same public records, those of leave-one-out first. Losses are
kept under the digests of what they were made of, so a computation that was stopped goes on where it
was; adapters are kept for one batch of coalitions only.

No silo takes part: a coalition of one silo is that silo's own adapter, which only an owner may let
others see. The coordinator has seen it already; in auditable mode that is what silos agreed to.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from aggregator.contribution.coalitions import Coalition
from aggregator.contribution.plan import (
    LossJournal,
    Method,
    OnMeasured,
    contribution_plan,
    measured,
)
from aggregator.contribution.values import Contribution, SequenceLosses
from aggregator.coordinator import Coordinator
from aggregator.evidence_reader import read_evidence, spool
from aggregator.federation_feed import read_federation
from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.merge_inputs import MergeInputs
from aggregator.planning import abort_of, plans_of_run
from aggregator.round_merge import merge_inputs
from data_contracts.artifact import ArtifactRef, artifact_of_file, digest_of_bytes
from data_contracts.envelope import Verified
from data_contracts.errors import FederationOperatorError
from data_contracts.records import Close, RoundPlan
from infra.durable_files import write_durably
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutLoss, HeldoutSet
from silo_agent.training.launch import run_evaluation

STARTING = "starting"
PUBLIC = "public"


@dataclass(frozen=True)
class PublicSet:
    """JSONL records with `prompt` and `answer`, and how many packed sequences of it to use."""

    records: Path
    sequences: int = 64


@dataclass(frozen=True)
class Contributions:
    """Values by one method, in nats per token, and the losses of nobody and of everybody."""

    method: str
    values: tuple[Contribution, ...]
    starting_loss: float
    merged_loss: float


def contributions(
    c: Coordinator,
    round_number: int,
    public: PublicSet,
    *,
    exact: bool,
    on_measured: OnMeasured | None = None,
) -> Contributions:
    """Exact Shapley values, or leave-one-out with one merge a silo; written beside the reports.

    `on_measured` gets how many coalitions are measured and how many there are. Raises
    FederationOperatorError when the round was not closed or has too many silos.
    """
    plan, close = _closed(c, round_number)
    silos = [admitted.silo for admitted in close.record.admitted]
    method: Method = "shapley" if exact else "leave-one-out"
    wanted = contribution_plan(silos, method, _bound_to(plan, close, public))
    directory = c.workspace / "contributions" / plan.digest[:16]
    measure = partial(_measured, c, plan.record, close.record, public, directory)
    losses = measured(wanted, LossJournal(directory / "losses", wanted), measure, on_measured)
    found = Contributions(
        method=method,
        values=tuple(wanted.values(losses)),
        starting_loss=losses[frozenset()].mean,
        merged_loss=losses[frozenset(silos)].mean,
    )
    path = c.reports / f"contributions-round-{round_number:04d}-{found.method}.json"
    write_durably(path, (json.dumps(asdict(found), indent=1) + "\n").encode(), 0o644)
    return found


def _bound_to(plan: Verified[RoundPlan], close: Verified[Close], public: PublicSet) -> str:
    """A digest of all that decides the losses of a coalition."""
    records = artifact_of_file(public.records).digest
    decisive = [plan.digest, close.digest, records, public.sequences]
    return digest_of_bytes(json.dumps(decisive).encode())


def _closed(c: Coordinator, round_number: int) -> tuple[Verified[RoundPlan], Verified[Close]]:
    """The round's last attempt that was not aborted, with its close record."""
    state = read_federation(c)
    for plan in reversed(plans_of_run(state.feed, c.settings.run)):
        if plan.record.round == round_number and abort_of(state.feed, plan) is None:
            evidence, _ = read_evidence(c, state, plan)
            if evidence.close is not None:
                return plan, evidence.close
    raise FederationOperatorError(
        f"contributions to round {round_number}",
        expected="a round that was closed",
        found="none",
        action="name a round that was merged; `consortia round status` shows the newest",
    )


def _merged(
    c: Coordinator, plan: RoundPlan, close: Close, batch: Sequence[Coalition], directory: Path
) -> dict[Coalition, EvaluatedAdapter]:
    """One adapter a coalition; the empty one is the starting adapter."""
    undefended = plan.merge.model_copy(update={"robust": None})
    inputs = replace(merge_inputs(c, plan, close), merge=undefended)
    silo_of = {admitted.adapter.digest: admitted.silo for admitted in close.admitted}
    adapters = {}
    for coalition in batch:
        members = tuple(a for a in inputs.locals if silo_of[a.digest] in coalition)
        if coalition:
            into = directory / f"{_name(coalition)}.safetensors"
            adapters[coalition] = _merge(replace(inputs, locals=members), into, _name(coalition))
        else:
            adapters[coalition] = _starting(c, plan)
    return adapters


def _merge(inputs: MergeInputs, into: Path, name: str) -> EvaluatedAdapter:
    beside = into.with_suffix(".beside")
    merge_adapters(inputs, into, beside)
    has_residual = inputs.merge.residual_rank is not None
    return EvaluatedAdapter(name=name, path=into, residual=beside if has_residual else None)


def _name(coalition: Coalition) -> str:
    """No silo can be called so, and ten long names would not fit a file's."""
    return digest_of_bytes("+".join(sorted(coalition)).encode())[:32]


def _starting(c: Coordinator, plan: RoundPlan) -> EvaluatedAdapter:
    def path(ref: ArtifactRef | None) -> Path | None:
        return spool(c, c.plans, ref) if ref is not None else None

    return EvaluatedAdapter(
        name=STARTING, path=path(plan.starting_adapter), residual=path(plan.starting_residual)
    )


def _measured(
    c: Coordinator,
    plan: RoundPlan,
    close: Close,
    public: PublicSet,
    directory: Path,
    batch: Sequence[Coalition],
) -> dict[Coalition, SequenceLosses]:
    """Merge and measure a few coalitions; their adapters are removed when the losses are known."""
    adapters_directory = directory / "adapters"
    adapters = _merged(c, plan, close, batch, adapters_directory)
    job = EvaluationJob(
        model_dir=c.settings.path(c.settings.base_model.path),
        adapter=plan.adapter,
        residual_spec=plan.residual_spec,
        adapters=tuple(adapters.values()),
        heldout=(HeldoutSet(name=PUBLIC, records=public.records),),
        sequence_length=plan.recipe.sequence_length,
        heldout_sequences=public.sequences,
        output_dir=directory / "evaluation",
        per_sequence=True,
    )
    result = run_evaluation(job)
    shutil.rmtree(adapters_directory, ignore_errors=True)
    return {
        coalition: _per_sequence(result.loss(adapter.name, PUBLIC))
        for coalition, adapter in adapters.items()
    }


def _per_sequence(loss: HeldoutLoss) -> SequenceLosses:
    pairs = np.array(loss.sequences, dtype=np.float64)
    return SequenceLosses(nats=pairs[:, 0], tokens=pairs[:, 1])
