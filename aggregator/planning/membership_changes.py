"""What a federation's next membership changes: pure functions from one version to the next.

Each gives the fields that differ, or none where the version already says so. Who signs and where it
is written is not decided here.
"""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.membership_chain import earlier_after
from data_contracts.protocol.public_keys import key_fault
from data_contracts.protocol.records import Membership
from data_contracts.protocol.records.membership import Member, Revocation
from data_contracts.protocol.trusted_feed import FeedPosition

MEMBERSHIP_VALIDITY = timedelta(days=365)

Change = Callable[[Membership], dict[str, Any]]
"""Fields of the next version that differ from the one that is given."""


def next_membership(
    current: Verified[Membership], head: FeedPosition, fields: dict[str, Any], now: datetime
) -> Membership:
    """The version after `current` with these `fields`; it begins after the entry `head`.

    `revokes` among them are added to what earlier versions revoked.
    """
    before, fields = current.record, dict(fields)
    roots = fields.get("root_keys", before.root_keys)
    place = {
        "number": before.number + 1,
        "previous_digest": current.digest,
        "earlier": earlier_after(current),
        "issued_at": now,
        "expires_at": now + MEMBERSHIP_VALIDITY,
        "after_feed_number": head.number,
        "after_feed_digest": head.digest,
        "retired_root_keys": tuple(key for key in before.root_keys if key not in roots),
        "revoked": (*before.revoked, *fields.pop("revokes", ())),
    }
    return Membership.model_validate({**dict(before), **place, **fields})


def with_silo(
    silo: str,
    public_key: str,
    first_round: int | None = None,
    name: str | None = None,
    recipient: str | None = None,
) -> Change:
    """A silo that joins, from the next plan or a later round on, or a member's new key or name.

    `name` is the institution's, `recipient` what adapters for it are encrypted to; None leaves
    either as it is.
    """
    require_usable(public_key, f"public key of {silo}")

    def change(current: Membership) -> dict[str, Any]:
        known = next((m for m in current.silos if m.silo == silo), None)
        if known is None:
            begins = first_round or 1
            wanted = Member(
                silo=silo,
                public_key=public_key,
                first_round=begins,
                name=name,
                recipient=recipient,
            )
        else:
            called = {"name": name} if name is not None else {}
            again = {"last_round": None} if known.last_round is not None else {}
            begin = {"first_round": first_round} if first_round is not None else {}
            changed = {"public_key": public_key, **_reached(recipient)}
            wanted = known.model_copy(update={**changed, **again, **begin, **called})
        return {} if wanted == known else {"silos": _with(current, wanted)}

    return change


def without_silo(silo: str, from_round: int | None = None) -> Change:
    """A silo that leaves, from the next plan or from round `from_round` on."""

    def change(current: Membership) -> dict[str, Any]:
        member = _member(current, silo)
        if from_round is None or from_round <= member.first_round:
            return {"silos": tuple(m for m in current.silos if m.silo != silo)}
        leaving = member.model_copy(update={"last_round": from_round - 1})
        return {} if leaving == member else {"silos": _with(current, leaving)}

    return change


def renewed() -> Change:
    """The same members for another year."""
    return lambda current: {"silos": current.silos}


def with_coordinator_key(public_key: str) -> Change:
    """A new key for the coordinator; the old one finishes the attempt that it planned."""
    require_usable(public_key, "public key of the coordinator")
    return lambda current: (
        {} if current.coordinator_key == public_key else {"coordinator_key": public_key}
    )


def with_coordinator_recipient(recipient: str) -> Change:
    """What is encrypted for the coordinator from the next plan on."""
    return lambda current: (
        {} if current.coordinator_recipient == recipient else {"coordinator_recipient": recipient}
    )


def with_root_keys(
    add: Collection[str] = (), remove: Collection[str] = (), threshold: int | None = None
) -> Change:
    """Other signers, or another number of them that has to sign; keys in hex."""
    for key in add:
        require_usable(key, "root key")

    def change(current: Membership) -> dict[str, Any]:
        unknown = sorted(set(remove) - set(current.root_keys))
        if unknown:
            raise _impossible(
                "root keys to remove that are root keys", unknown[0], "see `federation show`"
            )
        kept = [key for key in current.root_keys if key not in remove]
        roots = tuple(dict.fromkeys([*kept, *add]))
        wanted = threshold or min(current.root_threshold, len(roots))
        if not 1 <= wanted <= len(roots):
            raise _impossible(
                f"a threshold of 1 to {len(roots)}, the number of root keys",
                f"{wanted}",
                "add a root key first, or choose another --threshold",
            )
        if (roots, wanted) == (current.root_keys, current.root_threshold):
            return {}
        return {"root_keys": roots, "root_threshold": wanted}

    return change


