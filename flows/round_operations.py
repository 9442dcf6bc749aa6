"""What an operator does to a round by hand."""

from pathlib import Path

from aggregator.coordinator import Coordinator
from aggregator.federated_round import abort_round
from aggregator.federation_feed import read_federation, read_report
from aggregator.planning import abort_of, latest_plan
from data_contracts.errors import FederationOperatorError


def abort_newest(c: Coordinator, reason: str) -> str:
    """Abort the newest attempt that is still open; returns its name."""
    state = read_federation(c)
    plan = latest_plan(state.feed, c.settings.run)
    if plan is None or abort_of(state.feed, plan) or read_report(c, plan):
        raise FederationOperatorError(
            "round",
            expected="an attempt that is still open",
            found="none",
            action="start a round first, or look at `consortia round status`",
        )
    abort_round(c, plan, "operator.abort", reason)
    return f"round {plan.record.round} attempt {plan.record.attempt}"


def export_report(file: Path, into: Path) -> None:
    """Pack the records of a report's bundle into one archive."""
    from aggregator.report_files import export_archive, read_bundle

    export_archive(read_bundle(file), into)
