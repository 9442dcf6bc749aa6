"""From a change to a membership that everybody follows: signed by enough root keys, written once.

Where one person holds enough root keys a change is published at once. Otherwise a draft goes from
signer to signer, each of whom sees what it changes, and is published when it is complete. Two
people who change the membership at the same moment both succeed: the second change is made on top
of the first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from aggregator.coordinator import MEMBERSHIP_NAME, Coordinator
from aggregator.feed.catching_up import catch_up
from aggregator.feed.reading import entry_at
from aggregator.planning.membership_changes import Change, next_membership
from data_contracts.errors import FederationOperatorError, UntrustedInputError
from data_contracts.protocol.bucket_layout import membership_slot
from data_contracts.protocol.dsse import countersign, signing_keys
from data_contracts.protocol.envelope import Verified, seal, unverified_record
from data_contracts.protocol.membership_chain import follow_membership
from data_contracts.protocol.payload import canonical_bytes
from data_contracts.protocol.records import Membership
from data_contracts.protocol.trust_anchor import load_trust_anchor
from data_contracts.protocol.trusted_feed import FeedPosition, TrustedFeed
from flows.federation.membership_difference import changes
from infra.disk.durable_files import write_durably
from infra.signing_keys import SigningKey, load_key
from infra.storage.single_writer import claim_key, claim_record, claimed_record

ROOT_KEYS = "root-key*.pem"
MAX_RACES = 10


@dataclass(frozen=True)
class Published:
    """The membership that counts now; `changed` is False where it already said so."""

    membership: Verified[Membership]
    changed: bool


@dataclass(frozen=True)
class Draft:
    """A membership that lacks signatures: its file, and what is missing in words."""

    file: Path
    missing: str


def change_membership(
    c: Coordinator,
    change: Change,
    *,
    after: FeedPosition | None = None,
    root_keys: Sequence[Path] = (),
) -> Published | Draft:
    """Sign and publish the next membership with the root keys in `keys/` and in `root_keys`.

    It begins after the newest entry of the feed that is clear, or after `after`, which the caller
    has found in the feed; only with that is it signed in a home that was restored and has not yet
    caught up. Raises FederationOperatorError where no root key is at hand.
    """
    if after is None:
        catch_up(c)
    for _ in range(MAX_RACES):
        feed = c.feed.refresh_as_far_as_it_is_clear()
        begin = after or feed.head
        _require_later(feed.membership.record, begin)
        _require_in_feed(c, feed, begin)
        record = _changed(feed, change, begin, c.clock.now())
        if record is None:
            return _told(c, feed.membership, changed=False)
        signers = _signers(c.settings.home, feed.membership.record, record, root_keys)
        proposed = seal(record, *signers)
        if missing := _missing(feed.membership.record, proposed):
            return _drafted(c.settings.home, proposed, missing)
        if _published(c, feed, proposed):
            return _told(c, proposed, changed=True)
    raise FederationOperatorError(
        "next membership",
        expected="nobody else to change the membership at this moment",
        found=f"{MAX_RACES} other changes",
        action="agree on who changes the membership, and run the command again",
    )


def sign_draft(draft: Path, key: Path, trust: Path) -> list[str]:
    """Add a signature to a draft; returns what it changes against the membership `trust`.

    Raises FederationOperatorError when the key is no root key of either version, or has signed.
    """
    envelope, signer = draft.read_bytes(), load_key(key)
    record, before = _drafted_record(envelope, draft), load_trust_anchor(trust).record
    if signer.public_key_hex not in {*before.root_keys, *record.root_keys}:
        raise _refused("the key of a signer", f"another key in {key}", "give your own --root-key")
    try:
        write_durably(draft, countersign(envelope, signer), mode=0o644)
    except ValueError:
        raise _refused("a key that has not signed", "its signature", "pass it on") from None
    return changes(before, record)


def _drafted_record(envelope: bytes, draft: Path) -> Membership:
    try:
        return unverified_record(envelope, Membership)
    except UntrustedInputError as error:
        raise error.in_file(draft) from None


def publish_draft(c: Coordinator, draft: Path) -> Published:
    """Publish a draft that enough root keys have signed.

    Raises FederationOperatorError when the feed has gone on since the draft was made: it would make
    what came after nothing, which only a revocation is meant to do.
    """
    catch_up(c)
    feed = c.feed.refresh_as_far_as_it_is_clear()
    proposed = follow_membership(feed.membership, draft.read_bytes())
    if not _published(c, feed, proposed):
        raise _refused(
            f"to be membership {proposed.record.number}",
            "another one of that number, published meanwhile",
            "make the change again, on top of that one",
        )
    return _told(c, proposed, changed=True)


def _changed(
    feed: TrustedFeed, change: Change, after: FeedPosition, now: datetime
) -> Membership | None:
    """The next version, or None where the newest says so already."""
    try:
        fields = change(feed.membership.record)
        if not fields:
            return None
        record = next_membership(feed.membership, after, fields, now)
    except ValidationError as error:
        raise FederationOperatorError(
            "next membership",
            expected="ids, keys and digests of the usual form, and no key twice",
            found=error.errors(include_url=False)[0]["msg"],
            action="correct what was given and run the command again",
        ) from None
    size, limit = len(canonical_bytes(record)), Membership.max_payload_bytes
    if size > limit:
        raise FederationOperatorError(
            "next membership",
            expected=f"at most {limit:,} bytes",
            found=f"{size:,} for {len(record.silos):,} silos",
            action="let silos that have left go for good: `consortia federation remove-silo`",
        )
    return record


def _signers(
    home: Path, before: Membership, after: Membership, more: Iterable[Path]
) -> list[SigningKey]:
    paths = [*sorted((home / "keys").glob(ROOT_KEYS)), *more]
    wanted = {*before.root_keys, *after.root_keys}
    keys = {key.public_key_hex: key for key in map(load_key, paths)}
    signers = [key for public, key in keys.items() if public in wanted]
    if not signers:
        raise FederationOperatorError(
            "root key",
            expected=f"a root key of membership {before.number} in {home / 'keys'}",
            found="none",
            action="bring it back for this, or name its file with --root-key",
        )
    return signers


def _missing(before: Membership, proposed: Verified[Membership]) -> str:
    """Which signatures a membership lacks, in words; empty where it has enough."""
    after = proposed.record
    have = signing_keys(proposed.envelope, {*before.root_keys, *after.root_keys})
    lacking = [
        (version.root_threshold - len(have & set(version.root_keys)), version)
        for version in (before, after)
    ]
    return " and ".join(
        f"{count} of the {len(version.root_keys)} root keys of membership {version.number}"
        for count, version in lacking
        if count > 0
    )


def _drafted(home: Path, proposed: Verified[Membership], missing: str) -> Draft:
    file = home / f"membership-{proposed.record.number:06d}.draft.json"
    write_durably(file, proposed.envelope, mode=0o644)
    return Draft(file, missing)


def _published(c: Coordinator, feed: TrustedFeed, proposed: Verified[Membership]) -> bool:
    """Whether `proposed` is the next membership now; False when another one was first.

    A claim that somebody made and did not finish, and that would take back what the feed has held
    since, is neither finished nor passed over: whoever made it may still be about to.
    """
    current = feed.membership

    def counts(envelope: bytes) -> Verified[Membership]:
        return follow_membership(current, envelope)

    _require_takes_nothing_back(current.record, proposed.record, feed.head, "draft")
    slot, epoch = membership_slot(proposed.record.number), current.digest
    claimed = claimed_record(c.plans, slot, counts, epoch)
    if claimed is not None:
        what = f"claim {claim_key(slot, 1, epoch)} of a change that was not finished"
        _require_takes_nothing_back(current.record, claimed.record, feed.head, what)
    return claim_record(c.plans, slot, proposed, counts, epoch).digest == proposed.digest


def _require_takes_nothing_back(
    current: Membership, new: Membership, head: FeedPosition, what: str
) -> None:
    if len(new.revoked) == len(current.revoked) and new.after_feed_number != head.number:
        raise FederationOperatorError(
            f"{what} of membership {new.number}",
            expected=f"to begin after entry {head.number}, the newest of the feed",
            found=f"after entry {new.after_feed_number}: what came since would be nothing",
            action="make the change again; a claim that nobody is finishing at this moment is "
            "removed with the storage's own tools, it is no record",
        )


def _require_later(current: Membership, begin: FeedPosition) -> None:
    if begin.number < current.after_feed_number:
        raise FederationOperatorError(
            "last entry of the feed that counts",
            expected=f"{current.after_feed_number} or later, where membership {current.number} "
            "begins",
            found=f"{begin.number}",
            action="earlier entries count by that membership; name a later one",
        )


def _require_in_feed(c: Coordinator, feed: TrustedFeed, begin: FeedPosition) -> None:
    """Another membership may have made the entry void since the caller looked at it."""
    if begin in (feed.head, FeedPosition()):
        return
    entry = entry_at(c, feed, begin.number)
    if entry is not None and entry.digest == begin.digest:
        return
    raise FederationOperatorError(
        f"entry {begin.number} of the feed",
        expected="an entry that counts",
        found="one that another membership, published meanwhile, made void",
        action="look at the feed again with `consortia federation show`",
    )


def _told(c: Coordinator, membership: Verified[Membership], *, changed: bool) -> Published:
    """Keep the newest membership for whoever is handed it, also where an earlier run did not."""
    newest = c.feed.refresh_as_far_as_it_is_clear().membership if changed else membership
    write_durably(c.settings.home / MEMBERSHIP_NAME, newest.envelope)
    return Published(newest, changed)


def _refused(expected: str, found: str, action: str) -> FederationOperatorError:
    return FederationOperatorError(
        "draft of a membership", expected=expected, found=found, action=action
    )
