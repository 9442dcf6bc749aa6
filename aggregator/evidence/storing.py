"""The coordinator's own adapters on their way into storage, encrypted to whoever may read them."""

import secrets
from pathlib import Path

from aggregator.coordinator import CANDIDATES, Coordinator
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import (
    ArtifactRef,
    StoredBytes,
    artifact_of_file,
    digest_of_bytes,
)
from data_contracts.protocol.records import Membership, RoundPlan
from infra.encryption.encrypted_files import encrypt_file

NAMED_BY = 16
"""Hex digits that name the readers of a ciphertext on this disk."""
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


def store(
    c: Coordinator, path: Path, ref: ArtifactRef, readers: Readers, aside: Path | None = None
) -> ArtifactRef:
    """Put a file of the coordinator's into the plans bucket; the reference by which it is read.

    Encrypting twice gives two ciphertexts, so one is kept in `aside` (the workspace's candidates,
    where nothing else is said) until that is emptied: a step that is done again, because the put or
    what follows it failed, puts the same bytes under the same key.
    """
    if readers is None:
        c.plans.put_blob(path, ref.plain)
        return ref.plain
    kept, named = _encrypted(path, ref, readers, aside or c.workspace / CANDIDATES)
    c.plans.put_blob(kept, named.stored)
    return named


def _encrypted(
    path: Path, ref: ArtifactRef, readers: frozenset[str], directory: Path
) -> tuple[Path, ArtifactRef]:
    """The ciphertext of a file for these readers, as it was left before or made now."""
    stem = f"{ref.digest}.{digest_of_bytes(' '.join(sorted(readers)).encode())[:NAMED_BY]}"
    for kept in sorted(directory.glob(f"{stem}.*.age")):
        found = artifact_of_file(kept)
        if kept.name == f"{stem}.{found.digest}.age":
            stored = StoredBytes(digest=found.digest, size=found.size)
            return kept, ref.model_copy(update={"ciphertext": stored})
    new = directory / f"{stem}.{secrets.token_hex(8)}.new"
    named = encrypt_file(path, ref, new, readers)
    kept = directory / f"{stem}.{named.stored.digest}.age"
    new.replace(kept)
    return kept, named