def with_silo_key(silo: str, public_key: str | None = None, recipient: str | None = None) -> Change:
    """A member's new key, new recipient, or both; the old ones finish the attempt under way."""
    if public_key is not None:
        require_usable(public_key, f"public key of {silo}")

    def change(current: Membership) -> dict[str, Any]:
        member = _member(current, silo)
        signs = {"public_key": public_key} if public_key is not None else {}
        wanted = member.model_copy(update={**signs, **_reached(recipient)})
        return {} if wanted == member else {"silos": _with(current, wanted)}

    return change


def revoking_silo(silo: str, new_key: str | None = None, recipient: str | None = None) -> Change:
    """A silo's key counts no more, at once; the silo goes on with `new_key`, or leaves.

    `recipient` is a new one, where the old identity may be in other hands as well.
    """
    if new_key is not None:
        require_usable(new_key, f"public key of {silo}")

    def change(current: Membership) -> dict[str, Any]:
        member = _member(current, silo)
        revoked = (Revocation(public_key=member.public_key),)
        if new_key is None:
            silos = tuple(m for m in current.silos if m.silo != silo)
        else:
            changed = {"public_key": new_key, **_reached(recipient)}
            silos = _with(current, member.model_copy(update=changed))
        return {"silos": silos, "revokes": revoked}

    return change


def revoking_key(public_key: str, last: Revocation | None = None) -> Change:
    """A key that somebody has had counts no more, say a coordinator's that was rotated before.

    `last` says what of it still counts; without it, of a coordinator's key nothing does. One that
    is in use is revoked with its successor, see `revoking_silo` and `revoking_coordinator`.
    """
    require_usable(public_key, "key to revoke")
    entry = last or Revocation(public_key=public_key)
    return lambda current: (
        {}
        if any(known.public_key == public_key for known in current.revoked)
        else {"revokes": (entry,)}
    )


def revoking_coordinator(new_key: str, last: Revocation, recipient: str | None = None) -> Change:
    """The coordinator's key counts no more, but for what `last` says; `recipient` is a new one."""
    require_usable(new_key, "public key of the coordinator")
    reached = {"coordinator_recipient": recipient} if recipient is not None else {}
    return lambda current: {"coordinator_key": new_key, "revokes": (last,), **reached}


def require_usable(public_key: str, what: str) -> None:
    """Raise FederationOperatorError unless these are the digits of an Ed25519 public key."""
    digits = "0123456789abcdef"
    if len(public_key) != 64 or not set(public_key) <= set(digits):
        found = f"{len(public_key)} characters" if len(public_key) != 64 else "others"
        raise _unusable_key(what, found)
    fault = key_fault(public_key)
    if fault is not None:
        raise _unusable_key(what, fault)


def _reached(recipient: str | None) -> dict[str, str]:
    """The field that a new recipient changes; None leaves the one that is there."""
    return {} if recipient is None else {"recipient": recipient}


def _with(current: Membership, member: Member) -> tuple[Member, ...]:
    others = (m for m in current.silos if m.silo != member.silo)
    return tuple(sorted((*others, member), key=lambda m: m.silo))


def _member(current: Membership, silo: str) -> Member:
    for member in current.silos:
        if member.silo == silo:
            return member
    names = ", ".join(m.silo for m in current.silos) or "nobody"
    raise _impossible(f"a member: {names}", silo, "see `consortia federation show`")


def _unusable_key(what: str, found: str) -> FederationOperatorError:
    return FederationOperatorError(
        what,
        expected="64 lower-case hex digits of an Ed25519 public key",
        found=found,
        action="copy it again from where it was printed, and compare fingerprints",
    )


def _impossible(expected: str, found: str, action: str) -> FederationOperatorError:
    return FederationOperatorError("next membership", expected=expected, found=found, action=action)
