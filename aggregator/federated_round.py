"""The coordinator's side of one round, step by step.

open -> collect -> close -> merge -> evaluate -> decide -> report; in confidential mode what silos
need of each other's masks is passed on before they train and again before the merge. A step takes
the attempt as it was just read, writes payload before record, and can be killed and run again: it
finds what was done and goes on. Nothing here knows Prefect, and only a merge imports PyTorch.
"""

import logging
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from aggregator.coordinator import Coordinator
from aggregator.decisions.admission import reached_quorum
from aggregator.decisions.copies import said_of_copies
from aggregator.decisions.exchange import TOO_FEW, exchange_of, said_of_masks
from aggregator.decisions.stage import Stage
from aggregator.evidence.look import Look, look
from aggregator.evidence.reader import gated, read_attempt
from aggregator.evidence.storing import readers_of
from aggregator.evidence.told_totals import with_told_totals
from aggregator.feed.claims import require_fed, sign_entry, sign_on_plan, sign_report
from aggregator.feed.reading import (
    abort_of,
    attempts_back,
    is_spent,
    newest_attempt,
    read_federation,
    read_report,
)
from aggregator.publishing.published_round import publish_round
from aggregator.report.files import ReportFiles, report_with_page, whole_files, write_report_files
from aggregator.steps.drafting import drafted
from aggregator.steps.held_judgement import close_on_held, decide_on_held, listed_and_held
from aggregator.steps.relaying import list_of
from aggregator.unlearning.completing import complete_erasure
from aggregator.upkeep.disk_pruning import prune_workspace
from aggregator.upkeep.storage_check import require_ledger
from data_contracts.errors import ConsortiaError, FederationOperatorError, UnusableMergeError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import (
    Abort,
    Candidate,
    Close,
    Decision,
    RoundPlan,
    RoundRecord,
    RoundReport,
)
from data_contracts.protocol.trusted_feed import FedAttempt, TrustedFeed

if TYPE_CHECKING:
    from aggregator.merge.adapter_merge import ModuleMerger, ModuleProgress

MAX_REASON = 400

log = logging.getLogger("consortia")

_T = TypeVar("_T")


def open_round(c: Coordinator, round_number: int) -> Verified[RoundPlan]:
    """The plan in force for a round; a new one if there is none or its attempt was aborted."""
    feed = read_federation(c)
    feed.require_current(c.clock.now())
    newest = newest_attempt(c, feed)
    earlier = newest if newest and newest.plan.record.round == round_number else None
    if earlier is not None and earlier.abort is None:
        return earlier.plan
    if newest is not None and newest.plan.record.round > round_number:
        raise FederationOperatorError(
            f"round {round_number} of {c.settings.run}",
            expected=f"round {newest.plan.record.round} or a later one: silos follow a run only "
            "forwards",
            found="an earlier one",
            action="go on with the next round, or begin a run: a new name under run in "
            "federation.toml",
        )
    if earlier is not None and is_spent(c, feed, earlier):
        raise FederationOperatorError(
            f"round {round_number} of {c.settings.run}",
            expected="a round in which no silo has revealed shares",
            found="one in which they may have, and silos open no other sum of it",
            action=f"go on with round {round_number + 1}",
        )
    require_ledger(c)
    attempt = earlier.plan.record.attempt + 1 if earlier else 1
    return sign_entry(c, feed, drafted(c, feed, round_number, attempt))


def unreported_abort(c: Coordinator) -> Verified[RoundPlan] | None:
    """The newest attempt, if it was aborted and its report is due: nobody was running then."""
    feed = read_federation(c)
    newest = newest_attempt(c, feed)
    if newest is None or newest.abort is None or read_report(c, feed, newest.plan) is not None:
        return None
    return newest.plan


def relay_masks(c: Coordinator, seen: Look) -> Verified[RoundRecord] | Verified[Abort]:
    """Pass on what silos need of each other in confidential mode; too few of them end the attempt.

    Nothing is opened then: what silos sent stays under pads that nobody can take away.
    """
    attempt = seen.attempt
    due = _required(exchange_of(attempt), "a list that is due", "let the round go on")
    if due.record is None or len(due.said) < due.needed:
        lack = f"; waited for {', '.join(due.owing)}" if due.owing else ""
        reason = f"{len(due.said)} silos gave {due.what} by {due.by:%Y-%m-%d %H:%M} UTC{lack}; "
        reason += f"{due.needed} are needed.{said_of_masks(attempt)}"
        return abort_round(c, seen.plan, TOO_FEW, reason[:MAX_REASON])
    return sign_on_plan(c, seen.feed, seen.plan, list_of(attempt, due, c.clock.now()))


def close_round(c: Coordinator, seen: Look) -> Verified[Close] | Verified[Abort]:
    """Admit, reject, count refusals and missing silos; below quorum abort instead."""
    if seen.attempt.close is not None:
        return seen.attempt.close
    judged = with_told_totals(c, seen.feed, seen.plan, gated(c, seen.attempt))
    close = close_on_held(c, seen.plan, judged, c.clock.now(), seen.attempt.book)
    needed = seen.plan.record.quorum
    if not reached_quorum(close, seen.plan.record):
        reason = f"{len(close.admitted)} of {needed} needed submissions were admitted."
        reason += said_of_copies(close)
        return abort_round(c, seen.plan, "quorum.not_reached", reason[:MAX_REASON])
    return sign_on_plan(c, seen.feed, seen.plan, close)


