"""The coordinator's own adapters on their way into storage, encrypted to whoever may read them."""

import secrets
from pathlib import Path

from aggregator.coordinator import CANDIDATES, Coordinator
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records import Membership, RoundPlan
from infra.encryption.encrypted_files import encrypt_file

Readers = frozenset[str] | None
"""The recipients of a blob; None: it lies there as it is."""


def readers_of(plan: RoundPlan, membership: Membership) -> Readers:
    """Who reads the adapters of a plan's attempt: its cohort under its membership, and the
    coordinator. Raises FederationOperatorError where one of them has no recipient."""
    if plan.encryption is None:
        return None
    found = {silo: membership.recipient_of(silo) for silo in plan.cohort}
    lacking = sorted(silo for silo, recipient in found.items() if recipient is None)
    if lacking:
        raise FederationOperatorError(
            f"adapters of round {plan.round}",
            expected="a recipient of every silo of the cohort in the plan's membership",
            found=f"none of {', '.join(lacking)}",
            action="abort the round, and name them with `consortia federation rotate-key`",
        )
    return frozenset({r for r in found.values() if r}) | coordinator_alone(plan)


def coordinator_alone(plan: RoundPlan) -> frozenset[str]:
    """Readers of what no silo needs, where the plan encrypts."""
    found = plan.encryption
    return frozenset() if found is None else frozenset({found.coordinator_recipient})


def store(c: Coordinator, path: Path, ref: ArtifactRef, readers: Readers) -> ArtifactRef:
    """Put a file of the coordinator's into the plans bucket; the reference by which it is read.

    A ciphertext is another one each time. One that no record came to name, because this process was
    killed or another was first, goes with what storage holds in vain.
    """
    if readers is None:
        c.plans.put_blob(path, ref.plain)
        return ref.plain
    into = c.workspace / CANDIDATES / f"{ref.digest}.{secrets.token_hex(8)}.age"
    try:
        named = encrypt_file(path, ref, into, readers)
        c.plans.put_blob(into, named.stored)
    finally:
        into.unlink(missing_ok=True)
    return named
