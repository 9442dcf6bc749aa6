"""A round whose contributions can be measured: closed, in the last attempt that was not aborted."""

from dataclasses import dataclass

from aggregator.attempt import Attempt
from aggregator.coordinator import Coordinator
from aggregator.evidence.reader import read_attempt
from aggregator.feed.reading import attempts_back, read_federation
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Close, RoundPlan
from data_contracts.protocol.trusted_feed import TrustedFeed


@dataclass(frozen=True)
class ClosedRound:
    """Plan and close of a round, and the attempt that was closed."""

    feed: TrustedFeed
    plan: Verified[RoundPlan]
    close: Verified[Close]
    attempt: Attempt

    @property
    def silos(self) -> tuple[str, ...]:
        """The admitted silos, sorted."""
        return tuple(sorted(admitted.silo for admitted in self.close.record.admitted))

    @property
    def digest(self) -> str:
        """Of all that decides the merge of a coalition."""
        return digest_of_bytes(f"{self.plan.digest} {self.close.digest}".encode())


def closed_round(c: Coordinator, round_number: int) -> ClosedRound:
    """The round as it was closed; raises FederationOperatorError when it was not."""
    feed = read_federation(c)
    for fed in attempts_back(c, feed):
        if fed.plan.record.round < round_number:
            break
        if fed.plan.record.round == round_number and fed.abort is None:
            _require_seen(fed.plan.record)
            attempt = read_attempt(c, feed, fed.plan)
            if attempt.close is not None:
                return ClosedRound(feed, fed.plan, attempt.close, attempt)
    raise FederationOperatorError(
        f"contributions to round {round_number}",
        expected="a round that was closed",
        found="none",
        action="name a round that was merged; `consortia round status` shows the newest",
    )


def _require_seen(plan: RoundPlan) -> None:
    if plan.masking is not None:
        raise FederationOperatorError(
            f"contributions to round {plan.round}",
            expected='a round with trust_mode = "auditable", in which each adapter was seen',
            found="one in confidential mode: nobody knows what one silo has sent",
            action="measure a round in auditable mode",
        )
