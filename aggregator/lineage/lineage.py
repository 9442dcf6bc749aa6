"""The rounds behind a published adapter, back to the seed, and who counted in them. Pure.

A round goes on from more than one thing: the adapter before, a residual, under a heavy ball the one
before that, an optimizer's state. All of them count, since who was in one of them is in the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from aggregator.unlearning.past_round import PastRound
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.known_erasures import KnownErasures
from data_contracts.protocol.records import Erasure, RoundReport
from data_contracts.protocol.records.round_report import SiloSummary


@dataclass(frozen=True)
class LineageStep:
    """One round behind an adapter."""

    past: PastRound

    @property
    def report(self) -> Verified[RoundReport] | None:
        """None where storage no longer has it."""
        return self.past.report

    @property
    def adapter(self) -> str:
        """Digest of what it published."""
        return self.past.made[0].digest

    @property
    def silos(self) -> tuple[SiloSummary, ...]:
        """Those that counted, as the report tells of them; none without it."""
        told = () if self.report is None else self.report.record.silos
        return tuple(silo for silo in told if silo.outcome == "admitted")


@dataclass(frozen=True)
class Lineage:
    """`steps`: every round behind the adapter, newest first, its own included. `erasures` by the
    digests that they revoke, of all that `steps` made."""

    digest: str
    steps: tuple[LineageStep, ...]
    erasures: Mapping[str, Verified[Erasure]]

    @property
    def own(self) -> LineageStep:
        """The round that published it."""
        return self.steps[0]

    @property
    def rounds_of(self) -> dict[str, tuple[PastRound, ...]]:
        """For each silo that counted anywhere, the rounds in which it did, oldest first."""
        found: dict[str, tuple[PastRound, ...]] = {}
        for step in reversed(self.steps):
            for silo in step.past.counted:
                found[silo] = (*found.get(silo, ()), step.past)
        return dict(sorted(found.items()))

    def epsilon_of(self, silo: str) -> Decimal | None:
        """What `silo` has signed that all its trainings have spent, as of the last one behind the
        adapter; None where one of them was plain, or its report is gone."""
        counted = [step for step in self.steps if silo in step.past.counted]
        told = [own for step in counted for own in step.silos if own.silo == silo]
        spent = [own.privacy.epsilon_lifetime for own in told if own.privacy is not None]
        return max(spent) if spent and len(spent) == len(counted) else None


def rounds_behind(history: Sequence[PastRound], digest: str) -> list[PastRound]:
    """Newest first; raises FederationOperatorError where no round published the digest."""
    made = {ref.digest: past for past in history for ref in past.made}
    found: dict[str, PastRound] = {}
    left = [digest]
    while left:
        past = made.get(left.pop())
        if past is not None and past.plan.digest not in found:
            found[past.plan.digest] = past
            left += past.starts
    return sorted(found.values(), key=lambda past: past.record.feed_number, reverse=True)


def named_adapter(history: Sequence[PastRound], digits: str) -> str:
    """The whole digest of the published adapter that begins with `digits`, in either case.

    Raises FederationOperatorError where there is none, or more than one.
    """
    published = {past.made[0].digest for past in history if past.made}
    found = sorted(digest for digest in published if digest.startswith(digits.lower()))
    if len(found) != 1:
        raise FederationOperatorError(
            "lineage",
            expected="one adapter that a round of this federation published",
            found=f"{len(found)} whose digest begins with {digits}",
            action="take the digest from a report or from README.md of the published folder, or "
            "name adapter_model.safetensors itself with --adapter",
        )
    return found[0]


def revoking(erasures: KnownErasures, steps: Sequence[PastRound]) -> dict[str, Verified[Erasure]]:
    """Of all that the rounds made, what is revoked, with by what."""
    digests = (ref.digest for past in steps for ref in past.made)
    found = ((digest, erasures.revoking(digest)) for digest in digests)
    return {digest: erasure for digest, erasure in found if erasure is not None}