def merge_round(
    c: Coordinator,
    seen: Look,
    on_module: "ModuleProgress | None" = None,
    merge_modules: "ModuleMerger | None" = None,
) -> Verified[Candidate]:
    """Merge the admitted adapters as they are held; a candidate that exists is adopted.

    `merge_modules` runs the modules elsewhere than on this machine's threads.
    """
    if seen.attempt.candidate is not None:
        return seen.attempt.candidate
    close = _required(seen.attempt.close, "a close record", "close the round first")
    # Imports torch: seconds, which a step that merges nothing need not wait for.
    from aggregator.steps.merging import merge_admitted

    readers = readers_of(seen.plan.record, seen.attempt.membership.record)
    candidate = merge_admitted(c, seen.attempt, close, on_module, merge_modules, readers)
    return sign_on_plan(c, seen.feed, seen.plan, candidate)


def merge_or_abort(
    c: Coordinator, seen: Look, merge_modules: "ModuleMerger | None" = None
) -> Verified[Candidate] | Verified[Abort]:
    """As `merge_round`; an attempt whose merge nobody could use ends with an abort that says so."""
    try:
        return merge_round(c, seen, merge_modules=merge_modules)
    except UnusableMergeError as error:
        reason = f"{error.problem}: expected {error.expected}; found {error.found}."
        return abort_round(c, seen.plan, error.rule, reason[:MAX_REASON])


def decide_round(c: Coordinator, seen: Look) -> Verified[Decision]:
    """Publish or hold the candidate by the plan's rule."""
    if seen.attempt.decision is not None:
        return seen.attempt.decision
    candidate = _required(seen.attempt.candidate, "a candidate", "merge the round first")
    decision = decide_on_held(c, seen.attempt, candidate)
    return sign_on_plan(c, seen.feed, seen.plan, decision)


def report_round(c: Coordinator, seen: Look) -> tuple[Verified[RoundReport], ReportFiles]:
    """Sign the report, write its files, and lay out a published adapter for its users.

    Then what no round needs goes from the workspace.
    """
    report = seen.report or _signed_report(c, seen)
    return report, _laid_out(c, seen.feed, seen.plan, report)


def _signed_report(c: Coordinator, seen: Look) -> Verified[RoundReport]:
    """Sign the report on what is held, or find the one that another coordinator signed."""
    attempt = listed_and_held(c, seen.attempt)
    report = report_with_page(attempt, c.clock.now())
    return sign_report(c, seen.feed, seen.plan, report)


def _laid_out(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan], report: Verified[RoundReport]
) -> ReportFiles:
    """The report's files and the published folder; evidence is read where a file lacks."""
    files = whole_files(report, c.reports)
    if files is None:
        attempt = read_attempt(c, feed, plan, report)
        chain = tuple(membership.envelope for membership in feed.memberships)
        files = write_report_files(report, attempt, c.reports, chain)
    if report.record.outcome == "published":
        publish_round(c, files)
    complete_erasure(c, feed, plan, report)
    _prune_workspace(c, feed)
    return files


def _prune_workspace(c: Coordinator, feed: TrustedFeed) -> None:
    """What cannot be removed now goes after a later round; it ends no round that is reported."""
    try:
        refused = prune_workspace(c, feed).refused
    except (ConsortiaError, OSError) as error:
        refused = (str(error),)
    for refusal in refused:
        log.warning("what no round needs stays for now: %s", refusal)


def finish_latest_report(c: Coordinator) -> None:
    """Write files and published adapter of the run's last reported round again.

    A coordinator that was killed after it signed the report and before it wrote the files would
    never come back to that round otherwise.
    """
    feed = read_federation(c)
    for attempt in _last_attempts(c, feed):
        if (report := read_report(c, feed, attempt.plan)) is not None:
            _laid_out(c, feed, attempt.plan, report)
            return


def abort_round(
    c: Coordinator, plan: Verified[RoundPlan], rule: str, reason: str
) -> Verified[Abort]:
    """End the attempt without a model; the abort takes the next number of the feed as it is now."""
    feed = read_federation(c)
    existing = abort_of(c, feed, plan)
    if existing is not None:
        return existing
    require_fed(c, feed, plan)
    abort = Abort.on(
        plan,
        c.clock.now(),
        feed_number=feed.head.number + 1,
        previous_digest=feed.head.digest,
        rule=rule,
        reason=reason,
    )
    return sign_entry(c, feed, abort)


def abort_interrupted(c: Coordinator, seen: Look) -> Verified[Abort]:
    """End an attempt that rests on a key which was revoked."""
    if seen.attempt.abort is not None:
        return seen.attempt.abort
    due = _required(seen.interruption, "a revoked key", "let the attempt go on")
    return abort_round(c, seen.plan, due.rule, due.reason)


def advance(c: Coordinator, plan: Verified[RoundPlan]) -> Stage:
    """Do the one thing that is due; return the stage that was found."""
    seen = look(c, plan)
    match seen.stage:
        case Stage.RELAYING:
            relay_masks(c, seen)
        case Stage.CLOSING:
            close_round(c, seen)
        case Stage.MERGING:
            merge_or_abort(c, seen)
        case Stage.DECIDING:
            decide_round(c, seen)
        case Stage.ABORTING:
            abort_interrupted(c, seen)
        case Stage.REPORTING:
            report_round(c, seen)
        case Stage.EXCHANGING | Stage.COLLECTING | Stage.EVALUATING | Stage.REPORTED | Stage.VOID:
            pass
    return seen.stage


def _last_attempts(c: Coordinator, feed: TrustedFeed) -> Iterator[FedAttempt]:
    """The newest attempt, and the ones before it for as long as somebody asks."""
    newest = newest_attempt(c, feed)
    if newest is not None:
        yield newest
        yield from islice(attempts_back(c, feed), 1, None)


def _required(value: _T | None, expected: str, action: str) -> _T:
    if value is None:
        raise FederationOperatorError("round", expected=expected, found="none", action=action)
    return value
