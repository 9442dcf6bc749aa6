"""Records about one attempt of one round, each bound to its place in the run by its plan."""

from datetime import datetime
from typing import Any, Self

from data_contracts.protocol.records.base import Record
from data_contracts.protocol.records.round_plan import RoundPlan
from data_contracts.protocol.records.verified import Verified
from data_contracts.protocol.wire_types import AttemptNumber, Digest, RoundNumber, RunId, SiloId


class RoundRecord(Record):
    """A record about one attempt of one round, bound to its plan by digest."""

    run: RunId
    round: RoundNumber
    attempt: AttemptNumber
    plan_digest: Digest

    @classmethod
    def on(cls, plan: Verified[RoundPlan], issued_at: datetime, **fields: Any) -> Self:
        """A record on a plan, with the `fields` of its kind."""
        return cls(
            federation=plan.record.federation,
            issued_at=issued_at,
            run=plan.record.run,
            round=plan.record.round,
            attempt=plan.record.attempt,
            plan_digest=plan.digest,
            **fields,
        )


class SiloRecord(RoundRecord):
    """A record that a silo signs."""

    silo: SiloId
