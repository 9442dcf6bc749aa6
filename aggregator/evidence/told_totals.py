"""What silos have signed of their lifetime totals before, as the reports of the federation list it.

Of all runs: a population's total is one for its lifetime. Only what was reported before a plan was
signed counts as earlier than what silos say under it, by the coordinator's clock alone; an attempt
without a report says nothing here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from aggregator.attempt import SiloRecords
from aggregator.coordinator import Coordinator
from aggregator.decisions.privacy_rules import is_lower
from aggregator.evidence.transfers import several_at_a_time
from aggregator.feed.reading import read_report
from data_contracts.protocol.envelope import Verified, narrowed
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.privacy_terms import PrivacyStatement
from data_contracts.protocol.trusted_feed import TrustedFeed


def with_told_totals(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan], silos: Iterable[SiloRecords]
) -> list[SiloRecords]:
    """The silos' records, of a private plan with whether a total is less than one before."""
    if plan.record.privacy is None:
        return list(silos)
    earlier = told_before(c, feed, plan)
    return [replace(own, told_less=_is_less(own, earlier.get(own.silo, ()))) for own in silos]


def told_before(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan]
) -> dict[str, list[PrivacyStatement]]:
    """By silo, from the reports that were signed before `plan`: one read for each private plan of
    the feed."""
    plans = list(_private_plans(c, feed, plan))
    reports = several_at_a_time(lambda earlier: read_report(c, feed, earlier), plans)
    found: dict[str, list[PrivacyStatement]] = {}
    for report in reports:
        if report is None or report.record.issued_at > plan.record.issued_at:
            continue
        for summary in report.record.silos:
            if summary.privacy is not None:
                found.setdefault(summary.silo, []).append(summary.privacy)
    return found


def _private_plans(
    c: Coordinator, feed: TrustedFeed, but: Verified[RoundPlan]
) -> Iterator[Verified[RoundPlan]]:
    for entry in c.feed.entries_back(feed):
        plan = narrowed(entry, RoundPlan)
        if plan is not None and plan.record.privacy is not None and plan.digest != but.digest:
            yield plan


def _is_less(own: SiloRecords, earlier: Iterable[PrivacyStatement]) -> bool:
    statement = own.verdict.record.privacy if own.verdict is not None else None
    return statement is not None and is_lower(statement, earlier)
