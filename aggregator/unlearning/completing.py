"""When the last round of a replay is over: the certificate is signed, and its page is written.

As every record it is claimed before it is put, so whoever was killed here signs no second one; the
page follows from it and is written again where it lacks.
"""

import logging

from aggregator.coordinator import Coordinator
from aggregator.evidence.attempt_keys import destroyed_note
from aggregator.feed.claims import sign_on_plan
from aggregator.feed.reading import read_report
from aggregator.unlearning.certificate import NewRound, OldRound, certificate
from aggregator.unlearning.certificate_page import certificate_stem, with_page, written_page
from aggregator.unlearning.erasing import write_erasure
from data_contracts.protocol.bucket_layout import attempt_of
from data_contracts.protocol.envelope import Verified, narrowed
from data_contracts.protocol.records import Erasure, ErasureCertificate, RoundPlan, RoundReport
from data_contracts.protocol.trusted_feed import FeedPosition, TrustedFeed
from infra.disk.durable_files import write_durably
from infra.records.record_store import Found, read_record

READABLE = 0o644

log = logging.getLogger("consortia")


def complete_erasure(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan], report: Verified[RoundReport]
) -> None:
    """Do nothing unless `plan` is the last one of a replay and its round ended with a decision."""
    erasure = feed.erasures.replay_of(plan.record.run)
    if plan.record.replay is None or erasure is None or report.record.outcome == "aborted":
        return
    if plan.record.round != erasure.record.replayed[-1].round:
        return
    signed = _signed(c, feed, plan, erasure)
    write_erasure(c, erasure)
    chain = tuple(membership.envelope for membership in feed.memberships)
    path = c.reports / f"{certificate_stem(signed.record)}.html"
    if not path.exists():
        write_durably(path, written_page(erasure, signed, chain), READABLE)
    log.info("%s is out again from here on: %s", erasure.record.silo, path)


def read_certificate_of(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan]
) -> Verified[ErasureCertificate] | None:
    """The certificate on a plan, if it was signed."""
    keys = feed.coordinator_trust(plan).keys
    reading = read_record(c.plans, attempt_of(plan), ErasureCertificate, keys)
    return reading.verified if isinstance(reading, Found) else None


def _signed(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan], erasure: Verified[Erasure]
) -> Verified[ErasureCertificate]:
    known = read_certificate_of(c, feed, plan)
    if known is not None:
        return known
    old, new = _old_rounds(c, feed, erasure), _new_rounds(c, feed, erasure)
    made = certificate(plan, erasure, old, new, c.clock.now())
    return sign_on_plan(c, feed, plan, with_page(erasure.record, made))


def _old_rounds(c: Coordinator, feed: TrustedFeed, erasure: Verified[Erasure]) -> list[OldRound]:
    found = []
    for each in erasure.record.replayed:
        entry = c.feed.entry(feed, FeedPosition(each.feed_number, each.plan_digest))
        if (plan := narrowed(entry, RoundPlan)) is not None:
            encryption = plan.record.encryption
            note = None if encryption is None else destroyed_note(c, encryption.round_recipient)
            found.append(OldRound(plan.record, note is not None and note.exists()))
    return found


def _new_rounds(c: Coordinator, feed: TrustedFeed, erasure: Verified[Erasure]) -> list[NewRound]:
    """Of the replay, oldest first, as their reports tell them."""
    found: dict[int, NewRound] = {}
    for entry in c.feed.entries_back(feed):
        if entry.record.feed_number <= erasure.record.feed_number:
            break
        plan = narrowed(entry, RoundPlan)
        if plan is None or plan.record.run != erasure.record.replay_run:
            continue
        report = read_report(c, feed, plan)
        if report is not None and report.record.outcome != "aborted":
            found.setdefault(plan.record.round, _new_round(report.record))
    return [found[number] for number in sorted(found)]


def _new_round(report: RoundReport) -> NewRound:
    is_published = report.outcome == "published"
    return NewRound(
        round=report.round,
        published=report.published_adapter if is_published else None,
        in_force=report.published_adapter,
        tokens=sum(silo.tokens for silo in report.silos if silo.outcome == "admitted"),
    )
