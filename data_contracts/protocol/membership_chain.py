"""The memberships of one federation as a chain, and whose signatures count by them.

Every version is signed as the one before asks for, and names it by digest. An older key finishes
what it began; of a key that was revoked counts what the newest membership says, and no more.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from data_contracts.errors import FederationOperatorError, UntrustedInputError, contradiction
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.envelope import Quorum, Verified, verify_quorums
from data_contracts.protocol.records import Membership, RoundPlan
from data_contracts.protocol.records.membership import MAX_EARLIER, EarlierMembership, Revocation
from data_contracts.protocol.trust_anchor import open_trust_anchor


@dataclass(frozen=True)
class CoordinatorTrust:
    """Which of the coordinator's records on one plan count.

    Those that `keys` signed, or, after a revocation, the ones in `only` and what they name.
    """

    keys: frozenset[str]
    only: frozenset[str] | None = None


class MembershipChain:
    """Consecutive memberships as far as they were added, of which one was handed over."""

    def __init__(self, pinned: Verified[Membership]) -> None:
        self._memberships = [pinned]

    @property
    def memberships(self) -> tuple[Verified[Membership], ...]:
        """Consecutive versions, oldest first, the pinned one among them."""
        return tuple(self._memberships)

    @property
    def membership(self) -> Verified[Membership]:
        """The newest."""
        return self._memberships[-1]

    def add_membership(self, envelope: bytes) -> Verified[Membership]:
        """The version after the newest, signed as its predecessor and itself ask for."""
        new = follow_membership(self.membership, envelope)
        self._memberships.append(new)
        return new

    def add_earlier_membership(self, envelope: bytes) -> Verified[Membership]:
        """The version before the oldest, which names it by digest."""
        oldest = self._memberships[0].record
        if digest_of_bytes(envelope) != oldest.previous_digest:
            raise contradiction(
                f"membership {oldest.number - 1}",
                f"the one that membership {oldest.number} names",
                "another",
                "membership.chain",
            )
        earlier = open_trust_anchor(envelope)
        self._memberships.insert(0, earlier)
        return earlier

    def membership_of(self, plan: Verified[RoundPlan]) -> Verified[Membership]:
        """The membership that a plan names: its attempt is judged under that one to the end."""
        for membership in self._memberships:
            if membership.digest == plan.record.membership_digest:
                return membership
        raise FederationOperatorError(
            f"membership of round {plan.record.round}",
            expected=f"number {plan.record.membership_number}, which its plan names",
            found=f"numbers {self._memberships[0].record.number} to "
            f"{self.membership.record.number}",
            action="find out why storage no longer has it: every membership is kept there",
        )

    def require_current(self, now: datetime) -> None:
        """Raises when the newest membership has expired: storage may be hiding a newer one."""
        newest = self.membership.record
        if newest.expires_at < now:
            raise UntrustedInputError(
                "membership",
                expected="a membership that has not expired",
                found=f"number {newest.number}, expired {newest.expires_at}",
                action="the federation operator renews it with `consortia federation renew`",
                rule="membership.expired",
            )

    def silo_key(self, plan: Verified[RoundPlan], silo: str) -> str | None:
        """The key of a silo's records on a plan; None for a stranger, or when it was revoked."""
        membership = self.membership_of(plan)
        key = membership.record.key_of(silo)
        return None if key is None or self._revocation(key) is not None else key

    def coordinator_trust(self, plan: Verified[RoundPlan]) -> CoordinatorTrust:
        """What of the coordinator counts on a plan, besides its report."""
        key = self.membership_of(plan).record.coordinator_key
        revocation = self._revocation(key)
        if revocation is None or revocation.plan_digest != plan.digest:
            return CoordinatorTrust(frozenset({key}))
        named = (revocation.close_digest, revocation.decision_digest)
        return CoordinatorTrust(frozenset({key}), frozenset(d for d in named if d is not None))

    def report_keys(self, plan: Verified[RoundPlan]) -> frozenset[str]:
        """Who may sign the report of a plan's attempt: its coordinator, or a later one."""
        first = plan.record.membership_number
        later = (m.record for m in self._memberships if m.record.number >= first)
        return self.unrevoked(m.coordinator_key for m in later)

    def silo_keys(self, silo: str) -> frozenset[str]:
        """As `contract_keys`, of a silo."""
        keys = (m.record.key_of(silo) for m in self._memberships)
        return self.unrevoked(key for key in keys if key is not None)

    def coordinator_keys(self) -> frozenset[str]:
        """Every coordinator key so far, also those that were revoked: for what a plan that counts
        speaks of, and never for what is new."""
        return frozenset(m.record.coordinator_key for m in self._memberships)

    def contract_keys(self) -> frozenset[str]:
        """Coordinator keys whose signature under a data contract counts: none is signed again
        because a key was rotated, all are where it was revoked."""
        return self.unrevoked(self.coordinator_keys())

    def governing(self, number: int) -> Verified[Membership]:
        """The membership that governs the feed at a number."""
        for membership in reversed(self._memberships):
            if membership.record.after_feed_number < number:
                return membership
        raise contradiction(
            f"feed entry {number}",
            f"an entry after {self._memberships[0].record.after_feed_number}",
            "an older one, of a membership that is not at hand",
            "feed.too_old",
        )

    def unrevoked(self, keys: Iterable[str], number: int | None = None) -> frozenset[str]:
        """Those of `keys` that no membership has revoked: of another anybody may sign anything.

        With `number`, those that were not revoked before that entry of the feed.
        """
        return frozenset(key for key in keys if not self._is_revoked(key, number))

    def _is_revoked(self, key: str, number: int | None) -> bool:
        entry = self._revocation(key)
        return entry is not None and (number is None or number > entry.last_feed_number)

    def _revocation(self, key: str) -> Revocation | None:
        revoked = self.membership.record.revoked
        return next((entry for entry in revoked if entry.public_key == key), None)


