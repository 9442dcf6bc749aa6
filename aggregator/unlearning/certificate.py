"""What an institution is told when its part is out again: what changed, and what is left. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.program_version import program_version
from data_contracts.protocol.records import Erasure, ErasureCertificate, RoundPlan
from data_contracts.protocol.records.erasure import RenewedRound, WhatStays


@dataclass(frozen=True)
class OldRound:
    """A round that was repeated, as it was planned first; `is_shredded`: the identity with which
    what silos had sent in it could be opened is destroyed."""

    plan: RoundPlan
    is_shredded: bool = False

    @property
    def locked_until(self) -> datetime:
        """When the lock on what it rests on ends."""
        return self.plan.evaluate_by + timedelta(days=self.plan.retention.days)


@dataclass(frozen=True)
class NewRound:
    """A round once more, as its report tells it: what it published, None where it was held, and
    on how many tokens silos have trained for it."""

    round: int
    published: ArtifactRef | None
    in_force: ArtifactRef | None
    tokens: int


def certificate(
    plan: Verified[RoundPlan],
    erasure: Verified[Erasure],
    old: Sequence[OldRound],
    new: Sequence[NewRound],
    now: datetime,
) -> ErasureCertificate:
    """On the plan of the last round that was repeated; `new` in the order of the rounds."""
    record = erasure.record
    published = {each.round: each.published for each in new}
    last_old = [each.published for each in record.replayed if each.published is not None]
    in_force = new[-1].in_force
    return ErasureCertificate.on(
        plan,
        now,
        erasure_digest=erasure.digest,
        erased_silo=record.silo,
        method=record.method,
        revoked_adapter=last_old[-1] if last_old else None,
        new_adapter=None if in_force is None else in_force.plain,
        rounds=tuple(
            RenewedRound(
                round=each.round,
                plan_digest=each.plan_digest,
                old=each.published,
                new=_digest(published.get(each.round)),
            )
            for each in record.replayed
        ),
        tokens_again=sum(each.tokens for each in new),
        stays=tuple(what_stays(record.silo, old)),
        has_other_seeds=record.seed_offset != 0,
        program=program_version(),
    )


def what_stays(silo: str, old: Sequence[OldRound]) -> Iterable[WhatStays]:
    """What is left of a silo's part after a replay, where, and until when it is kept there."""
    its_own = [each for each in old if silo in each.plan.cohort]
    inbox = f"The inbox of {silo} in the federation's storage."
    if its_own:
        yield WhatStays(what=_submissions(its_own), where=inbox, until=_latest(its_own))
        yield WhatStays(
            what="Its signed records: that it took part, outcomes of its data contract, steps, "
            "tokens, losses. No text and no adapter.",
            where=f"{inbox} Reports that others keep.",
            until=None,
        )
    yield WhatStays(
        what="The adapters that are revoked. Silos refuse plans that start from them.",
        where="The federation's storage, silos' disks, and whoever took a published folder.",
        until=None,
    )
    yield WhatStays(
        what="What other silos made beside those adapters for themselves: personal adapters, and "
        "their own factors where A alone is shared.",
        where="At these silos.",
        until=None,
    )
    yield WhatStays(
        what="Copies of all that.",
        where="Backups of storage, coordinator and silos.",
        until=None,
    )


def _submissions(old: Sequence[OldRound]) -> str:
    if any(each.plan.masking is not None for each in old):
        return "Its masked changes: random numbers to whoever has one alone."
    if all(each.plan.encryption is not None for each in old):
        if all(each.is_shredded for each in old):
            return "Its adapters as ciphertext; the identities that open it are destroyed."
        return (
            "Its adapters as ciphertext, which opens with the coordinator's identities of these "
            "rounds until `consortia storage shred` destroys them."
        )
    firm = any(each.plan.retention.mode == "compliance" for each in old)
    who = "Nobody can erase them before." if firm else "A storage operator can erase them before."
    return f"Its adapters, readable to whoever reads that storage. {who}"


def _latest(old: Iterable[OldRound]) -> datetime:
    return max(each.locked_until for each in old)


def _digest(ref: ArtifactRef | None) -> str | None:
    return None if ref is None else ref.digest
