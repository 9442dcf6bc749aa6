"""What an operator does to a round by hand."""

from pathlib import Path

from aggregator.coordinator import Coordinator
from aggregator.federated_round import abort_round
from aggregator.federation_feed import newest_attempt, read_federation, read_report
from data_contracts.errors import FederationOperatorError


def abort_newest(c: Coordinator, reason: str) -> str:
    """Abort the newest attempt that is still open; returns its name."""
    feed = read_federation(c)
    newest = newest_attempt(c, feed)
    if newest is None or newest.abort or read_report(c, feed, newest.plan):
        raise FederationOperatorError(
            "round",
            expected="an attempt that is still open",
            found="none",
            action="start a round first, or look at `consortia round status`",
        )
    plan = newest.plan
    abort_round(c, plan, "operator.abort", reason)
    return f"round {plan.record.round} attempt {plan.record.attempt}"


def export_report(file: Path, into: Path) -> None:
    """Pack the records of a report's bundle into one archive."""
    from aggregator.report_files import export_archive, read_report_file

    export_archive(read_report_file(file), into)
