"""What a membership changes against the one before, in lines that its signers have to see."""

from data_contracts.protocol.dsse import fingerprint
from data_contracts.protocol.records import Membership
from data_contracts.protocol.records.membership import Member


def changes(before: Membership, after: Membership) -> list[str]:
    """What a membership changes, a line each, as its signers have to see it."""
    old, new = {m.silo: m for m in before.silos}, {m.silo: m for m in after.silos}
    lines = [f"membership {after.number}, after feed entry {after.after_feed_number}"]
    lines += [f"{silo} leaves" for silo in sorted(old.keys() - new.keys())]
    for silo, member in sorted(new.items()):
        was = old.get(silo)
        if was is None:
            lines.append(f"{silo} joins from round {member.first_round}: {_print(member)}")
            lines += [f"{silo} is called {member.name}"] if member.name else []
            lines += _reached(silo, None, member.recipient)
            continue
        if was.public_key != member.public_key:
            lines.append(f"{silo} has a new key: {_print(member)}")
        lines += _reached(silo, was.recipient, member.recipient)
        if was.name != member.name:
            lines.append(f"{silo} is called {member.name}, no longer {was.name}")
        if (was.first_round, was.last_round) != (member.first_round, member.last_round):
            lines.append(f"{silo} takes part in rounds {member.first_round} to {member.last_round}")
    if before.coordinator_key != after.coordinator_key:
        lines.append(f"new coordinator key: {fingerprint(after.coordinator_key)}")
    lines += _reached("the coordinator", before.coordinator_recipient, after.coordinator_recipient)
    lines += [f"root key added: {fingerprint(k)}" for k in _less(after, before)]
    lines += [f"root key removed: {fingerprint(k)}" for k in _less(before, after)]
    if before.root_threshold != after.root_threshold:
        lines.append(f"{after.root_threshold} root keys have to sign from now on")
    for revoked in after.revoked[len(before.revoked) :]:
        lines.append(f"revoked at once: {fingerprint(revoked.public_key)}")
        lines.append(f"  of its feed counts up to entry {revoked.last_feed_number}")
        lines.append(f"  close that counts: {revoked.close_digest or 'none'}")
        lines.append(f"  decision that counts: {revoked.decision_digest or 'none'}")
    return [*lines, f"expires {after.expires_at:%Y-%m-%d}"]


def _reached(who: str, before: str | None, after: str | None) -> list[str]:
    if before == after:
        return []
    return [f"adapters for {who} are encrypted to {after or 'nothing'}"]


def _less(one: Membership, other: Membership) -> list[str]:
    return [key for key in one.root_keys if key not in other.root_keys]


def _print(member: Member) -> str:
    return fingerprint(member.public_key)
