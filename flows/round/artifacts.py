"""What the Prefect page shows of a round. Every string that a silo supplied is escaped."""

import html
from decimal import Decimal
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan, RoundReport, Status


def artifact_key(plan: Verified[RoundPlan], what: str) -> str:
    """Prefect's artifact keys allow lower-case letters, digits and dashes only."""
    record = plan.record
    return f"{record.run}-round-{record.round}-attempt-{record.attempt}-{what}"


class SiloProgress:
    """Progress bar of one silo in the Prefect page."""

    def __init__(self, plan: Verified[RoundPlan], silo: str) -> None:
        # Prefect types this for both worlds; called from sync code it is never a coroutine.
        self._artifact = cast(
            UUID,
            create_progress_artifact(
                progress=0.0, key=artifact_key(plan, silo), description=f"{silo}: waiting"
            ),
        )
        self._silo = silo
        self._last: tuple[str, int] | None = None

    def show(self, status: Status) -> None:
        """Update when phase or step changed."""
        if self._last == (status.phase, status.step):
            return
        self._last = (status.phase, status.step)
        percent = 100.0 * status.step / status.steps if status.steps else 0.0
        update_progress_artifact(
            artifact_id=self._artifact,
            progress=min(100.0, percent),
            description=html.escape(f"{self._silo}: {status.progress}"),
        )

    def finish(self, outcome: str) -> None:
        """The silo has answered, or its time is over."""
        update_progress_artifact(
            artifact_id=self._artifact,
            progress=100.0,
            description=html.escape(f"{self._silo}: {outcome}"),
        )


def show_silos(plan: Verified[RoundPlan], report: RoundReport) -> None:
    """Table of silos: outcome, deciding rule, contract, tokens, share and losses."""
    rows = [
        {
            "silo": silo.silo,
            "outcome": silo.outcome,
            "rule": html.escape(silo.rule or ""),
            "contract": {True: "passed", False: "failed", None: "not seen"}[silo.contract_passed],
            "tokens trained on": silo.tokens,
            "share of the merge": f"{silo.weight_share * 100:.1f} %",
            "held-out loss before": _loss(silo.losses.starting) if silo.losses else "",
            "held-out loss after": _loss(silo.losses.candidate) if silo.losses else "",
        }
        for silo in report.silos
    ]
    create_table_artifact(
        table=rows,
        key=artifact_key(plan, "silos"),
        description=f"Round {report.round}: {report.outcome} by {report.rule}. Losses in "
        f"{plan.record.learned.loss.unit}, lower is better.",
    )


def _loss(value: Decimal) -> str:
    return f"{value:.4f}"


def link_report(plan: Verified[RoundPlan], file: Path) -> None:
    """Link to the report on the coordinator's disk: the page, or the bundle where there is none."""
    create_link_artifact(
        link=file.resolve().as_uri(),
        link_text=file.name,
        key=artifact_key(plan, "report"),
        description="Compliance report (signed; verify with `consortia report verify`)",
    )
