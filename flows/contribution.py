"""What each silo contributed to a round, measured at the coordinator on a public set.

Every coalition of admitted silos is merged by the plan's rule (without its defence, which is made
for whole cohorts) and measured on the same public records. Merges and measurements are kept under
the digests of what they were made of, so a computation that was stopped goes on where it was.

No silo takes part: a coalition of one silo is that silo's own adapter, which only an owner may let
others see. The coordinator has seen it already; in auditable mode that is what silos agreed to.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from aggregator.contribution.coalitions import (
    Coalition,
    all_coalitions,
    leave_one_out_coalitions,
)
from aggregator.contribution.values import Contribution, SequenceLosses, leave_one_out, shapley
from aggregator.coordinator import Coordinator
from aggregator.evidence_reader import read_evidence, spool
from aggregator.federation_feed import read_federation
from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.merge_inputs import MergeInputs
from aggregator.planning import abort_of, plans_of_run
from aggregator.round_merge import merge_inputs
from data_contracts.artifact import ArtifactRef, digest_of_bytes
from data_contracts.envelope import Verified
from data_contracts.errors import FederationOperatorError
from data_contracts.records import Close, RoundPlan
from infra.durable_files import write_durably
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutLoss, HeldoutSet
from silo_agent.training.launch import run_evaluation

STARTING = "starting"
PUBLIC = "public"

OnMerge = Callable[[int, int], None]


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
    on_merge: OnMerge | None = None,
) -> Contributions:
    """Exact Shapley values, or leave-one-out with one merge a silo; written beside the reports.

    Raises FederationOperatorError when the round was not closed or has too many silos.
    """
    plan, close = _closed(c, round_number)
    silos = [admitted.silo for admitted in close.record.admitted]
    wanted = all_coalitions(silos) if exact else leave_one_out_coalitions(silos)
    adapters = _merged(c, plan, close.record, wanted, on_merge)
    losses = _measured(c, plan.record, public, adapters)
    everyone = frozenset(silos)
    values = shapley(losses) if exact else leave_one_out({k: losses[k] for k in wanted})
    found = Contributions(
        method="shapley" if exact else "leave-one-out",
        values=tuple(values),
        starting_loss=losses[frozenset()].mean,
        merged_loss=losses[everyone].mean,
    )
    path = c.reports / f"contributions-round-{round_number:04d}-{found.method}.json"
    write_durably(path, (json.dumps(asdict(found), indent=1) + "\n").encode(), 0o644)
    return found


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
    c: Coordinator,
    plan: Verified[RoundPlan],
    close: Close,
    wanted: list[Coalition],
    on_merge: OnMerge | None,
) -> dict[Coalition, EvaluatedAdapter]:
    """One adapter a coalition; the empty one is the starting adapter."""
    inputs = merge_inputs(c, plan.record, close)
    undefended = plan.record.merge.model_copy(update={"robust": None})
    inputs = replace(inputs, merge=undefended)
    silo_of = {admitted.adapter.digest: admitted.silo for admitted in close.admitted}
    adapters = {frozenset[str](): _starting(c, plan.record)}
    for done, coalition in enumerate(wanted, start=1):
        if coalition:
            members = tuple(a for a in inputs.locals if silo_of[a.digest] in coalition)
            adapters[coalition] = _merge(c, plan, replace(inputs, locals=members), coalition)
        if on_merge:
            on_merge(done, len(wanted))
    return adapters


def _merge(
    c: Coordinator, plan: Verified[RoundPlan], inputs: MergeInputs, coalition: Coalition
) -> EvaluatedAdapter:
    name = "+".join(sorted(coalition))
    directory = c.workspace / "contributions" / plan.digest[:16]
    into = directory / f"{digest_of_bytes(name.encode())[:16]}.safetensors"
    beside = into.with_suffix(".beside")
    merge_adapters(inputs, into, beside)
    has_residual = plan.record.merge.residual_rank is not None
    return EvaluatedAdapter(name=name, path=into, residual=beside if has_residual else None)


def _starting(c: Coordinator, plan: RoundPlan) -> EvaluatedAdapter:
    def path(ref: ArtifactRef | None) -> Path | None:
        return spool(c, c.plans, ref) if ref is not None else None

    return EvaluatedAdapter(
        name=STARTING, path=path(plan.starting_adapter), residual=path(plan.starting_residual)
    )


def _measured(
    c: Coordinator,
    plan: RoundPlan,
    public: PublicSet,
    adapters: dict[Coalition, EvaluatedAdapter],
) -> dict[Coalition, SequenceLosses]:
    job = EvaluationJob(
        model_dir=c.settings.path(c.settings.base_model.path),
        adapter=plan.adapter,
        residual_spec=plan.residual_spec,
        adapters=tuple(adapters.values()),
        heldout=(HeldoutSet(name=PUBLIC, records=public.records),),
        sequence_length=plan.recipe.sequence_length,
        heldout_sequences=public.sequences,
        output_dir=c.workspace / "contributions" / f"round-{plan.round:04d}",
        per_sequence=True,
    )
    result = run_evaluation(job)
    return {
        coalition: _per_sequence(result.loss(adapter.name, PUBLIC))
        for coalition, adapter in adapters.items()
    }


def _per_sequence(loss: HeldoutLoss) -> SequenceLosses:
    pairs = np.array(loss.sequences, dtype=np.float64)
    return SequenceLosses(nats=pairs[:, 0], tokens=pairs[:, 1])
