"""The coordinator's side of one round, step by step.

open -> collect -> close -> merge -> evaluate -> decide -> report. Every step reads the stage from
the records that exist, writes payload before record, and can be killed and run again: it finds
what was done and goes on. Nothing here knows Prefect, and only a merge imports PyTorch.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from aggregator.coordinator import CONTRACTS_DIRECTORY, Coordinator
from aggregator.decisions.admission import reached_quorum
from aggregator.decisions.held_judgement import close_on_held, decide_on_held, listed_and_held
from aggregator.evidence.attempt import Attempt
from aggregator.evidence.interruption import interruption_of
from aggregator.evidence.reader import gated, read_attempt
from aggregator.evidence.stage import Stage, stage_of
from aggregator.planning.agreed_contracts import agreed_contracts
from aggregator.planning.base_model_layout import adapter_targets
from aggregator.planning.federation_feed import (
    abort_of,
    attempts_back,
    claim_on_plan,
    is_fed,
    newest_attempt,
    own_key,
    read_federation,
    read_report,
    signing_key,
    starting_point,
)
from aggregator.planning.planning import PlanInputs, draft_plan
from aggregator.publishing.published_round import publish_round
from aggregator.report.files import ReportFiles, report_with_page, whole_files, write_report_files
from aggregator.upkeep.disk_pruning import prune_workspace
from aggregator.upkeep.storage_check import require_ledger
from data_contracts.errors import ConsortiaError, FederationOperatorError, UnusableMergeError
from data_contracts.protocol.bucket_layout import feed_slot
from data_contracts.protocol.envelope import Verified, narrowed, seal
from data_contracts.protocol.records import (
    Abort,
    Candidate,
    Close,
    Decision,
    RoundPlan,
    RoundRecord,
    RoundReport,
)
from data_contracts.protocol.records.round_plan import AdapterLayout, BaseModelRef
from data_contracts.protocol.trusted_feed import FedAttempt, TrustedFeed
from infra.disk.model_files import model_digest
from infra.storage.single_writer import claim_record

if TYPE_CHECKING:
    from aggregator.merge.adapter_merge import ModuleMerger, ModuleProgress

MAX_REASON = 400

log = logging.getLogger("consortia")

_T = TypeVar("_T")
RoundRecordT = TypeVar("RoundRecordT", bound=RoundRecord)
EntryT = TypeVar("EntryT", RoundPlan, Abort)


def open_round(c: Coordinator, round_number: int) -> Verified[RoundPlan]:
    """The plan in force for a round; a new one if there is none or its attempt was aborted."""
    feed = read_federation(c)
    feed.require_current(c.clock.now())
    newest = newest_attempt(c, feed)
    earlier = newest if newest and newest.plan.record.round == round_number else None
    if earlier is not None and earlier.abort is None:
        return earlier.plan
    require_ledger(c)
    inputs = PlanInputs(
        membership=feed.membership,
        head=feed.head,
        base_model=_base_model(c),
        layout=newest.plan.record.layout if newest else _first_layout(c),
        contract_digests=_contract_digests(c, feed),
        starting=starting_point(c, feed),
        now=c.clock.now(),
    )
    attempt = earlier.plan.record.attempt + 1 if earlier else 1
    plan = draft_plan(c.settings, inputs, round_number, attempt)
    membership = feed.membership.record
    key = signing_key(c, membership.coordinator_key, f"membership {membership.number}")
    return _claimed_entry(c, feed, seal(plan, key), RoundPlan)


def unreported_abort(c: Coordinator) -> Verified[RoundPlan] | None:
    """The newest attempt, if it was aborted and its report is due: nobody was running then."""
    feed = read_federation(c)
    newest = newest_attempt(c, feed)
    if newest is None or newest.abort is None or read_report(c, feed, newest.plan) is not None:
        return None
    return newest.plan


@dataclass(frozen=True)
class Look:
    """An attempt as storage shows it at one moment, and its stage."""

    feed: TrustedFeed
    attempt: Attempt
    stage: Stage


def look(c: Coordinator, plan: Verified[RoundPlan], feed: TrustedFeed | None = None) -> Look:
    """Read everything about an attempt once; `feed` where it was read just now."""
    feed = feed or read_federation(c)
    report = read_report(c, feed, plan)
    attempt = read_attempt(c, feed, plan, report)
    if not is_fed(c, feed, plan):
        return Look(feed, attempt, Stage.VOID)
    found = stage_of(
        attempt,
        c.clock.now(),
        reported=report is not None,
        interrupted=interruption_of(feed, attempt) is not None,
    )
    return Look(feed, attempt, found)


def stage(c: Coordinator, plan: Verified[RoundPlan]) -> Stage:
    """What has to be done next."""
    return look(c, plan).stage


def close_round(c: Coordinator, plan: Verified[RoundPlan]) -> Verified[Close] | Verified[Abort]:
    """Admit, reject, count refusals and missing silos; below quorum abort instead."""
    feed = read_federation(c)
    attempt = read_attempt(c, feed, plan)
    if attempt.close is not None:
        return attempt.close
    close = close_on_held(c, plan, gated(c, attempt), c.clock.now())
    if not reached_quorum(close, plan.record):
        return abort_round(
            c,
            plan,
            "quorum.not_reached",
            f"{len(close.admitted)} of {plan.record.quorum} needed submissions were admitted.",
        )
    return _claimed(c, feed, plan, close)


def merge_round(
    c: Coordinator,
    plan: Verified[RoundPlan],
    on_module: "ModuleProgress | None" = None,
    merge_modules: "ModuleMerger | None" = None,
) -> Verified[Candidate]:
    """Merge the admitted adapters as they are held; a candidate that exists is adopted.

    `merge_modules` runs the modules elsewhere than on this machine's threads.
    """
    feed = read_federation(c)
    attempt = read_attempt(c, feed, plan)
    if attempt.candidate is not None:
        return attempt.candidate
    close = _required(attempt.close, "a close record", "close the round first")
    # Imports torch: seconds, which a step that merges nothing need not wait for.
    from aggregator.merge.round_merge import merge_admitted

    candidate = merge_admitted(c, plan, close, on_module, merge_modules)
    return _claimed(c, feed, plan, candidate)


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
    feed = read_federation(c)
    attempt = read_attempt(c, feed, plan)
    if attempt.decision is not None:
        return attempt.decision
    candidate = _required(attempt.candidate, "a candidate", "merge the round first")
    return _claimed(c, feed, plan, decide_on_held(c, attempt, candidate))


def report_round(
    c: Coordinator, plan: Verified[RoundPlan]
) -> tuple[Verified[RoundReport], ReportFiles]:
    """Sign the report, write its files, and lay out a published adapter for its users.

    Then what no round needs goes from the workspace.
    """
    feed = read_federation(c)
    report = read_report(c, feed, plan) or _reported(c, feed, plan)
    files = whole_files(report, c.reports)
    if files is None:
        attempt = read_attempt(c, feed, plan, report)
        chain = tuple(membership.envelope for membership in feed.memberships)
        files = write_report_files(report, attempt, c.reports, chain)
    if report.record.outcome == "published":
        publish_round(c, files)
    _prune_workspace(c, feed)
    return report, files


def _prune_workspace(c: Coordinator, feed: TrustedFeed) -> None:
    """What cannot be removed now goes after a later round; it ends no round that is reported."""
    try:
        refused = prune_workspace(c, feed).refused
    except (ConsortiaError, OSError) as error:
        refused = (str(error),)
    for refusal in refused:
        log.warning("what no round needs stays for now: %s", refusal)


def _reported(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan]
) -> Verified[RoundReport]:
    """Sign the report on what is held, or find the one that another coordinator signed."""
    attempt = listed_and_held(c, read_attempt(c, feed, plan))
    # The key that planned the attempt, or, where it was revoked or is lost, the one in force.
    keys = feed.report_keys(plan)
    planned, newest = attempt.membership.record.coordinator_key, feed.membership.record
    key = own_key(c, planned) if planned in keys else None
    key = key or signing_key(c, newest.coordinator_key, f"membership {newest.number}")
    return claim_on_plan(c, plan, seal(report_with_page(attempt, c.clock.now()), key), keys)


def finish_latest_report(c: Coordinator) -> None:
    """Write files and published adapter of the run's last reported round again.

    A coordinator that was killed after it signed the report and before it wrote the files would
    never come back to that round otherwise.
    """
    feed = read_federation(c)
    for attempt in _last_attempts(c, feed):
        if read_report(c, feed, attempt.plan) is not None:
            report_round(c, attempt.plan)
            return


def abort_round(
    c: Coordinator, plan: Verified[RoundPlan], rule: str, reason: str
) -> Verified[Abort]:
    """End the attempt without a model; the abort takes the next number of the feed."""
    feed = read_federation(c)
    existing = abort_of(c, feed, plan)
    if existing is not None:
        return existing
    _require_fed(c, feed, plan)
    abort = Abort.on(
        plan,
        c.clock.now(),
        feed_number=feed.head.number + 1,
        previous_digest=feed.head.digest,
        rule=rule,
        reason=reason,
    )
    newest = feed.membership.record
    key = signing_key(c, newest.coordinator_key, f"membership {newest.number}")
    return _claimed_entry(c, feed, seal(abort, key), Abort)


def abort_interrupted(c: Coordinator, plan: Verified[RoundPlan]) -> Verified[Abort]:
    """End an attempt that rests on a key which was revoked."""
    feed = read_federation(c)
    attempt = read_attempt(c, feed, plan)
    if attempt.abort is not None:
        return attempt.abort
    due = _required(interruption_of(feed, attempt), "a revoked key", "let the attempt go on")
    return abort_round(c, plan, due.rule, due.reason)


def advance(c: Coordinator, plan: Verified[RoundPlan]) -> Stage:
    """Do the one thing that is due; return the stage that was found."""
    found = stage(c, plan)
    match found:
        case Stage.CLOSING:
            close_round(c, plan)
        case Stage.MERGING:
            merge_or_abort(c, plan)
        case Stage.DECIDING:
            decide_round(c, plan)
        case Stage.ABORTING:
            abort_interrupted(c, plan)
        case Stage.REPORTING:
            report_round(c, plan)
        case Stage.COLLECTING | Stage.EVALUATING | Stage.REPORTED | Stage.VOID:
            pass
    return found


def _last_attempts(c: Coordinator, feed: TrustedFeed) -> Iterator[FedAttempt]:
    """The newest attempt, and the ones before it for as long as somebody asks."""
    newest = newest_attempt(c, feed)
    if newest is not None:
        yield newest
        yield from islice(attempts_back(c, feed), 1, None)


def _claimed(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan], record: RoundRecordT
) -> Verified[RoundRecordT]:
    """Sign a record on a plan with the key that planned, and put it or find the earlier one."""
    _require_fed(c, feed, plan)
    membership = feed.membership_of(plan).record
    key = signing_key(c, membership.coordinator_key, f"membership {membership.number}")
    return claim_on_plan(c, plan, seal(record, key), {key.public_key_hex})


def _require_fed(c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan]) -> None:
    if not is_fed(c, feed, plan):
        raise FederationOperatorError(
            f"plan of round {plan.record.round}",
            expected="a plan that is part of the feed",
            found=f"one that membership {feed.membership.record.number} made void",
            action="start the round again; it is planned under the new membership",
        )


def _claimed_entry(
    c: Coordinator, feed: TrustedFeed, proposed: Verified[EntryT], record_type: type[EntryT]
) -> Verified[EntryT]:
    """Put an entry of the feed, unless another coordinator was first with one like it.

    Raises FederationOperatorError when it was first with one of the other kind.
    """

    def counts(envelope: bytes) -> Verified[RoundPlan | Abort]:
        return feed.next_entry(envelope)

    number = feed.head.number + 1
    entry = Verified[RoundPlan | Abort](proposed.record, proposed.digest, proposed.envelope)
    epoch = feed.governing(number).digest
    claimed = claim_record(c.plans, feed_slot(number), entry, counts, epoch)
    winner = narrowed(claimed, record_type)
    if winner is None:
        raise FederationOperatorError(
            f"feed entry {number}",
            expected=f"a {record_type.kind}",
            found="another kind, written by another coordinator at this moment",
            action="run the command again; one coordinator at a time writes the feed",
        )
    return winner


def _base_model(c: Coordinator) -> BaseModelRef:
    model = c.settings.base_model
    return BaseModelRef(
        name=model.name,
        digest=model_digest(c.settings.path(model.path), c.model_digests),
        licence=model.licence,
        licence_acceptance=model.licence_acceptance,
        hub_id=model.hub_id,
        hub_revision=model.hub_revision,
    )


def _first_layout(c: Coordinator) -> AdapterLayout:
    """The run's layout: later plans take that of the first, so that all rounds fit together."""
    adapter = c.settings.adapter
    return AdapterLayout(
        rank=adapter.rank,
        alpha=adapter.alpha,
        seed=adapter.seed,
        use_rslora=adapter.use_rslora,
        targets=adapter_targets(
            c.settings.path(c.settings.base_model.path), adapter.target_modules
        ),
    )


def _contract_digests(c: Coordinator, feed: TrustedFeed) -> dict[str, str]:
    """Digest of each silo's contract, as filed and signed with `consortia contract sign`."""
    directory = c.settings.path(CONTRACTS_DIRECTORY)
    agreed = agreed_contracts(directory, feed, c.clock.now())
    if len(agreed.digests) < c.settings.round.quorum and agreed.left_out:
        named = "; ".join(f"{silo}: {why}" for silo, why in agreed.left_out.items())
        raise FederationOperatorError(
            "round plan",
            expected="enough contracts, signed by both sides and in force, for the quorum",
            found=named,
            action="have them signed with `consortia contract sign`, or renewed",
        )
    return agreed.digests


def _required(value: _T | None, expected: str, action: str) -> _T:
    if value is None:
        raise FederationOperatorError("round", expected=expected, found="none", action=action)
    return value
