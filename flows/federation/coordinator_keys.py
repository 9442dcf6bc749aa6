"""The coordinator's key: rotated in good order, or revoked because somebody else may have it."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aggregator.coordinator import COORDINATOR_IDENTITY, COORDINATOR_KEY, Coordinator
from aggregator.feed.reading import entry_at, own_records
from aggregator.planning.membership_changes import (
    revoking_coordinator,
    revoking_key,
    with_coordinator_key,
    with_coordinator_recipient,
)
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.dsse import fingerprint
from data_contracts.protocol.envelope import Verified, narrowed
from data_contracts.protocol.records import Close, Decision, RoundPlan
from data_contracts.protocol.records.membership import Revocation
from data_contracts.protocol.trusted_feed import FeedPosition, TrustedFeed
from flows.federation.membership_signing import Draft, Published, change_membership
from infra.encryption.identities import rotate_identity
from infra.signing_keys import SigningKey, create_key


@dataclass(frozen=True)
class Genuine:
    """What of a revoked coordinator key still counts; a person looks at it before it is signed."""

    after: FeedPosition
    plan: Verified[RoundPlan] | None = None
    close: str | None = None
    decision: str | None = None

    def of(self, public_key: str) -> Revocation:
        """As a membership says it."""
        return Revocation(
            public_key=public_key,
            last_feed_number=self.after.number,
            plan_digest=self.plan.digest if self.plan else None,
            close_digest=self.close,
            decision_digest=self.decision,
        )


def rotate_coordinator_key(c: Coordinator, root_keys: Sequence[Path] = ()) -> Published | Draft:
    """A new key for the coordinator, beside the old one, which finishes what it has begun."""
    change = with_coordinator_key(_new_key(c).public_key_hex)
    return change_membership(c, change, root_keys=root_keys)


def rotate_coordinator_recipient(
    c: Coordinator, root_keys: Sequence[Path] = ()
) -> Published | Draft:
    """A new age identity for the coordinator, its first one too; earlier ones stay in `keys/`."""
    return change_membership(c, with_coordinator_recipient(_new_recipient(c)), root_keys=root_keys)


def genuine_until(c: Coordinator, last_entry: int, named: tuple[str, str] | None = None) -> Genuine:
    """The feed up to `last_entry`, and of the last plan there close and decision.

    Those are `named` by digest, or else the ones that lie in storage. Raises UntrustedInputError
    where two of a kind lie there: only a person can say which one is genuine.
    """
    if last_entry == 0:
        return Genuine(FeedPosition())
    feed = c.feed.refresh_as_far_as_it_is_clear()
    entry = entry_at(c, feed, last_entry)
    if entry is None:
        raise FederationOperatorError(
            "last entry of the feed that counts",
            expected=f"0 to {feed.head.number}, the last one that is clear",
            found=f"{last_entry}",
            action="see the numbers with `consortia federation show`",
        )
    after, plan = FeedPosition(last_entry, entry.digest), narrowed(entry, RoundPlan)
    if plan is None:
        return Genuine(after)
    return Genuine(after, plan, *(named or _decided(c, feed, plan)))


def named_key(c: Coordinator, text: str) -> str:
    """A key that some membership has named, by its hex digits or by its fingerprint."""
    members = [m.record for m in c.feed.refresh_as_far_as_it_is_clear().memberships]
    keys = {m.coordinator_key for m in members} | {s.public_key for m in members for s in m.silos}
    wanted = text.replace(" ", "").lower()
    for key in keys:
        if wanted in (key, fingerprint(key).replace(" ", "")):
            return key
    raise FederationOperatorError(
        "key to revoke",
        expected="a coordinator's or a silo's key, or its fingerprint, from any membership so far",
        found=text[:80],
        action="copy it from what `consortia federation show` printed when it was in use",
    )


def last_entry_of(c: Coordinator, public_key: str) -> int | None:
    """The last entry that a coordinator's earlier key governs; None for any other key."""
    memberships = c.feed.refresh_as_far_as_it_is_clear().memberships
    held = [n for n, m in enumerate(memberships) if m.record.coordinator_key == public_key]
    if not held or held[-1] + 1 == len(memberships):
        return None
    return memberships[held[-1] + 1].record.after_feed_number


def revoke_coordinator_key(
    c: Coordinator, genuine: Genuine, root_keys: Sequence[Path] = ()
) -> Published | Draft:
    """A new key for the coordinator; of the old one counts what is `genuine`, and nothing else.

    Whoever has the key may have the identity beside it, so that is replaced as well.
    """
    old = c.feed.refresh_as_far_as_it_is_clear().membership.record
    recipient = None if old.coordinator_recipient is None else _new_recipient(c)
    last = genuine.of(old.coordinator_key)
    change = revoking_coordinator(_new_key(c).public_key_hex, last, recipient)
    return change_membership(c, change, after=genuine.after, root_keys=root_keys)


def revoke_earlier_key(
    c: Coordinator, public_key: str, genuine: Genuine | None, root_keys: Sequence[Path] = ()
) -> Published | Draft:
    """A key in use no more: a coordinator's, of which counts what is `genuine`, or a silo's.

    The feed goes on as it is: what counts of that key ended before.
    """
    change = revoking_key(public_key, genuine.of(public_key) if genuine else None)
    return change_membership(c, change, root_keys=root_keys)


def _new_key(c: Coordinator) -> SigningKey:
    """Never one that lay there before: that may have been stolen with the others."""
    name = f"{COORDINATOR_KEY.stem}-{c.clock.now():%Y%m%d%H%M%S}-{secrets.token_hex(4)}"
    return create_key(c.settings.path(COORDINATOR_KEY).with_name(name + COORDINATOR_KEY.suffix))


def _new_recipient(c: Coordinator) -> str:
    return rotate_identity(c.settings.path(COORDINATOR_IDENTITY)).recipient


def _decided(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan]
) -> tuple[str | None, str | None]:
    """Digests of close and decision on a plan; None for an attempt that was not decided."""
    records = own_records(c, feed, plan)
    close, decision = records.found(Close), records.found(Decision)
    if close is None or decision is None:
        return None, None
    return close.digest, decision.digest
