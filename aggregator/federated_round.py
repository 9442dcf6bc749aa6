"""The coordinator's side of one round, step by step.

open -> collect -> close -> merge -> evaluate -> decide -> report. Every step reads the stage from
the records that exist, writes payload before record, and can be killed and run again: it finds
what was done and goes on. Nothing here knows Prefect, and only a merge imports PyTorch.
"""

import shutil
from typing import TYPE_CHECKING, TypeVar

from aggregator.adapter_layout import adapter_targets
from aggregator.admission import judge, reached_quorum
from aggregator.agreed_contracts import agreed_contracts
from aggregator.coordinator import CONTRACTS_DIRECTORY, Coordinator
from aggregator.evidence_reader import (
    admission_evidence,
    read_evidence,
    spool,
    spool_path,
)
from aggregator.federation_feed import (
    FederationState,
    id_of,
    own_keys,
    read_federation,
    read_report,
    starting_point,
)
from aggregator.ledger import copy_evaluations, copy_judged
from aggregator.planning import PlanInputs, abort_of, draft_plan, plans_of_run
from aggregator.publication import decide
from aggregator.publish import write_peft_layout
from aggregator.report import Evidence, build_report
from aggregator.report_files import ReportFiles, write_report_files
from aggregator.stage import Stage, stage_of
from data_contracts.bucket_layout import feed_slot, round_slot
from data_contracts.envelope import Verified, seal
from data_contracts.errors import FederationOperatorError, UnusableMergeError
from data_contracts.records import (
    Abort,
    Candidate,
    Close,
    Decision,
    RoundPlan,
    RoundReport,
)
from data_contracts.records.round_plan import AdapterSpec, BaseModelRef
from infra.model_files import model_digest
from infra.single_writer import claim_record

if TYPE_CHECKING:
    from aggregator.merge.adapter_merge import ModuleMerger, ModuleProgress

MAX_REASON = 400

_T = TypeVar("_T")


def open_round(c: Coordinator, round_number: int) -> Verified[RoundPlan]:
    """The plan in force for a round; a new one if there is none or its attempt was aborted."""
    state = read_federation(c)
    earlier = _plans_of(c, state, round_number)
    if earlier and abort_of(state.feed, earlier[-1]) is None:
        return earlier[-1]
    inputs = PlanInputs(
        membership=state.membership,
        feed=state.feed,
        base_model=_base_model(c),
        adapter=_adapter_spec(c, state),
        contract_digests=_contract_digests(c, state),
        starting=starting_point(c, state, round_number),
        now=c.clock.now(),
    )
    attempt = earlier[-1].record.attempt + 1 if earlier else 1
    plan = draft_plan(c.settings, inputs, round_number, attempt)
    return claim_record(
        c.plans, feed_slot(plan.feed_number), seal(plan, c.key), state.coordinator_keys
    )


def unreported_aborts(c: Coordinator, round_number: int) -> list[Verified[RoundPlan]]:
    """Aborted attempts of a round whose report is still due, say because nobody was running."""
    state = read_federation(c)
    return [
        plan
        for plan in _plans_of(c, state, round_number)
        if abort_of(state.feed, plan) is not None and read_report(c, plan) is None
    ]


def stage(c: Coordinator, plan: Verified[RoundPlan]) -> tuple[Stage, Evidence]:
    """What has to be done next, and the evidence that says so."""
    evidence, _ = read_evidence(c, read_federation(c), plan)
    return stage_of(evidence, read_report(c, plan) is not None, c.clock.now()), evidence


