"""The rounds of a federation as unlearning asks about them, read from the feed and its records."""

from aggregator.coordinator import Coordinator
from aggregator.feed.reading import own_records, read_report
from aggregator.unlearning.past_round import Outcome, PastRound, Work
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.envelope import Verified, narrowed
from data_contracts.protocol.records import Abort, Candidate, Close, Decision, RoundPlan
from data_contracts.protocol.trusted_feed import TrustedFeed


def read_history(c: Coordinator, feed: TrustedFeed) -> list[PastRound]:
    """Every attempt of every run, oldest first; goes through the whole feed."""
    aborted: set[str] = set()
    found: list[PastRound] = []
    for entry in c.feed.entries_back(feed):
        plan, abort = narrowed(entry, RoundPlan), narrowed(entry, Abort)
        if abort is not None:
            aborted.add(abort.record.plan_digest)
        if plan is not None:
            is_aborted = plan.digest in aborted
            found.append(PastRound(plan, "aborted") if is_aborted else _past(c, feed, plan))
    return found[::-1]


def _past(c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan]) -> PastRound:
    records, report = own_records(c, feed, plan), read_report(c, feed, plan)
    close, decision = records.found(Close), records.found(Decision)
    candidate = records.found(Candidate)
    if close is None or decision is None or candidate is None:
        return PastRound(plan, "open")
    told = {} if report is None else {silo.silo: silo for silo in report.record.silos}
    work = {}
    for admitted in close.record.admitted:
        own = told.get(admitted.silo)
        steps = None if own is None else own.steps
        tokens = admitted.weight if own is None else own.tokens
        work[admitted.silo] = Work(steps or plan.record.recipe.local_steps, tokens)
    outcome: Outcome = decision.record.outcome if report is not None else "open"
    made = _made(candidate.record) if decision.record.outcome == "published" else ()
    return PastRound(plan, outcome, work, made, report)


def _made(candidate: Candidate) -> tuple[ArtifactRef, ...]:
    refs = (candidate.adapter, candidate.residual, candidate.server_state)
    return tuple(ref.plain for ref in refs if ref is not None)
