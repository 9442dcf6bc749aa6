"""The identities of attempts: made for a plan, kept in the coordinator's home alone, and destroyed.

A silo's blob opens only with the identity of its attempt and the coordinator's own together. So a
home that is stolen later opens nothing of attempts whose identities were destroyed, and what a lock
keeps in storage can be erased without touching it (`consortia storage shred`).
"""

from pathlib import Path

from aggregator.coordinator import ATTEMPT_KEYS, Coordinator
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.plan_terms import AdapterEncryption
from infra.encryption.identities import (
    Identity,
    keep_identity,
    load_identity,
    new_identity,
    recipients_of,
)


def round_keys(c: Coordinator, run: str, round_number: int) -> Path:
    """The folder with the identities of a round's attempts."""
    return c.settings.path(ATTEMPT_KEYS) / run / f"{round_number:04d}"


def make_attempt_key(c: Coordinator, run: str, round_number: int) -> str:
    """Make the identity of an attempt that is about to be planned; returns its recipient."""
    identity = new_identity()
    keep_identity(_path(c, run, round_number, identity.recipient), identity)
    return identity.recipient


def attempt_key(
    c: Coordinator, run: str, round_number: int, encryption: AdapterEncryption
) -> Identity:
    """The identity of an attempt; raises FederationOperatorError where this home cannot open what
    silos have sent in it, which is no silo's doing."""
    what = f"adapters of round {round_number} of {run}"
    named = encryption.coordinator_recipient
    if named not in recipients_of(c.identities):
        raise FederationOperatorError(
            what,
            expected=f"the coordinator's identity of {named} in {c.settings.home / 'keys'}",
            found="others" if c.identities else "none",
            action="bring it back from a backup: earlier identities open earlier rounds",
        )
    path = _path(c, run, round_number, encryption.round_recipient)
    if not path.exists():
        raise FederationOperatorError(
            what,
            expected=f"the identity of the attempt, {path}",
            found="none: it was destroyed, or it was made in another home",
            action="bring it back from a backup of the home that planned the round; what was "
            "destroyed with `consortia storage shred` is erased for good",
        )
    return load_identity(path)


def _path(c: Coordinator, run: str, round_number: int, recipient: str) -> Path:
    return round_keys(c, run, round_number) / f"{recipient}.txt"