def close_round(c: Coordinator, plan: Verified[RoundPlan]) -> Verified[Close] | Verified[Abort]:
    """Admit, reject, count refusals and missing silos; below quorum abort instead."""
    state = read_federation(c)
    evidence, silos = read_evidence(c, state, plan)
    if evidence.close is not None:
        return evidence.close
    close = judge(plan, admission_evidence(c, plan, silos), c.clock.now())
    if not reached_quorum(close, plan.record):
        return abort_round(
            c,
            plan,
            "quorum.not_reached",
            f"{len(close.admitted)} of {plan.record.quorum} needed submissions were admitted.",
        )
    spooled = {a.adapter.digest: spool_path(c, a.adapter) for a in close.admitted}
    copy_judged(c, plan, close, silos, spooled)
    return claim_record(
        c.plans, round_slot(id_of(plan.record), Close.kind), seal(close, c.key), own_keys(c)
    )


def merge_round(
    c: Coordinator,
    plan: Verified[RoundPlan],
    on_module: "ModuleProgress | None" = None,
    merge_modules: "ModuleMerger | None" = None,
) -> Verified[Candidate]:
    """Merge the ledger's copies of the admitted adapters; a candidate that exists is adopted.

    `merge_modules` runs the modules elsewhere than on this machine's threads.
    """
    evidence, _ = read_evidence(c, read_federation(c), plan)
    if evidence.candidate is not None:
        return evidence.candidate
    close = _required(evidence.close, "a close record", "close the round first")
    # Imports torch: seconds, which a step that merges nothing need not wait for.
    from aggregator.round_merge import merge_admitted

    candidate = merge_admitted(c, plan, close, on_module, merge_modules)
    return claim_record(
        c.plans, round_slot(id_of(plan.record), Candidate.kind), seal(candidate, c.key), own_keys(c)
    )


def merge_or_abort(
    c: Coordinator, plan: Verified[RoundPlan], merge_modules: "ModuleMerger | None" = None
) -> Verified[Candidate] | Verified[Abort]:
    """As `merge_round`; an attempt whose merge nobody could use ends with an abort that says so."""
    try:
        return merge_round(c, plan, merge_modules=merge_modules)
    except UnusableMergeError as error:
        reason = f"{error.problem}: expected {error.expected}; found {error.found}."
        return abort_round(c, plan, error.rule, reason[:MAX_REASON])


def decide_round(c: Coordinator, plan: Verified[RoundPlan]) -> Verified[Decision]:
    """Publish or hold the candidate by the plan's rule."""
    evidence, _ = read_evidence(c, read_federation(c), plan)
    if evidence.decision is not None:
        return evidence.decision
    candidate = _required(evidence.candidate, "a candidate", "merge the round first")
    decision = decide(plan, candidate, evidence.evaluations, c.clock.now())
    copy_evaluations(c, plan, evidence.evaluations)
    return claim_record(
        c.plans, round_slot(id_of(plan.record), Decision.kind), seal(decision, c.key), own_keys(c)
    )


def report_round(
    c: Coordinator, plan: Verified[RoundPlan]
) -> tuple[Verified[RoundReport], ReportFiles]:
    """Sign the report, write its files, and lay out a published adapter for plain PEFT."""
    evidence, _ = read_evidence(c, read_federation(c), plan)
    report = read_report(c, plan)
    if report is None:
        report = claim_record(
            c.plans,
            round_slot(id_of(plan.record), RoundReport.kind),
            seal(build_report(evidence, c.clock.now()), c.key),
            own_keys(c),
        )
    if report.record.outcome == "published":
        _publish(c, plan, evidence)
    return report, write_report_files(report, evidence, c.reports)


def finish_latest_report(c: Coordinator) -> None:
    """Write files and published adapter of the run's last reported round again.

    A coordinator that was killed after it signed the report and before it wrote the files would
    never come back to that round otherwise.
    """
    reported = [
        plan
        for plan in plans_of_run(read_federation(c).feed, c.settings.run)
        if read_report(c, plan) is not None
    ]
    if reported:
        report_round(c, reported[-1])