def follow_membership(current: Verified[Membership], envelope: bytes) -> Verified[Membership]:
    """The version after `current` (The Update Framework specification, section 5.3).

    Signed by a threshold of the root keys of both. Raises UntrustedInputError with rule
    `membership.federation`, `membership.number`, `membership.chain`, `membership.revoked`,
    `membership.roots` or `membership.feed`, or one of the envelope's.
    """
    claimed = open_trust_anchor(envelope)
    before, new = current.record, claimed.record
    verify_quorums(
        envelope,
        Membership,
        [
            Quorum(frozenset(before.root_keys), before.root_threshold),
            Quorum(frozenset(new.root_keys), new.root_threshold),
        ],
    )
    for holds, expected, found, rule in _succession(current, new):
        if not holds:
            problem = f"membership {before.number + 1}"
            raise contradiction(problem, expected, found, f"membership.{rule}")
    return claimed


def _succession(
    current: Verified[Membership], new: Membership
) -> Iterator[tuple[bool, str, str, str]]:
    """What the version after `current` has to say, in order: whether it does, and what is said of
    one that does not."""
    before = current.record
    yield new.federation == before.federation, before.federation, new.federation, "federation"
    number = before.number + 1
    yield new.number == number, f"number {number}", f"{new.number}", "number"
    expected = f"previous_digest {current.digest}"
    yield new.previous_digest == current.digest, expected, "another", "chain"
    yield new.earlier == earlier_after(current), "earlier to go on", "another list", "chain"
    goes_on = new.revoked[: len(before.revoked)] == before.revoked
    yield goes_on, "revoked to go on that of the version before", "another list", "revoked"
    retired = set(before.root_keys) - set(new.root_keys)
    expected = "retired_root_keys that are those of the version before that it no longer has"
    yield set(new.retired_root_keys) == retired, expected, "others", "roots"
    expected = f"a beginning not before entry {before.after_feed_number}"
    is_later = new.after_feed_number >= before.after_feed_number
    yield is_later, expected, f"{new.after_feed_number}", "feed"


def earlier_after(before: Verified[Membership]) -> tuple[EarlierMembership, ...]:
    """`earlier` of the version after `before`."""
    begin = before.record.after_feed_number
    own = EarlierMembership(digest=before.digest, after_feed_number=begin)
    return (own, *before.record.earlier)[:MAX_EARLIER]