def abort_round(
    c: Coordinator, plan: Verified[RoundPlan], rule: str, reason: str
) -> Verified[Abort]:
    """End the attempt without a model; the abort takes the next number of the feed."""
    state = read_federation(c)
    existing = abort_of(state.feed, plan)
    if existing is not None:
        return existing
    last = state.feed[-1]
    abort = Abort(
        federation=plan.record.federation,
        issued_at=c.clock.now(),
        run=plan.record.run,
        round=plan.record.round,
        attempt=plan.record.attempt,
        plan_digest=plan.digest,
        feed_number=last.record.feed_number + 1,
        previous_digest=last.digest,
        rule=rule,
        reason=reason,
    )
    return claim_record(
        c.plans, feed_slot(abort.feed_number), seal(abort, c.key), state.coordinator_keys
    )


def advance(c: Coordinator, plan: Verified[RoundPlan]) -> Stage:
    """Do the one thing that is due; return the stage that was found."""
    found, _ = stage(c, plan)
    match found:
        case Stage.CLOSING:
            close_round(c, plan)
        case Stage.MERGING:
            merge_or_abort(c, plan)
        case Stage.DECIDING:
            decide_round(c, plan)
        case Stage.REPORTING:
            report_round(c, plan)
        case Stage.COLLECTING | Stage.EVALUATING | Stage.REPORTED:
            pass
    return found


def _plans_of(
    c: Coordinator, state: FederationState, round_number: int
) -> list[Verified[RoundPlan]]:
    """Plans of this run's round, one per attempt, oldest first."""
    plans = plans_of_run(state.feed, c.settings.run)
    return [plan for plan in plans if plan.record.round == round_number]


def _base_model(c: Coordinator) -> BaseModelRef:
    model = c.settings.base_model
    return BaseModelRef(
        name=model.name,
        digest=model_digest(c.settings.path(model.path), c.settings.home / "model-digests.json"),
        licence=model.licence,
        licence_acceptance=model.licence_acceptance,
    )


def _adapter_spec(c: Coordinator, state: FederationState) -> AdapterSpec:
    """The run's layout: that of its first plan, so that adapters of all rounds fit together."""
    plans = plans_of_run(state.feed, c.settings.run)
    if plans:
        return plans[0].record.adapter
    adapter = c.settings.adapter
    return AdapterSpec(
        rank=adapter.rank,
        alpha=adapter.alpha,
        seed=adapter.seed,
        use_rslora=adapter.use_rslora,
        targets=adapter_targets(
            c.settings.path(c.settings.base_model.path), adapter.target_modules
        ),
    )


def _contract_digests(c: Coordinator, state: FederationState) -> dict[str, str]:
    """Digest of each silo's contract, as filed and signed with `consortia contract sign`."""
    directory = c.settings.path(CONTRACTS_DIRECTORY)
    agreed = agreed_contracts(directory, state.membership.record, c.clock.now())
    if len(agreed.digests) < c.settings.round.quorum and agreed.left_out:
        named = "; ".join(f"{silo}: {why}" for silo, why in agreed.left_out.items())
        raise FederationOperatorError(
            "round plan",
            expected="enough contracts, signed by both sides and in force, for the quorum",
            found=named,
            action="have them signed with `consortia contract sign`, or renewed",
        )
    return agreed.digests


def _publish(c: Coordinator, plan: Verified[RoundPlan], evidence: Evidence) -> None:
    candidate = _required(evidence.candidate, "a candidate", "merge the round first")
    path = spool(c, c.plans, candidate.record.adapter)
    name, residual_spec = plan.record.base_model.name, plan.record.residual_spec
    if candidate.record.residual is None or residual_spec is None:
        shutil.rmtree(c.published_residual, ignore_errors=True)
    else:
        residual = spool(c, c.plans, candidate.record.residual)
        write_peft_layout(residual, residual_spec, name, c.published_residual)
    write_peft_layout(path, plan.record.adapter, name, c.published)


def _required(value: _T | None, expected: str, action: str) -> _T:
    if value is None:
        raise FederationOperatorError("round", expected=expected, found="none", action=action)
    return value
